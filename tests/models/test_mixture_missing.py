"""Mixtures from tables with gaps, against scipy, closed forms and scikit-learn."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture as ScikitMixture

from genopt.errors import GenoptError
from genopt.models.mixture import Mixture, best_gmm
from genopt.models.mixture.columns import JointColumns
from genopt.models.mixture.em import Components, EmOptions, expectation_maximization
from genopt.models.mixture.fitting import Fitter
from genopt.models.mixture.gappy import GappyRows
from genopt.models.mixture.heldout import log_density
from genopt.models.mixture.observed import smallest_variance
from genopt.space import Space, Variable

NAN = math.nan


def components(seed, k=3, d=4):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(k, d, d))
    covariances = factors @ factors.transpose(0, 2, 1) / d + 0.1 * np.eye(d)
    return Components(rng.dirichlet(np.ones(k)), rng.normal(size=(k, d)), covariances)


def gappy(seed, n=120, d=4, share=0.3):
    """Three skew clusters, standardised, with entries missing at random and no row empty."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(n // 3, d)) @ rng.normal(size=(d, d)) for _ in range(3)]
    rows = np.concatenate([part + 3 * rng.normal(size=d) for part in parts])
    rows = (rows - rows.mean(0)) / rows.std(0)
    gaps = rng.random(rows.shape) < share
    gaps[np.arange(len(rows)), rng.integers(0, d, len(rows))] = False
    return rows, np.where(gaps, np.nan, rows)


def brute_log_prob(row, mixture):
    """Log density of the observed entries of one row, by scipy."""
    o = np.isfinite(row)
    if not o.any():
        return 0.0
    unit = np.sqrt(np.diagonal(mixture.covariances[0]))
    terms = [
        math.log(w)
        + multivariate_normal((m / unit)[o], (c / unit / unit[:, None])[np.ix_(o, o)]).logpdf(
            (row / unit)[o]
        )
        - np.log(unit[o]).sum()
        for w, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
    ]
    return logsumexp(terms)


