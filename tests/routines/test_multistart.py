"""The classical baseline finds what is known, counts its calls, and says what it lacks."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.models.mixture import Mixture
from genopt.models.nothing import Nothing
from genopt.problems import Problem, Rastrigin
from genopt.problems.cstr_mapping import CstrMapping
from genopt.problems.evaporator import Evaporator
from genopt.problems.inactive_constraint import InactiveConstraint
from genopt.problems.peng_robinson import PengRobinson
from genopt.problems.plane_projection import PlaneProjection
from genopt.routines.multistart import multistart
from genopt.space import Space, Variable


def started(problem, **options):
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    model = Nothing(problem.x_space, problem.y_space)
    return multistart(model, goal, problem=problem, **options)


@pytest.mark.parametrize("method", ["slsqp", "lbfgsb", "least_squares"])
def test_the_roots_of_the_cubic(method):
    problem = PengRobinson()
    found = started(problem, starts=16, method=method)
    roots = np.sort(np.roots(problem.coefficients).real)
    gap = np.abs(found.x[0].numpy() - roots)[found.converged[0].numpy()]
    assert gap.min(1).max() < 1e-6
    assert set(gap.argmin(1)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("problem", "method", "error"),
    [
        (InactiveConstraint(), "slsqp", 1e-6),
        (InactiveConstraint(), "lbfgsb", 1e-6),
        (InactiveConstraint(), "differential_evolution", 1e-4),
        (PlaneProjection(), "slsqp", 1e-6),
        (Evaporator(), "slsqp", 1e-4),
    ],
)
def test_the_exact_optimum(problem, method, error):
    found = started(problem, starts=12, method=method)
    best = found.best()
    assert float((best.x[0, 0] - problem.answers[0].x).abs().max()) < error
    assert bool(best.feasible.all())


def test_calls_are_those_of_the_simulator():
    class Counted(CstrMapping):
        rows = 0

        def simulate(self, x):
            Counted.rows += len(x.reshape(-1, 2))
            return torch.from_numpy(super().simulate(x.detach()).numpy().copy())

    found = started(Counted(), starts=4)
    # the test whether gradients pass asks once more, before it gives up
    assert Counted.rows - found.header["numbers"]["calls"] in range(9)
    assert found.header["numbers"]["calls"] > 4 * 3


def test_a_model_proposes_the_starts():
    problem = CstrMapping()
    table = problem.table(150)
    model = Mixture(problem.x_space, problem.y_space, max_components=3, min_components=3)
    model.fit(table.x, table.y)
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    found = multistart(model, goal, problem=problem, table=table, starts=5)
    assert found.shape == (1, 5)
    best = found.best().x[0, 0]
    torch.testing.assert_close(best, problem.answers[0].x, atol=1e-6, rtol=0)


def test_every_goal_evolves_on_its_own():
    problem = CstrMapping()
    targets = problem.disk(2, seed=1)
    goal = Goal({"C_A": targets[:, 0], "C_B": targets[:, 1]}, problem.x_space, problem.y_space)
    found = multistart(
        Nothing(problem.x_space, problem.y_space),
        goal,
        problem=problem,
        starts=12,
        method="differential_evolution",
    )
    torch.testing.assert_close(found.best().x[:, 0], problem.inverse(targets), atol=2e-3, rtol=0)


@pytest.mark.parametrize("method", ["slsqp", "lbfgsb", "differential_evolution"])
def test_blends_sum_to_one(method):
    class Distance(Problem):
        def __init__(self):
            space = Space(tuple(Variable(n, 0.0, 1.0) for n in "abc"), (("a", "b", "c"),))
            super().__init__("distance", space, Space.of(d=(0.0, 3.0)), {"d": "min"})

        def simulate(self, x):
            return (x - torch.tensor([0.9, 0.4, -0.2])).square().sum(-1, keepdim=True)

    found = started(Distance(), starts=10, method=method)
    truth = torch.tensor([0.75, 0.25, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found.best().x[0, 0], truth, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        found.x.sum(-1), torch.ones(1, 10, dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_ipopt_where_it_is_and_where_it_is_not(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(GenoptError, match="method=ipopt needs the package cyipopt"):
        started(PlaneProjection(), method="ipopt")
    monkeypatch.undo()
    seen = {}

    def minimize_ipopt(fun, x0, jac, bounds, constraints, tol, options):
        from scipy.optimize import minimize

        seen.update(options, tol=tol)
        return minimize(fun, x0, jac=jac, bounds=bounds, constraints=constraints, tol=1e-12)

    module = types.ModuleType("cyipopt")
    module.minimize_ipopt = minimize_ipopt
    module.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "cyipopt", module)
    problem = PlaneProjection()
    found = started(problem, starts=3, method="ipopt", steps=77, tolerance=1e-7)
    assert seen == {"max_iter": 77, "print_level": 0, "tol": 1e-7}
    torch.testing.assert_close(found.x[0], problem.answers[0].x.expand(3, -1), atol=1e-5, rtol=0)


def test_mistakes_are_named():
    with pytest.raises(UnknownNameError, match=r"method 'lagrangian'.*slsqp"):
        started(PengRobinson(), method="lagrangian")
    with pytest.raises(GenoptError, match="starts must be at least 1, got 0"):
        started(PengRobinson(), starts=0)
    problem = Rastrigin()
    goal = Goal({problem.y_space.names[0]: "min"}, problem.x_space, problem.y_space)
    with pytest.raises(GenoptError, match="least_squares finds values"):
        multistart(
            Nothing(problem.x_space, problem.y_space),
            goal,
            problem=problem,
            method="least_squares",
        )
    bare = Problem("bare", problem.x_space, problem.y_space, {problem.y_space.names[0]: 0.0})
    with pytest.raises(GenoptError, match="routine=multistart asks a simulator"):
        started(bare)
