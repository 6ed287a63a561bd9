"""Test functions to be minimised: their optima, and rows without the best ones."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize, rosen

from genopt.errors import GenoptError
from genopt.problems.ackley import Ackley
from genopt.problems.branin import Branin
from genopt.problems.offline import Offline
from genopt.problems.plug_flow import PlugFlow
from genopt.problems.rastrigin import Rastrigin
from genopt.problems.rastrigin_value import RastriginValue
from genopt.problems.rosenbrock import Rosenbrock
from genopt.space import Space

SOME = [
    Ackley(3),
    Ackley(5, bound=5.0, shift_seed=1),
    Branin(),
    Branin(4, shift_seed=2),
    RastriginValue(4, shift_seed=3),
    Rosenbrock(3),
    Rosenbrock(6, shift_seed=4),
]


@pytest.mark.parametrize("problem", SOME, ids=lambda p: f"{p.name}{p.x_space.dim}")
def test_no_descent_from_an_optimum_goes_lower(problem):
    assert abs(sum(answer.weight for answer in problem.answers) - 1.0) < 1e-12
    for answer in problem.answers:
        assert bool(problem.x_space.contains(answer.x))
        here = float(problem.simulate(answer.x))
        assert here == pytest.approx(float(answer.y), abs=1e-9)

        def function(x):
            return float(problem.simulate(torch.from_numpy(x)))

        beside = answer.x.numpy() + 0.01
        found = minimize(function, beside, method="Nelder-Mead", options={"maxfev": 400})
        assert found.fun >= here - 1e-9


@pytest.mark.parametrize("problem", SOME, ids=lambda p: f"{p.name}{p.x_space.dim}")
def test_no_row_lies_outside_the_claimed_range(problem):
    table = problem.table(512)
    (column,) = table.y_space
    assert column.lower <= float(table.y.min())
    assert float(table.y.max()) <= column.upper


def test_values_agree_with_other_sources():
    x = torch.rand(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.tensor([rosen(row.numpy()) for row in x])
    torch.testing.assert_close(Rosenbrock(5).simulate(x)[:, 0], expected)
    expected = Rastrigin(5).height(x)
    torch.testing.assert_close(RastriginValue(5).simulate(x)[:, 0], expected)
    # half a period from the optimum the ripples are at their worst
    half = torch.full((1, 7), 0.5, dtype=torch.float64)
    worst = 20.0 + math.e - 20.0 * math.exp(-0.1) - math.exp(-1.0)
    assert float(Ackley(7).simulate(half)) == pytest.approx(worst)
    pair = torch.tensor([[math.pi, 2.275, 3.0 * math.pi, 2.475]], dtype=torch.float64)
    assert float(Branin(4).simulate(pair)) == pytest.approx(0.39788735772973816)


def test_a_shift_moves_the_optimum_and_keeps_the_values():
    plain, moved, other = (RastriginValue(6, shift_seed=seed) for seed in (None, 0, 1))
    assert not torch.equal(moved.shift, other.shift)
    assert float(moved.shift.abs().max()) <= 2.56
    x = torch.rand(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(moved.simulate(x + moved.shift), plain.simulate(x))


def test_dimensions_without_a_meaning_are_refused():
    with pytest.raises(GenoptError, match="branin: dimension must be even, got 3"):
        Branin(3)
    with pytest.raises(GenoptError, match="rosenbrock: dimension must be at least 2, got 1"):
        Rosenbrock(1)


# -- offline ---------------------------------------------------------------------------------------
def test_the_best_rows_are_thrown_away():
    inner = RastriginValue(3)
    full, kept = inner.table(200, seed=5), Offline(inner, draw=200).table(seed=5)
    assert len(kept) == 120
    threshold = full.y[:, 0].sort().values[80]
    assert float(kept.y.min()) == float(threshold)
    assert float(kept.y.max()) == float(full.y.max())


def test_a_maximum_is_the_other_way_round():
    class Hill(Ackley):
        def __init__(self) -> None:
            super().__init__(2)
            self.default_goal = {"f": "max"}

    rows = Offline(Hill(), draw=100, drop_best=0.5).table()
    assert float(rows.y.max()) == float(Ackley(2).table(100).y.sort(0).values[49])


def test_scores_are_those_of_the_proposals():
    problem = Offline({"_target_": "genopt.problems.ackley.Ackley", "dimension": 2})
    data = torch.tensor([[8.0], [4.0], [torch.nan]])
    scores = problem.scores(torch.tensor([[[1.0], [3.0], [2.0], [torch.nan], [9.0]]]), data)
    assert (scores.best, scores.median, scores.data) == (1.0, 2.0, 4.0)
    assert scores.regret == pytest.approx(1.0)
    assert scores.ratio == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": PlugFlow()}, "needs one wish, min or max"),
        ({"of": Ackley(), "drop_best": 1.0}, r"problem.drop_best must be a share .* got 1.0"),
        ({"of": Ackley(), "draw": 1}, "problem.draw=1 must be at least 2"),
        ({"of": Space.of(a=(0, 1))}, "must be a problem with a simulator"),
    ],
)
def test_what_cannot_be_scored_is_refused(options, message):
    with pytest.raises(GenoptError, match=message):
        Offline(**options)
