"""Covariances with factors: their likelihood, their size, what they find and what they lose."""

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.decomposition import FactorAnalysis

from genopt.errors import GenoptError, UnknownNameError
from genopt.models.mixture import GaussianMixture, Mixture, best_gmm
from genopt.models.mixture.covariances import constrained, n_parameters
from genopt.models.mixture.em import Components, EmOptions
from genopt.models.mixture.factors import largest_rank, n_factor_parameters
from genopt.models.mixture.fitting import Fitter
from genopt.models.mixture.kinds import advantage, chosen_covariance
from genopt.models.mixture.reconstruction import reconstructed, reconstruction_error
from genopt.space import Space, Variable


def truth(d, rank, seed=0):
    """Loadings and noise of one Gaussian."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(d, rank)) / math.sqrt(rank), rng.uniform(0.05, 0.3, d)


def rows_of(loadings, noise, n, seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, loadings.shape[1]))
    return latent @ loadings.T + rng.normal(size=(n, len(noise))) * np.sqrt(noise)


def with_gaps(rows, share, seed):
    rng = np.random.default_rng(seed)
    gaps = rng.random(rows.shape) < share
    gaps[np.arange(len(rows)), rng.integers(0, rows.shape[1], len(rows))] = False
    return np.where(gaps, np.nan, rows)


class TestOneCovariance:
    def test_it_is_as_likely_as_factor_analysis_finds(self):
        rows = rows_of(*truth(12, 3), 200)
        scaled = (rows - rows.mean(0)) / rows.std(0)
        other = FactorAnalysis(3, tol=1e-10, max_iter=5000, svd_method="lapack").fit(scaled)
        options = EmOptions(
            covariance="factors", n_factors=3, regularization=1e-12, tolerance=1e-12
        )
        fitted = Fitter(scaled).fit(1, options)
        assert fitted.log_likelihood / 200 == pytest.approx(other.score(scaled), abs=1e-6)
        found = fitted.components.covariances[0]
        np.testing.assert_allclose(found, other.get_covariance(), atol=2e-3)

    def test_every_step_is_likelier_than_the_last(self):
        rows = rows_of(*truth(9, 4), 25, seed=3)
        moments = np.cov(rows.T)[None]

        def likelihood(covariance):
            return -np.linalg.slogdet(covariance)[1] - np.trace(
                np.linalg.solve(covariance, moments[0])
            )

        noise = np.full((1, 9), 0.3)
        values = []
        for _ in range(40):
            covariances, loadings = constrained(
                moments, np.ones(1), "factors", 2, noise, smallest=1e-9
            )
            noise = np.diagonal(covariances, axis1=1, axis2=2) - (loadings**2).sum(-1)
            values.append(likelihood(covariances[0]))
        assert np.diff(values).min() > -1e-9
        assert np.diff(values).max() > 1e-3

    @pytest.mark.parametrize(("d", "rank"), [(5, 1), (6, 2), (7, 3), (9, 4)])
    def test_its_numbers_are_counted(self, d, rank):
        # how many directions the covariances move in when loadings and noise move
        loadings = truth(d, rank, seed=d)[0]
        upper = np.triu_indices(d)
        columns = []
        for i in range(d):
            for j in range(rank):
                step = np.zeros((d, rank))
                step[i, j] = 1.0
                columns.append((step @ loadings.T + loadings @ step.T)[upper])
            columns.append(np.diag(np.eye(d)[i])[upper])
        assert np.linalg.matrix_rank(np.array(columns)) == n_factor_parameters(d, rank)
        assert n_parameters(3, d, "factors", rank) == 3 * n_factor_parameters(d, rank) + 3 * d + 2

    def test_no_rank_needs_more_numbers_than_a_full_covariance(self):
        for d in range(2, 40):
            full = d * (d + 1) // 2
            fitting = [r for r in range(1, d) if d * r - r * (r - 1) // 2 + d <= full]
            assert largest_rank(d) == max(fitting, default=1)
            assert n_factor_parameters(d, d) == full


class TestFit:
    @settings(max_examples=12, deadline=None)
    @given(seed=st.integers(0, 10**6), k=st.integers(1, 3), rank=st.integers(1, 3))
    def test_the_likelihood_never_decreases(self, seed, k, rank):
        rng = np.random.default_rng(seed)
        rows = with_gaps(rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)), 0.3, seed)
        rows = (rows - np.nanmean(rows, 0)) / np.nanstd(rows, 0)
        options = EmOptions(
            covariance="factors",
            n_factors=rank,
            regularization=1e-9,
            tolerance=1e-300,
            max_iterations=15,
        )
        fitted = Fitter(rows, rng.integers(1, 4, 60).astype(float)).fit(k, options)
        assert np.diff(fitted.trace).min() > -1e-6
        left = fitted.components.covariances - (
            fitted.components.loadings @ fitted.components.loadings.transpose(0, 2, 1)
        )
        np.testing.assert_allclose(left * (1 - np.eye(5)), 0.0, atol=1e-9)

    def test_a_component_without_weight_stays(self):
        rows = rows_of(*truth(5, 1), 80)
        dead = Components(
            np.array([1.0, 0.0]), np.array([[0.0] * 5, [9.0] * 5]), np.stack([np.eye(5)] * 2)
        )
        options = EmOptions(covariance="factors", n_factors=1, max_iterations=20)
        found = Fitter(rows).fit(2, options, dead).components
        assert found.weights[1] == 0.0
        np.testing.assert_array_equal(found.means[1], 9.0)
        assert np.isfinite(found.covariances).all()

    def test_few_rows_give_a_better_covariance_than_without_factors(self):
        loadings, noise = truth(30, 3)
        exact = loadings @ loadings.T + np.diag(noise)
        rows = with_gaps(rows_of(loadings, noise, 80), 0.2, 1)
        errors = {}
        for kind, rank in (("full", None), ("factors", 3)):
            fit = best_gmm(rows, 1, covariance=kind, n_factors=rank, max_iterations=30)
            # Kullback-Leibler divergence of the truth, which has mean zero
            ratio = np.linalg.solve(fit.gmm.covariances[0], exact)
            away = fit.gmm.means[0] @ np.linalg.solve(fit.gmm.covariances[0], fit.gmm.means[0])
            errors[kind] = 0.5 * (np.trace(ratio) - 30 - np.linalg.slogdet(ratio)[1] + away)
        assert errors["factors"] < 0.3 * errors["full"]

    def test_units_do_not_matter(self):
        rows = rows_of(*truth(6, 2), 120)
        unit = np.array([1e-5, 1.0, 1e4, 1.0, 3.0, 1e-2])
        one = best_gmm(rows, 2, min_components=2, covariance="factors", n_factors=2)
        two = best_gmm(rows * unit, 2, min_components=2, covariance="factors", n_factors=2)
        np.testing.assert_allclose(two.loadings, one.loadings * unit[:, None], rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(two.reconstruction_error, one.reconstruction_error, rtol=1e-6)
        predicted = [one.gmm.predict([0, 1], rows[:5, :2])]
        predicted.append(two.gmm.predict([0, 1], rows[:5, :2] * unit[:2]) / unit[2:])
        np.testing.assert_allclose(predicted[1], predicted[0], rtol=1e-6)

    def test_exact_linear_columns_stay_exact(self):
        rows = rows_of(*truth(5, 2), 150)
        rows = np.column_stack([rows, rows @ [1.0, -2.0, 0.0, 0.5, 1.0] + 3.0])
        fit = best_gmm(rows, 2, covariance="factors", n_factors=2)
        np.testing.assert_allclose(
            fit.gmm.predict(range(5), rows[:, :5])[:, 0], rows[:, 5], atol=1e-6
        )
        # what the factors say of the sum follows from what they say of its parts
        whole = reconstructed(fit.gmm, fit.loadings, rows)
        np.testing.assert_allclose(
            whole[:, :5] @ [1.0, -2.0, 0.0, 0.5, 1.0] + 3.0, whole[:, 5], atol=1e-5
        )

    def test_going_on_keeps_the_number_of_factors(self):
        rows = rows_of(*truth(6, 2), 100)
        fit = best_gmm(rows, 1, covariance="factors", n_factors=2)
        again = best_gmm(rows, covariance="factors", n_factors=2, start=fit.gmm)
        assert again.n_factors == 2
        gap = again.gmm.log_prob(rows).mean() - fit.gmm.log_prob(rows).mean()
        assert abs(gap) < 1e-3
        with pytest.raises(GenoptError, match="name the kind"):
            best_gmm(rows, covariance="auto", start=fit.gmm)


class TestChoice:
    def test_the_kind_that_the_table_has(self):
        wide = rows_of(*truth(14, 2), 70)
        fit = best_gmm(wide, 2, covariance="auto")
        assert (fit.covariance, fit.n_factors) == ("factors", 2)
        assert min(fit.scores, key=fit.scores.get) == fit.n_components
        rng = np.random.default_rng(0)
        tangled = rng.normal(size=(900, 12)) @ rng.normal(size=(12, 12))
        fit = best_gmm(tangled, 1, covariance="auto")
        assert (fit.covariance, fit.n_factors) == ("full", None)

    def test_a_narrow_table_has_full_covariances(self):
        rows = rows_of(*truth(10, 1), 40)
        assert best_gmm(rows, 1, covariance="auto").covariance == "full"

    def test_more_factors_until_the_score_rises(self):
        asked = []

        class Found:
            def __init__(self, kind, rank, most):
                asked.append((kind, rank, most))
                self.n_components, self.held_out = 3, None
                self.scores = {3: abs((rank or 30) - 8)}

        best = chosen_covariance(Found, "auto", 60, 1, 20, np.ones(5))
        assert best.scores[3] == 0
        assert asked == [
            ("full", None, 20),
            ("factors", 2, 8),
            ("factors", 4, 5),
            ("factors", 8, 5),
            ("factors", 16, 5),
        ]

    def test_a_few_lost_rows_do_not_choose_the_kind(self):
        """Nine rows in ten are one nat likelier under one kind, the tenth is lost under both."""

        class Found:
            n_components = 1

            def __init__(self, log_density):
                self.held_out = np.array(log_density)
                self.scores = {1: -self.held_out.mean()}

        usual = Found([-1.0] * 9 + [-1e6])
        other = Found([-2.0] * 9 + [-1e5])
        assert usual.scores[1] > other.scores[1]
        even, heavy = np.ones(10), np.repeat([1.0, 3.0], [9, 1])
        assert advantage(usual, other, even) == -advantage(other, usual, even) < 0.0
        twice = Found([*usual.held_out] * 2), Found([*other.held_out] * 2)
        assert advantage(*twice, np.ones(20)) == pytest.approx(advantage(usual, other, even))
        # a weight of three is the row three times
        rows = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9]
        repeated = Found(usual.held_out[rows]), Found(other.held_out[rows])
        found = advantage(usual, other, heavy)
        assert found == pytest.approx(advantage(*repeated, np.ones(12)))
        fewer = Found([-1.0] * 19 + [-1e6]), Found([-2.0] * 19 + [-1e5])
        assert advantage(*fewer, np.ones(20)) > 0.0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"covariance": "factors", "n_factors": 0}, "at least 1"),
            ({"covariance": "factors", "n_factors": 6}, "less than the number of columns, 6"),
            ({"n_factors": 2}, "needs covariance='factors'"),
        ],
    )
    def test_what_cannot_be_is_refused(self, options, message):
        with pytest.raises(GenoptError, match=message):
            best_gmm(rows_of(*truth(6, 2), 40), **options)

    def test_an_unknown_kind_is_named(self):
        with pytest.raises(UnknownNameError, match="factors"):
            best_gmm(rows_of(*truth(6, 2), 40), covariance="factor")


class TestReconstruction:
    def test_the_error_is_that_of_the_exact_formula(self):
        loadings, noise = truth(8, 2)
        covariance = loadings @ loadings.T + np.diag(noise)
        gmm = GaussianMixture(1, [1.0], np.zeros((1, 8)), covariance[None])
        found = reconstruction_error(gmm, loadings[None], rows_of(loadings, noise, 40_000))
        # x - E[W z | x] is noise times the precision times x
        left = np.diag(noise) @ np.linalg.solve(covariance, np.diag(noise))
        np.testing.assert_allclose(found, np.diag(left) / np.diag(covariance), rtol=0.05)

    def test_rows_with_gaps_are_rebuilt_from_what_they_have(self):
        parts = [truth(4, 1, seed) for seed in (0, 1)]
        means = np.array([[0.0] * 4, [2.0] * 4])
        covariances = np.stack([w @ w.T + np.diag(s) for w, s in parts])
        gmm = GaussianMixture(2, [0.3, 0.7], means, covariances)
        loadings = np.stack([w for w, _ in parts])
        rows = with_gaps(rows_of(*parts[0], 12) + 1.0, 0.4, 0)
        found = reconstructed(gmm, loadings, rows)
        for row, rebuilt in zip(rows, found, strict=True):
            seen = np.isfinite(row)
            shares, guesses = [], []
            for prior, mean, covariance, (w, _) in zip(
                gmm.priors, means, covariances, parts, strict=True
            ):
                block = covariance[np.ix_(seen, seen)]
                shares.append(prior * multivariate_normal(mean[seen], block).pdf(row[seen]))
                latent = w[seen].T @ np.linalg.inv(block) @ (row[seen] - mean[seen])
                guesses.append(mean + w @ latent)
            np.testing.assert_allclose(rebuilt, np.average(guesses, 0, shares), atol=1e-9)

    def test_other_columns_are_refused(self):
        gmm = GaussianMixture(1, [1.0], np.zeros((1, 3)), np.eye(3)[None])
        with pytest.raises(GenoptError, match=r"expected \(N, 3\)"):
            reconstructed(gmm, np.zeros((1, 3, 1)), np.zeros((5, 2)))


class TestMixture:
    def model(self, **options):
        x_space = Space(
            (
                *(Variable(f"x{i}", -9, 9) for i in range(8)),
                Variable("c", labels=("u", "v", "w"), kind="categorical"),
            )
        )
        loadings, noise = truth(11, 2, seed=4)
        rows = torch.from_numpy(rows_of(loadings, noise, 150))
        codes = (rows[:, 0] > 0.5).double() + (rows[:, 0] > -0.5).double()
        x = torch.cat([rows[:, :8], codes[:, None]], 1)
        y = rows[:, 8:].clone()
        y[::3, 1] = math.nan
        model = Mixture(x_space, Space.of(a=(-9, 9), b=(-9, 9), d=(-9, 9)), **options)
        return model, x, y

    def test_classes_and_gaps_are_learned_with_factors(self, caplog, tmp_path):
        model, x, y = self.model(covariance="factors", n_factors=3, max_components=2, folds=2)
        with caplog.at_level(logging.INFO, "genopt"):
            model.fit(x, y)
        assert "3 factor(s) lose" in caplog.text
        predicted = model.predict_y(x)
        seen = torch.isfinite(y[:, 1])
        assert ((predicted[:, 1] - y[:, 1])[seen] ** 2).mean() < 0.5 * y[seen, 1].var()
        assert model.sample(y[:1], 20).shape == (1, 20, 9)
        lost = model.reconstruction_error()
        assert list(lost) == model.columns.fitted_names
        assert all(0.0 <= share < 1.0 for share in lost.values())
        other = model.reconstruction_error(x[:40], y[:40])
        assert other.keys() == lost.keys()
        loaded = Mixture.load(model.save(tmp_path / "m.ckpt"))
        assert loaded.reconstruction_error() == pytest.approx(lost)
        assert loaded.selection.n_factors == 3
        assert loaded.fit(x, y, warm_start=True).selection.n_factors == 3

    @pytest.mark.parametrize(("n", "said"), [(150, True), (1500, False)])
    def test_few_rows_of_a_wide_table_are_said(self, n, said, caplog):
        rows = torch.from_numpy(rows_of(*truth(12, 2), n))
        names = {f"c{i}": (-9, 9) for i in range(10)}
        model = Mixture(Space.of(**names), Space.of(a=(-9, 9), b=(-9, 9)), max_components=1)
        with caplog.at_level(logging.INFO, "genopt"):
            model.fit(rows[:, :10], rows[:, 10:])
        assert ("covariance=auto" in caplog.text) == said

    def test_without_factors_nothing_is_lost(self):
        model, x, y = self.model(covariance="diag", max_components=1, folds=2)
        assert model.fit(x, y).reconstruction_error() == {}
