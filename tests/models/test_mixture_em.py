"""EM by quadratic features, its longer steps, cuts of components, averages, against scipy."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture as ScikitMixture

from genopt.errors import GenoptError
from genopt.models.mixture import best_gmm
from genopt.models.mixture.acceleration import Stretching
from genopt.models.mixture.averaging import joined, other_starts, taken_apart
from genopt.models.mixture.complete import CompleteRows
from genopt.models.mixture.em import Components, EmOptions, expectation_maximization
from genopt.models.mixture.fitting import Fitter
from genopt.models.mixture.gappy import GappyRows
from genopt.models.mixture.observed import ObservedRows
from genopt.models.mixture.sizes import sizes_between
from genopt.models.mixture.splits import split_components

KINDS = ("full", "tied", "diag")


def mixture(seed, k=3, d=3):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(k, d, d))
    covariances = factors @ factors.transpose(0, 2, 1) / d + 0.1 * np.eye(d)
    return Components(rng.dirichlet(np.ones(k)), rng.normal(size=(k, d)), covariances)


def heaps(n=120, seed=0, d=3):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(n // 3, d)) @ rng.normal(size=(d, d)) for _ in range(3)]
    rows = np.concatenate([part + 2 * rng.normal(size=d) for part in parts])
    return (rows - rows.mean(0)) / rows.std(0)


def log_density(rows, components):
    """By scipy."""
    terms = [
        math.log(w) + multivariate_normal(m, c).logpdf(rows)
        for w, m, c in zip(
            components.weights, components.means, components.covariances, strict=True
        )
    ]
    return logsumexp(terms, axis=0)


def ring(n=1500, seed=0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    rows = np.column_stack([np.cos(angle), np.sin(angle)]) + 0.05 * rng.normal(size=(n, 2))
    return rows / rows.std(0)


class TestCompleteRows:
    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 10**6), d=st.integers(1, 6), k=st.integers(1, 4))
    def test_the_density_is_that_of_scipy(self, seed, d, k):
        rows = np.random.default_rng(seed).normal(size=(40, d))
        each = mixture(seed, k, d)
        found = CompleteRows(rows).log_prob(each)
        np.testing.assert_allclose(found, log_density(rows, each), rtol=1e-9, atol=1e-9)

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS), k=st.integers(1, 3))
    def test_the_likelihood_never_decreases(self, seed, kind, k):
        data = heaps(300, seed)
        # in a heap as flat as the regularisation, that takes more than is left to gain
        assume(min(np.linalg.eigvalsh(np.cov(heap.T))[0] for heap in np.split(data, 3)) > 1e-6)
        rows = CompleteRows(data, diagonal=kind == "diag")
        for accelerated in (False, True):
            options = EmOptions(
                regularization=1e-10,
                tolerance=1e-300,
                max_iterations=25,
                covariance=kind,
                accelerated=accelerated,
            )
            fit = expectation_maximization(rows, mixture(seed, k), options)
            assert np.diff(fit.trace).min() > -1e-5

    @pytest.mark.parametrize("kind", KINDS)
    def test_weights_and_blocks_leave_no_seam(self, kind):
        rng = np.random.default_rng(1)
        rows = rng.normal(size=(5000, 4))
        weights = rng.random(5000)
        each = mixture(2, 3, 4).shaped(kind)
        quick = CompleteRows(rows, weights, diagonal=kind == "diag").moments(each)
        exact = GappyRows(rows, 3, weights).moments(each)
        options = EmOptions(covariance=kind)
        found, expected = quick.likeliest(each, options), exact.likeliest(each, options)
        assert quick.log_likelihood == pytest.approx(exact.log_likelihood, rel=1e-11)
        for name in ("weights", "means", "covariances"):
            np.testing.assert_allclose(
                getattr(found, name), getattr(expected, name), atol=1e-11, err_msg=name
            )

    def test_labels_give_the_moments_of_their_rows(self):
        rows = heaps()
        labels = np.arange(len(rows)) % 2
        start = mixture(3, 2)
        found = CompleteRows(rows).moments(start, labels).likeliest(start, EmOptions())
        for j in range(2):
            part = rows[labels == j]
            np.testing.assert_allclose(found.means[j], part.mean(0), atol=1e-12)
            expected = np.cov(part.T, bias=True) + 1e-6 * np.eye(3)
            np.testing.assert_allclose(found.covariances[j], expected, atol=1e-12)

    def test_it_is_not_used_where_products_lose_the_digits(self):
        rows = heaps()
        assert CompleteRows.suits(rows, 1e-6)
        assert not CompleteRows.suits(rows, 1e-13)
        assert not CompleteRows.suits(1e4 * rows, 1e-6)
        # three equal rows far out: exact only where nothing is squared and subtracted again
        far = np.concatenate([rows, np.full((3, 3), 3e5) + 1e-7 * rows[:3]])
        start = mixture(4, 2)
        start = replace(start, means=np.stack([np.zeros(3), far[-1]]))
        fit = Fitter(far).fit(2, EmOptions(regularization=1e-12), start)
        spread = far[-3:] - far[-3:].mean(0)
        expected = spread.T @ spread / 3 + 1e-12 * np.eye(3)
        np.testing.assert_allclose(fit.components.covariances[1], expected, rtol=1e-2, atol=1e-15)

    def test_whole_rows_and_rows_with_gaps_are_seen_together(self):
        rows = heaps(600)
        rows[:200, 1] = np.nan
        each = mixture(5)
        both = ObservedRows(rows, n_components=3, smallest_variance=1e-6)
        exact = GappyRows(rows, 3)
        np.testing.assert_allclose(both.log_prob(each), exact.log_prob(each), atol=1e-10)
        options = EmOptions(max_iterations=5, tolerance=1e-300)
        found = expectation_maximization(both, each, options)
        expected = expectation_maximization(exact, each, options)
        np.testing.assert_allclose(found.trace, expected.trace, rtol=1e-10)
        np.testing.assert_allclose(
            found.components.covariances, expected.components.covariances, atol=1e-8
        )
        filled, labels = both.expected(each)
        other, others = exact.expected(each)
        np.testing.assert_allclose(filled, other, atol=1e-9)
        np.testing.assert_array_equal(labels, others)

    def test_a_start_ends_where_that_of_scikit_learn_ends(self):
        rows = heaps(600, 7)
        start = mixture(6)
        oracle = ScikitMixture(
            3,
            tol=1e-12,
            max_iter=5000,
            weights_init=start.weights,
            means_init=start.means,
            precisions_init=np.linalg.inv(start.covariances),
        ).fit(rows)
        found = Fitter(rows).fit(3, EmOptions(tolerance=1e-12, max_iterations=5000), start)
        assert found.log_likelihood / len(rows) == pytest.approx(oracle.score(rows), abs=1e-6)


class TestLongerSteps:
    @pytest.mark.parametrize("kind", KINDS)
    def test_they_save_most_iterations_and_lose_no_likelihood(self, kind):
        rows = CompleteRows(ring())
        start = Fitter(ring()).fit(8, EmOptions(tolerance=1e-2)).components
        options = EmOptions(tolerance=1e-7, max_iterations=20_000, covariance=kind)
        plain = expectation_maximization(rows, start, options)
        quick = expectation_maximization(rows, start, replace(options, accelerated=True))
        assert len(quick.trace) < len(plain.trace) / 1.5
        assert quick.log_likelihood > plain.log_likelihood - 0.001 * len(ring())
        fixed = quick.components.covariances
        if kind == "tied":
            np.testing.assert_allclose(fixed, fixed[[0] * len(fixed)])
        if kind == "diag":
            assert not fixed[:, 0, 1].any()

    def test_a_geometric_sequence_is_followed_to_its_limit(self):
        limit = mixture(8, 2)

        def after(steps):
            return replace(limit, means=limit.means + 0.6**steps)

        found = Stretching(1e-9).proposed(after(0), after(1), after(2))
        np.testing.assert_allclose(found.means, limit.means, atol=1e-9)
        np.testing.assert_allclose(found.covariances, limit.covariances, atol=1e-9)

    def test_a_component_without_weight_is_left_to_em(self):
        dead = replace(mixture(9, 2), weights=np.array([1.0, 0.0]))
        assert Stretching(1e-9).proposed(dead, dead, dead) is None


class TestSplits:
    @pytest.mark.parametrize("scale", [1.0, 1e-3])
    def test_the_component_on_two_heaps_is_cut_between_them(self, scale):
        rng = np.random.default_rng(0)
        center = np.array([[0.0, 0.0], [6.0, 0.0], [6.0, 4.0]])
        owner = np.repeat([0, 1, 2], 200)
        rows = (center[owner] + rng.normal(size=(600, 2))) * [1.0, scale]
        labels = np.minimum(owner, 1)
        start = Components(
            np.array([1 / 3, 2 / 3]),
            np.stack([rows[labels == j].mean(0) for j in range(2)]),
            np.stack([np.cov(rows[labels == j].T) for j in range(2)]),
        )
        found = split_components(rows, labels, np.ones(600), start, 3, 1e-9)
        order = np.argsort(found.means @ [1.0, 1.0 / scale])
        np.testing.assert_allclose(found.means[order] / [1.0, scale], center, atol=0.4)
        np.testing.assert_allclose(found.weights, 1 / 3, atol=0.03)
        np.testing.assert_array_equal(found.means[0], start.means[0])

    def test_a_core_in_wide_tails_is_told_from_them(self):
        rng = np.random.default_rng(1)
        width = np.where(rng.random(4000) < 0.5, 1.0, 0.05)
        rows = width[:, None] * rng.normal(size=(4000, 2))
        start = Components(np.ones(1), np.zeros((1, 2)), np.cov(rows.T)[None])
        zeros = np.zeros(4000, dtype=np.intp)
        found = split_components(rows, zeros, np.ones(4000), start, 2, 1e-9)
        sizes = np.sort(np.linalg.det(found.covariances))
        assert sizes[0] < 0.1 * sizes[1]
        np.testing.assert_allclose(found.means, 0.0, atol=0.1)

    def test_too_few_rows_are_not_cut(self):
        start = mixture(0, 1)
        zeros = np.zeros(5, dtype=np.intp)
        assert split_components(heaps()[:5], zeros, np.ones(5), start, 2, 1e-6) is None

    @pytest.mark.parametrize("weight", [1.0, 2.5])
    def test_each_part_has_the_rows_that_are_asked_for(self, weight):
        rng = np.random.default_rng(2)
        rows = np.concatenate([rng.normal(-5, 1, (60, 2)), rng.normal(5, 1, (40, 2))])
        start = Components(np.ones(1), rows.mean(0)[None], np.cov(rows.T)[None])
        labels, weights = np.zeros(100, dtype=np.intp), np.full(100, weight)

        def cut(fewest):
            return split_components(rows, labels, weights, start, 2, 1e-9, fewest * weight)

        np.testing.assert_allclose(np.sort(cut(40).weights), [0.4, 0.6])
        # another cut than the one between the heaps
        assert cut(45).weights.min() >= 0.45
        assert cut(50.5) is None

    def test_a_ring_is_followed_better_than_from_clusters(self):
        scores = best_gmm(ring(), 12, patience=None).scores
        rows = (ring() - ring().mean(0)) / ring().std(0)
        jacobian = 2 * len(rows) * np.log(ring().std(0)).sum()
        oracle = [ScikitMixture(n, random_state=0).fit(rows).bic(rows) for n in range(1, 13)]
        assert min(scores.values()) < min(oracle) + jacobian
        # it stops one M-step earlier
        assert all(scores[n + 1] < bic + jacobian + 3.0 for n, bic in enumerate(oracle))


class TestAverages:
    def test_the_average_has_the_mean_density_and_comes_apart(self):
        parts = [mixture(0), mixture(1)]
        rows = heaps()
        average = joined(parts)
        expected = np.log(np.mean([np.exp(log_density(rows, each)) for each in parts], 0))
        np.testing.assert_allclose(log_density(rows, average), expected, atol=1e-9)
        for found, part in zip(taken_apart(average, 2), parts, strict=True):
            np.testing.assert_allclose(found.weights, part.weights)
            np.testing.assert_array_equal(found.covariances, part.covariances)

    @pytest.mark.parametrize("criterion", ["bic", "heldout"])
    def test_several_members_are_nearer_to_the_truth_than_one(self, criterion):
        fresh = ring(4000, 1) * ring().std(0)
        rows = ring(400)
        options = {"min_components": 12, "criterion": criterion}
        one = best_gmm(rows, 12, **options)
        four = best_gmm(rows, 12, members=4, **options)
        assert four.n_components == one.n_components == 12
        assert four.gmm.n_components == 48
        assert four.gmm.priors.sum() == pytest.approx(1.0)
        assert four.gmm.log_prob(fresh).mean() > one.gmm.log_prob(fresh).mean() + 0.01

    def test_a_half_with_too_few_distinct_rows_is_not_used(self):
        rows = np.repeat(heaps(30), 2, axis=0)[:40]
        starts = other_starts(Fitter(rows), 16, EmOptions(tolerance=1e-2), 2)
        assert [len(each.weights) for each in starts] == [16, 16]

    def test_going_on_keeps_the_members_apart(self):
        rows = ring(300)
        first = best_gmm(rows, 4, min_components=4, members=2)
        again = best_gmm(rows, start=first.gmm, members=2)
        assert again.n_components == 4
        np.testing.assert_allclose(again.gmm.means, first.gmm.means, atol=0.02)
        with pytest.raises(GenoptError, match="start has 8 components, which is no average"):
            best_gmm(rows, start=first.gmm, members=3)
        with pytest.raises(GenoptError, match="members=0"):
            best_gmm(rows, members=0)


class TestSizes:
    def test_each_number_up_to_20_then_steps_of_a_tenth(self):
        sizes = sizes_between(18, 60)
        assert sizes[:6] == [18, 19, 20, 22, 24, 26]
        assert sizes[-1] == 60
        assert all(b <= 1.1 * a for a, b in pairwise(sizes[2:]))
        assert sizes_between(3, 3) == [3]

    def test_equal_rows_count_once_whatever_the_sign_of_zero(self):
        rows = np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0], [np.nan, 1.0], [np.nan, 1.0]])
        assert Fitter(rows).most_components == 3
        grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0) / 8), -1).reshape(-1, 2)
        assert Fitter(np.concatenate([grid, grid])).most_components == 1600
