"""The last start of EM, EM side by side, and what held-out rows say."""

import numpy as np
import pytest
from scipy.stats import norm

from genopt.errors import GenoptError
from genopt.models.mixture import best_gmm
from genopt.models.mixture.averaging import other_starts
from genopt.models.mixture.em import Components, EmOptions
from genopt.models.mixture.ending import last_start, prediction_errors
from genopt.models.mixture.fitting import Fitter
from genopt.models.mixture.observed import squared_error


def correlated(n=600, seed=0, correlation=0.8):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    return np.column_stack([a, correlation * a + np.sqrt(1 - correlation**2) * rng.normal(size=n)])


def heaps(n=300, seed=0):
    rng = np.random.default_rng(seed)
    centers = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    rows = np.repeat(centers, n // 3, axis=0) + rng.normal(size=(n, 2))
    return (rows - rows.mean(0)) / rows.std(0)


class TestErrors:
    def test_an_entry_is_predicted_by_the_others(self):
        rows = correlated()
        rows[5] = [np.nan, 2.0]
        rows[6] = [1.0, np.nan]
        one = Components(np.ones(1), np.zeros((1, 2)), np.array([[[1.0, 0.8], [0.8, 1.0]]]))
        found = squared_error(rows, one, 1)
        expected = (rows[:, 1] - 0.8 * rows[:, 0]) ** 2
        # with nothing else known the mean is the guess
        expected[5] = 4.0
        np.testing.assert_allclose(found, expected)

    def test_errors_are_those_of_the_conditional_law(self):
        rows = correlated(6000)
        fitter = Fitter(rows)
        start = fitter.fit(1, EmOptions()).components
        (found,) = prediction_errors(fitter, [start], EmOptions())
        assert found == pytest.approx(np.log(np.sqrt(1 - 0.8**2)), abs=0.03)

    def test_a_bad_start_gives_way_to_clusters_and_a_good_one_stays(self):
        x = np.linspace(-1.7, 1.7, 120)
        y = x**2 + 0.02 * np.random.default_rng(0).normal(size=120)
        rows = np.column_stack([x, (y - y.mean()) / y.std()])
        fitter, options = Fitter(rows), EmOptions(tolerance=1e-3, max_iterations=3)
        good = fitter.fit(3, EmOptions()).components
        # one component for all rows, two where there are none
        wide = Components(
            np.array([0.98, 0.01, 0.01]),
            np.array([[0.0, 0.0], [9.0, 9.0], [9.0, -9.0]]),
            np.stack([np.eye(2), 1e-2 * np.eye(2), 1e-2 * np.eye(2)]),
        )
        assert last_start(fitter, good, options) is good
        better = last_start(fitter, wide, options)
        # each has a part of the curve
        assert (np.diff(np.sort(better.means[:, 0])) > 0.5).all()
        assert (better.weights > 0.2).all()

    def test_held_out_densities_are_those_of_the_rows(self):
        rows = np.random.default_rng(0).normal(3.0, 2.0, 3000)
        fit = best_gmm(rows, 1, criterion="heldout")
        middle = np.abs(rows - 3.0) < 3.0
        expected = norm(3.0, 2.0).logpdf(rows)
        np.testing.assert_allclose(fit.held_out[middle], expected[middle], atol=0.15)
        assert -fit.held_out.mean() == pytest.approx(fit.scores[1])
        assert best_gmm(rows, 1).held_out is None


class TestSideBySide:
    @pytest.mark.parametrize(
        "options",
        [
            {"criterion": "heldout"},
            {"criterion": "bic", "members": 3},
            {"criterion": "aic", "n_init": 3},
            {"criterion": "heldout", "covariance": "factors", "n_factors": 1, "members": 2},
        ],
    )
    @pytest.mark.parametrize("gappy", [False, True])
    def test_the_result_is_the_same(self, options, gappy):
        rows = heaps(120)
        if gappy:
            rows[np.random.default_rng(0).random(rows.shape) < 0.2] = np.nan
            rows[0] = 0.0
            rows = rows[np.isfinite(rows).any(1)]
        one, more = (best_gmm(rows, 4, n_jobs=n, **options) for n in (1, 3))
        assert one.scores == more.scores
        np.testing.assert_array_equal(one.gmm.priors, more.gmm.priors)
        np.testing.assert_array_equal(one.gmm.means, more.gmm.means)
        np.testing.assert_array_equal(one.gmm.covariances, more.gmm.covariances)

    def test_an_error_in_one_of_them_comes_out(self):
        def score(*_):
            raise GenoptError("no score")

        with pytest.raises(GenoptError, match="no score"):
            best_gmm(heaps(60), 3, criterion="heldout", score=score, n_jobs=2)
        with pytest.raises(GenoptError, match="n_jobs=0"):
            best_gmm(heaps(60), n_jobs=0)

    def test_threads_of_the_process_are_left_as_they_were(self):
        from threadpoolctl import threadpool_info

        before = [(each["filepath"], each["num_threads"]) for each in threadpool_info()]
        best_gmm(heaps(60), 3, criterion="heldout", n_jobs=3)
        after = [(each["filepath"], each["num_threads"]) for each in threadpool_info()]
        assert after[: len(before)] == before


class TestMembers:
    def test_large_tables_give_halves_and_small_ones_all_rows(self):
        large, small = heaps(3000), heaps(60)
        of_large, of_small = (
            other_starts(Fitter(rows), 3, EmOptions(), 2)[0] for rows in (large, small)
        )
        whole = Fitter(small).from_clusters(3, EmOptions(seed=1)).components
        np.testing.assert_array_equal(of_small.means, whole.means)
        # means of 1,500 rows, so not those of all
        everything = Fitter(large).from_clusters(3, EmOptions(seed=1)).components
        near = np.linalg.norm(of_large.means[:, None] - everything.means, axis=-1).min(1)
        assert (near > 1e-4).all()
        assert (near < 0.15).all()