class TestEm:
    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 10**6), d=st.integers(1, 6), share=st.floats(0.0, 0.95))
    def test_the_likelihood_is_that_of_the_observed_entries(self, seed, d, share):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(30, d))
        rows[rng.random(rows.shape) < share] = np.nan
        mixture = components(seed, d=d)
        expected = [brute_log_prob(row, mixture) for row in rows]
        np.testing.assert_allclose(
            GappyRows(rows, 3).log_prob(mixture), expected, rtol=1e-9, atol=1e-9
        )

    def test_many_rows_and_patterns_pass_in_blocks_without_a_seam(self):
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(9000, 12))
        rows[rng.random(rows.shape) < 0.4] = np.nan
        rows[4000:] = np.where(rng.random(12) < 0.5, np.nan, rows[4000:])
        mixture = components(1, k=8, d=12)
        whole = GappyRows(rows, 8).log_prob(mixture)
        for i in (0, 1, 3999, 4000, 8999):
            assert whole[i] == pytest.approx(brute_log_prob(rows[i], mixture), rel=1e-9)

    def test_filled_entries_are_conditional_means(self):
        rows, holes = gappy(1)
        mixture = components(2, k=1)
        filled = GappyRows(holes).expected(mixture)[0]
        known = np.isfinite(holes)
        np.testing.assert_allclose(filled[known], rows[known], atol=1e-12)
        precision = np.linalg.inv(mixture.covariances[0])
        for row, o in zip(filled, known, strict=True):
            # the density is stationary in the missing entries
            np.testing.assert_allclose((precision @ (row - mixture.means[0]))[~o], 0.0, atol=1e-9)

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.7), k=st.integers(1, 4))
    def test_the_likelihood_never_decreases(self, seed, share, k):
        _, holes = gappy(seed, n=90, share=share)
        options = EmOptions(regularization=1e-13, tolerance=1e-300, max_iterations=25)
        fit = expectation_maximization(GappyRows(holes, k), components(seed, k=k), options)
        # what is added to a component that has collapsed outweighs what is left to gain
        assume(smallest_variance(fit.components) > 1e-6)
        assert np.diff(fit.trace).min() > -1e-8

    @pytest.mark.parametrize("iterations", [1, 9])
    def test_complete_rows_give_the_steps_of_scikit_learn(self, iterations):
        rows, _ = gappy(3)
        start = components(4)
        oracle = ScikitMixture(
            3,
            max_iter=iterations,
            tol=0.0,
            reg_covar=1e-6,
            weights_init=start.weights,
            means_init=start.means,
            precisions_init=np.linalg.inv(start.covariances),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle.fit(rows)
        options = EmOptions(tolerance=1e-300, max_iterations=iterations)
        found = expectation_maximization(GappyRows(rows, 3), start, options).components
        np.testing.assert_allclose(found.weights, oracle.weights_, atol=1e-12)
        np.testing.assert_allclose(found.means, oracle.means_, atol=1e-11)
        np.testing.assert_allclose(found.covariances, oracle.covariances_, atol=1e-11)

    def test_both_ways_of_fitting_agree_where_hardly_anything_is_missing(self):
        rows, _ = gappy(5, n=600)
        options = EmOptions(tolerance=1e-9)
        whole = Fitter(rows).fit(3, options).components
        extra = np.vstack([rows, [[NAN, NAN, NAN, 0.0]]])
        found = Fitter(extra).fit(3, options).components
        order = [np.linalg.norm(found.means - mean, axis=1).argmin() for mean in whole.means]
        assert sorted(order) == [0, 1, 2]
        np.testing.assert_allclose(found.means[order], whole.means, atol=0.02)
        np.testing.assert_allclose(found.covariances[order], whole.covariances, atol=0.03)

    def test_a_monotone_pattern_has_a_closed_form(self):
        # Anderson (1957): regress the column with gaps on the complete one, in the rows with both
        rng = np.random.default_rng(6)
        a = rng.normal(size=400)
        b = 0.8 * a + rng.normal(size=400)
        b[a > 0.3] = np.nan
        both = np.isfinite(b)
        slope, intercept = np.polyfit(a[both], b[both], 1)
        noise = (b[both] - slope * a[both] - intercept).var()
        options = EmOptions(regularization=1e-12, tolerance=1e-13, max_iterations=5000)
        found = Fitter(np.column_stack([a, b])).fit(1, options).components
        np.testing.assert_allclose(
            found.means[0], [a.mean(), intercept + slope * a.mean()], atol=1e-5
        )
        exact = [[a.var(), slope * a.var()], [slope * a.var(), noise + slope**2 * a.var()]]
        np.testing.assert_allclose(found.covariances[0], exact, atol=1e-5)

    def test_it_ends_where_the_likelihood_is_stationary(self):
        _, holes = gappy(7)
        options = EmOptions(regularization=1e-10, tolerance=1e-13, max_iterations=3000)
        end = Fitter(holes).fit(2, options).components

        def likelihood(means, scale):
            moved = Components(end.weights, means, end.covariances * scale)
            return np.mean([brute_log_prob(row, moved) for row in holes])

        step = 1e-4
        for k, j in np.ndindex(2, 4):
            away = np.zeros((2, 4))
            away[k, j] = step
            slope = likelihood(end.means + away, 1.0) - likelihood(end.means - away, 1.0)
            assert abs(slope / (2 * step)) < 1e-4
        slope = likelihood(end.means, 1.0 + step) - likelihood(end.means, 1.0 - step)
        assert abs(slope / (2 * step)) < 1e-4

    def test_a_component_without_weight_stays_dead(self):
        _, holes = gappy(8)
        start = components(9)
        dead = Components(np.array([0.4, 0.0, 0.6]), start.means, start.covariances)
        fit = expectation_maximization(GappyRows(holes, 3), dead, EmOptions(max_iterations=20))
        assert fit.components.weights[1] == 0.0
        np.testing.assert_array_equal(fit.components.means[1], start.means[1])
        assert np.isfinite(fit.components.covariances).all()

    def test_the_conditional_density_is_that_of_the_mixture(self):
        rows, _ = gappy(10)
        fit = best_gmm(rows, 3, min_components=3).gmm
        mixture = Components(fit.priors, fit.means, fit.covariances)
        found = log_density(rows, mixture, [1, 3])
        batch = fit.condition_batch([1, 3], rows[:, [1, 3]])
        np.testing.assert_allclose(found, batch.log_prob(rows[:, [0, 2]]), atol=1e-8)


class TestBestGmm:
    def test_a_covariance_is_found_that_mean_imputation_loses(self):
        d, n = 6, 6000
        true = 0.7 ** np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
        rng = np.random.default_rng(0)
        rows = rng.multivariate_normal(np.zeros(d), true, n)
        holes = np.where(rng.random(rows.shape) < 0.3, np.nan, rows)
        holes = holes[np.isfinite(holes).any(1)]
        found = best_gmm(holes, 1).gmm.covariances[0]
        filled = np.where(np.isnan(holes), np.nanmean(holes, 0), holes)
        error = [np.linalg.norm(c - true) / np.linalg.norm(true) for c in (found, np.cov(filled.T))]
        assert error[0] < 0.03
        assert error[1] > 0.3

    @pytest.mark.parametrize("scale", [[1.0, 1.0, 1.0], [1e-6, 1e5, 1.0]])
    def test_clusters_with_gaps_whatever_the_units(self, scale):
        rng = np.random.default_rng(1)
        centers = np.array([[-6, 0, 0], [6, 0, 3], [0, 8, -6]])
        rows = np.concatenate([center + rng.normal(size=(150, 3)) for center in centers])
        holes = np.where(rng.random(rows.shape) < 0.25, np.nan, rows)
        holes = holes[np.isfinite(holes).any(1)]
        fit = best_gmm(holes * scale, 5)
        assert fit.n_components == 3
        found = fit.gmm.means / scale
        for center in centers:
            assert np.linalg.norm(found - center, axis=1).min() < 0.4

    @pytest.mark.parametrize("criterion", ["bic", "aic"])
    def test_scores_are_those_of_the_observed_entries_in_raw_units(self, criterion):
        _, holes = gappy(11)
        holes = holes * [1e-3, 1.0, 50.0, 2.0] + 7.0
        fit = best_gmm(holes, 3, criterion=criterion)
        gmm = fit.gmm
        own = Components(gmm.priors, gmm.means, gmm.covariances)
        total = sum(brute_log_prob(row, own) for row in holes)
        penalty = math.log(len(holes)) if criterion == "bic" else 2.0
        expected = -2 * total + penalty * gmm.n_parameters
        assert fit.scores[fit.n_components] == pytest.approx(expected, rel=1e-8)

    def test_rows_without_an_entry_are_dropped_and_columns_without_one_raise(self):
        _, holes = gappy(12)
        empty = np.vstack([np.full((2, 4), NAN), holes])
        with pytest.warns(UserWarning, match="2 rows of data without any entry"):
            found = best_gmm(empty, 2)
        np.testing.assert_array_equal(found.gmm.means, best_gmm(holes, 2).gmm.means)
        holes[:, 2] = NAN
        with pytest.raises(GenoptError, match="missing in column 'c': leave it out"):
            best_gmm(holes, names=list("abcd"))
        holes[0, 1] = np.inf
        with pytest.raises(GenoptError, match=r"infinite entries in column 1 \(1 rows\)"):
            best_gmm(holes)

    def test_the_seed_decides(self):
        _, holes = gappy(13)
        first, second = (best_gmm(holes, 3, min_components=3, n_init=2, seed=4) for _ in range(2))
        np.testing.assert_array_equal(first.gmm.means, second.gmm.means)

    def test_more_runs_are_never_less_likely(self):
        _, holes = gappy(14)
        one, five = (best_gmm(holes, 4, min_components=4, n_init=n, tolerance=1e-3) for n in (1, 5))
        assert five.scores[4] <= one.scores[4] + 1e-9


def free(names):
    return Space.of(**dict.fromkeys(names, (-50.0, 50.0)))


def linear(n, seed=0):
    """Normal x; p = x + .5 e, q = 2 x + .5 e', r = -x + .5 e''."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    noise = 0.5 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, x * torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64) + noise


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


class TestMixture:
    def test_labels_that_are_missing_where_another_is_high_do_not_bias(self):
        x, y = linear(4000)
        x = x[:, :0]
        y[:, 0] += 10.0
        y[y[:, 1] > 0, 0] = NAN
        noise = torch.randn(4000, 1, dtype=torch.float64, generator=torch.Generator())
        model = Mixture(free("a"), free("pqr"), max_components=1).fit(torch.cat([x, noise], 1), y)
        # E[p] = 10, where the rows with p alone give 10 - E[x | 2 x + e < 0]
        assert y[:, 0].nanmean() < 9.4
        found = model.gmm.means[0, model.columns.fitted_names.index("p")]
        assert found == pytest.approx(10.0, abs=0.06)

    def test_columns_never_measured_together_are_each_right(self):
        x, y = linear(3000)
        holes = torch.full_like(y, NAN)
        for k in range(3):
            holes[k::3, k] = y[k::3, k]
        model = Mixture(free("a"), free("pqr"), max_components=1).fit(x, holes)
        points = rows([-1.0], [0.5])
        expected = points * rows(1.0, 2.0, -1.0)
        torch.testing.assert_close(model.predict_y(points), expected, atol=0.12, rtol=0)
        covariance = model.gmm.covariances[0]
        joint = (
            covariance[1:, 1:] - np.outer(covariance[1:, 0], covariance[0, 1:]) / covariance[0, 0]
        )
        np.testing.assert_allclose(joint, 0.25 * np.eye(3), atol=0.06)
        # independent errors: the precisions 1 and (1 + 4 + 1) / .25 of x add up
        draws = model.sample(rows([1.0, 2.0, -1.0]), 4000)[0, :, 0]
        assert draws.mean() == pytest.approx(24.0 / 25.0, abs=0.05)
        assert draws.var() == pytest.approx(1.0 / 25.0, rel=0.25)

    def test_conditions_that_no_row_has_together_get_a_score(self):
        x, y = linear(400)
        y[:200, 0], y[200:, 1] = NAN, NAN
        model = Mixture(free("a"), free("pqr"), max_components=1).fit(x, y)
        likely, unlikely, far = model.ood_score(
            rows([0.0, 0.0, NAN], [3.0, -6.0, NAN], [1e9, 0.0, 0.0])
        )
        assert 0.0 <= likely < 0.5
        assert 1.0 < unlikely < far
        seen = y[:200].clone()
        assert model.ood_score(seen).max() <= 1.0 + 1e-9

    def test_a_row_with_a_gap_counts(self):
        x, y = linear(60)
        y[10:, 0] = NAN
        model = Mixture(free("a"), free("pqr"), max_components=1).fit(x, y)
        few = Mixture(free("a"), free("pqr"), max_components=1).fit(x[:10], y[:10])
        exact = rows([0.0], [1.0]) * rows(2.0, -1.0)
        errors = [
            (m.predict_y(rows([0.0], [1.0]))[:, 1:] - exact).abs().max() for m in (model, few)
        ]
        assert errors[0] < errors[1]
        assert errors[0] < 0.2

    def test_classes_and_fractions_with_gaps(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(600, 1))
        grade = (x[:, 0] + 0.3 * rng.normal(size=600) > 0).astype(float)
        logits = np.exp(np.column_stack([x[:, 0], -x[:, 0], np.zeros(600)]))
        shares = logits / logits.sum(1, keepdims=True)
        y = np.column_stack([grade, shares])
        y[::3, 0] = NAN
        y[1::3, 1] = NAN
        y[2::3, 1:3] = NAN
        y_space = Space(
            (
                Variable("grade", kind="categorical", labels=("low", "high")),
                *(Variable(name, 0.0, 1.0) for name in "uvw"),
            ),
            (("u", "v", "w"),),
        )
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        fitted = JointColumns(free("a"), y_space, (0, 1, 2, 3)).fit_rows(x, y)
        # a, grade=low, u, v: one missing fraction follows from the others, two do not
        np.testing.assert_allclose(fitted[1::3, 2], shares[1::3, 0], atol=1e-12)
        assert np.isnan(fitted[2::3, 2:]).all()
        assert np.isnan(fitted[::3, 1]).all()
        model = Mixture(free("a"), y_space, max_components=4).fit(x, y)
        predicted = model.predict_y(rows([-1.0], [1.0]))
        assert predicted[:, 0].tolist() == [0.0, 1.0]
        torch.testing.assert_close(predicted[:, 1:].sum(1), rows(1.0, 1.0))
        assert predicted[1, 1] == pytest.approx(math.e**2 / (math.e**2 + math.e + 1), abs=0.1)

    def test_gaps_survive_saving(self, tmp_path):
        x, y = linear(90)
        y[:40, 0] = NAN
        model = Mixture(free("a"), free("pqr"), max_components=2).fit(x, y)
        again = Mixture.load(model.save(tmp_path / "mixture.pt"))
        queries = rows([0.0, NAN, 1.0], [1.0, 1.0, 1.0])
        torch.testing.assert_close(again.ood_score(queries), model.ood_score(queries))
        torch.testing.assert_close(again.predict_y(x), model.predict_y(x))
