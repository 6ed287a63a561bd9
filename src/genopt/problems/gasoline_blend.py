"""Gasoline blend: the smallest change of a recipe that meets an octane number, as a KKT system.

The optimum is the point where all derivatives of the Lagrangian vanish. They are affine in the
unknowns, so one well-scaled Gaussian of (unknowns, derivatives) is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.problems.base import Answer, Problem
from genopt.space import Space

_RECIPE = (0.4, 0.4, 0.2)
_OCTANE = (95.0, 82.0, 94.0)
_WANTED_OCTANE = 87.0
_LOWER = (0.0, 0.0, 0.0, -0.5, -6.0)
_UPPER = (1.0, 1.0, 1.0, 0.5, 0.0)


class GasolineBlend(Problem):
    """Fractions x and multipliers (l1, l2) where the gradient of the Lagrangian is zero.

    L = sum (x_i - x*_i)^2 + l1 (95 x1 + 82 x2 + 94 x3 - 87) + l2 (x1 + x2 + x3 - 1), with the
    present recipe x* = (.4, .4, .2). The five properties are the derivatives of L by x1, x2, x3,
    l1 (the missing octane) and l2 (the missing sum): y = H x - b.
    """

    def __init__(self) -> None:
        octane = torch.tensor(_OCTANE, dtype=torch.float64)
        matrix = torch.zeros(5, 5, dtype=torch.float64)
        matrix[:3, :3] = 2.0 * torch.eye(3, dtype=torch.float64)
        matrix[:3, 3] = matrix[3, :3] = octane
        matrix[:3, 4] = matrix[4, :3] = 1.0
        self.matrix = matrix
        self.offset = torch.tensor(
            [*(2.0 * x for x in _RECIPE), _WANTED_OCTANE, 1.0], dtype=torch.float64
        )
        names = ("x1", "x2", "x3", "l1", "l2")
        lower = torch.tensor(_LOWER, dtype=torch.float64)
        upper = torch.tensor(_UPPER, dtype=torch.float64)
        # an affine map is extreme at corners, its sign pattern by sign pattern
        centre, half = 0.5 * (lower + upper), 0.5 * (upper - lower)
        middle, reach = matrix @ centre - self.offset, matrix.abs() @ half
        super().__init__(
            "gasoline_blend",
            Space.of(**dict(zip(names, zip(_LOWER, _UPPER, strict=True), strict=True))),
            Space.of(
                **{
                    f"dL_d{name}": (float(m - r), float(m + r))
                    for name, m, r in zip(names, middle, reach, strict=True)
                }
            ),
            {f"dL_d{name}": {"equals": 0.0, "tolerance": 0.05} for name in names},
            default_rows=10_000,
            answers=(
                Answer(
                    torch.linalg.solve(matrix, self.offset),
                    torch.zeros(5, dtype=torch.float64),
                    1.0,
                    "least change",
                ),
            ),
            description="Least change of a blend that reaches octane 87, from its KKT system.",
            citation="Alves and Kitchin, Generative approaches to optimization (2025)",
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The gradient of the Lagrangian.

        Args:
            x: fractions and multipliers (..., 5).

        Returns:
            Derivatives (..., 5).
        """
        unknowns = torch.stack(self.columns(x), -1)
        return unknowns @ self.matrix.T - self.offset

    def change(self, x: Tensor) -> Tensor:
        """The objective: how much the recipe changes.

        Args:
            x: fractions and multipliers (..., 5).

        Returns:
            sum (x_i - x*_i)^2 (...).
        """
        fractions = torch.stack(self.columns(x)[:3], -1)
        return (fractions - fractions.new_tensor(_RECIPE)).square().sum(-1)
