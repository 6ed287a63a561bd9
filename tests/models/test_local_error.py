"""The local error of a model whose error is known exactly, and expected losses by quadrature."""

import math

import pytest
import torch
from scipy.integrate import quad

from genopt import Goal, Space
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.local_error import LocalError

X = Space.of(a=(0.0, 1.0), b=(0.0, 1.0))
Y = Space.of(c=(-5.0, 5.0), d=(-5.0, 5.0))


class Off:
    """A model that is off by a in c and by 2 in d, where the truth is zero."""

    x_space, y_space = X, Y

    def predict_y(self, x):
        return torch.stack([x[..., 0], torch.full_like(x[..., 0], 2.0)], -1)


def rows(n=900):
    side = math.isqrt(n)
    axis = torch.linspace(0.0, 1.0, side, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis)


def test_it_finds_the_error_where_there_are_rows():
    x = rows()
    spread = LocalError(Off(), Table(x, torch.zeros_like(x), X, Y))(x[None])[0]
    inner = ((x > 0.1) & (x < 0.9)).all(1)
    # at a row's own distance from others the variance is up to twice the squared residual
    ratio = (spread / torch.stack([x[:, 0], torch.full((len(x),), 2.0)], -1))[inner]
    assert 1.0 < float(ratio.min()) < float(ratio.max()) < math.sqrt(2.0)


def test_it_grows_away_from_the_rows():
    x = 0.2 * rows(400)
    error = LocalError(Off(), Table(x, torch.zeros_like(x), X, Y))
    way = torch.tensor([[0.1, 0.1], [0.1, 0.4], [0.1, 0.9]], dtype=torch.float64)
    spread = error(way)[:, 1]
    assert bool((spread.diff() > 0).all())
    # far away the growth is that of the distance
    assert float(spread[2] / spread[1]) == pytest.approx(0.7 / 0.2, rel=0.15)


def test_a_missing_label_says_nothing_of_its_column():
    x, y = rows(400), torch.zeros(400, 2, dtype=torch.float64)
    y[x[:, 0] > 0.5, 0] = math.nan
    spread = LocalError(Off(), Table(x, y, X, Y))(torch.tensor([[0.9, 0.5]]).double())
    # the nearest rows with a label of c lie at a = 0.5
    assert 0.5 * math.sqrt(2.0) < float(spread[0, 0]) < 8.0
    assert float(spread[0, 1]) == pytest.approx(2.0 * math.sqrt(2.0), rel=0.1)
    y[:, 0] = math.nan
    spread = LocalError(Off(), Table(x, y, X, Y))(torch.tensor([[0.9, 0.5]]).double())
    assert math.isnan(float(spread[0, 0]))


def test_it_ranks_the_design_that_the_model_knows_first():
    x = rows()
    table = Table(x, torch.zeros_like(x), X, Y)
    designs = torch.tensor([[[0.9, 0.5], [0.1, 0.5], [0.5, 0.5]]], dtype=torch.float64)
    claims = torch.zeros(1, 3, 2, dtype=torch.float64)
    worth = Goal({"c": 0.0}, X, Y).expected_loss(claims, LocalError(Off(), table)(designs))
    assert worth[0].argsort().tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("wanted", "tolerance"),
    [({"c": 1.0}, 1e-9), ({"c": {"at_least": 1.0}, "d": "min"}, 0.15), ({"c": "max"}, 1e-9)],
)
def test_expected_loss_against_quadrature(wanted, tolerance):
    goal = Goal(wanted, X, Y)
    y, spread = torch.tensor([0.7, 0.3]).double(), torch.tensor([0.5, 0.2]).double()

    def under(node):
        density = math.exp(-(node**2) / 2) / math.sqrt(2 * math.pi)
        return float(goal.loss(y + node * spread)) * density

    wanted_loss = quad(under, -9, 9, points=[0.6])[0]
    got = float(goal.expected_loss(y, spread))
    assert got == pytest.approx(wanted_loss, rel=tolerance)
    blind = torch.full_like(spread, math.nan)
    assert float(goal.expected_loss(y, blind)) == pytest.approx(float(goal.loss(y)))


def test_wrong_tables_are_refused():
    x = rows(4)
    with pytest.raises(GenoptError, match="at least 2 measured rows"):
        LocalError(Off(), Table(x[:1], x[:1], X, Y))
    other = Space.of(e=(0.0, 1.0), b=(0.0, 1.0))
    with pytest.raises(GenoptError, match="table has columns e, b"):
        LocalError(Off(), Table(x, x, other, Y))
