"""ZDT1: two objectives that conflict; what is wanted is a front of trade-offs, not one design."""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.base import Problem
from genopt.space import Space


class Zdt1(Problem):
    """Minimise f1 = x1 and f2 = g (1 - sqrt(f1/g)), g = 1 + 9 mean(x2..xn), x in [0, 1]^n.

    The Pareto front is g = 1: x2 = ... = xn = 0 and f2 = 1 - sqrt(f1). Its designs cannot be
    counted; `front_designs` lists as many as are wanted. The derivative of f2 is infinite at x1 =
    0.

    Args:
        dimension: n.

    Raises:
        GenoptError: if there are fewer than two dimensions.
    """

    def __init__(self, dimension: int = 3) -> None:
        if dimension < 2:
            raise GenoptError(f"zdt1: dimension must be at least 2, got {dimension}")
        super().__init__(
            "zdt1",
            Space.from_bounds([(0.0, 1.0)] * dimension),
            Space.of(f1=(0.0, 1.0), f2=(0.0, 10.0)),
            {"f1": "min", "f2": "min"},
            default_rows=2048,
            description="Trade-offs between two objectives, with a convex Pareto front.",
            citation="Zitzler, Deb and Thiele, Evolutionary Computation 8 (2000) 173",
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The two objectives.

        Args:
            x: designs (..., n).

        Returns:
            Objectives (..., 2).
        """
        first, *others = self.columns(x)
        g = 1.0 + 9.0 * torch.stack(others, -1).mean(-1)
        return torch.stack([first, g - torch.sqrt(first * g)], -1)

    def front_designs(self, n: int = 100) -> Tensor:
        """Pareto-optimal designs, evenly spaced in x1.

        Args:
            n: number of designs.

        Returns:
            Designs (n, P), ascending in f1.
        """
        x = torch.zeros(n, self.x_space.dim, dtype=torch.float64)
        x[:, 0] = torch.linspace(0.0, 1.0, n, dtype=torch.float64)
        return x

    def front(self, f1: Tensor) -> Tensor:
        """The smallest possible second objective for a value of the first.

        Args:
            f1: first objective (...), 0 to 1.

        Returns:
            f2 = 1 - sqrt(f1) (...).
        """
        return 1.0 - torch.sqrt(f1)
