"""Exact linear columns, weights, kinds of covariances, early stop and going on from a mixture."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture as ScikitMixture

from genopt.errors import GenoptError, UnknownNameError
from genopt.models.mixture import GaussianMixture, Mixture, best_gmm
from genopt.models.mixture.em import Components, EmOptions, expectation_maximization
from genopt.models.mixture.fitting import Fitter
from genopt.models.mixture.gappy import GappyRows
from genopt.problems import GasolineBlend
from genopt.space import Space, Variable

KINDS = ("full", "tied", "diag")


def clusters(n=60, seed=0):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(n, 2)) @ rng.normal(size=(2, 2)) for _ in range(3)]
    centers = ([0.0, 0.0], [12.0, 0.0], [0.0, 12.0])
    return np.concatenate([part + center for part, center in zip(parts, centers, strict=True)])


def start(k=3, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return Components(
        np.full(k, 1.0 / k), rng.normal(size=(k, d)), np.repeat(np.eye(d)[None], k, 0)
    )


def with_gaps(rows, share, seed):
    rng = np.random.default_rng(seed)
    gaps = rng.random(rows.shape) < share
    gaps[np.arange(len(rows)), rng.integers(0, rows.shape[1], len(rows))] = False
    return np.where(gaps, np.nan, rows)


class TestLinearColumns:
    def test_an_affine_map_is_exact(self):
        problem = GasolineBlend()
        table = problem.table(1500)
        model = Mixture(problem.x_space, problem.y_space, max_components=3).fit(table.x, table.y)
        draws = model.sample(torch.zeros(1, 5), 2000)[0]
        exact = problem.answers[0].x
        assert (draws.mean(0) - exact).abs().max() < 2e-5
        assert draws.std(0).max() < 2e-4
        torch.testing.assert_close(model.predict_y(table.x), table.y, atol=1e-9, rtol=0)
        assert torch.isfinite(model.log_prob(table.x, table.y)).all()
        assert model.ood_score(table.y).max() <= 1.0 + 1e-9

    def test_what_is_not_linear_is_found_as_without_the_linear_columns(self):
        rng = np.random.default_rng(0)
        a = rng.uniform(-1, 1, 400)
        bent = np.column_stack([a, a**2 + 0.01 * rng.normal(size=400)])
        wide = np.column_stack([bent, 3.0 - 2.0 * bent[:, 0] + 5.0 * bent[:, 1]])
        for criterion in ("bic", "heldout"):
            plain = best_gmm(bent, 6, criterion=criterion)
            found = best_gmm(wide, 6, criterion=criterion)
            assert found.n_components == plain.n_components
            np.testing.assert_allclose(found.gmm.means[:, :2], plain.gmm.means, atol=1e-12)
            linear = 3.0 + found.gmm.means[:, :2] @ [-2.0, 5.0]
            np.testing.assert_allclose(found.gmm.means[:, 2], linear, atol=1e-10)
            predicted = found.gmm.predict([0, 1], wide[:, :2])[:, 0]
            np.testing.assert_allclose(predicted, wide[:, 2], atol=1e-9)

    def test_the_scores_are_densities_of_all_columns(self):
        rng = np.random.default_rng(1)
        rows = rng.normal(size=(300, 2))
        rows = np.column_stack([rows, rows.sum(1)])
        fit = best_gmm(rows, 1)
        density = fit.gmm.log_prob(rows).sum()
        # a plane: 5 numbers of its Gaussian, 3 of the linear map, 1 of what is left
        expected = -2.0 * density + 9 * math.log(300)
        assert fit.scores[1] == pytest.approx(expected, rel=1e-3)

    def test_classes_that_go_together_stay_together(self):
        rng = np.random.default_rng(4)
        kind, u = rng.integers(0, 3, 150), rng.normal(size=150)
        kinds = [Variable(name, kind="categorical", labels=("a", "b", "c")) for name in "kl"]
        space = Space((Variable("u", -9.0, 9.0), *kinds))
        y = np.column_stack([u + kind + 0.2 * rng.normal(size=150), 2.0 * (u + kind)])
        model = Mixture(space, Space.of(p=(-9.0, 12.0), q=(-20.0, 20.0)), max_components=4)
        x = torch.from_numpy(np.column_stack([u, kind, kind]))
        model.fit(x, torch.from_numpy(y))
        draws = model.sample(torch.tensor([[1.0, 2.0]]), 200)[0]
        assert torch.equal(draws[:, 1], draws[:, 2])
        np.testing.assert_allclose(model.predict_y(x)[:, 1], y[:, 1], atol=1e-9)
        assert torch.isfinite(model.log_prob(x, torch.from_numpy(y))).all()

    @pytest.mark.parametrize("noise", [1e-2, 1e-3])
    def test_noise_that_can_be_seen_is_modelled(self, noise):
        rng = np.random.default_rng(2)
        rows = rng.normal(size=(500, 2))
        rows = np.column_stack([rows, rows.sum(1) + noise * rng.normal(size=500)])
        covariance = best_gmm(rows, 1, regularization=1e-10).gmm.condition([0, 1], [0.0, 0.0])
        fitted = LinearRegression().fit(rows[:, :2], rows[:, 2])
        left = np.mean((rows[:, 2] - fitted.predict(rows[:, :2])) ** 2)
        assert covariance.covariances[0, 0, 0] == pytest.approx(left, rel=1e-3)

    def test_too_few_rows_show_no_linear_column(self):
        rows = np.random.default_rng(3).normal(size=(5, 6))
        gmm = best_gmm(rows, 1).gmm
        # any column is linear in the others in five rows; the added variance keeps them apart
        correlations = gmm.covariances[0] / np.sqrt(
            np.outer(*[np.diagonal(gmm.covariances[0])] * 2)
        )
        assert np.linalg.eigvalsh(correlations).min() > 5e-7


class TestWeights:
    @settings(max_examples=20, deadline=None)
    @given(
        seed=st.integers(0, 10**6),
        share=st.sampled_from([0.0, 0.3]),
        kind=st.sampled_from(KINDS),
        k=st.integers(1, 3),
    )
    def test_an_integer_weight_repeats_a_row(self, seed, share, kind, k):
        rng = np.random.default_rng(seed)
        rows = with_gaps(rng.normal(size=(40, 3)), share, seed)
        weights = rng.integers(1, 4, len(rows))
        options = EmOptions(max_iterations=15, covariance=kind, tolerance=1e-12)
        first = start(k, 3, seed)
        weighted = expectation_maximization(
            GappyRows(rows, k, weights.astype(float)), first, options
        )
        repeated = np.repeat(rows, weights, axis=0)
        plain = expectation_maximization(GappyRows(repeated, k), first, options)
        assert weighted.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-9)
        for name in ("weights", "means", "covariances"):
            found, expected = getattr(weighted.components, name), getattr(plain.components, name)
            np.testing.assert_allclose(found, expected, atol=1e-7)

    @pytest.mark.parametrize("share", [0.0, 0.2])
    def test_a_fit_with_weights_is_that_of_repeated_rows(self, share):
        rows = with_gaps(clusters(), share, 1) * [1e3, 1e-3]
        weights = np.random.default_rng(1).integers(0, 4, len(rows))
        weighted = best_gmm(rows, 3, weights=weights)
        plain = best_gmm(np.repeat(rows, weights, axis=0), 3)
        assert weighted.n_components == plain.n_components == 3
        for n in (1, 3):
            assert weighted.scores[n] == pytest.approx(plain.scores[n], abs=0.1)
        order = [np.abs(weighted.gmm.means - m).sum(1).argmin() for m in plain.gmm.means]
        np.testing.assert_allclose(weighted.gmm.priors[order], plain.gmm.priors, atol=1e-3)
        means = weighted.gmm.means[order] / [1e3, 1e-3]
        np.testing.assert_allclose(means, plain.gmm.means / [1e3, 1e-3], atol=0.02)

    def test_one_gaussian_has_weighted_moments(self):
        rows = clusters()
        weights = np.random.default_rng(2).random(len(rows))
        gmm = best_gmm(rows, 1, weights=weights, regularization=1e-12).gmm
        np.testing.assert_allclose(gmm.means[0], np.average(rows, 0, weights), rtol=1e-7)
        expected = np.cov(rows.T, aweights=weights, ddof=0)
        np.testing.assert_allclose(gmm.covariances[0], expected, rtol=1e-6)

    @pytest.mark.parametrize("criterion", ["heldout", "bic"])
    def test_rows_of_weight_zero_do_not_count(self, criterion):
        rows = clusters()
        extra = np.concatenate([rows, np.full((5, 2), 1e6)])
        weights = np.r_[np.ones(len(rows)), np.zeros(5)]
        found = best_gmm(extra, 3, criterion=criterion, weights=weights)
        expected = best_gmm(rows, 3, criterion=criterion)
        np.testing.assert_array_equal(found.gmm.means, expected.gmm.means)
        assert found.scores == expected.scores

    def test_the_mixture_takes_them(self):
        x = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None]
        y = torch.where(torch.arange(41)[:, None] % 2 == 0, x, -x)
        model = Mixture(Space.of(x=(-1.0, 1.0)), Space.of(y=(-1.0, 1.0)), max_components=1)
        weights = torch.where(torch.arange(41) % 2 == 0, 3.0, 1.0)
        model.fit(x, y, weights=weights)
        line = np.polyfit(x[:, 0].numpy(), y[:, 0].numpy(), 1, w=weights.sqrt().numpy())
        expected = np.polyval(line, [-0.5, 0.8])
        found = model.predict_y(torch.tensor([[-0.5], [0.8]], dtype=torch.float64))[:, 0]
        np.testing.assert_allclose(found, expected, atol=1e-4)

    def test_bad_weights_are_named(self):
        rows = clusters(5)
        with pytest.raises(GenoptError, match=r"weights has shape \(3,\); expected \(15,\)"):
            best_gmm(rows, weights=np.ones(3))
        weights = np.ones(15)
        for bad in (-1.0, math.nan, math.inf):
            weights[4] = bad
            with pytest.raises(GenoptError, match="that of row 4"):
                best_gmm(rows, weights=weights)
        with pytest.raises(GenoptError, match="weights must be numbers"):
            best_gmm(rows, weights=["a"] * 15)
        with pytest.raises(GenoptError, match="0 rows with an entry and a weight"):
            best_gmm(rows, weights=np.zeros(15))


class TestKinds:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("iterations", [1, 7])
    def test_the_steps_are_those_of_scikit_learn(self, kind, iterations):
        rows = (clusters() - clusters().mean(0)) / clusters().std(0)
        first = start(3, 2, 5)
        precisions = {"full": first.covariances, "tied": np.eye(2), "diag": np.ones((3, 2))}[kind]
        oracle = ScikitMixture(
            3,
            covariance_type=kind,
            max_iter=iterations,
            tol=0.0,
            weights_init=first.weights,
            means_init=first.means,
            precisions_init=precisions,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle.fit(rows)
        options = EmOptions(tolerance=1e-300, max_iterations=iterations, covariance=kind)
        for found in (
            expectation_maximization(GappyRows(rows, 3), first, options).components,
            Fitter(rows).fit(3, options, first).components,
        ):
            np.testing.assert_allclose(found.means, oracle.means_, atol=1e-10)
            expected = {
                "full": lambda: oracle.covariances_,
                "tied": lambda: np.stack([oracle.covariances_] * 3),
                "diag": lambda: np.stack([np.diag(c) for c in oracle.covariances_]),
            }[kind]()
            np.testing.assert_allclose(found.covariances, expected, atol=1e-8)

    @settings(max_examples=12, deadline=None)
    @given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS), k=st.integers(1, 3))
    def test_the_likelihood_never_decreases_with_gaps(self, seed, kind, k):
        rows = with_gaps(np.random.default_rng(seed).normal(size=(50, 3)), 0.3, seed)
        options = EmOptions(
            regularization=1e-13, tolerance=1e-300, max_iterations=15, covariance=kind
        )
        fit = expectation_maximization(GappyRows(rows, k), start(k, 3, seed), options)
        assert np.diff(fit.trace).min() > -1e-8

    @pytest.mark.parametrize("share", [0.0, 0.2])
    @pytest.mark.parametrize("kind", ["tied", "diag"])
    def test_the_mixture_has_the_kind_and_conditions_exactly(self, kind, share):
        rows = with_gaps(clusters(), share, 3) * [10.0, 0.1]
        fit = best_gmm(rows, 4, min_components=3, covariance=kind)
        gmm = fit.gmm
        if kind == "tied":
            np.testing.assert_allclose(gmm.covariances, gmm.covariances[[0] * len(gmm.priors)])
            slope = gmm.covariances[0, 1, 0] / gmm.covariances[0, 0, 0]
        else:
            assert not gmm.covariances[:, 0, 1].any()
            slope = 0.0
        query = gmm.means[0, 0] + 1.0
        given_x = gmm.condition([0], [query])
        expected = gmm.means[:, 1] + slope * (query - gmm.means[:, 0])
        np.testing.assert_allclose(given_x.means[:, 0], expected, rtol=1e-9)

    @pytest.mark.parametrize("kind", KINDS)
    def test_scores_count_the_parameters_of_the_kind(self, kind):
        rows = clusters()
        fit = best_gmm(rows, 3, min_components=3, covariance=kind)
        oracle = ScikitMixture(3, covariance_type=kind)
        oracle.weights_, oracle.means_ = fit.gmm.priors, fit.gmm.means
        oracle.covariances_ = np.zeros((3, 2))
        expected = -2.0 * fit.gmm.log_prob(rows).sum()
        expected += oracle._n_parameters() * math.log(len(rows))
        assert fit.scores[3] == pytest.approx(expected, rel=1e-9)

    def test_one_gaussian_with_gaps_is_diagonal(self):
        rng = np.random.default_rng(4)
        rows = rng.normal(size=(200, 1)) + 0.1 * rng.normal(size=(200, 3))
        fit = best_gmm(with_gaps(rows, 0.2, 4), 1, covariance="diag")
        np.testing.assert_allclose(
            fit.gmm.covariances[0], np.diag(np.diagonal(fit.gmm.covariances[0]))
        )

    def test_few_rows_are_better_served_by_fewer_numbers(self):
        rng = np.random.default_rng(5)
        centers = rng.normal(size=(2, 8)) * 4
        data = np.concatenate([center + rng.normal(size=(500, 8)) for center in centers])
        few = data[::50]
        density = {
            kind: best_gmm(few, 2, min_components=2, covariance=kind).gmm.log_prob(data).mean()
            for kind in KINDS
        }
        assert density["diag"] > density["tied"] > density["full"]

    def test_the_kind_survives_saving_and_has_a_name(self, tmp_path):
        spaces = Space.of(x=(-50.0, 50.0)), Space.of(y=(-50.0, 50.0))
        model = Mixture(*spaces, covariance="tied", max_components=3)
        rows = torch.from_numpy(clusters())
        model.fit(rows[:, :1], rows[:, 1:])
        again = Mixture.load(model.save(tmp_path / "mixture.pt"))
        again.fit(rows[:, :1], rows[:, 1:])
        np.testing.assert_array_equal(again.gmm.covariances, model.gmm.covariances)
        with pytest.raises(UnknownNameError, match="covariance"):
            Mixture(*spaces, covariance="spherical")
        with pytest.raises(UnknownNameError, match="covariance"):
            best_gmm(clusters(), covariance="spherical")


class TestSweep:
    @pytest.mark.parametrize("criterion", ["bic", "aic", "heldout"])
    def test_it_stops_when_larger_numbers_do_not_help(self, criterion):
        fit = best_gmm(clusters(), 12, criterion=criterion, patience=2)
        assert fit.n_components == 3
        assert list(fit.scores) == [1, 2, 3, 4, 5]

    def test_without_patience_all_numbers_are_tried(self):
        assert list(best_gmm(clusters(), 12, patience=None).scores) == list(range(1, 13))
        with pytest.raises(GenoptError, match="patience=0 must be at least 1"):
            best_gmm(clusters(), patience=0)

    def test_the_bar_says_what_was_found(self, capsys):
        best_gmm(clusters(), 4, progress=True)
        shown = capsys.readouterr().out
        assert "4/4" in shown
        assert "with 3" in shown
        best_gmm(clusters(), 2)
        assert not capsys.readouterr().out


class TestGoingOn:
    def test_the_exact_end_is_where_it_stays(self):
        rows = clusters()
        fit = best_gmm(rows, 3, min_components=3, tolerance=1e-10)
        again = best_gmm(rows, start=fit.gmm)
        assert again.n_components == 3
        assert again.scores == {}
        np.testing.assert_allclose(again.gmm.means, fit.gmm.means, atol=1e-4)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("share", [0.0, 0.2])
    def test_it_is_never_less_likely_than_its_start(self, kind, share):
        rows = with_gaps(clusters(), share, 6)
        first = GaussianMixture(2, [0.5, 0.5], [[1.0, 1.0], [5.0, 5.0]], [20 * np.eye(2)] * 2)
        columns = Components(first.priors, first.means, first.covariances)
        later = best_gmm(rows, start=first, covariance=kind).gmm
        found = Components(later.priors, later.means, later.covariances)
        density = [GappyRows(rows, 2).log_prob(each).sum() for each in (columns, found)]
        assert density[1] > density[0]

    def test_a_mixture_follows_new_rows(self):
        rng = np.random.default_rng(8)
        centers = np.repeat([[0.0, 0.0], [12.0, 0.0], [0.0, 12.0]], 60, axis=0)
        rows = torch.from_numpy(centers + rng.normal(size=(180, 2)))
        spaces = Space.of(x=(-50.0, 50.0)), Space.of(y=(-50.0, 50.0))
        model = Mixture(*spaces, max_components=5).fit(rows[:, :1], rows[:, 1:])
        before = model.gmm.means
        moved = rows + torch.tensor([0.1, 0.2], dtype=torch.float64)
        model.fit(moved[:, :1], moved[:, 1:], warm_start=True)
        np.testing.assert_allclose(model.gmm.means - before, [[0.1, 0.2]] * 3, atol=0.01)
        fresh = Mixture(*spaces)
        with pytest.raises(GenoptError, match="has not been fitted"):
            fresh.fit(rows[:, :1], rows[:, 1:], warm_start=True)

    def test_linear_columns_stay_exact(self):
        rng = np.random.default_rng(7)
        rows = rng.normal(size=(100, 2))
        rows = np.column_stack([rows, rows[:, 0] - rows[:, 1]])
        fit = best_gmm(rows[:60], 2, min_components=2)
        gmm = best_gmm(rows, start=fit.gmm).gmm
        np.testing.assert_allclose(gmm.predict([0, 1], rows[:, :2])[:, 0], rows[:, 2], atol=1e-9)

    @pytest.mark.parametrize("share", [0.0, 0.2])
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_component_without_weight_stays_dead(self, kind, share):
        rows = with_gaps(clusters(), share, 9)
        first = GaussianMixture(2, [1.0, 0.0], [[1.0, 1.0], [5.0, 5.0]], [20 * np.eye(2)] * 2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gmm = best_gmm(rows, start=first, covariance=kind).gmm
        assert gmm.priors[1] == 0.0
        assert np.isfinite(gmm.means).all()
        assert np.isfinite(gmm.covariances).all()

    def test_another_table_is_refused(self):
        fit = best_gmm(clusters(), 2)
        with pytest.raises(GenoptError, match="start has 2 columns; data has 1"):
            best_gmm(clusters()[:, 0], start=fit.gmm)
