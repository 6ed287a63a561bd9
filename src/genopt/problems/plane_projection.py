"""Plane projection: the point of a plane nearest to the origin, an objective and an equality."""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.problems.base import Answer, Problem
from genopt.space import Space


class PlaneProjection(Problem):
    """Minimise f = x^2 + y^2 + z^2 subject to residual = 2 x - y + z - 3 = 0."""

    def __init__(self) -> None:
        nearest = Answer(
            torch.tensor([1.0, -0.5, 0.5], dtype=torch.float64),
            torch.tensor([1.5, 0.0], dtype=torch.float64),
            1.0,
            "nearest point",
        )
        super().__init__(
            "plane_projection",
            Space.of(x=(-2.0, 2.0), y=(-2.0, 2.0), z=(-2.0, 2.0)),
            Space.of(f=(0.0, 12.0), residual=(-11.0, 5.0)),
            {"f": "min", "residual": {"equals": 0.0, "tolerance": 1e-2}},
            default_rows=1024,
            answers=(nearest,),
            description="The point of the plane 2 x - y + z = 3 that is nearest to the origin.",
            citation="Alves and Kitchin, Generative approaches to optimization (2025)",
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The squared distance to the origin and the residual of the plane.

        Args:
            x: points (..., 3).

        Returns:
            Objective and residual (..., 2).
        """
        first, second, third = self.columns(x)
        objective = first**2 + second**2 + third**2
        residual = 2.0 * first - second + third - 3.0
        return torch.stack([objective, residual], -1)
