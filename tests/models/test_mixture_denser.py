"""Rows between rows: splines against the functions they come from, designs against their law."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RBFInterpolator
from scipy.stats import kstest

from genopt.errors import GenoptError
from genopt.models.mixture import Mixture
from genopt.models.mixture.denser import denser_rows
from genopt.models.mixture.interpolation import SPLINES, Spline, interpolated, left_out_errors
from genopt.models.mixture.rows import UsableRows
from genopt.space import Space, Variable


def scattered(n, dim, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (n, dim))


def usable(x, y):
    return UsableRows(torch.from_numpy(x), torch.from_numpy(y), tuple(range(y.shape[1])))


class TestInterpolation:
    # scipy has no seventh power
    @pytest.mark.parametrize("spline", [s for s in SPLINES if s.power < 7])
    def test_a_spline_of_all_rows_is_that_of_scipy(self, spline):
        kernel = {3: "cubic", 5: "quintic"}[spline.power]
        x = scattered(spline.neighbours(2), 2)
        y = np.column_stack([np.sin(3 * x[:, 0]) * x[:, 1], x[:, 0] ** 3])
        new = scattered(40, 2, 1)
        expected = RBFInterpolator(x, y, kernel=kernel, degree=spline.degree)(new)
        np.testing.assert_allclose(interpolated(x, y, new, spline), expected, atol=1e-8)

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 3), st.sampled_from(SPLINES), st.integers(0, 99))
    def test_polynomials_of_its_degree_are_exact(self, dim, spline, seed):
        x, new = scattered(90, dim, seed), scattered(50, dim, seed + 1)
        weights = np.random.default_rng(seed).normal(size=(dim, 1))

        def polynomial(points):
            return (1.0 + points @ weights) ** spline.degree

        found = interpolated(x, polynomial(x), 0.8 * new, spline)
        np.testing.assert_allclose(found, polynomial(0.8 * new), atol=1e-6)

    def test_many_neighbourhoods_in_blocks_and_the_rows_themselves(self):
        x = scattered(3000, 2)
        y = np.exp(-x[:, :1]) * np.cos(4 * x[:, 1:])
        np.testing.assert_allclose(interpolated(x, y, x, SPLINES[2]), y, atol=1e-9)
        new = 0.95 * scattered(2000, 2, 1)
        truth = np.exp(-new[:, :1]) * np.cos(4 * new[:, 1:])
        missed = np.abs(interpolated(x, y, new, SPLINES[2]) - truth)
        assert np.median(missed) < 1e-5
        assert missed.max() < 1e-3

    def test_left_out_rows_tell_noise_from_none(self):
        x = scattered(300, 1)
        clean = np.sin(4 * x)
        noisy = clean + 0.3 * np.random.default_rng(1).normal(size=x.shape)
        assert np.median(left_out_errors(x, clean, SPLINES[1])) < 1e-4
        assert np.median(left_out_errors(x, noisy, SPLINES[1])) > 0.1
        assert np.isinf(left_out_errors(x[:9], clean[:9], SPLINES[1])).all()

    def test_designs_of_a_grid_line_do_not_determine_a_plane(self):
        x = np.column_stack([np.linspace(-1, 1, 40), np.zeros(40)])
        assert not np.median(left_out_errors(x, x[:, :1], Spline(5, 2))) < 1e-3


class TestRows:
    space = Space.of(a=(0.0, 2.0), b=(-1.0, 1.0))
    outputs = Space.of(u=(-9.0, 9.0), v=(-9.0, 9.0))

    @staticmethod
    def simulate(x):
        return np.column_stack([np.exp(x[:, 0]) - x[:, 1], np.sin(2 * x[:, 0] * x[:, 1])])

    def even(self, n=400, seed=0):
        return scattered(n, 2, seed) + np.array([1.0, 0.0])

    def test_even_rows_are_filled_evenly_and_exactly(self):
        x = self.even()
        rows = denser_rows(usable(x, self.simulate(x)), self.space, self.outputs, 3000)
        new = rows.x.numpy()
        assert len(new) == 3000
        assert kstest(new[:, 0] / 2.0, "uniform").pvalue > 0.01
        assert kstest(new[:, 1] / 2.0 + 0.5, "uniform").pvalue > 0.01
        missed = np.abs(rows.y.numpy() - self.simulate(new))
        assert np.median(missed) < 1e-4
        assert missed.max() < 0.05

    def test_other_rows_keep_their_law_and_their_hole(self):
        rng = np.random.default_rng(0)
        middle = np.where(rng.random((300, 1)) < 0.75, [[0.5, -0.5]], [[1.5, 0.5]])
        x = np.clip(middle + 0.08 * rng.normal(size=(300, 2)), [0.01, -0.99], [1.99, 0.99])
        rows = denser_rows(usable(x, self.simulate(x)), self.space, self.outputs, 2000)
        new = rows.x.numpy()
        left, before = new[:, 0] < 1.0, x[:, 0] < 1.0
        assert left.mean() == pytest.approx(before.mean(), abs=0.04)
        np.testing.assert_allclose(new[left].mean(0), [0.5, -0.5], atol=0.02)
        np.testing.assert_allclose(new[left].std(0), 0.08, atol=0.015)
        weights = np.where(before, 1.0, 3.0)
        heavy = denser_rows(
            usable(x, self.simulate(x)), self.space, self.outputs, 2000, weights=weights
        )
        expected = weights[before].sum() / weights.sum()
        assert float((heavy.x[:, 0] < 1.0).double().mean()) == pytest.approx(expected, abs=0.04)

    def test_equal_designs_count_by_their_mean(self):
        x = np.repeat(self.even(200), 2, axis=0)
        y = self.simulate(x) + np.tile([[1e-3], [-1e-3]], (200, 2))
        rows = denser_rows(usable(x, y), self.space, self.outputs, 500)
        missed = np.abs(rows.y.numpy() - self.simulate(rows.x.numpy()))
        assert np.median(missed) < 3e-4

    def test_what_cannot_be_interpolated_is_refused(self):
        x = self.even(120)
        y = self.simulate(x)
        noisy = y + [[0.0, 1.0]] * np.random.default_rng(0).normal(size=y.shape)
        with pytest.raises(GenoptError, match="'v' cannot be interpolated between its 120 rows"):
            denser_rows(usable(x, noisy), self.space, self.outputs, 500)
        with pytest.raises(GenoptError, match=r"'[uv]' cannot be interpolated between its 9 rows"):
            denser_rows(usable(x[:9], y[:9]), self.space, self.outputs, 500)
        gappy = y.copy()
        gappy[3, 0] = math.nan
        with pytest.raises(GenoptError, match="some are missing in 'u'"):
            denser_rows(usable(x, gappy), self.space, self.outputs, 500)
        whole = Space((Variable("a", 0.0, 2.0), Variable("b", -1, 1, kind="integer")))
        with pytest.raises(GenoptError, match="unlike 'b'"):
            denser_rows(usable(x, y), whole, self.outputs, 500)
        with pytest.raises(GenoptError, match="interpolated_rows=-1"):
            Mixture(self.space, self.outputs, interpolated_rows=-1)

    def test_designs_of_a_mixture_miss_by_less(self, tmp_path):
        x = torch.from_numpy(self.even(200))
        y = torch.from_numpy(self.simulate(x.numpy()))
        wanted = torch.from_numpy(self.simulate(0.9 * self.even(20, seed=5)))
        missed = []
        size = {"min_components": 30, "max_components": 30, "criterion": "bic"}
        for n in (0, 1200):
            model = Mixture(
                self.space, self.outputs, regularization=1e-8, interpolated_rows=n, **size
            )
            designs = model.fit(x, y).sample(wanted, 50)
            again = self.simulate(designs.reshape(-1, 2).numpy()).reshape(20, 50, 2)
            missed.append(np.median(np.abs(again - wanted[:, None].numpy())))
        assert missed[1] < 0.7 * missed[0]
        # what is unusual is still judged by the rows that were given
        assert len(model.density.y_seen) == 200
        again = Mixture.load(model.save(tmp_path / "mixture.pt"))
        torch.testing.assert_close(again.sample(wanted, 3), model.sample(wanted, 3))
