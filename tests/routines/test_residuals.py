"""What a solver asks: slopes that are right, black boxes found out, calls counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genopt.constraint import read_constraints
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.problems import Problem
from genopt.routines.constraints.rules import rules_of
from genopt.routines.refine_ask import Ask
from genopt.routines.residuals import Wanted
from genopt.space import Space, Variable


class Waves(Problem):
    """Two functions whose slopes are known."""

    def __init__(self):
        super().__init__(
            "waves",
            Space.of(a=(-1.0, 1.0), b=(0.0, 100.0)),
            Space.of(p=(-2.0, 2.0), q=(0.0, 200.0)),
            {"p": 0.5},
        )

    def simulate(self, x):
        a, b = x.unbind(-1)
        return torch.stack([torch.sin(3.0 * a) + 0.01 * b, a.square() * b], -1)

    @staticmethod
    def slopes(x):
        a, b = x.numpy().T
        first = np.stack([3.0 * np.cos(3.0 * a), np.full_like(a, 0.01)], -1)
        return np.stack([first, np.stack([2.0 * a * b, a**2], -1)], 1)


class Numpy(Waves):
    def simulate(self, x):
        return torch.from_numpy(super().simulate(x.detach()).numpy().copy())


class Detached(Waves):
    """One of two properties has lost its gradient."""

    def simulate(self, x):
        p, q = super().simulate(x).unbind(-1)
        return torch.stack([p, q.detach()], -1)


class InPlace(Waves):
    def simulate(self, x):
        out = x.new_zeros(*x.shape[:-1], 2)
        x = x.clone()
        x *= 1.0
        out[..., 0] += torch.sin(3.0 * x[..., 0]) + 0.01 * x[..., 1]
        out[..., 1] += x[..., 0].square() * x[..., 1]
        return out


class Rounded(Waves):
    """Answers in float32: differences of 1e-7 would be noise."""

    def simulate(self, x):
        return super().simulate(x.detach()).to(torch.float32)


def designs(n=6):
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.stack([rng.uniform(-0.9, 0.9, n), rng.uniform(5, 95, n)], -1))


def asked(problem):
    return Ask(problem, torch.ones(2, dtype=torch.bool))


@pytest.mark.parametrize(
    ("kind", "passes", "error"),
    [
        (Waves, True, 1e-12),
        (InPlace, True, 1e-12),
        (Numpy, False, 1e-5),
        (Detached, False, 1e-5),
        (Rounded, False, 2e-2),
    ],
)
def test_slopes_by_whichever_way_works(kind, passes, error):
    ask, x = asked(kind()), designs()
    values = ask.values(x)
    assert ask.calls == len(x)
    found = ask.slopes(x, values)
    scale = np.array([[1.0, 0.02], [100.0, 1.0]])
    np.testing.assert_allclose(found.numpy() / scale, Waves.slopes(x) / scale, atol=error)
    assert ask.differentiable is passes


def test_what_slopes_cost():
    torch_ask, box = asked(Waves()), asked(Numpy())
    x = designs()
    for ask in (torch_ask, box):
        ask.slopes(x, ask.values(x))
    calls, gradients = torch_ask.calls, torch_ask.gradients
    torch_ask.slopes(x, torch_ask.values(x))
    assert (torch_ask.calls - calls, torch_ask.gradients - gradients) == (len(x), len(x))
    calls, gradients = box.calls, box.gradients
    box.slopes(x, box.values(x))
    assert (box.calls - calls, box.gradients - gradients) == (3 * len(x), 0)


@pytest.mark.parametrize("kind", [Waves, Numpy])
def test_a_trace_has_value_and_gradient(kind):
    ask = asked(kind())
    x = designs().requires_grad_()
    values = ask.traced(x)
    np.testing.assert_allclose(
        values.detach().numpy(), Waves().simulate(x.detach()).numpy(), atol=1e-12
    )
    (slope,) = torch.autograd.grad(values[:, 1].sum(), x)
    np.testing.assert_allclose(slope.numpy(), Waves.slopes(x.detach())[:, 1], rtol=1e-5)


@pytest.mark.parametrize("kind", [Waves, Numpy])
def test_differences_stay_inside_the_bounds(kind):
    class Guarded(kind):
        def simulate(self, x):
            assert bool(self.x_space.contains(x, 0.0).all())
            return super().simulate(x)

    ask = asked(Guarded())
    x = torch.tensor([[1.0, 100.0], [-1.0, 0.0]], dtype=torch.float64)
    found = ask.slopes(x, ask.values(x))
    np.testing.assert_allclose(found.numpy(), Waves.slopes(x), atol=1e-3)


def test_columns_that_do_not_move_have_no_slope():
    ask = Ask(Numpy(), torch.tensor([True, False]))
    x = designs()
    found = ask.slopes(x, ask.values(x))
    assert bool((found[..., 1] == 0).all())
    np.testing.assert_allclose(found[..., 0].numpy(), Waves.slopes(x)[..., 0], atol=1e-3)


def test_rules_follow_the_properties():
    problem = Waves()
    rules = rules_of(read_constraints(["a + 0.01 * b <= 0.5"], problem.x_space), problem.x_space)
    ask = Ask(problem, torch.ones(2, dtype=torch.bool), rules)
    x = designs()
    values = ask.values(x)
    assert values.shape == (6, 3)
    torch.testing.assert_close(values[:, 2], x[:, 0] + 0.01 * x[:, 1] - 0.5)
    slopes = ask.slopes(x, values)[:, 2]
    np.testing.assert_allclose(slopes.numpy(), np.tile([1.0, 0.01], (6, 1)), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.floats(-2.0, 2.0), st.floats(0.0, 200.0))
def test_a_design_without_misses_satisfies_the_goal(p, q):
    problem = Waves()
    spec = {
        "p": {"between": [-1.0, 0.5]},
        "q": {"at_most": 120.0},
    }
    goal = Goal(spec, problem.x_space, problem.y_space)
    wanted = Wanted.of(goal, torch.zeros(1, dtype=torch.long))
    y = torch.tensor([[p, q]], dtype=torch.float64)
    largest = float(wanted.largest(y))
    assert not (largest == 0.0 and not bool(goal.satisfied(y)))
    # in widths: four for p, two hundred for q
    truth = max(-1.0 - p, p - 0.5, 0.0) / 4.0, max(q - 120.0, 0.0) / 200.0
    assert largest == pytest.approx(max(truth), abs=3e-8)


def test_goals_of_each_row_and_wishes():
    problem = Waves()
    goal = Goal({"p": [0.0, 1.0], "q": "max"}, problem.x_space, problem.y_space)
    wanted = Wanted.of(goal, torch.tensor([0, 1, 1]))
    y = torch.tensor([[0.4, 10.0], [0.4, 10.0], [math.nan, 50.0]], dtype=torch.float64)
    assert wanted.miss(y)[:2, 0].tolist() == pytest.approx([0.1, -0.15])
    assert wanted.objective(y).tolist() == pytest.approx([-0.05, -0.05, -0.25])
    assert wanted.largest(y)[2] == math.inf


def test_a_class_cannot_be_followed():
    y = Space((Variable("phase", kind="categorical", labels=("solid", "liquid")),))
    goal = Goal({"phase": "solid"}, Space.of(a=(0.0, 1.0)), y)
    with pytest.raises(GenoptError, match=r"goal\.phase: a class has no slope"):
        Wanted.of(goal, torch.zeros(1, dtype=torch.long))
