"""Space mapping on pairs of models whose optima are known, with scipy's calls beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize

from genopt import GenoptError, Goal, Mixture, Space
from genopt.errors import UnknownNameError
from genopt.problems.plug_flow import PlugFlow
from genopt.routines.space_mapping import corrected_model, space_mapping

X = Space.of(x1=(-2.0, 2.0), x2=(-2.0, 2.0))
Y = Space.of(r1=(-40.0, 40.0), r2=(-3.0, 3.0))
GOAL = Goal({"r1": 0.0, "r2": 0.0}, X, Y)


def cheap(x: torch.Tensor) -> torch.Tensor:
    """The residuals of Rosenbrock's function, with its minimum at (1, 1)."""
    return torch.stack([10.0 * (x[..., 1] - x[..., 0] ** 2), 1.0 - x[..., 0]], -1)


def shifted(x: torch.Tensor) -> torch.Tensor:
    return cheap(x + torch.tensor([-0.2, 0.2], dtype=torch.float64))


def transformed(x: torch.Tensor) -> torch.Tensor:
    """The pair of Bakr et al. (2001): x -> A x + b, with its minimum at A^-1 ((1, 1) - b)."""
    matrix = torch.tensor([[1.1, -0.2], [0.2, 0.9]], dtype=torch.float64)
    return cheap(x @ matrix.T + torch.tensor([-0.3, 0.3], dtype=torch.float64))


def curved(x: torch.Tensor) -> torch.Tensor:
    first = x[..., 0] + 0.1 * x[..., 0] ** 2 + 0.05 * x[..., 1] - 0.3
    return cheap(torch.stack([first, x[..., 1] + 0.1 * x[..., 0] * x[..., 1] + 0.2], -1))


class Counted:
    def __init__(self, function: object) -> None:
        self.function, self.calls = function, 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += len(x)
        return self.function(x)  # type: ignore[operator]


class TestPairs:
    @pytest.mark.parametrize("method", ["aggressive", "manifold"])
    @pytest.mark.parametrize("function", [shifted, transformed, curved])
    def test_the_optimum_of_scipy_with_fewer_calls(self, method: str, function: object) -> None:
        costly, own = Counted(function), Counted(function)
        found = space_mapping(cheap, costly, GOAL, method=method)
        wanted = optimize.least_squares(
            lambda x: own(torch.tensor(x)[None])[0], [1.0, 1.0], xtol=1e-14, ftol=1e-14, gtol=1e-14
        )
        np.testing.assert_allclose(found.x[0, 0].numpy(), wanted.x, atol=1e-6)
        assert found.header["numbers"]["calls"] == costly.calls == found.shape[1]
        assert costly.calls < own.calls

    def test_the_published_optimum(self) -> None:
        found = space_mapping(cheap, transformed, GOAL, method="aggressive")
        np.testing.assert_allclose(found.x[0, 0].numpy(), [1.2718447, 0.4951456], atol=5e-8)
        # an affine map of two columns: Broyden's method ends after 2 P steps at most
        assert found.shape[1] <= 5

    def test_manifold_mapping_ends_at_an_optimum_the_models_do_not_share(self) -> None:
        # three responses of two columns: the costly model misses them all by something
        space = Space.of(p=(-9.0, 9.0), q=(-9.0, 9.0), r=(-9.0, 9.0))
        goal = Goal({"p": 0.0, "q": 0.0, "r": 0.0}, X, space)

        def rough(x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x[..., 0] - 1.0, x[..., 1] - 1.0, x.sum(-1) - 2.0], -1)

        def exact(x: torch.Tensor) -> torch.Tensor:
            a, b = x.unbind(-1)
            return torch.stack([a + 0.1 * a**2 - 0.6, 1.2 * b - 1.0, a + b - 1.0], -1)

        found = space_mapping(rough, exact, goal, calls=30)
        own = optimize.least_squares(lambda x: exact(torch.tensor(x)), [0.0, 0.0], xtol=1e-12)
        assert own.cost > 0.01
        np.testing.assert_allclose(found.x[0, 0].numpy(), own.x, atol=2e-3)

    def test_inequalities_end_where_they_hold(self) -> None:
        goal = Goal({"r1": {"between": [-0.1, 0.1]}, "r2": {"at_most": 0.2}}, X, Y)
        found = space_mapping(cheap, transformed, goal)
        assert bool(goal.satisfied(found.y_verified)[0, 0])

    def test_a_given_start_is_the_first_call(self) -> None:
        costly = Counted(transformed)
        found = space_mapping(cheap, costly, GOAL, [0.0, 0.5], calls=2)
        assert [0.0, 0.5] in [[round(v, 12) for v in x] for x in found.x[0].tolist()]
        assert costly.calls == 2


class TestRoutine:
    def test_a_model_of_few_rows_is_corrected_to_the_simulator(self) -> None:
        problem = PlugFlow()
        table = problem.table(64)
        model = Mixture(problem.x_space, problem.y_space, max_components=8).fit(table.x, table.y)
        goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
        found = corrected_model(model, goal, problem=problem, calls=15)
        assert float((found.x[0, 0] - problem.answers[0].x).abs().max()) < 1e-3
        assert found.header["numbers"]["calls"] <= 15

    def test_mistakes_are_named(self) -> None:
        with pytest.raises(UnknownNameError, match="manifold"):
            space_mapping(cheap, shifted, GOAL, method="manifol")
        with pytest.raises(GenoptError, match="calls must be at least 2"):
            space_mapping(cheap, shifted, GOAL, calls=1)
        with pytest.raises(GenoptError, match="no finite number"):
            space_mapping(cheap, lambda x: shifted(x) * float("nan"), GOAL)
        with pytest.raises(GenoptError, match="x0 has shape"):
            space_mapping(cheap, shifted, GOAL, [0.0])
        with pytest.raises(GenoptError, match="there is none"):
            corrected_model(Mixture(X, Y), GOAL)
