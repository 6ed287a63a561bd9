"""One Gaussian and its regions: against chi-square laws, scipy, and gmr where it is right."""

import gmr
import numpy as np
import pytest
from scipy import stats

from genopt import GaussianMixture, GenoptError
from genopt.errors import UnknownNameError
from genopt.models.mixture.gaussian import Gaussian


def make(d, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    return rng.normal(size=d), scale * (root @ root.T + 0.1 * np.eye(d))


class TestRegions:
    @pytest.mark.parametrize("d", [1, 2, 3, 5])
    @pytest.mark.parametrize("alpha", [0.5, 0.95])
    def test_a_region_holds_the_share_it_claims(self, d, alpha):
        mean, covariance = make(d, seed=d, scale=9.0)
        draws = np.random.default_rng(1).multivariate_normal(mean, covariance, size=20_000)
        inside = Gaussian(mean, covariance).is_in_confidence_region(draws, alpha)
        # five standard errors of a share
        assert inside.mean() == pytest.approx(alpha, abs=5 * np.sqrt(alpha * (1 - alpha) / 20_000))

    @pytest.mark.parametrize("d", [1, 2, 3, 5])
    def test_draws_of_a_region_follow_the_truncated_law(self, d):
        mean, covariance = make(d, seed=d)
        gaussian = Gaussian(mean, covariance, random_state=0)
        draws = gaussian.sample_confidence_region(4000, 0.4)
        assert draws.shape == (4000, d)
        away = draws - mean
        square = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
        law = stats.chi2(d)
        assert square.max() <= law.ppf(0.4) * (1 + 1e-9)
        # the probability below a squared distance is that of the whole law, over the region's
        assert stats.kstest(law.cdf(square) / 0.4, "uniform").pvalue > 1e-3
        np.testing.assert_allclose(draws.mean(0), mean, atol=0.2)

    def test_one_column_has_the_interval_of_the_normal_law(self):
        gaussian = Gaussian([3.0], [[4.0]])
        low, high = stats.norm(3.0, 2.0).interval(0.9)
        for x, inside in ((low + 1e-6, True), (low - 1e-6, False), (high - 1e-6, True)):
            assert gaussian.is_in_confidence_region([x], 0.9) is inside

    def test_extremes(self):
        gaussian = Gaussian([0.0, 0.0], np.eye(2), random_state=0)
        assert gaussian.is_in_confidence_region([40.0, 40.0], 1.0)
        assert not gaussian.is_in_confidence_region([1e-6, 0.0], 0.0)
        for alpha in (-0.1, 1.1, np.nan):
            with pytest.raises(GenoptError, match="alpha"):
                gaussian.is_in_confidence_region([0.0, 0.0], alpha)
        small = gaussian.sample_confidence_region(50, 1e-12)
        assert np.abs(small).max() < 1e-5


class TestWhereItComesFrom:
    @pytest.fixture
    def mixture(self):
        rng = np.random.default_rng(4)
        roots = rng.normal(size=(3, 4, 4))
        covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(4)
        names = ["a", "b", "c", "d"]
        return GaussianMixture(
            3, [0.2, 0.3, 0.5], rng.normal(size=(3, 4)), covariances, names=names
        )

    def test_components_conditionals_and_the_moment_match_are_gaussians(self, mixture):
        conditional = mixture.condition(["b"], [0.3])
        for found, d, names in (
            (mixture.to_mvn(), 4, ("a", "b", "c", "d")),
            (mixture.extract_mvn(1), 4, ("a", "b", "c", "d")),
            (conditional.extract_mvn(2), 3, ("a", "c", "d")),
            (conditional.to_mvn(), 3, ("a", "c", "d")),
            (mixture.extract_mvn(0).condition(["d"], [1.0]), 3, ("a", "b", "c")),
            (mixture.to_mvn().marginalize(["c", 0]), 2, ("c", "a")),
        ):
            assert isinstance(found, Gaussian)
            assert isinstance(found, gmr.MVN)
            assert found.names == names
            draws = np.random.default_rng(0).multivariate_normal(
                found.mean, found.covariance, size=4000
            )
            assert len(found.mean) == d
            share = found.is_in_confidence_region(draws, 0.6827).mean()
            assert share == pytest.approx(0.6827, abs=0.03)

    def test_a_component_that_does_not_exist(self, mixture):
        with pytest.raises(GenoptError, match="component_idx=3"):
            mixture.extract_mvn(3)


class TestTheRestOfGmr:
    def test_answers_are_those_of_gmr_where_it_is_right(self):
        mean, covariance = make(4)
        ours, theirs = Gaussian(mean, covariance), gmr.MVN(mean, covariance)
        points = np.random.default_rng(2).normal(size=(7, 4))
        np.testing.assert_allclose(
            ours.to_probability_density(points), theirs.to_probability_density(points)
        )
        factor, exponents = ours.to_norm_factor_and_exponents(points)
        expected, their_exponents = theirs.to_norm_factor_and_exponents(points)
        assert factor == pytest.approx(expected)
        np.testing.assert_allclose(exponents, their_exponents)
        given = np.array([1, 3])
        for own, other in zip(
            ours.predict(given, points[:, :2]), theirs.predict(given, points[:, :2]), strict=True
        ):
            np.testing.assert_allclose(own, other, atol=1e-10)
        own, other = ours.condition(given, points[0, :2]), theirs.condition(given, points[0, :2])
        np.testing.assert_allclose(own.mean, other.mean, atol=1e-10)
        np.testing.assert_allclose(own.covariance, other.covariance, atol=1e-10)
        np.testing.assert_allclose(
            ours.marginalize(given).covariance, theirs.marginalize(given).covariance
        )
        plane = ours.marginalize([0, 1])
        assert plane.to_ellipse() == pytest.approx(theirs.marginalize(np.arange(2)).to_ellipse())
        square = ours.sigma_points(alpha=0.9)
        moved = ours.estimate_from_sigma_points(2.0 * square + 1.0, alpha=0.9)
        assert isinstance(moved, Gaussian)
        np.testing.assert_allclose(moved.mean, 2.0 * mean + 1.0, atol=1e-8)
        np.testing.assert_allclose(moved.covariance, 4.0 * covariance, atol=1e-8)

    def test_from_samples_and_draws(self):
        rows = np.random.default_rng(0).normal(2.0, 3.0, size=(4000, 1))
        fitted = Gaussian(random_state=1).from_samples(rows)
        assert fitted.log_prob([[2.0]])[0] == pytest.approx(
            stats.norm(rows.mean(), rows.std(ddof=1)).logpdf(2.0)
        )
        assert fitted.is_in_confidence_region(rows, 0.9).mean() == pytest.approx(0.9, abs=0.02)
        mean, covariance = make(2)
        draws = Gaussian(mean, covariance, random_state=0).sample(20_000)
        np.testing.assert_allclose(np.cov(draws.T), covariance, rtol=0.06)

    def test_a_tiny_determinant_is_no_clamp(self):
        tiny = Gaussian(np.zeros(4), 1e-10 * np.eye(4))
        assert tiny.log_prob(np.zeros((1, 4)))[0] == pytest.approx(
            stats.multivariate_normal(np.zeros(4), 1e-10 * np.eye(4)).logpdf(np.zeros(4))
        )

    def test_nothing_is_shared_and_nothing_global_is_drawn_from(self):
        mean = np.zeros(2)
        gaussian = Gaussian(mean, np.eye(2))
        gaussian.mean[0] = 5.0
        assert mean[0] == 0.0
        # what numpy's global generator is, asked of gmr, which takes it by default
        everyone = gmr.MVN(mean, np.eye(2)).random_state
        before = everyone.get_state()[1].copy()
        gaussian.sample(3)
        assert (everyone.get_state()[1] == before).all()

    def test_names(self):
        mean, covariance = make(2)
        with pytest.raises(GenoptError, match="3 entries"):
            Gaussian(mean, covariance, names=["a", "b", "c"])
        with pytest.raises(UnknownNameError, match="did you mean 'density'"):
            Gaussian(mean, covariance, names=["density", "cost"]).condition("densty", [1.0])
