"""`refine` against roots, projections and optima that numpy, scipy and closed forms know."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from genopt.candidates import Candidates
from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.models.mixture import Mixture
from genopt.models.nothing import Nothing
from genopt.problems import Problem, SimulationWarning
from genopt.problems.arm_kinematics import ArmKinematics
from genopt.problems.cstr_mapping import CstrMapping
from genopt.problems.evaporator import STATE, Evaporator
from genopt.problems.gasoline_blend import GasolineBlend
from genopt.problems.inactive_constraint import InactiveConstraint
from genopt.problems.peng_robinson import PengRobinson
from genopt.problems.plane_projection import PlaneProjection
from genopt.routines.refine import refine, refine_candidates
from genopt.space import Space, Variable


def nothing(problem: Problem) -> Nothing:
    return Nothing(problem.x_space, problem.y_space)


def own_goal(problem: Problem) -> Goal:
    return Goal(problem.default_goal, problem.x_space, problem.y_space)


def proposed(problem: Problem, x: torch.Tensor, goal: Goal | None = None) -> Candidates:
    """Designs (R, P) or (B, R, P) as candidates that claim what is true."""
    goal = goal or own_goal(problem)
    x = x.reshape(goal.batch_size, -1, problem.x_space.dim)
    return Candidates.from_claims(goal, x, problem.simulate(x))


class Linear(Problem):
    """y = A x + b on a box."""

    def __init__(self, matrix, offset, lower, upper, goal, simplexes=()):
        self.matrix = torch.as_tensor(matrix, dtype=torch.float64)
        self.offset = torch.as_tensor(offset, dtype=torch.float64)
        names = [f"x{i}" for i in range(self.matrix.shape[1])]
        super().__init__(
            "linear",
            Space(
                tuple(
                    Variable(n, float(lo), float(hi))
                    for n, lo, hi in zip(names, lower, upper, strict=True)
                ),
                simplexes,
            ),
            Space.of(**{f"y{i}": (-10.0, 10.0) for i in range(len(self.matrix))}),
            goal,
        )

    def simulate(self, x):
        return x @ self.matrix.T + self.offset


class Process(Problem):
    """All sixteen variables of the evaporator, its twelve equations as properties."""

    def __init__(self):
        self.whole = Evaporator()
        wide = {"F1": (1, 20), "F2": (0.1, 5), "F3": (0.1, 100), "F4": (0.1, 20), "F5": (0.1, 20)}
        wide |= {"X2": (35.5, 50), "T2": (60, 120), "T3": (60, 100), "P2": (40, 80)}
        wide |= {"F100": (0.1, 30), "T100": (100, 170), "P100": (200, 400), "Q100": (10, 800)}
        wide |= {"F200": (0, 400), "T201": (26, 80), "Q200": (10, 800)}
        equations = [f"h{i}" for i in range(12)]
        super().__init__(
            "process",
            Space.of(**{name: wide[name] for name in STATE}),
            Space.of(J=(-600.0, 3300.0), **dict.fromkeys(equations, (-1.0, 1.0))),
            {"J": "min", **dict.fromkeys(equations, 0.0)},
        )

    def simulate(self, x):
        v = dict(zip(STATE, x.unbind(-1), strict=True))
        cost = 600.0 * v["F100"] + 0.6 * v["F200"] + 1.009 * (v["F2"] + v["F3"])
        cost = cost + 0.2 * v["F1"] - 4800.0 * v["F2"]
        return torch.cat([cost[..., None], self.whole.residuals(x)], -1)


# -- wanted values ---------------------------------------------------------------------------------
def test_all_roots_of_the_cubic():
    problem = PengRobinson()
    found = refine(nothing(problem), own_goal(problem), problem=problem, proposals=24)
    roots = np.sort(np.roots(problem.coefficients).real)
    gap = np.abs(found.x[0].numpy() - roots)
    assert gap.min(1).max() < 1e-8
    assert set(gap.argmin(1)) == {0, 1, 2}
    assert bool(found.converged.all())
    assert len(found.header["distinct"][0]) == 3
    assert found.header["numbers"]["calls"] < 24 * 20


def test_the_shortest_move_is_taken():
    """One equation, four unknowns of unequal widths: the end is the orthogonal projection."""
    width = np.array([1.0, 2.0, 4.0, 0.5])
    a = np.array([[0.3, -0.5, 0.2, 1.0]])
    problem = Linear(a, [0.0], -10 * width, 10 * width, {"y0": 0.7})
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 4)))
    found = refine_candidates(proposed(problem, x), problem)
    scaled = a * 20 * width
    move = (np.linalg.pinv(scaled) @ (0.7 - a @ x.numpy().T)).T * 20 * width
    np.testing.assert_allclose(found.x[0].numpy(), x.numpy() + move, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_nearest_values_inside_the_bounds(seed):
    """What cannot be reached is met as nearly as bounded linear least squares say."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(3, 2))
    wanted = rng.normal(size=3)
    problem = Linear(
        a, np.zeros(3), [-0.5, -0.3], [0.4, 0.6], {f"y{i}": float(w) for i, w in enumerate(wanted)}
    )
    start = torch.from_numpy(rng.uniform(-0.3, 0.4, (2, 2)))
    found = refine_candidates(proposed(problem, start), problem)
    truth = lsq_linear(a, wanted, ([-0.5, -0.3], [0.4, 0.6]), tol=1e-14).x
    np.testing.assert_allclose(found.x[0].numpy(), np.tile(truth, (2, 1)), atol=1e-6)
    reached = np.abs(a @ truth - wanted).max() / 20 < 1e-8
    assert bool((found.converged == reached).all())


