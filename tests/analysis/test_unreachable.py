"""Goals that no design reaches: the nearest values, found by search and known in closed form."""

import math

import pytest
import torch

from genopt import Candidates, Goal, Problem, Space
from genopt.analysis.unreachable import unreached
from genopt.problems import Alloy, PengRobinson


class Circle(Problem):
    """Points of the unit square; y is their distance from the corner and their first column."""

    def __init__(self) -> None:
        super().__init__(
            "circle", Space.of(a=(0.0, 1.0), b=(0.0, 1.0)), Space.of(far=(0.0, 3.0), a2=(0.0, 3.0))
        )
        self.asked = 0

    def simulate(self, x):
        # a black box: numbers without gradients
        self.asked += x.numel() // 2
        a, b = x.detach().numpy().reshape(-1, 2).T
        out = torch.from_numpy((a**2 + b**2) ** 0.5), torch.from_numpy(a**2)
        return torch.stack(out, -1).reshape(*x.shape[:-1], 2)


def returned(problem: Problem, goal: Goal, rows) -> Candidates:
    x = rows.x[:8].expand(goal.batch_size, -1, -1)
    y = rows.y[:8].expand(goal.batch_size, -1, -1)
    candidates = Candidates.from_claims(goal, x, y)
    return candidates.verified_by(y) if problem.has_simulator else candidates


def nearest(problem: Problem, spec: dict, calls: int = 2000, n: int = 64):
    goal = Goal(spec, problem.x_space, problem.y_space)
    rows = problem.table(n)
    return unreached(returned(problem, goal, rows), goal, rows, problem, calls)


def test_the_nearest_values_lie_on_the_border_of_what_is_possible():
    (found,) = nearest(Circle(), {"far": 2.0})
    assert not found.reachable
    assert found.y["far"] == pytest.approx(math.sqrt(2.0), abs=1e-6)
    assert found.x == pytest.approx({"a": 1.0, "b": 1.0}, abs=1e-6)
    assert found.calls <= 2000
    assert "unreachable: far = 2" in str(found)
    assert "far 1.414" in str(found)


def test_a_compromise_is_found_where_two_values_exclude_each_other():
    # far = 0.2 and a^2 = 1: with b = 0 the misses are a - .2 and a^2 - 1
    (found,) = nearest(Circle(), {"far": 0.2, "a2": 1.0})
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    a = float(grid[((grid - 0.2).square() + (grid.square() - 1.0).square()).argmin()])
    assert found.x["a"] == pytest.approx(a, abs=1e-4)
    assert found.x["b"] == pytest.approx(0.0, abs=1e-3)


def test_what_is_reachable_is_not_flagged_or_is_shown():
    problem = Circle()
    assert nearest(problem, {"far": {"at_most": 0.9}}) == []
    assert nearest(problem, {"far": "max"}) == []
    sharp = nearest(problem, {"far": {"equals": 0.77, "tolerance": 1e-9}})
    assert [entry.reachable for entry in sharp] == [True]
    assert "but the simulator can" in str(sharp[0])
    assert math.hypot(sharp[0].x["a"], sharp[0].x["b"]) == pytest.approx(0.77, abs=1e-9)


def test_held_columns_stay_held():
    (found,) = nearest(Circle(), {"far": 1.3, "a": 0.5})
    assert found.x["a"] == 0.5
    assert found.y["far"] == pytest.approx(math.hypot(0.5, 1.0), abs=1e-6)


def test_the_alloys_that_do_not_exist_are_flagged_and_the_one_that_does_is_not():
    problem = Alloy()
    spec = {"Y": [500.0, 350.0, 250.0], "Tm": [1850.0, 1800.0, 1900.0]}
    found = nearest(problem, spec, n=500)
    assert [entry.goal for entry in found] == [0, 2]
    for entry in found:
        assert not entry.reachable
        assert sum(entry.x.values()) == pytest.approx(1.0, abs=1e-7)
    # the best of a fine grid of blends is no nearer
    steps = torch.linspace(0, 1, 301, dtype=torch.float64)
    fe, ni = torch.meshgrid(steps, steps, indexing="ij")
    blends = torch.stack([fe, ni, 1 - fe - ni], -1)[fe + ni <= 1 + 1e-12].clamp_min(0.0)
    y = problem.simulate(blends)
    goal = Goal(spec, problem.x_space, problem.y_space)
    for entry in found:
        one = Goal({k: v[entry.goal] for k, v in spec.items()}, problem.x_space, problem.y_space)
        here = one.loss(torch.tensor([entry.y["Y"], entry.y["Tm"]], dtype=torch.float64))
        assert float(here) <= float(one.loss(y).min()) * (1 + 1e-6)
    assert goal.batch_size == 3


def test_the_budget_of_calls_is_kept_and_none_looks_at_rows_only():
    problem = Circle()
    rows = problem.table(64)
    goal = Goal({"far": 2.0}, problem.x_space, problem.y_space)
    candidates = returned(problem, goal, rows)
    before = problem.asked
    (found,) = unreached(candidates, goal, rows, problem, 30)
    assert problem.asked - before == found.calls <= 30
    assert unreached(candidates, goal, rows, problem, 0) == []


def test_without_a_simulator_the_nearest_row_is_named():
    x, y = Space.of(a=(0.0, 1.0)), Space.of(c=(0.0, 9.0))
    problem = Problem("measured", x, y, {"c": 5.0})
    from genopt import Table

    rows = Table(torch.tensor([[0.1], [0.9]]), torch.tensor([[1.0], [3.0]]), x, y)
    goal = Goal({"c": 5.0}, x, y)
    (found,) = unreached(returned(problem, goal, rows), goal, rows, problem, 100)
    assert (found.reachable, found.calls) == (False, 0)
    assert found.y == {"c": 3.0}
    assert "the nearest measured row has c 3" in str(found)


def test_designs_on_which_the_simulator_fails_are_passed_by():
    class Picky(PengRobinson):
        def simulate(self, x):
            if bool((x > 0.9).any()):
                raise ValueError("too much gas")
            return super().simulate(x)

    (found,) = nearest(Picky(), {"r": {"equals": 0.05, "tolerance": 1e-12}})
    assert found.calls > 0
    assert found.x["Z"] <= 0.9
