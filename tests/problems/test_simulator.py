"""A simulator that fails for some designs loses those and keeps the rest."""

from __future__ import annotations

import math

import pytest
import torch

from genopt.candidates import Candidates
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.problems import Problem, Rastrigin, SimulationWarning, Simulator
from genopt.routines.verify import verify
from genopt.space import Space


class Brittle(Problem):
    """Raises for u above .9, returns NaN for u below .1."""

    def __init__(self) -> None:
        super().__init__("brittle", Space.of(u=(0.0, 1.0)), Space.of(v=(0.0, 4.0)), {"v": 1.0})

    def simulate(self, x):
        if bool((x > 0.9).any()):
            raise ArithmeticError("no steady state")
        return torch.where(x < 0.1, torch.nan, 4.0 * x)


class Wrong(Brittle):
    """Fails in a way of its own."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def simulate(self, x):
        return self.answer(x)


def test_answers_that_are_no_tensor_are_refused_in_one_line():
    x = torch.full((3, 1), 0.5, dtype=torch.float64)
    with pytest.raises(GenoptError, match=r"'brittle' returned ndarray; expected a torch tensor"):
        Simulator(Wrong(lambda x: x.numpy()))(x)

    def chatty(x):
        raise RuntimeError(f"diverged\nat {x[0]}")

    simulate = Simulator(Wrong(chatty))
    with pytest.raises(GenoptError, match=r"given together as \(3, 1\) .*: diverged$"):
        simulate(x)


def test_designs_at_fault_are_lost_alone():
    simulate = Simulator(Brittle())
    x = torch.tensor([[0.05], [0.2], [0.95], [0.5], [0.99], [0.8]], dtype=torch.float64)
    with pytest.warns(SimulationWarning, match=r"3 of 6 designs.*no steady state"):
        y = simulate(x)
    assert torch.isnan(y[:, 0]).tolist() == [True, False, True, False, True, False]
    torch.testing.assert_close(y[[1, 3, 5]], 4.0 * x[[1, 3, 5]])
    assert simulate.calls == 6
    assert simulate.failed == 3
    assert simulate.failures["ArithmeticError: no steady state"] == 2


def test_a_table_leaves_them_out_and_says_so():
    with pytest.warns(SimulationWarning, match="lost"):
        table = Brittle().table(64)
    low, high = float(table.x.min()), float(table.x.max())
    assert low >= 0.1
    assert high <= 0.9
    assert 45 <= len(table) <= 58


def test_verification_keeps_the_rest():
    problem = Brittle()
    goal = Goal({"v": 1.0}, problem.x_space, problem.y_space)
    x = torch.tensor([[[0.25], [0.95], [math.nan]]], dtype=torch.float64)
    claimed = Candidates.from_claims(goal, x, torch.ones(1, 3, 1))
    with pytest.warns(SimulationWarning, match="1 of 2"):
        checked = verify(claimed, problem)
    assert checked.y_verified[0, 0, 0] == 1.0
    assert bool(torch.isnan(checked.y_verified[0, 1:]).all())


def test_always_failing_is_an_error_and_so_is_a_spent_budget():
    with pytest.raises(GenoptError, match=r"fails for all 2 designs.*: ArithmeticError: no steady"):
        Simulator(Brittle())(torch.full((2, 1), 0.95))
    limited = Simulator(Rastrigin(), budget=3)
    limited(torch.zeros(2, 2))
    assert limited.left == 1
    with pytest.raises(GenoptError, match="only 1 of its budget of 3 are left"):
        limited(torch.zeros(2, 2))


def test_gaps_in_designs_cost_nothing():
    simulate = Simulator(Rastrigin())
    x = torch.tensor([[math.nan, 0.0], [0.0, 0.0]])
    y = simulate(x)
    assert simulate.calls == 1
    assert bool(torch.isnan(y[0]).all())
    torch.testing.assert_close(y[1], Rastrigin().simulate(torch.zeros(2, dtype=torch.float64)))
