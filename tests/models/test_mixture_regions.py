"""Conditionals on regions: against scipy, closed forms and rejection from the joint."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from genopt.errors import GenoptError
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.regions import RegionBatch, log_box
from genopt.models.mixture.truncation import draw_interval, log_interval


def make(seed=0, k=3, p=4):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(k, p, p))
    covariances = half @ half.transpose(0, 2, 1) / p + 0.2 * np.eye(p)
    return GaussianMixture(k, rng.dirichlet(np.ones(k)), 2 * rng.normal(size=(k, p)), covariances)


class TestTruncation:
    @settings(max_examples=60, deadline=None)
    @given(low=st.floats(-30, 30), width=st.floats(1e-7, 20))
    def test_probability_is_the_integral_of_the_density(self, low, width):
        # the density relative to that at the end nearest to zero does not underflow
        high = low + width
        near = float(np.clip(0.0, low, high))
        reach = min(width, 40.0)
        start = low if near < high else high - reach
        mass, _ = integrate.quad(
            lambda z: np.exp(0.5 * (near - z) * (near + z)),
            start,
            start + reach,
            points=[near] if start < near < start + reach else None,
            epsabs=0,
            limit=200,
        )
        expected = np.log(mass) + stats.norm.logpdf(near)
        found = log_interval(np.array(low), np.array(high))
        assert float(found) == pytest.approx(expected, abs=3e-8)

    @pytest.mark.parametrize(
        ("low", "high"),
        [(-np.inf, np.inf), (-1.0, 2.0), (6.0, np.inf), (-np.inf, -7.0), (0.3, 0.4)],
    )
    def test_draws_follow_the_truncated_law(self, low, high):
        uniform = np.random.default_rng(0).random(4000)
        draws = draw_interval(np.full(4000, low), np.full(4000, high), uniform)
        assert ((draws >= low) & (draws <= high)).all()
        assert stats.kstest(draws, stats.truncnorm(low, high).cdf).pvalue > 1e-3

    @pytest.mark.parametrize("at", [1e10, 1e155, np.float64(3.0)])
    def test_extreme_limits_stay_finite(self, at):
        for low, high in [(at, np.inf), (-np.inf, -at), (at, at)]:
            ends = np.array([low]), np.array([high])
            assert np.isfinite(log_interval(*ends)).all()
            assert np.isfinite(draw_interval(*ends, np.array([0.5]))).all()
        far = draw_interval(np.array([1e10]), np.array([np.inf]), np.array([0.5]))
        assert far[0] == pytest.approx(1e10)


def rejected(mixture, columns, lower, upper, seed=0, rows=400_000):
    """Draws of the joint that happen to lie in the region, and their share."""
    draws = mixture.sample(rows, random_state=seed)
    inside = ((draws[:, columns] >= lower) & (draws[:, columns] <= upper)).all(1)
    return draws[inside], inside.mean()


CASES = [
    ([1], [0.5], [1.5]),
    ([2], [1.0], [np.inf]),
    ([3, 0], [-np.inf, -0.5], [0.0, 0.8]),
    ([0, 1, 2], [-1.0, -np.inf, -0.5], [2.0, 1.0, np.inf]),
]


class TestRegions:
    @pytest.mark.parametrize(("columns", "lower", "upper"), CASES)
    def test_draws_and_probability_are_those_of_rejection(self, columns, lower, upper):
        mixture = make(3)
        region = mixture.condition_region(columns, lower, upper)
        expected, share = rejected(mixture, columns, lower, upper)
        noise = 4 * np.sqrt(share * (1 - share) / 400_000)
        assert np.exp(region.log_probability[0]) == pytest.approx(share, abs=noise + 2e-3 * share)
        draws = region.sample(4000, seed=1)[0]
        assert ((draws[:, columns] >= lower) & (draws[:, columns] <= upper)).all()
        for projection in [*np.eye(4), np.ones(4), np.array([1.0, -1.0, 1.0, -1.0])]:
            test = stats.ks_2samp(draws @ projection, expected[:20_000] @ projection)
            assert test.pvalue > 1e-3

    def test_one_column_has_exact_weights(self):
        mixture = make(4)
        region = mixture.condition_region([2], [0.3], [np.inf], given=[0], X=[[0.1], [-2.0]])
        for c, value in enumerate([0.1, -2.0]):
            single = mixture.condition([0], [value])
            # column 2 is the second of those that are left
            law = stats.norm(single.means[:, 1], np.sqrt(single.covariances[:, 1, 1]))
            mass = single.priors * law.sf(0.3)
            np.testing.assert_allclose(region.weights[c], mass / mass.sum(), rtol=1e-10)
            assert region.log_probability[c] == pytest.approx(np.log(mass.sum()), abs=1e-11)

    def test_boxes_of_one_gaussian_agree_with_scipy(self):
        mixture = make(5, k=1, p=3)
        lower, upper = np.array([-0.5, -1.0, 0.0]), np.array([1.0, 2.0, 2.5])
        oracle = stats.multivariate_normal(mixture.means[0], mixture.covariances[0])
        expected = oracle.cdf(upper, lower_limit=lower)
        found = log_box(mixture.condition_batch([], np.empty((1, 0))), lower, upper)
        assert np.exp(found[0]) == pytest.approx(expected, rel=2e-3)

    def test_density_is_that_of_the_joint_over_the_share_and_zero_outside(self):
        mixture = make(6, p=2)
        region = mixture.condition_region([0], [-1.0], [1.0])
        points = np.random.default_rng(0).uniform(-3, 3, (1, 200, 2))
        inside = np.abs(points[0, :, 0]) <= 1.0
        found = region.log_prob(points)[0]
        assert (found[~inside] == -np.inf).all()
        mass = mixture.marginal([0])
        cdf = stats.norm.cdf([[1.0], [-1.0]], mass.means[:, 0], np.sqrt(mass.covariances[:, 0, 0]))
        share = (cdf[0] - cdf[1]) @ mass.priors
        np.testing.assert_allclose(
            found[inside], mixture.log_prob(points[0, inside]) - np.log(share), atol=1e-10
        )

    def test_a_shrinking_interval_becomes_the_exact_condition(self):
        mixture = make(7)
        exact = mixture.condition_batch([1], [[0.4]])
        for width in (1e-4, 0.0):
            region = mixture.condition_region([1], [0.4 - width], [0.4 + width])
            np.testing.assert_allclose(region.weights, exact.weights, atol=1e-5)
            draws = region.sample(20_000, seed=0)[0]
            np.testing.assert_allclose(draws[:, 1], 0.4, atol=2e-4)
            np.testing.assert_allclose(draws[:, [0, 2, 3]].mean(0), exact.mean()[0], atol=0.06)

    def test_everything_is_no_condition(self):
        mixture = make(8)
        region = mixture.condition_region([0, 3], [-np.inf] * 2, [np.inf] * 2)
        assert region.log_probability[0] == pytest.approx(0.0, abs=1e-12)
        np.testing.assert_allclose(region.weights[0], mixture.priors, atol=1e-12)

    def test_strongly_correlated_columns_in_a_far_corner(self):
        covariance = np.array([[[1.0, -0.95], [-0.95, 1.0]]])
        mixture = GaussianMixture(1, [1.0], [[0.0, 0.0]], covariance)
        lower, upper = np.array([0.3, 0.3]), np.array([np.inf, np.inf])
        region = mixture.condition_region([0, 1], lower, upper)
        expected, share = rejected(mixture, [0, 1], lower, upper)
        assert np.exp(region.log_probability[0]) == pytest.approx(share, rel=0.1)
        draws = region.sample(3000, seed=2)[0]
        assert len(expected) > 300  # enough to compare with
        assert stats.ks_2samp(draws.sum(1), expected.sum(1)).pvalue > 1e-3

    def test_far_regions_are_finite_and_a_dead_component_stays_dead(self):
        mixture = GaussianMixture(2, [1.0, 0.0], np.zeros((2, 2)), [np.eye(2), 4 * np.eye(2)])
        for columns, ends in [([0], [1e155]), ([0, 1], [40.0, 1e9])]:
            region = mixture.condition_region(columns, ends, [np.inf] * len(columns))
            assert region.weights[0].tolist() == [1.0, 0.0]
            assert np.isfinite(region.log_probability).all()
            assert np.isfinite(region.sample(5, seed=0)).all()

    def test_many_queries_equal_one_by_one_and_a_seed_repeats_them(self):
        mixture = make(9)
        queries = np.array([[-1.0], [0.0], [2.0]])
        ends = np.array([[0.0], [0.5], [1.0]])
        whole = mixture.condition_region([2], ends, ends + 1.0, given=[0], X=queries)
        for c in range(3):
            one = mixture.condition_region([2], ends[c], ends[c] + 1.0, given=[0], X=queries[c])
            np.testing.assert_allclose(one.weights[0], whole.weights[c], atol=1e-12)
        np.testing.assert_array_equal(whole.sample(4, seed=3), whole.sample(4, seed=3))
        part = whole.take([2])
        draws = part.sample(50, seed=0)[0]
        assert ((draws[:, 1] >= 1.0) & (draws[:, 1] <= 2.0)).all()

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda g: g.condition_region([0], [1.0], [0.0]), "must not exceed"),
            (lambda g: g.condition_region([0], [0.0, 1.0], [1.0, 2.0]), r"expected \(1,\)"),
            (lambda g: g.condition_region([0], [np.nan], [1.0]), "lower has shape"),
            (lambda g: g.condition_region([0], [0.0], [1.0], given=[0], X=[[1.0]]), "twice"),
            (lambda g: g.condition_region([], [], []), "at least one column"),
            (lambda g: g.condition_region([0], [np.inf], [np.inf]), "hold a number"),
            (
                lambda g: RegionBatch.of(g.condition_batch([0], [[0.0]]), [3], [0.0], [1.0]),
                "between 0 and 2",
            ),
        ],
    )
    def test_bad_calls_say_what_is_wrong(self, call, message):
        with pytest.raises(GenoptError, match=message):
            call(make())
