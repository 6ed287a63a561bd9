"""Corrections by what a model got wrong nearby: exact where errors are straight, none for noise."""

from __future__ import annotations

import pytest
import torch

from genopt.data.sampling import sample_space
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.correction import Correction
from genopt.space import Space, Variable

X = Space.of(a=(0.0, 1.0), b=(0.0, 10.0))
Y = Space(
    (
        Variable("f", -9.0, 9.0),
        Variable("g", -9.0, 9.0),
        Variable("phase", kind="categorical", labels=("u", "v")),
    )
)


class Zero:
    """A model that says nothing, so that y itself is its residual."""

    x_space, y_space = X, Y

    def predict_y(self, x):
        return torch.zeros(*x.shape[:-1], 3, dtype=x.dtype)


def table(f, g) -> Table:
    x = sample_space(X, 500)
    return Table(x, torch.stack([f(x), g(x), torch.ones(500)], 1), X, Y)


def test_a_straight_error_is_taken_off_exactly_and_gaps_do_not_matter():
    rows = table(lambda x: 2 * x[:, 0] - 0.3 * x[:, 1], lambda x: x[:, 0])
    y = rows.y.clone()
    y[::3, 1] = torch.nan
    fresh = sample_space(X, 60, seed=7).reshape(3, 20, 2)
    shift, spread = Correction(Zero(), Table(rows.x, y, X, Y))(fresh)
    assert torch.allclose(shift[..., 0], 2 * fresh[..., 0] - 0.3 * fresh[..., 1], atol=1e-6)
    assert torch.allclose(shift[..., 1], fresh[..., 0], atol=1e-6)
    assert float(spread[..., :2].max()) < 1e-5
    assert bool(torch.isnan(spread[..., 2]).all())
    assert bool((shift[..., 2] == 0).all())


def test_noise_is_left_alone_and_told_as_spread():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 500, generator=generator, dtype=torch.float64)
    rows = table(
        lambda x: 0.0 * x[:, 0] + noise[0], lambda x: (0.1 + 2.0 * (x[:, 0] > 0.5)) * noise[1]
    )
    fresh = sample_space(X, 400, seed=3)
    shift, spread = Correction(Zero(), rows)(fresh)
    assert bool((shift == 0).all())
    left = fresh[:, 0] < 0.4
    right = fresh[:, 0] > 0.6
    # the growth with the distance makes a spread about twice as large where rows are as usual
    assert 0.8 < float(spread[:, 0].median()) < 2.0
    assert float(spread[right, 1].median()) > 10 * float(spread[left, 1].median())


def test_a_smooth_error_is_mostly_taken_off():
    def wave(x):
        return torch.sin(3 * x[:, 0]) * torch.cos(0.2 * x[:, 1])

    fresh = sample_space(X, 300, seed=5)
    shift, spread = Correction(Zero(), table(wave, wave))(fresh)
    left = (shift[:, 0] - wave(fresh)).abs()
    assert float(left.mean()) < 0.02 * float(wave(fresh).abs().mean())
    # the spread is of the size of what is left
    assert 0.3 < float(left.square().mean().sqrt() / spread[:, 0].median()) < 3.0


def test_one_row_says_nothing():
    one = table(lambda x: x[:, 0], lambda x: x[:, 0]).rows(torch.tensor([0]))
    with pytest.raises(GenoptError, match="at least 2"):
        Correction(Zero(), one)
