"""Published digits of the chemical problems, and their equations against a second derivation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize

from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.problems.alloy import INFEASIBLE_TARGETS, Alloy
from genopt.problems.batch_reactor import BatchReactor
from genopt.problems.cstr_mapping import CstrMapping
from genopt.problems.evaporator import STATE, Evaporator
from genopt.problems.gasoline_blend import GasolineBlend
from genopt.problems.reaction_equilibrium import ReactionEquilibrium


class TestBatchReactor:
    def test_published_digits(self) -> None:
        problem = BatchReactor()
        (answer,) = problem.answers
        assert answer.x.item() == pytest.approx(3.054302439580517, abs=1e-14)
        assert problem.concentration(answer.x).item() == pytest.approx(0.5428835233, abs=5e-11)

    def test_the_balances_have_their_best_yield_there(self) -> None:
        k1, k2, inlet = 0.8, 0.3, 2.0
        problem = BatchReactor(k1, k2, inlet)
        path: Any = integrate.solve_ivp(
            lambda _, c: [-k1 * c[0], k1 * c[0] - k2 * c[1]],
            (0.0, 20.0),
            [inlet, 0.0],
            rtol=1e-11,
            atol=1e-13,
            dense_output=True,
        )
        best: Any = optimize.minimize_scalar(
            lambda t: -path.sol(t)[1], bounds=(0.1, 20.0), method="bounded"
        )
        assert problem.answers[0].x.item() == pytest.approx(best.x, abs=1e-4)
        times = np.linspace(0.1, 20.0, 40)
        a, b = path.sol(times)
        x = torch.from_numpy(times).unsqueeze(-1)
        np.testing.assert_allclose(problem.concentration(x).numpy(), b, atol=1e-9)
        np.testing.assert_allclose(problem.simulate(x)[:, 0].numpy(), k1 * a - k2 * b, atol=1e-9)

    def test_the_tail_is_no_answer(self) -> None:
        problem = BatchReactor()
        goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
        tail = torch.linspace(5.0, 20.0, 200, dtype=torch.float64).unsqueeze(-1)
        assert bool((problem.simulate(tail) < 0.0).all())
        assert not bool(goal.satisfied(problem.simulate(tail)).any())

    def test_a_best_yield_outside_the_times_is_refused(self) -> None:
        with pytest.raises(GenoptError, match="dCB_dt: equals 0 cannot be reached"):
            BatchReactor(k1=0.01, k2=0.02)

    @pytest.mark.parametrize("bad", [{"k1": 0.2}, {"k2": -1.0}, {"inlet": 0.0}])
    def test_bad_constants(self, bad: dict[str, float]) -> None:
        with pytest.raises(GenoptError, match="must be positive, and k1 and k2 must differ"):
            BatchReactor(**bad)


class TestGasolineBlend:
    def test_published_digits(self) -> None:
        problem = GasolineBlend()
        (answer,) = problem.answers
        stated = [0.2840764331, 0.6070063694, 0.1089171975, 0.0496815287, -4.4878980892]
        assert answer.x.tolist() == pytest.approx(stated, abs=5e-11)
        assert problem.change(answer.x).item() == pytest.approx(0.0645859873, abs=5e-11)

    def test_the_constrained_problem_has_the_same_optimum(self) -> None:
        octane, recipe = np.array([95.0, 82.0, 94.0]), np.array([0.4, 0.4, 0.2])

        def change(x: np.ndarray) -> float:
            return float(np.square(x - recipe).sum())

        constraints: list[Any] = [
            {"type": "eq", "fun": lambda x: octane @ x - 87.0},
            {"type": "eq", "fun": lambda x: x.sum() - 1.0},
        ]
        result: Any = optimize.minimize(
            change,
            recipe,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * 3,
            constraints=constraints,
            options={"ftol": 1e-15},
        )
        (answer,) = GasolineBlend().answers
        np.testing.assert_allclose(answer.x[:3].numpy(), result.x, atol=1e-7)

    def test_the_properties_are_the_slopes_of_the_lagrangian(self) -> None:
        problem = GasolineBlend()
        x = problem.design(5, seed=3)

        def lagrangian(v: np.ndarray) -> float:
            x1, x2, x3, l1, l2 = v
            change = (x1 - 0.4) ** 2 + (x2 - 0.4) ** 2 + (x3 - 0.2) ** 2
            return change + l1 * (95 * x1 + 82 * x2 + 94 * x3 - 87) + l2 * (x1 + x2 + x3 - 1)

        for row in x.numpy():
            slope = optimize.approx_fprime(row, lagrangian, 1e-6)
            np.testing.assert_allclose(
                problem.simulate(torch.from_numpy(row)).numpy(), slope, atol=1e-4
            )


class TestReactionEquilibrium:
    def test_published_digits(self) -> None:
        problem = ReactionEquilibrium()
        (answer,) = problem.answers
        assert answer.x.item() == pytest.approx(0.3333801869, abs=5e-11)
        assert problem.equilibrium == pytest.approx(1 / 3, abs=1e-15)

    @settings(max_examples=12, deadline=None)
    @given(constant=st.floats(0.1, 20.0), barrier=st.floats(1e-4, 0.1))
    def test_the_barrier_function_is_least_there(self, constant: float, barrier: float) -> None:
        def phi(xi: np.ndarray) -> np.ndarray:
            imbalance = constant * (1 - xi) ** 2 - 4 * xi**2
            return imbalance**2 - barrier * np.log(xi) - barrier * np.log(1 - xi)

        problem = ReactionEquilibrium(constant, barrier)
        answers = np.array([a.x.item() for a in problem.answers])
        grid = np.linspace(0.02, 0.98, 40_001)
        assert np.abs(answers - grid[phi(grid).argmin()]).min() < 3e-5
        xi = np.linspace(0.1, 0.9, 7)
        slope = (phi(xi + 1e-6) - phi(xi - 1e-6)) / 2e-6
        own = problem.simulate(torch.from_numpy(xi).unsqueeze(-1)).squeeze(-1).numpy()
        np.testing.assert_allclose(own, slope, rtol=1e-5, atol=1e-5)

    def test_a_weak_barrier_leaves_the_equilibrium(self) -> None:
        problem = ReactionEquilibrium(constant=2.0, barrier=1e-9)
        assert problem.answers[0].x.item() == pytest.approx(problem.equilibrium, abs=1e-9)

    def test_bad_constants(self) -> None:
        with pytest.raises(GenoptError, match="must be positive"):
            ReactionEquilibrium(barrier=0.0)


class TestCstrMapping:
    def test_published_digits(self) -> None:
        (answer,) = CstrMapping().answers
        assert answer.x.tolist() == pytest.approx([0.7286593765, 4.7911801525], abs=5e-11)
        assert answer.y.tolist() == [0.58, 0.30]

    @settings(max_examples=30, deadline=None)
    @given(radius=st.floats(0.1, 3.0), thermal=st.floats(0.5, 15.0))
    def test_the_outlet_closes_the_balances_and_the_inverse_gives_the_design_back(
        self, radius: float, thermal: float
    ) -> None:
        problem = CstrMapping()
        x = torch.tensor([radius, thermal], dtype=torch.float64)
        y = problem.simulate(x)
        volume = np.pi * radius**2
        k1, k2 = np.exp(-3 / thermal), np.exp(-10 / thermal)
        c_a = optimize.brentq(
            lambda c: 1 - c - volume * (k1 * c * c + k2 * c), 0.0, 1.0, xtol=1e-15
        )
        assert y.tolist() == pytest.approx([c_a, volume * k1 * c_a**2], abs=1e-12)
        torch.testing.assert_close(problem.inverse(y), x, rtol=1e-6, atol=0)

    def test_the_disk(self) -> None:
        problem = CstrMapping()
        y = problem.disk(20_000, seed=2)
        offset = (y - torch.tensor([0.58, 0.30])).norm(dim=-1)
        assert float(offset.max()) < 0.08
        # half of a disk's area lies within 1/sqrt(2) of its radius
        assert float((offset < 0.08 / 2**0.5).double().mean()) == pytest.approx(0.5, abs=0.02)
        assert bool(problem.in_disk(y).all())
        assert problem.in_disk(torch.tensor([[0.58, 0.39], [0.65, 0.30]])).tolist() == [False, True]
        x = problem.inverse(y)
        assert bool(problem.x_space.contains(x).all())
        torch.testing.assert_close(problem.simulate(x), y, rtol=0, atol=1e-12)
        goal = Goal({"C_A": y[:5, 0], "C_B": y[:5, 1]}, problem.x_space, problem.y_space)
        assert goal.batch_size == 5

    def test_an_outlet_that_no_reactor_has(self) -> None:
        # more comes out than went in; the second reaction would be faster than the first
        impossible = torch.tensor([[0.8, 0.3], [0.5, 0.01], [0.0, 0.5]])
        assert bool(torch.isnan(CstrMapping().inverse(impossible)).all())

    def test_a_negative_count(self) -> None:
        with pytest.raises(GenoptError, match="n must not be negative"):
            CstrMapping().disk(-1)


class TestEvaporator:
    # F1..F5, X2, T2, T3, P2, F100, T100, P100, Q100, F200, T201, Q200
    PUBLISHED = (
        *(9.46900, 1.33366, 24.7211, 8.13534, 8.13534, 35.5, 88.4001, 81.0658, 51.4117),
        *(9.43419, 151.52, 400.0, 345.2915, 217.739, 45.5495, 313.2104),
    )

    def test_published_digits(self) -> None:
        problem = Evaporator()
        (answer,) = problem.answers
        assert problem.state(answer.x).tolist() == pytest.approx(self.PUBLISHED, rel=2.5e-6)
        assert answer.y[0].item() == pytest.approx(-582.2330796, abs=5e-8)

    def test_every_row_fulfils_all_equations_and_limits(self) -> None:
        problem = Evaporator()
        table = problem.table(500, seed=1)
        state = problem.state(table.x)
        assert float(problem.residuals(state).abs().max()) < 1e-11
        by_name = dict(zip(STATE, state.unbind(-1), strict=True))
        assert float(by_name["F200"].max()) <= 400.0
        assert float(by_name["F200"].min()) >= 0.0
        assert float(by_name["F3"].max()) <= 100.0
        assert float(by_name["F3"].min()) >= 0.1
        cost = (
            600 * by_name["F100"]
            + 0.6 * by_name["F200"]
            + 1.009 * (by_name["F2"] + by_name["F3"])
            + 0.2 * by_name["F1"]
            - 4800 * by_name["F2"]
        )
        torch.testing.assert_close(table.y[:, 0], cost, rtol=0, atol=1e-9)

    def test_the_sixteen_variables_have_no_better_state(self) -> None:
        """SLSQP on the full problem, with all equations as constraints, from three rows."""
        problem = Evaporator()
        weights = np.zeros(16)
        weights[[STATE.index(n) for n in ("F100", "F200", "F1", "F3", "F2")]] = (
            600.0, 0.6, 0.2, 1.009, 1.009 - 4800.0,
        )  # fmt: skip
        bounds = dict.fromkeys(STATE, (0.0, 5000.0)) | {
            "X2": (35.5, 100.0), "P2": (40.0, 80.0), "P100": (0.0, 400.0), "F200": (0.0, 400.0),
            "F1": (0.0, 20.0), "F3": (0.1, 100.0),
        }  # fmt: skip
        unit = np.abs(self.PUBLISHED)

        def residuals(z: np.ndarray) -> np.ndarray:
            return problem.residuals(torch.from_numpy(z * unit)).numpy()

        def slopes(z: np.ndarray) -> np.ndarray:
            return optimize.approx_fprime(z, residuals, 1e-7)

        def cost(z: np.ndarray) -> float:
            return float(weights @ (z * unit) / 500.0)

        def cost_slopes(_: np.ndarray) -> Any:
            return weights * unit / 500.0

        box = [
            (bounds[n][0] / u, bounds[n][1] / u) for n, u in zip(STATE, unit.tolist(), strict=True)
        ]
        constraints: list[Any] = [{"type": "eq", "fun": residuals, "jac": slopes}]
        best = []
        for start in problem.state(problem.design(3, seed=5)).numpy():
            result: Any = optimize.minimize(
                cost,
                start / unit,
                jac=cost_slopes,
                method="SLSQP",
                bounds=box,
                constraints=constraints,
                options={"ftol": 1e-13, "maxiter": 300},
            )
            if np.abs(residuals(result.x)).max() < 1e-7:
                best.append(500.0 * result.fun)
        assert min(best) == pytest.approx(problem.answers[0].y[0].item(), abs=2e-4)

    def test_too_little_water_is_infeasible_and_finite(self) -> None:
        problem = Evaporator()
        goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
        hot = torch.tensor([[50.0, 400.0, 40.0, 14.0], [35.5, 400.0, 40.0, 10.3]])
        y = problem.simulate(hot)
        assert y[:, 2].tolist() == [1000.0, 1000.0]
        assert not bool(goal.satisfied(y).any())

    def test_a_state_of_another_width(self) -> None:
        with pytest.raises(GenoptError, match=r"expected \(\.\.\., 16\) for F1, F2"):
            Evaporator().residuals(torch.zeros(2, 4))


class TestAlloy:
    def test_published_digits(self) -> None:
        (answer,) = Alloy().answers
        assert answer.x.tolist() == pytest.approx([0.592459, 0.281640, 0.125902], abs=1e-6)
        assert answer.y.tolist() == [350.0, 1800.0]

    @pytest.mark.parametrize("target", INFEASIBLE_TARGETS)
    def test_infeasible_targets(self, target: tuple[float, float]) -> None:
        problem = Alloy(*target)
        assert problem.answers == ()
        y = problem.simulate(problem.design(60_000, seed=0))
        distance = (y - torch.tensor(target)) / problem.y_space.upper.sub(problem.y_space.lower)
        assert float(distance.norm(dim=-1).min()) > 0.1

    @settings(max_examples=20, deadline=None)
    @given(nickel=st.floats(0.01, 0.6), chromium=st.floats(0.01, 0.39))
    def test_any_composition_is_an_answer_to_its_own_properties(
        self, nickel: float, chromium: float
    ) -> None:
        x = torch.tensor([1 - nickel - chromium, nickel, chromium], dtype=torch.float64)
        strength, melting = Alloy().simulate(x).tolist()
        answers = Alloy(strength, melting).answers
        assert min(float((answer.x - x).abs().max()) for answer in answers) < 1e-9
        assert sum(answer.weight for answer in answers) == pytest.approx(1.0)

    def test_the_design_is_uniform_on_the_simplex(self) -> None:
        x = Alloy().design(40_000, seed=0)
        assert float((x.sum(-1) - 1).abs().max()) < 1e-12
        # Dirichlet(1, 1, 1): mean 1/3, variance 1/18, and P(x > 1/2) = 1/4
        np.testing.assert_allclose(x.mean(0).numpy(), 1 / 3, atol=0.01)
        np.testing.assert_allclose(x.var(0).numpy(), 1 / 18, atol=0.002)
        np.testing.assert_allclose((x > 0.5).double().mean(0).numpy(), 0.25, atol=0.01)
