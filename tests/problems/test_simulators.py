"""One set of demands on every simulator that genopt ships: answers, vectorisation, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from genopt.goal import Goal, Term
from genopt.problems import (
    AbsoluteValue,
    ArmKinematics,
    InactiveConstraint,
    PengRobinson,
    PlaneProjection,
    PlugFlow,
    Problem,
)
from genopt.problems.alloy import Alloy
from genopt.problems.batch_reactor import BatchReactor
from genopt.problems.cstr_mapping import CstrMapping
from genopt.problems.evaporator import Evaporator
from genopt.problems.gasoline_blend import GasolineBlend
from genopt.problems.rastrigin import Rastrigin
from genopt.problems.reaction_equilibrium import ReactionEquilibrium
from genopt.problems.robot_arm import RobotArm
from genopt.problems.sine_wave import SineWave
from genopt.problems.zdt1 import Zdt1

PROBLEMS: dict[str, Problem] = {
    "peng_robinson": PengRobinson(),
    "plug_flow S1": PlugFlow("S1"),
    "plug_flow S2": PlugFlow("S2"),
    "absolute_value": AbsoluteValue(),
    "plane_projection": PlaneProjection(),
    "inactive_constraint": InactiveConstraint(),
    "arm_kinematics": ArmKinematics(),
    "batch_reactor": BatchReactor(),
    "gasoline_blend": GasolineBlend(),
    "reaction_equilibrium": ReactionEquilibrium(),
    "cstr_mapping": CstrMapping(),
    "evaporator": Evaporator(),
    # one axis: the answers of more are its combinations
    "rastrigin": Rastrigin(dimension=1),
    "zdt1": Zdt1(),
    "alloy": Alloy(),
    "robot_arm": RobotArm(),
    "sine_wave": SineWave(),
}
COUNTABLE = {name: p for name, p in PROBLEMS.items() if p.answers}


def evaluate(problem: Problem, x: np.ndarray) -> np.ndarray:
    return problem.simulate(torch.from_numpy(np.asarray(x, dtype=float))).numpy()


def number(term: Term) -> float:
    assert term.value is not None
    return float(term.value)


def slopes(problem: Problem, x: np.ndarray) -> np.ndarray:
    return torch.autograd.functional.jacobian(problem.simulate, torch.from_numpy(x)).numpy()


def solve(problem: Problem, starts: int = 40) -> np.ndarray:
    """Distinct best solutions of the default goal by scipy, from many starts (n, P)."""
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    equal = [(t.index, number(t)) for t in goal.terms if t.kind == "equals"]
    # (column, sign, limit): sign * (y - limit) >= 0
    limits = [
        (t.index, 1.0 if t.kind == "at_least" else -1.0, number(t))
        for t in goal.terms
        if t.kind in ("at_least", "at_most")
    ]
    low = [t.index for t in goal.terms if t.kind == "min"]
    # every simplex is one more equation
    whole = np.zeros((len(problem.x_space.simplex_indices), problem.x_space.dim))
    for row, group in zip(whole, problem.x_space.simplex_indices, strict=True):
        row[list(group)] = 1.0
    lower, upper = problem.x_space.lower.numpy(), problem.x_space.upper.numpy()
    unit = np.random.default_rng(7).random((starts, problem.x_space.dim))
    found: list[tuple[float, np.ndarray]] = []

    def residual(x: np.ndarray) -> np.ndarray:
        y = evaluate(problem, x)
        return np.array([*(y[i] - v for i, v in equal), *(whole @ x - 1.0)])

    def slack(x: np.ndarray) -> np.ndarray:
        y = evaluate(problem, x)
        return np.array([sign * (y[i] - v) for i, sign, v in limits])

    def slack_slopes(x: np.ndarray) -> np.ndarray:
        rows = slopes(problem, x)
        return np.array([sign * rows[i] for i, sign, _ in limits])

    def residual_slopes(x: np.ndarray) -> np.ndarray:
        rows = slopes(problem, x)
        return np.array([*(rows[i] for i, _ in equal), *whole])

    def objective(x: np.ndarray) -> float:
        return float(evaluate(problem, x)[low].sum())

    def objective_slopes(x: np.ndarray) -> Any:
        return slopes(problem, x)[low].sum(0)

    for start in lower + unit * (upper - lower):
        if low:
            constraints: list[Any] = [
                {"type": kind, "fun": function, "jac": jacobian}
                for kind, function, jacobian, used in (
                    ("eq", residual, residual_slopes, equal),
                    ("ineq", slack, slack_slopes, limits),
                )
                if used
            ]
            result: Any = optimize.minimize(
                objective,
                start,
                jac=objective_slopes,
                method="SLSQP",
                bounds=list(zip(lower.tolist(), upper.tolist(), strict=True)),
                constraints=constraints,
                options={"ftol": 1e-14, "maxiter": 300},
            )
            x = result.x
        else:
            x = optimize.least_squares(
                residual, start, bounds=(lower, upper), xtol=1e-15, ftol=1e-15, gtol=1e-15
            ).x
        feasible = np.abs(residual(x)).max(initial=0.0) < 1e-9
        if feasible and slack(x).min(initial=0.0) > -1e-9:
            found.append((objective(x), x))
    best = min(value for value, _ in found)
    distinct: list[np.ndarray] = []
    for value, x in found:
        if value < best + 1e-8 and all(np.abs(x - d).max() > 1e-4 for d in distinct):
            distinct.append(x)
    return np.array(distinct)


@pytest.mark.parametrize("name", COUNTABLE)
class TestAnswers:
    def test_feasible_and_attained(self, name: str) -> None:
        problem = COUNTABLE[name]
        goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
        for answer in problem.answers:
            assert bool(problem.x_space.contains(answer.x, tolerance=0.0))
            # rounding of a wide column, such as a steep gradient, grows with its width
            unit = goal.scale.clamp_min(1.0)
            torch.testing.assert_close(
                problem.simulate(answer.x) / unit, answer.y / unit, rtol=1e-12, atol=1e-14
            )
            assert bool(goal.satisfied(answer.y))
            wanted = goal.condition()
            known = ~torch.isnan(wanted)
            torch.testing.assert_close(answer.y[known], wanted[known], rtol=0, atol=1e-14)

    def test_a_solver_finds_the_same_set_and_nothing_better(self, name: str) -> None:
        problem = COUNTABLE[name]
        goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
        found = solve(problem)
        stated = torch.stack([a.x for a in problem.answers]).numpy()
        distance = np.abs(found[:, None] - stated[None]).max(-1)
        assert len(found) == len(stated)
        assert distance.min(0).max() < 2e-6
        assert distance.min(1).max() < 2e-6
        reached = float(goal.loss(problem.simulate(torch.from_numpy(found))).min())
        assert reached >= float(goal.loss(problem.answers[0].y)) - 1e-9

    def test_no_point_of_a_dense_sample_is_better(self, name: str) -> None:
        problem = COUNTABLE[name]
        y = problem.simulate(
            problem.x_space.lower
            + torch.rand(200_000, problem.x_space.dim, generator=torch.Generator().manual_seed(3))
            * (problem.x_space.upper - problem.x_space.lower)
        )
        goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
        directions = [t.index for t in goal.terms if t.kind == "min"]
        answer = problem.answers[0].y
        if directions:
            exact = {t.index: number(t) for t in goal.terms if t.kind == "equals"}
            ok = goal.satisfied(y)
            for i, value in exact.items():
                # off the equality a point may undercut by the price of the violation
                ok &= (y[:, i] - value).abs() < 1e-4
            assert bool((y[ok][:, directions] >= answer[directions] - 2e-4).all())
        else:
            assert float(goal.loss(y).min()) >= float(goal.loss(answer)) - 1e-15

    def test_weights_sum_to_one(self, name: str) -> None:
        weights = [a.weight for a in COUNTABLE[name].answers]
        assert sum(weights) == pytest.approx(1.0, abs=1e-12)
        assert min(weights) > 0.0


@pytest.mark.parametrize(
    ("name", "band"), [("peng_robinson", 5e-5), ("absolute_value", 5e-4), ("rastrigin", 0.1)]
)
def test_weights_are_the_shares_of_the_designs_that_hit_the_goal(name: str, band: float) -> None:
    problem = PROBLEMS[name]
    x = problem.design(2_000_000, seed=1)
    wanted = float(problem.answers[0].y)
    near = x[(problem.simulate(x) - wanted).abs().squeeze(-1) < band]
    centres = torch.stack([a.x for a in problem.answers]).squeeze(-1)
    owner = (near - centres).abs().argmin(-1)
    share = owner.bincount(minlength=len(centres)) / len(owner)
    stated = torch.tensor([a.weight for a in problem.answers])
    # three standard errors of a share of about 2000 hits
    torch.testing.assert_close(share, stated, rtol=0, atol=0.03)


@pytest.mark.parametrize("name", PROBLEMS)
class TestSimulator:
    def test_vectorised_equals_one_by_one(self, name: str) -> None:
        problem = PROBLEMS[name]
        x = problem.design(12, seed=2).reshape(3, 4, -1)
        together = problem.simulate(x)
        for i in range(3):
            for j in range(4):
                torch.testing.assert_close(together[i, j], problem.simulate(x[i, j]))
        assert together.dtype == torch.float64
        torch.testing.assert_close(
            problem.simulate(x.to(torch.float32)), together, rtol=1e-4, atol=1e-5
        )

    def test_gradient_by_finite_differences(self, name: str) -> None:
        problem = PROBLEMS[name]
        x: Tensor = problem.design(6, seed=4).requires_grad_(True)
        assert torch.autograd.gradcheck(problem.simulate, (x,), eps=1e-6, atol=1e-6)

    def test_table_repeats_and_lies_in_the_spaces(self, name: str) -> None:
        problem = PROBLEMS[name]
        table = problem.table(64, seed=5)
        again = problem.table(64, seed=5)
        assert len(table) == 64
        assert torch.equal(table.x, again.x)
        assert torch.equal(table.y, again.y)
        assert not torch.equal(table.x, problem.table(64, seed=6).x)
        assert bool(problem.x_space.contains(table.x).all())
        assert bool(problem.y_space.contains(table.y).all())

    def test_y_bounds_hold_the_image(self, name: str) -> None:
        problem = PROBLEMS[name]
        unit = torch.rand(
            50_000, problem.x_space.dim, generator=torch.Generator().manual_seed(0)
        ).to(torch.float64)
        corner = (unit > 0.5).to(torch.float64)
        for u in (unit, corner):
            x = problem.x_space.lower + u * (problem.x_space.upper - problem.x_space.lower)
            if problem.x_space.simplexes:
                x = problem.x_space.project(x)
            assert bool(problem.y_space.contains(problem.simulate(x)).all())

    def test_wrong_width_names_the_columns(self, name: str) -> None:
        problem = PROBLEMS[name]
        with pytest.raises(ValueError, match=problem.x_space.names[0]):
            problem.simulate(torch.zeros(2, problem.x_space.dim + 1))

    def test_tells_where_it_comes_from(self, name: str) -> None:
        problem = PROBLEMS[name]
        assert problem.has_simulator
        assert "20" in problem.citation
        assert problem.description
        assert [row["column"] for row in problem.describe()] == [
            *problem.x_space.names,
            *problem.y_space.names,
        ]