def test_many_goals_at_once():
    problem = CstrMapping()
    targets = problem.disk(6, seed=3)
    goal = Goal({"C_A": targets[:, 0], "C_B": targets[:, 1]}, problem.x_space, problem.y_space)
    x = problem.x_space.project(problem.inverse(targets)[:, None] * torch.tensor([0.8, 1.2]))
    found = refine_candidates(proposed(problem, x.expand(-1, 2, -1), goal), problem, goal)
    torch.testing.assert_close(
        found.x, problem.inverse(targets)[:, None].expand(-1, 2, -1), atol=1e-8, rtol=0
    )
    assert bool(found.feasible.all())


def test_rows_do_not_see_one_another():
    problem = ArmKinematics()
    x = problem.design(12, seed=1)
    whole = refine_candidates(proposed(problem, x), problem).x[0]
    for i in (0, 7):
        alone = refine_candidates(proposed(problem, x[i]), problem).x[0, 0]
        torch.testing.assert_close(alone, whole[i], atol=1e-12, rtol=0)


def test_a_blend_stays_a_blend():
    matrix = [[1.0, 2.0, 4.0, 0.0], [0.0, 1.0, -1.0, 3.0]]
    problem = Linear(
        matrix,
        [0.0, 0.0],
        [0.0, 0.0, 0.0, -1.0],
        [1.0, 1.0, 0.3, 1.0],
        {"y0": 1.6, "y1": {"between": [0.5, 0.6]}, "x3": 0.25},
        simplexes=(("x0", "x1", "x2"),),
    )
    x = torch.tensor([[1.0, 0.0, 0.0, 0.25], [0.1, 0.6, 0.3, 0.25], [0.4, 0.3, 0.3, 0.25]])
    found = refine_candidates(proposed(problem, x.double()), problem)
    assert bool(found.converged.all())
    assert bool(found.feasible.all())
    torch.testing.assert_close(
        found.x[0, :, :3].sum(-1), torch.ones(3).double(), atol=1e-12, rtol=0
    )
    assert bool((found.x[0, :, 3] == 0.25).all())
    assert float((found.y_predicted[..., 0] - 1.6).abs().max()) < 1e-7
    assert bool(problem.x_space.contains(found.x, 1e-12).all())


def test_classes_and_integers_stay():
    class Kinds(Problem):
        def __init__(self):
            space = Space(
                (
                    Variable("u", 0.0, 10.0),
                    Variable("n", 1, 5, kind="integer"),
                    Variable("c", kind="categorical", labels=("a", "b", "c")),
                )
            )
            super().__init__("kinds", space, Space.of(v=(0.0, 100.0)), {"v": 12.0})

        def simulate(self, x):
            u, n, c = x.unbind(-1)
            return (n * u + c)[..., None]

    problem = Kinds()
    x = torch.tensor(list(itertools.product([1.0], [2.0, 3.0], [0.0, 2.0])), dtype=torch.float64)
    found = refine_candidates(proposed(problem, x), problem).x[0]
    assert torch.equal(found[:, 1:], x[:, 1:])
    torch.testing.assert_close(found[:, 0], (12.0 - x[:, 2]) / x[:, 1], atol=1e-6, rtol=0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_no_design_gets_worse(seed):
    problem = ArmKinematics()
    goal = Goal({"y1": 1.98, "y2": {"at_least": 2.4}}, problem.x_space, problem.y_space)
    before = proposed(problem, problem.design(8, seed), goal)
    after = refine_candidates(before, problem, goal, steps=3)
    assert bool((after.loss <= before.loss + 1e-15).all())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_no_wish_is_paid_for_with_a_condition(seed):
    problem = Evaporator()
    goal = own_goal(problem)
    before = proposed(problem, problem.design(6, seed), goal)
    after = refine_candidates(before, problem, goal, steps=1)
    assert bool(goal.satisfied(after.y_predicted).all())
    assert bool((after.y_predicted[..., 0] <= before.y_predicted[..., 0] + 1e-9).all())


def test_the_postures_of_an_arm_keep_their_variety():
    """Exact postures, disturbed: refined they are exact again, and as far from one another."""
    problem = ArmKinematics()
    y = torch.tensor([1.7, 0.5], dtype=torch.float64)
    exact = problem.posterior(y, 200, seed=0)
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0)).double()
    found = refine_candidates(proposed(problem, exact + 0.01 * noise), problem)
    assert float((problem.simulate(found.x) - y).square().sum(-1).max()) < 1e-10
    assert float((found.x[0] - exact).norm(dim=-1).median()) < 0.03
    spread = found.x[0].std(0) / exact.std(0)
    assert bool(((spread > 0.95) & (spread < 1.05)).all())


