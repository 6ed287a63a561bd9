"""The parts of the search for stationary points against numpy, scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from genopt import GenoptError, Space
from genopt.routines.stationary_newton import Linear, newton
from genopt.routines.stationary_points import distinct, second_order, unseen_roots
from genopt.routines.stationary_solve import Task
from genopt.routines.stationary_system import Coordinates

SPACE = Space.of(a=(-1.0, 3.0), b=(0.0, 0.5))


def himmelblau(x: torch.Tensor) -> Linear:
    a, b = x.unbind(1)
    residual = torch.stack([a**2 + b - 11.0, a + b**2 - 7.0], 1)
    one = torch.ones_like(a)
    slope = torch.stack([torch.stack([2.0 * a, one], 1), torch.stack([one, 2.0 * b], 1)], 1)
    return Linear(residual, slope)


class TestNewton:
    def test_every_start_ends_at_a_root_that_scipy_finds(self) -> None:
        starts = torch.tensor([[3.5, 1.0], [-3.0, 3.0], [-4.0, -3.0], [4.0, -2.0]]).double()
        ends = newton(himmelblau, starts)
        assert bool(ends.converged.all())
        for start, end in zip(starts.numpy(), ends.point.numpy(), strict=True):
            own = optimize.root(lambda x: himmelblau(torch.tensor(x)[None]).residual[0], start)
            np.testing.assert_allclose(end, own.x, atol=1e-9)

    def test_rows_do_not_wait_for_one_another(self) -> None:
        starts = torch.tensor([[3.5, 1.0], [-300.0, 900.0]]).double()
        alone = newton(himmelblau, starts[:1])
        assert torch.equal(newton(himmelblau, starts).point[0], alone.point[0])

    def test_a_system_without_a_root_ends_unconverged_and_no_worse(self) -> None:
        def system(x: torch.Tensor) -> Linear:
            return Linear(x**2 + 1.0, 2.0 * x.unsqueeze(2))

        ends = newton(system, torch.tensor([[2.0]]).double())
        assert not bool(ends.converged)
        assert float(ends.residual) == pytest.approx(1.0, abs=1e-6)

    def test_undefined_starts_are_left_alone(self) -> None:
        def system(x: torch.Tensor) -> Linear:
            return Linear(x.log(), (1.0 / x).unsqueeze(2))

        ends = newton(system, torch.tensor([[-1.0], [2.0]]).double())
        assert ends.converged.tolist() == [False, True]
        assert float(ends.point[1]) == pytest.approx(1.0)


class TestDerivatives:
    @settings(max_examples=20, deadline=None)
    @given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(-2.0, 2.0))
    def test_the_system_has_the_slopes_of_finite_differences(
        self, u: float, v: float, weight: float
    ) -> None:
        def values(x: torch.Tensor) -> torch.Tensor:
            a, b = x.unbind(1)
            return torch.stack([torch.sin(a) * b + a**3, a * b - 0.1, a - b**2], 1)

        coordinates = Coordinates(SPACE, {})
        task = Task.of(values, ["h", "g"], [True, False], coordinates)
        w = torch.tensor([[u, v, weight, abs(weight) + 0.1]], dtype=torch.float64)
        found = task.conditions.system(w, 0.01)
        for i in range(4):
            step = torch.zeros_like(w)
            step[0, i] = 1e-6
            ahead = task.conditions.system(w + step, 0.01).residual
            behind = task.conditions.system(w - step, 0.01).residual
            torch.testing.assert_close(
                found.slope[0, :, i], (ahead - behind)[0] / 2e-6, rtol=1e-4, atol=1e-6
            )

    def test_the_rule_of_an_inequality_is_the_slope_of_a_log_barrier(self) -> None:
        # f = a with a >= 0: a - mu ln a is stationary at a = mu
        task = Task.of(
            lambda x: torch.stack([x[:, 0], -x[:, 0]], 1),
            ["a >= 0"],
            [False],
            Coordinates(Space.of(a=(0.0, 1.0)), {}),
        )
        conditions = task.conditions
        barrier = 0.02
        ends = newton(lambda w: conditions.system(w, barrier), torch.tensor([[0.5, 0.1]]).double())
        assert bool(ends.converged)
        size, slack = conditions.size, -conditions.values(ends.point[:, :1])[:, 1]
        # in units of the functions: size_f a' = mu / s
        strength = barrier * float(size[0])
        assert float(ends.point[0, 0]) == pytest.approx(strength, rel=1e-6)
        assert float(slack * ends.point[0, 1]) == pytest.approx(barrier, rel=1e-6)


class TestSecondOrder:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**31), st.integers(1, 4))
    def test_eigenvalues_along_constraints_are_those_of_a_null_space(
        self, seed: int, dim: int
    ) -> None:
        from scipy.linalg import null_space

        rng = np.random.default_rng(seed)
        taken = int(rng.integers(0, dim + 1))
        raw = rng.normal(size=(dim, dim))
        curvature = raw + raw.T
        normals = np.zeros((dim, dim))
        normals[:taken] = rng.normal(size=(taken, dim))
        found = second_order(
            torch.from_numpy(curvature)[None],
            torch.from_numpy(normals)[None],
            torch.tensor([True]),
            torch.zeros(1),
        )
        basis = null_space(normals) if taken else np.eye(dim)
        wanted = np.linalg.eigvalsh(basis.T @ curvature @ basis) if basis.size else np.empty(0)
        own = found.eigenvalues[0]
        np.testing.assert_allclose(own[~own.isnan()].numpy(), wanted, atol=1e-8)
        rises = bool((wanted > 0).all())
        assert found.kinds == (("minimum",) if rises else ("saddle",))

    def test_a_flat_direction_decides_nothing(self) -> None:
        flat = torch.diag(torch.tensor([2.0, 0.0]).double())[None]
        none = torch.zeros(1, 0, 2, dtype=torch.float64)
        assert second_order(flat, none, torch.tensor([False]), torch.zeros(1)).kinds == (
            "degenerate",
        )
        # unless a constraint takes it
        normal = torch.tensor([[[0.0, 1.0]]]).double()
        assert second_order(flat, normal, torch.tensor([False]), torch.zeros(1)).kinds == (
            "minimum",
        )


class TestCounting:
    def test_points_that_lie_together_are_one_and_the_best_stays(self) -> None:
        z = torch.tensor([[0.1, 0.1], [0.1 + 4e-5, 0.1], [0.9, 0.9]]).double()
        chosen, hits = distinct(z, torch.tensor([2.0, 1.0, 3.0]), 1e-4)
        assert sorted(chosen.tolist()) == [1, 2]
        assert sorted(hits.tolist()) == [1, 2]

    def test_what_is_unseen_is_estimated_about_right(self) -> None:
        # 100 roots alike, 200 starts: about 13 are met by none
        rng = np.random.default_rng(0)
        guesses, truths = [], []
        for _ in range(40):
            hits = np.bincount(rng.integers(0, 100, 200), minlength=100)
            guesses.append(unseen_roots(torch.from_numpy(hits[hits > 0])))
            truths.append((hits == 0).sum())
        assert np.mean(guesses) == pytest.approx(np.mean(truths), rel=0.25)


class TestCoordinates:
    def test_held_columns_do_not_move(self) -> None:
        coordinates = Coordinates(SPACE, {1: 0.25})
        z = torch.tensor([[0.0], [1.0]]).double()
        assert coordinates.raw(z).tolist() == [[-1.0, 0.25], [3.0, 0.25]]
        torch.testing.assert_close(coordinates.unit(coordinates.raw(z)), z)

    def test_columns_without_slope_or_bounds_are_refused(self) -> None:
        with pytest.raises(GenoptError, match="none may move"):
            Coordinates(SPACE, {0: 1.0, 1: 0.2})
        with pytest.raises(GenoptError, match="'c' has no finite bounds"):
            Coordinates(Space.of(c=(0.0, float("inf"))), {})
