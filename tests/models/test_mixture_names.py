"""Columns by name: the same answers as by number, carried along, and one clear line when wrong."""

import gmr
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.mixture import GaussianMixture as ScikitMixture

from genopt import GaussianMixture, GenoptError, best_gmm
from genopt.errors import UnknownNameError
from genopt.models.mixture.conditioning import LOWEST

NAMES = ("density", "cost", "phase x", "T")


def make(names=NAMES, seed=0, k=3, p=4):
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(k, p, p))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(p)
    means = rng.normal(size=(k, p))
    return GaussianMixture(
        k, rng.dirichlet(np.ones(k)), means, covariances, random_state=0, names=names
    )


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(400, 3)), columns=["a", "b", "c"])
    frame["b"] += 2.0 * frame["a"]
    return frame


class TestSameAnswers:
    """gmr, which knows no names, and our own numbers are the oracle."""

    def test_condition_and_predict(self):
        named, plain = make(), make(names=None)
        theirs = gmr.GMM(3, plain.priors, plain.means, plain.covariances)
        points = np.random.default_rng(1).normal(size=(5, 2))
        np.testing.assert_allclose(
            named.predict(["T", "cost"], points), theirs.predict([3, 1], points), atol=1e-10
        )
        ours = named.condition(["T", "cost"], points[0])
        expected = theirs.condition([3, 1], points[:1])
        np.testing.assert_allclose(ours.means, expected.means, atol=1e-10)
        np.testing.assert_allclose(ours.covariances, expected.covariances, atol=1e-10)
        assert ours.names == ("density", "phase x")
        mixed = named.condition(["T", 1], points[0])
        np.testing.assert_array_equal(mixed.means, ours.means)

    def test_one_name_is_one_column(self):
        named = make()
        by_number = named.condition_batch([0], [[0.1], [0.2]])
        for column in ("density", ["density"], 0, -4, np.array("density"), pd.Index(["density"])):
            batch = named.condition_batch(column, [[0.1], [0.2]])
            np.testing.assert_array_equal(batch.means, by_number.means)

    def test_marginals_regions_and_single_columns(self):
        named = make()
        kept = named.marginal(["T", "density"])
        assert kept.names == ("T", "density")
        np.testing.assert_array_equal(kept.means, named.means[:, [3, 0]])
        region = named.condition_region("cost", [0.0], [1.0], given=["T"], X=[[0.3]])
        expected = named.condition_region([1], [0.0], [1.0], given=[3], X=[[0.3]])
        np.testing.assert_array_equal(region.log_weights, expected.log_weights)
        batch = named.condition_batch(["cost"], [[0.5], [1.5]])
        assert batch.names == ("density", "phase x", "T")
        np.testing.assert_array_equal(batch.quantile([0.1], "T"), batch.quantile([0.1], 2))
        np.testing.assert_array_equal(batch.cdf([0.1], "phase x"), batch.cdf([0.1], 1))
        assert batch.component(1).names == batch.names
        assert batch.take([0]).names == batch.names

    def test_the_torch_form(self):
        named = make()
        wanted = named.to_torch().condition(["cost", "T"], torch.tensor([0.2, 0.4]).double())
        expected = named.condition([1, 3], [0.2, 0.4])
        assert wanted.names == ("density", "phase x")
        np.testing.assert_allclose(
            wanted.mean.numpy(), expected.priors @ expected.means, atol=1e-10
        )
        with pytest.raises(UnknownNameError, match="did you mean 'cost'"):
            named.to_torch().condition("csot", torch.zeros(1))


