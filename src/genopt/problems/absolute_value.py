"""Absolute value: two answers, no data between them; the smallest test of a conditional density."""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.problems.base import Answer, Problem
from genopt.space import Space

_WANTED = 0.75
_GAP = 0.5


class AbsoluteValue(Problem):
    """x from y = abs x, learned from noisy measurements that leave the gap -.5 < x < .5 empty.

    `simulate` has no noise; `table` adds it. The two answers +-.75 have equal weight, and a good
    model puts no mass into the gap.

    Args:
        noise: standard deviation of the measurements in `table`.
    """

    def __init__(self, noise: float = 0.05) -> None:
        self.noise = noise
        answers = tuple(
            Answer(
                torch.tensor([x], dtype=torch.float64),
                torch.tensor([_WANTED], dtype=torch.float64),
                0.5,
                f"x = {x:+.2f}",
            )
            for x in (-_WANTED, _WANTED)
        )
        super().__init__(
            "absolute_value",
            Space.of(x=(-1.0, 1.0)),
            # room for five standard deviations of the default noise
            Space.of(y=(0.0, 1.25)),
            {"y": {"equals": _WANTED, "tolerance": 0.05}},
            default_rows=300,
            answers=answers,
            description="x from a noisy abs x, with no data between -.5 and .5.",
            citation="Alves and Kitchin, Generative approaches to optimization (2025)",
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The absolute value, without noise.

        Args:
            x: points (..., 1).

        Returns:
            Absolute values (..., 1).
        """
        (value,) = self.columns(x)
        return value.abs().unsqueeze(-1)

    def design(self, n: int, seed: int = 0) -> Tensor:
        """Uniform points of [-1, -.5] and [.5, 1], half of n in each (an odd one on the right).

        Args:
            n: number of points.
            seed: seed of the draw.

        Returns:
            Points (n, 1), the negative ones first.
        """
        generator = torch.Generator().manual_seed(seed)
        size = _GAP + (1.0 - _GAP) * torch.rand(n, 1, dtype=torch.float64, generator=generator)
        sign = torch.where(torch.arange(n) < n // 2, -1.0, 1.0).to(torch.float64)
        return sign.unsqueeze(-1) * size

    def table(self, n: int | None = None, seed: int = 0) -> Table:
        """Noisy measurements: y = abs x + N(0, noise).

        Args:
            n: number of rows; None for 300.
            seed: seed of the points and of the noise.

        Returns:
            The Table.
        """
        rows = self._row_count(n)
        x = self.design(rows, seed)
        # a stream of its own, so that the noise does not depend on the points
        generator = torch.Generator().manual_seed(seed + 1_000_003)
        noise = torch.randn(rows, 1, dtype=torch.float64, generator=generator)
        return Table(x, self.simulate(x) + self.noise * noise, self.x_space, self.y_space)