def test_an_affine_system_in_one_go():
    problem = GasolineBlend()
    found = refine(nothing(problem), own_goal(problem), problem=problem, proposals=8)
    truth = torch.linalg.solve(problem.matrix, problem.offset)
    torch.testing.assert_close(found.x[0], truth.expand(8, -1), atol=1e-8, rtol=0)


# -- wishes ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("problem", [InactiveConstraint(), PlaneProjection()])
def test_the_exact_optimum(problem):
    found = refine(nothing(problem), own_goal(problem), problem=problem, proposals=8)
    assert bool(found.converged.all())
    assert float((found.x[0] - problem.answers[0].x).abs().max()) < 1e-6
    assert bool(found.feasible.all())


def test_the_evaporator_from_proposals_of_a_mixture():
    problem = Evaporator()
    table = problem.table(400)
    model = Mixture(problem.x_space, problem.y_space, max_components=3, min_components=3)
    model.fit(table.x, table.y)
    found = refine(model, own_goal(problem), problem=problem, table=table, proposals=16)
    best = found.best()
    assert float(best.y_predicted[0, 0, 0]) == pytest.approx(-582.2330796, abs=1e-6)
    assert float((best.x[0, 0] - problem.answers[0].x).abs().max()) < 1e-4
    assert float(found.converged.double().mean()) > 0.9


def test_twelve_equations_between_sixteen_variables():
    problem = Process()
    x = problem.whole.state(problem.whole.design(2, seed=2))
    found = refine_candidates(proposed(problem, x), problem)
    best = problem.whole.state(problem.whole.answers[0].x)
    assert bool(found.converged.all())
    assert float(((found.x[0] - best) / best).abs().max()) < 1e-5
    assert float(found.y_predicted[0, :, 0].max()) == pytest.approx(-582.2330796, abs=1e-4)
    assert float(found.y_predicted[..., 1:].abs().max()) < 2e-8


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_quadratic_programs(seed):
    """Equalities alone: the system of Karush, Kuhn and Tucker is linear."""
    rng = np.random.default_rng(seed)
    root, a, b = rng.normal(size=(3, 3)), rng.normal(size=(1, 3)), rng.normal(size=1)
    hessian, slope = root @ root.T + np.eye(3), rng.normal(size=3)

    class Quadratic(Problem):
        def __init__(self):
            box = {f"x{i}": (-50.0, 50.0) for i in range(3)}
            super().__init__(
                "quadratic",
                Space.of(**box),
                Space.of(f=(-10.0, 90.0), h=(-5.0, 5.0)),
                {"f": "min", "h": 0.0},
            )

        def simulate(self, x):
            f = 0.5 * ((x @ torch.from_numpy(hessian)) * x).sum(-1) + x @ torch.from_numpy(slope)
            return torch.stack([f, x @ torch.from_numpy(a[0]) - float(b[0])], -1)

    problem = Quadratic()
    whole = np.block([[hessian, a.T], [a, np.zeros((1, 1))]])
    truth = np.linalg.solve(whole, np.concatenate([-slope, b]))[:3]
    start = torch.from_numpy(rng.normal(size=(3, 3)))
    found = refine_candidates(proposed(problem, start), problem)
    np.testing.assert_allclose(found.x[0].numpy(), np.tile(truth, (3, 1)), atol=1e-4)