class TestCarriedAlong:
    def test_from_other_libraries(self, table):
        plain = make(names=None)
        assert GaussianMixture.from_gmr(plain).names is None
        assert GaussianMixture.from_gmr(plain, names=NAMES).names == NAMES
        assert GaussianMixture.from_gmr(make()).names == NAMES
        for kind in ("full", "tied", "diag", "spherical"):
            theirs = ScikitMixture(2, covariance_type=kind, random_state=0).fit(table)
            ours = GaussianMixture.from_sklearn(theirs)
            assert ours.names == ("a", "b", "c")
            # bic and aic count what the kind of covariance leaves free
            assert ours.bic(table) == pytest.approx(theirs.bic(table))
            assert ours.aic(table) == pytest.approx(theirs.aic(table))

    @pytest.mark.parametrize("kind", ["full", "tied", "diag"])
    def test_a_fit_knows_its_columns_and_its_parameters(self, table, kind):
        fit = best_gmm(table, 2, min_components=2, covariance=kind)
        assert fit.gmm.names == ("a", "b", "c")
        assert "of a, b, c" in repr(fit.gmm)
        assert fit.gmm.bic(table) == pytest.approx(fit.scores[2])
        theirs = ScikitMixture(2, covariance_type=kind).fit(table)
        # a criterion's penalty: twice the number of parameters
        ours = fit.gmm.aic(table) + 2 * fit.gmm.log_prob(table).sum()
        assert ours == pytest.approx(theirs.aic(table) + 2 * theirs.score(table) * len(table))
        other = best_gmm(table.to_numpy(), 1, names=["x", "y", "z"])
        assert other.gmm.names == ("x", "y", "z")
        assert best_gmm(table.to_numpy(), 1).gmm.names is None

    def test_another_fit_by_gmr_counts_anew(self, table):
        gmm = best_gmm(table, 2, min_components=2, covariance="diag").gmm
        assert gmm.n_parameters == 2 * (3 + 3) + 1
        gmm.from_samples(table.to_numpy(), n_iter=5)
        assert gmm.n_parameters == 2 * (3 + 6) + 1

    def test_repr(self):
        assert repr(make(names=None)) == "GaussianMixture(3 components of 4 columns)"
        assert repr(GaussianMixture(1)) == "GaussianMixture(1 component of ?)"
        assert repr(make().condition(["cost", "T"], [0.0, 0.0])) == (
            "GaussianMixture(3 components of density, phase x)"
        )


class TestWrong:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda g: g.condition("densty", [1.0]), "did you mean 'density'"),
            (
                lambda g: g.predict(["cost", "cost"], [[1.0, 1.0]]),
                "cost, cost. name",
            ),
            (lambda g: g.predict(["cost", 1], [[1.0, 1.0]]), "name a column twice"),
            (lambda g: g.condition([9], [1.0]), r"between 0 and 3 \(density, cost, phase x, T\)"),
            (lambda g: g.condition([1.5], [1.0]), "numbers or names of columns, got 1.5"),
            (lambda g: g.condition([True], [1.0]), "got True"),
            (lambda g: g.condition([None], [1.0]), "got None"),
            (lambda g: g.condition([np.nan], [1.0]), "got nan"),
            (lambda g: g.marginal("x"), "unknown column 'x'"),
            (lambda g: g.condition_region("cost", [0], [1], given="cost", X=[[0]]), "twice"),
            (lambda g: g.condition_region("cost", [0], [1], given="q", X=[[0]]), "unknown column"),
            (lambda g: g.condition_batch("T", [[0.0]]).quantile([0.5], "T"), "unknown column 'T'"),
            (lambda g: g.condition_batch("T", [[0.0]]).cdf([0.5], 3), "between 0 and 2"),
            (lambda g: g.condition(["T", "cost"], [1.0]), r"expected \(2,\)"),
            (lambda g: GaussianMixture.from_gmr(g, names=["a"]), "1 entries"),
            (lambda g: GaussianMixture.from_gmr(g, names=["a", "b", "c", "a"]), "more than once"),
            (lambda g: GaussianMixture.from_gmr(g, names="abcd"), "list with one name a column"),
            (lambda _: make(names=None).condition("a", [1]), "no names"),
        ],
    )
    def test_one_line_says_what_is_wrong(self, call, message):
        with pytest.raises(GenoptError, match=message):
            call(make())

    def test_names_that_do_not_fit_stop_a_fit_before_it_starts(self, table):
        with pytest.raises(GenoptError, match="names has 2 entries; the mixture has 3 columns"):
            best_gmm(table.to_numpy(), 2, names=["a", "b"])


class TestHostile:
    def test_far_queries_by_name_are_finite_and_flagged(self):
        batch = make().condition_batch(["cost"], [[1e155], [-1e308], [0.0]])
        assert batch.far.tolist() == [True, True, False]
        for value in (batch.mean(), batch.weights, batch.covariance(), batch.quantile(0.5, "T")):
            assert np.isfinite(value).all()
        assert batch.log_marginal[0] == LOWEST

    def test_a_dead_component_stays_dead(self):
        eye = np.eye(2)
        gmm = GaussianMixture(
            2, [0.0, 1.0], [[1000.0, 0.0], [0.0, 0.0]], [eye, eye], names=["a", "b"]
        )
        assert gmm.condition("a", [1000.0]).priors.tolist() == [0.0, 1.0]

    def test_near_singular_and_equal_columns(self):
        one = np.ones((2, 2))
        gmm = GaussianMixture(1, [1.0], [[0.0, 0.0]], [one], names=["a", "b"])
        with pytest.warns(RuntimeWarning, match="near singular"):
            conditional = gmm.condition("a", [2.0])
        assert conditional.means[0, 0] == pytest.approx(2.0, abs=1e-6)
        assert 0 < conditional.covariances[0, 0, 0] < 1e-6
