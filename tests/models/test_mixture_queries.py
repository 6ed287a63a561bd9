"""Quantiles and modes of conditionals against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from genopt.errors import GenoptError
from genopt.models.mixture.gmm import GaussianMixture


def make(seed=0, k=3, p=3):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(k, p, p))
    covariances = half @ half.transpose(0, 2, 1) / p + 0.2 * np.eye(p)
    return GaussianMixture(k, rng.dirichlet(np.ones(k)), 2 * rng.normal(size=(k, p)), covariances)


class TestQuantiles:
    @settings(max_examples=30, deadline=None)
    @given(
        seed=st.integers(0, 10**6),
        level=st.floats(1e-12, 1 - 1e-12),
        query=st.floats(-20, 20),
        column=st.integers(0, 1),
    )
    def test_agree_with_a_root_of_the_distribution_function(self, seed, level, query, column):
        mixture = make(seed)
        batch = mixture.condition_batch([1], [[query]])
        single = batch.component(0)
        means, deviations = single.means[:, column], np.sqrt(single.covariances[:, column, column])

        def excess(v):
            return stats.norm.cdf(v, means, deviations) @ single.priors - level

        expected = optimize.brentq(excess, -500, 500, xtol=1e-13)
        found = batch.quantile(level, column)[0, 0]
        # where the density is nearly zero the root itself is loose
        slack = 1e-14 / max(stats.norm.pdf(expected, means, deviations) @ single.priors, 1e-12)
        assert found == pytest.approx(expected, abs=1e-9 + 10 * slack)

    def test_of_one_gaussian_are_exact_far_out_in_both_tails(self):
        mixture = GaussianMixture(1, [1.0], [[0.0, 3.0]], [[[1.0, 0.0], [0.0, 4.0]]])
        levels = np.array([1e-300, 1e-20, 0.5, 0.975, 1 - 1e-15])
        found = mixture.condition_batch([0], [[5.0]]).quantile(levels)
        np.testing.assert_allclose(found[0], stats.norm(3.0, 2.0).ppf(levels), rtol=1e-13)

    def test_all_queries_and_levels_at_once_equal_one_by_one(self):
        mixture = make(1)
        batch = mixture.condition_batch([0], np.linspace(-3, 3, 7)[:, None])
        whole = batch.quantile([0.1, 0.5, 0.9], column=1)
        assert whole.shape == (7, 3)
        for c in range(7):
            one = batch.take([c])
            np.testing.assert_allclose(one.quantile(0.5, 1)[0, 0], whole[c, 1], rtol=1e-12)
        np.testing.assert_allclose(
            batch.cdf(whole, 1), np.tile([0.1, 0.5, 0.9], (7, 1)), atol=1e-12
        )
        np.testing.assert_allclose(batch.cdf([0.3], 1), batch.cdf(np.full((7, 1), 0.3), 1))

    def test_a_dead_component_far_away_does_not_matter(self):
        mixture = GaussianMixture(2, [1.0, 0.0], [[0.0], [1e9]], [[[1.0]], [[1.0]]])
        found = mixture.condition_batch([], np.empty((1, 0))).quantile(0.9)
        assert found[0, 0] == pytest.approx(stats.norm.ppf(0.9), rel=1e-13)

    def test_bad_calls_say_what_is_wrong(self):
        batch = make().condition_batch([0], [[0.0]])
        for call, message in [
            (lambda: batch.quantile(1.0), "both excluded"),
            (lambda: batch.quantile(np.nan), "both excluded"),
            (lambda: batch.quantile(0.5, column=2), "between 0 and 1"),
            (lambda: batch.cdf(np.zeros((2, 1))), "values has shape"),
        ]:
            with pytest.raises(GenoptError, match=message):
                call()


class TestModes:
    def test_one_gaussian_has_its_mean(self):
        mixture = make(2, k=1)
        batch = mixture.condition_batch([0], [[1.0], [-4.0]])
        found = batch.modes()
        assert found.count.tolist() == [1, 1]
        np.testing.assert_allclose(found.points[:, 0], batch.mean(), atol=1e-9)
        np.testing.assert_allclose(found.log_density[:, 0], batch.log_prob(batch.mean()), atol=1e-9)
        np.testing.assert_allclose(found.weights, 1.0)

    @pytest.mark.parametrize("seed", range(6))
    def test_in_one_dimension_they_are_the_peaks_of_a_fine_grid(self, seed):
        mixture = make(seed, k=6, p=2)
        batch = mixture.condition_batch([0], [[0.0], [2.0], [-2.0]])
        found = batch.modes()
        grid = np.linspace(-15, 15, 60_001)
        for c in range(3):
            density = batch.take([c]).log_prob(grid[None, :, None])[0]
            inner = density[1:-1]
            peaks = grid[1:-1][(inner > density[:-2]) & (inner > density[2:])]
            mine = found.points[c, : found.count[c], 0]
            # each found one is a peak; no peak that holds much is missed
            for point in mine:
                assert np.abs(peaks - point).min() < 1e-3
            assert np.abs(peaks - mine[0]).min() < 1e-3
            assert found.log_density[c, 0] == pytest.approx(density.max(), abs=1e-5)
            assert found.weights[c].sum() == pytest.approx(1.0)

    @pytest.mark.parametrize("seed", range(4))
    def test_in_three_dimensions_each_is_a_maximum_that_scipy_does_not_leave(self, seed):
        mixture = make(seed, k=5, p=4)
        batch = mixture.condition_batch([3], [[0.5]])
        found = batch.modes()
        assert 1 <= found.count[0] <= 5
        for point, height in zip(found.points[0], found.log_density[0], strict=True):
            result = optimize.minimize(
                lambda v: -batch.log_prob(v[None])[0], point + 1e-3, method="BFGS", tol=1e-9
            )
            np.testing.assert_allclose(result.x, point, atol=1e-4)
            assert -result.fun <= height + 1e-9

    def test_separate_clusters_keep_their_weights_and_near_ones_merge(self):
        means = [[-10.0, 0.0], [10.0, 0.0], [10.5, 0.0]]
        mixture = GaussianMixture(3, [0.2, 0.5, 0.3], means, np.tile(np.eye(2), (3, 1, 1)))
        found = mixture.condition_batch([], np.empty((1, 0))).modes()
        assert found.count[0] == 2
        np.testing.assert_allclose(found.weights[0], [0.8, 0.2], atol=1e-12)
        assert 10.0 < found.points[0, 0, 0] < 10.5
        np.testing.assert_allclose(found.points[0, 1], [-10.0, 0.0], atol=1e-6)

    def test_a_mean_on_a_saddle_is_left(self):
        # the third mean lies exactly between two taller hills
        covariances = [np.eye(2), np.eye(2), 9.0 * np.eye(2)]
        means = [[-2.0, 0.0], [2.0, 0.0], [0.0, 0.0]]
        mixture = GaussianMixture(3, [0.45, 0.45, 0.1], means, covariances)
        found = mixture.condition_batch([], np.empty((1, 0))).modes()
        assert found.count[0] == 2
        np.testing.assert_allclose(np.abs(found.points[0, :, 0]), found.points[0, :, 0].max())
        assert found.weights[0].sum() == pytest.approx(1.0)

    def test_units_and_queries_beside_them_change_nothing(self):
        scale = np.array([1e-6, 1e5, 1.0])
        plain = make(4)
        scaled = GaussianMixture(
            3, plain.priors, plain.means * scale, plain.covariances * scale[:, None] * scale
        )
        queries = np.array([[-1.0], [0.0], [1.5]])
        first = plain.condition_batch([2], queries).modes()
        second = scaled.condition_batch([2], queries).modes()
        np.testing.assert_allclose(second.points / scale[:2], first.points, rtol=1e-5, atol=1e-7)
        alone = plain.condition_batch([2], queries[1:2]).modes()
        n = int(alone.count[0])
        assert first.count[1] == n
        np.testing.assert_allclose(first.points[1, :n], alone.points[0], atol=1e-9)

    def test_far_queries_are_finite(self):
        batch = make(5).condition_batch([0], [[1e155], [-1e8]])
        found = batch.modes()
        assert np.isfinite(found.points[:, 0]).all()
        np.testing.assert_allclose(found.weights.sum(1), 1.0)
        assert np.isfinite(batch.quantile([0.1, 0.9])).all()
        assert batch.far.tolist() == [True, False]
