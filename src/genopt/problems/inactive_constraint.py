"""Inactive constraint: a minimum that its inequality does not touch, a trap for zero slack."""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.problems.base import Answer, Problem
from genopt.space import Space


class InactiveConstraint(Problem):
    """Minimise f = (x - 2)^2 + (y - 1)^2 subject to slack = x + y - 1 >= 0.

    The answer (2, 1) has slack 2. Treating the inequality as an equality gives (1, 0) with f = 2,
    which is wrong.
    """

    def __init__(self) -> None:
        minimum = Answer(
            torch.tensor([2.0, 1.0], dtype=torch.float64),
            torch.tensor([0.0, 2.0], dtype=torch.float64),
            1.0,
            "free minimum",
        )
        super().__init__(
            "inactive_constraint",
            Space.of(x=(-1.0, 4.0), y=(-1.0, 3.0)),
            Space.of(f=(0.0, 13.0), slack=(-3.0, 6.0)),
            {"f": "min", "slack": {"at_least": 0.0}},
            default_rows=1024,
            answers=(minimum,),
            description="The minimum of (x-2)^2 + (y-1)^2 with x + y >= 1, which does not bind.",
            citation="Alves and Kitchin, Generative approaches to optimization (2025)",
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The objective and the slack of the inequality.

        Args:
            x: points (..., 2).

        Returns:
            Objective and slack (..., 2).
        """
        first, second = self.columns(x)
        objective = (first - 2.0) ** 2 + (second - 1.0) ** 2
        return torch.stack([objective, first + second - 1.0], -1)