def test_a_wish_alone_on_a_simplex():
    """The point of a simplex nearest to another one: the projection onto it."""

    class Distance(Problem):
        def __init__(self):
            space = Space(tuple(Variable(n, 0.0, 1.0) for n in "abc"), (("a", "b", "c"),))
            super().__init__("distance", space, Space.of(d=(0.0, 3.0)), {"d": "min"})

        def simulate(self, x):
            return (x - torch.tensor([0.9, 0.4, -0.2])).square().sum(-1, keepdim=True)

    problem = Distance()
    found = refine(nothing(problem), own_goal(problem), problem=problem, proposals=6)
    truth = torch.tensor([0.75, 0.25, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found.x[0], truth.expand(6, -1), atol=1e-6, rtol=0)


def test_rules_are_kept_as_well():
    problem = InactiveConstraint()
    found = refine(
        nothing(problem),
        own_goal(problem),
        problem=problem,
        proposals=6,
        constraints=["x + y <= 2", "x * y == 0.75"],
    )
    x, y = found.x[0].unbind(-1)
    assert bool(found.converged.all())
    assert float((x * y - 0.75).abs().max()) < 1e-6
    assert bool((x + y <= 2.0).all())
    # (3/2, 1/2) is nearest to (2, 1) of all that keep both
    assert float(found.best().x[0, 0, 0]) == pytest.approx(1.5, abs=1e-5)


# -- simulators as they are ------------------------------------------------------------------------
class BlackBox(CstrMapping):
    """The same numbers by numpy: gradients do not pass."""

    def simulate(self, x):
        return torch.from_numpy(super().simulate(x.detach()).numpy().copy())


@pytest.mark.parametrize("method", ["auto", "least_squares", "slsqp"])
def test_a_black_box_by_differences(method):
    problem = BlackBox()
    x = problem.x_space.project(problem.answers[0].x * torch.tensor([[0.9, 1.1], [1.1, 0.95]]))
    found = refine_candidates(proposed(problem, x), problem, method=method)
    torch.testing.assert_close(found.x[0], problem.answers[0].x.expand(2, -1), atol=1e-7, rtol=0)
    assert bool(found.converged.all())


def test_designs_on_which_the_simulator_fails_are_left_aside():
    class Brittle(CstrMapping):
        def simulate(self, x):
            if bool((x[..., 0] > 2.0).any()):
                raise ArithmeticError("no steady state")
            return super().simulate(x)

    problem = Brittle()
    x = torch.tensor([[2.5, 5.0], [0.7, 4.5]], dtype=torch.float64)
    before = Candidates.from_claims(own_goal(problem), x[None], torch.full((1, 2, 2), 0.5))
    with pytest.warns(SimulationWarning, match="no steady state"):
        found = refine_candidates(before, problem)
    assert found.converged.tolist() == [[False, True]]
    assert torch.equal(found.x[0, 0], x[0])
    torch.testing.assert_close(found.x[0, 1], problem.answers[0].x, atol=1e-7, rtol=0)


def test_goals_without_designs_stay_without():
    problem = CstrMapping()
    goal = Goal({"C_A": [0.58, 0.6], "C_B": [0.3, 0.3]}, problem.x_space, problem.y_space)
    x = torch.full((2, 2, 2), torch.nan, dtype=torch.float64)
    x[1] = problem.answers[0].x
    before = Candidates.from_claims(goal, x, torch.full_like(x, 0.5))
    found = refine_candidates(before, problem, goal)
    assert bool(found.x[0].isnan().all())
    assert found.converged.tolist() == [[False, False], [True, True]]
    assert found.header["distinct"] == [[], [0]]


# -- mistakes --------------------------------------------------------------------------------------
def test_mistakes_are_named():
    problem = PengRobinson()
    before = proposed(problem, torch.tensor([[0.5]], dtype=torch.float64))
    with pytest.raises(UnknownNameError, match=r"method 'newton'.*gauss_newton"):
        refine_candidates(before, problem, method="newton")
    with pytest.raises(GenoptError, match="tolerance must lie between 0 and 1, got 0"):
        refine_candidates(before, problem, tolerance=0.0)
    with pytest.raises(GenoptError, match="steps must be at least 1"):
        refine_candidates(before, problem, steps=0)
    wish = Goal({"r": "min"}, problem.x_space, problem.y_space)
    with pytest.raises(GenoptError, match="gauss_newton finds values"):
        refine_candidates(before, problem, wish, method="gauss_newton")
    with pytest.raises(GenoptError, match=r"x columns Z; the problem has x, y"):
        refine_candidates(before, InactiveConstraint())
    bare = Problem("bare", problem.x_space, problem.y_space)
    with pytest.raises(GenoptError, match="'bare' has measured data only: use routine=condition"):
        refine(nothing(problem), own_goal(problem), problem=bare)


def test_what_cannot_be_reached_is_said():
    problem = Linear([[1.0]], [0.0], [0.0], [1.0], {"y0": 3.0})
    found = refine(nothing(problem), own_goal(problem), problem=problem, proposals=4)
    assert not bool(found.converged.any())
    torch.testing.assert_close(found.x[0], torch.ones(4, 1).double())
    assert (
        "no design converged, the nearest misses by 0.1 of a property's width"
        in (found.header["says"])
    )
