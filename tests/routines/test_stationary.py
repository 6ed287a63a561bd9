"""`stationary` and `stationary_points` against closed forms and scipy."""

from __future__ import annotations

from functools import partialmethod

import numpy as np
import pytest
import torch
from scipy import optimize

from genopt import ConditionalFlow, GenoptError, Goal, Mixture, Space
from genopt.problems import Problem, Rastrigin
from genopt.problems.gasoline_blend import GasolineBlend
from genopt.problems.inactive_constraint import InactiveConstraint
from genopt.problems.plane_projection import PlaneProjection
from genopt.problems.reaction_equilibrium import ReactionEquilibrium
from genopt.routines.stationary import check_stationary, stationary
from genopt.routines.stationary_solve import stationary_points

PLANE = Space.of(x=(-3.0, 3.0), y=(-3.0, 3.0))
QUICK = {"n": 128, "rows": 256}


def double_well(x: torch.Tensor) -> torch.Tensor:
    return (x[..., 0] ** 2 - 1.0) ** 2 + (x[..., 1] ** 2 - 1.0) ** 2


class TestFunctions:
    @pytest.mark.parametrize("model", ["mixture", "none"])
    def test_minima_maxima_and_saddles_are_told_apart(self, model: str) -> None:
        found = stationary_points(double_well, PLANE, model=model, **QUICK)
        assert found.count() == {"minimum": 4, "maximum": 1, "saddle": 4}
        where = {
            (round(a), round(b)): kind
            for (a, b), kind in zip(found.x.tolist(), found.kinds, strict=True)
        }
        for (a, b), kind in where.items():
            names = {0: "maximum", 1: "saddle", 2: "minimum"}
            assert kind == names[abs(a) + abs(b)]
        torch.testing.assert_close(found.x, found.x.round(), atol=1e-9, rtol=0)
        assert found.value.tolist() == sorted(found.value.tolist())

    def test_the_flow_draws_starts_as_well(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ConditionalFlow, "fit", partialmethod(ConditionalFlow.fit, epochs=2))
        found = stationary_points(
            lambda x: (x[..., 0] - 0.3) ** 2 * (1.0 + x[..., 1] ** 2) + x[..., 1] ** 2,
            PLANE,
            model="flow",
            n=32,
            rows=48,
        )
        np.testing.assert_allclose(found.x.numpy(), [[0.3, 0.0]], atol=1e-8)

    def test_a_flat_point_is_degenerate(self) -> None:
        found = stationary_points(lambda x: x[..., 0] ** 3, Space.of(x=(-1.0, 1.2)), **QUICK)
        assert set(found.kinds) == {"degenerate"}

    def test_lagrange_multipliers_are_those_of_the_linear_system(self) -> None:
        octane = torch.tensor([95.0, 82.0, 94.0], dtype=torch.float64)
        recipe = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
        found = stationary_points(
            lambda x: (x - recipe).square().sum(-1),
            Space.of(x1=(0.0, 1.0), x2=(0.0, 1.0), x3=(0.0, 1.0)),
            [lambda x: x @ octane - 87.0, "x1 + x2 + x3 == 1"],
            **QUICK,
        )
        np.testing.assert_allclose(
            found.x[0].numpy(), [0.2840764331, 0.6070063694, 0.1089171975], atol=1e-9
        )
        values = [float(value) for value in found.multipliers.values()]
        np.testing.assert_allclose(values, [0.0496815287, -4.4878980892], atol=1e-9)
        assert found.kinds == ("minimum",)

    def test_a_circle_holds_the_eigenvectors(self) -> None:
        # stationary values of x'Ax on the unit circle are the eigenvalues, here twice each
        matrix = torch.tensor([[2.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        found = stationary_points(
            lambda x: ((x @ matrix) * x).sum(-1), PLANE, ["x**2 + y**2 == 1"], **QUICK
        )
        low, high = np.linalg.eigvalsh(matrix.numpy())
        np.testing.assert_allclose(found.value.numpy(), [low, low, high, high], atol=1e-9)
        assert found.kinds == ("minimum", "minimum", "maximum", "maximum")
        np.testing.assert_allclose(
            found.multipliers["x**2 + y**2 == 1"].numpy(), -found.value.numpy(), atol=1e-9
        )

    def test_active_and_inactive_inequalities_as_slsqp_finds_them(self) -> None:
        found = stationary_points(
            lambda x: (x[..., 0] - 2.0) ** 2 + (x[..., 1] - 1.0) ** 2,
            PLANE,
            inequalities=["x + y <= 1", "x - y <= 2"],
            **QUICK,
        )
        own = optimize.minimize(
            lambda x: (x[0] - 2.0) ** 2 + (x[1] - 1.0) ** 2,
            [0.0, 0.0],
            method="SLSQP",
            constraints=[
                {"type": "ineq", "fun": lambda x: 1.0 - x[0] - x[1]},
                {"type": "ineq", "fun": lambda x: 2.0 - x[0] + x[1]},
            ],
            options={"ftol": 1e-14},
        )
        assert found.kinds == ("minimum",)
        np.testing.assert_allclose(found.x[0].numpy(), own.x, atol=1e-6)
        assert found.active["x + y <= 1"].tolist() == [True]
        assert found.active["x - y <= 2"].tolist() == [False]
        assert found.multipliers["x - y <= 2"].tolist() == [0.0]
        # loosening the active one by t lowers the least squared distance (2 - t)^2 / 2 by 2 t
        assert float(found.multipliers["x + y <= 1"]) == pytest.approx(2.0, abs=1e-8)

    def test_a_corner_is_a_minimum_and_a_maximum_swaps_the_names(self) -> None:
        low = stationary_points(lambda x: x.sum(-1), PLANE, bounds=True, **QUICK)
        high = stationary_points(lambda x: x.sum(-1), PLANE, bounds=True, maximise=True, **QUICK)
        assert (low.kinds, high.kinds) == (("minimum",), ("maximum",))
        np.testing.assert_allclose(low.x.numpy(), [[-3.0, -3.0]], atol=1e-7)
        np.testing.assert_allclose(high.x.numpy(), [[3.0, 3.0]], atol=1e-7)
        assert float(high.value) == pytest.approx(6.0)

    def test_fractions_keep_their_sum(self) -> None:
        space = Space(
            Space.of(a=(0.0, 1.0), b=(0.0, 1.0), c=(0.0, 1.0)).variables, (("a", "b", "c"),)
        )
        found = stationary_points(
            lambda x: (x * torch.tensor([1.0, 2.0, 4.0])).square().sum(-1), space, **QUICK
        )
        # by Lagrange x_i is proportional to 1 / w_i^2
        weight = np.array([1.0, 0.25, 0.0625])
        np.testing.assert_allclose(found.x[0].numpy(), weight / weight.sum(), atol=1e-9)

    def test_two_units_of_a_column_give_the_same_points(self) -> None:
        other = Space.of(x=(-3e5, 3e5), y=(-3e-5, 3e-5))
        scale = torch.tensor([1e-5, 1e5], dtype=torch.float64)
        small = stationary_points(double_well, PLANE, **QUICK)
        large = stationary_points(lambda x: 1e7 * double_well(x * scale), other, **QUICK)
        assert small.count() == large.count()
        theirs = sorted(np.round((large.x * scale).numpy(), 6).tolist())
        assert theirs == sorted(np.round(small.x.numpy(), 6).tolist())

    def test_mistakes_are_named(self) -> None:
        with pytest.raises(GenoptError, match="one number each"):
            stationary_points(lambda x: x, PLANE)
        with pytest.raises(GenoptError, match="torch cannot differentiate"):
            stationary_points(lambda x: torch.from_numpy(x.numpy().sum(-1)), PLANE)
        with pytest.raises(GenoptError, match="samples must be at least 1"):
            stationary_points(double_well, PLANE, n=0)
        with pytest.raises(GenoptError, match="barrier must lie between 0 and 1"):
            stationary_points(double_well, PLANE, barrier=2.0)
        with pytest.raises(GenoptError, match="'x >= 5' least often"):
            stationary_points(double_well, PLANE, inequalities=["y >= 0", "x >= 5"])


def routine(problem: Problem, **options: object) -> object:
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    model = Mixture(problem.x_space, problem.y_space)
    return stationary(model, goal, problem=problem, **{"samples": 256, "rows": 256} | options)


class TestRoutine:
    @pytest.mark.parametrize("dimension", [1, 2])
    def test_all_points_of_rastrigin_from_its_table(self, dimension: int) -> None:
        problem = Rastrigin(dimension)
        goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
        table = problem.table(512)
        model = Mixture(problem.x_space, problem.y_space, max_components=10, criterion="bic")
        model.fit(table.x, table.y)
        found = stationary(model, goal, table=table, problem=problem, samples=512)
        truth = torch.stack([answer.x for answer in problem.answers])
        assert found.shape == (1, 9**dimension)
        gaps = (found.x[0][:, None] - truth).norm(dim=2)
        assert float(gaps.amin(0).max()) < 1e-9
        # the sign of f'' on each axis, counted by hand: five minima and four maxima
        kinds = found.header["kinds"]
        assert kinds.count("minimum") == 5**dimension
        assert kinds.count("maximum") == 4**dimension

    def test_the_free_minimum_beside_an_inactive_constraint(self) -> None:
        found = routine(InactiveConstraint())
        np.testing.assert_allclose(found.x[0].numpy(), [[2.0, 1.0]], atol=1e-9)
        assert found.header["active"] == {"slack >= 0": [False]}
        assert any("slack >= 0 is inactive" in part for part in found.header["says"])
        assert found.header["numbers"]["calls"] > 256

    def test_the_nearest_point_of_a_plane(self) -> None:
        found = routine(PlaneProjection())
        np.testing.assert_allclose(found.x[0].numpy(), [[1.0, -0.5, 0.5]], atol=1e-9)
        # f = |x|^2 and 2x - y + z - 3: 2 x + l 2 = 0
        assert found.header["multipliers"]["residual = 0"] == pytest.approx([-1.0])

    def test_the_equilibrium_as_the_barrier_goes_to_zero(self) -> None:
        found = routine(ReactionEquilibrium(objective=True), bounds=True)
        assert float(found.x) == pytest.approx(1.0 / 3.0, abs=1e-9)
        assert found.header["kinds"] == ["minimum"]

    def test_multipliers_that_are_columns_are_left_out_of_the_check(self) -> None:
        problem = GasolineBlend()
        plain = routine(problem, engine="none")
        told = routine(problem, engine="none", multipliers=["l1", "l2"])
        assert plain.header["kinds"] == ["saddle"]
        assert told.header["kinds"] == ["minimum"]
        truth = problem.answers[0].x
        torch.testing.assert_close(told.x[0, 0], truth, atol=1e-9, rtol=0)

    def test_held_columns_and_rules_bind(self) -> None:
        problem = PlaneProjection()
        goal = Goal({**problem.default_goal, "z": 1.0}, problem.x_space, problem.y_space)
        model = Mixture(problem.x_space, problem.y_space)
        found = stationary(
            model, goal, problem=problem, constraints=["x <= 0.5"], samples=128, rows=256
        )
        # 2 x - y = 2 nearest to 0 is (.8, -.4): the rule moves it to x = .5, y = -1
        np.testing.assert_allclose(found.x[0].numpy(), [[0.5, -1.0, 1.0]], atol=1e-8)
        assert found.header["active"]["x <= 0.5"] == [True]

    def test_without_a_simulator_the_model_is_solved(self) -> None:
        x = torch.linspace(-1.0, 1.0, 200, dtype=torch.float64)[:, None]
        model = Mixture(
            Space.of(x=(-1.0, 1.0)), Space.of(y=(0.0, 2.0)), max_components=12, criterion="bic"
        ).fit(x, (x - 0.2) ** 2)
        goal = Goal({"y": "min"}, model.x_space, model.y_space)
        found = stationary(model, goal, samples=64, rows=200)
        grid = torch.linspace(-1.0, 1.0, 20001, dtype=torch.float64)[:, None]
        lowest = grid[model.predict_y(grid)[:, 0].argmin()]
        assert float(found.best().x) == pytest.approx(float(lowest), abs=2e-4)
        assert "not verified" in found.header["says"][-1]
        assert found.header["numbers"]["calls"] == 0

    def test_roots_of_what_is_no_slope_are_called_roots(self) -> None:
        class Circle(Problem):
            def __init__(self) -> None:
                super().__init__(
                    "circle",
                    Space.of(a=(-2.0, 2.0), b=(-2.0, 2.0)),
                    Space.of(r=(-4.0, 4.0), d=(-4.0, 4.0)),
                    {"r": 0.0, "d": 0.0},
                )

            def simulate(self, x: torch.Tensor) -> torch.Tensor:
                a, b = x.unbind(-1)
                return torch.stack([a**2 + b**2 - 1.0, 2.0 * a - b], -1)

        found = routine(Circle(), engine="none")
        assert found.header["kinds"] == ["root", "root"]
        root = 5.0**-0.5
        wanted = torch.tensor([[-root, -2.0 * root], [root, 2.0 * root]], dtype=torch.float64)
        torch.testing.assert_close(found.x[0][found.x[0, :, 0].argsort()], wanted)


class TestChecks:
    X = Space.of(a=(0.0, 1.0), b=(0.0, 1.0))
    Y = Space.of(u=(0.0, 1.0), v=(0.0, 1.0))

    @pytest.mark.parametrize(
        ("spec", "options", "message"),
        [
            ({"u": "min", "v": "max"}, {}, "one objective"),
            ({"u": {"at_least": 0.5}}, {}, "one column as min or max"),
            ({"u": [0.1, 0.2]}, {}, "one goal"),
            ({"u": "min"}, {"multipliers": ["a"]}, "drop it"),
            ({"u": 0.0}, {"multipliers": ["u"]}, "no moving column"),
            ({"u": 0.0}, {"bounds": True}, "need an objective"),
            ({"u": "min"}, {"engine": "forest"}, "forest"),
            ({"u": "min"}, {"rows": 0}, "rows must be at least 1"),
        ],
    )
    def test_bad_wishes_are_refused_before_work(
        self, spec: dict[str, object], options: dict[str, object], message: str
    ) -> None:
        with pytest.raises(GenoptError, match=message):
            check_stationary(Goal(spec, self.X, self.Y), **options)
