"""Sine wave: an inverse problem whose answers are curves, by a surface of many hills.

Gradient searches get caught in its hills, models of the density smear its curves; the exact
posterior is at hand to compare with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.data.sampling import sample_space
from genopt.errors import GenoptError
from genopt.problems.base import Problem
from genopt.problems.rejection import collect, copies, posterior_rows
from genopt.space import Space

_WAVES = 3.0 * math.pi
_TARGET = 1.0
_PROPOSALS = 16_384
# each coordinate runs over three periods, and a value is reached twice in a period
_PERIODS = (-1.0, 0.0, 1.0)


class SineWave(Problem):
    """(x1, x2) in [-1, 1]^2 from y = sin 3 pi x1 + cos 3 pi x2, with a uniform prior."""

    def __init__(self) -> None:
        super().__init__(
            "sine_wave",
            Space.of(x1=(-1.0, 1.0), x2=(-1.0, 1.0)),
            Space.of(y=(-2.0, 2.0)),
            {"y": {"equals": _TARGET, "tolerance": 0.01}},
            default_rows=10_000,
            description="Points where a surface of hills and valleys has a wanted height.",
            citation=(
                "Ren, Padilla and Malof, Benchmarking deep inverse models over time, and the "
                "neural-adjoint method, NeurIPS 33 (2020), arXiv 2009.12919"
            ),
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The height of the surface.

        Args:
            x: points (..., 2).

        Returns:
            Heights (..., 1).
        """
        first, second = self.columns(x)
        height = torch.sin(_WAVES * first) + torch.cos(_WAVES * second)
        return height.unsqueeze(-1)

    def design(self, n: int, seed: int = 0) -> Tensor:
        """Independent uniform points, the prior.

        Args:
            n: number of points.
            seed: seed of the draw.

        Returns:
            Points (n, 2).
        """
        return sample_space(self.x_space, n, method="uniform", seed=seed)

    def posterior(self, y: Tensor, n: int = 1000, seed: int = 0) -> Tensor:
        """Exact draws from p(x | y); every draw reproduces y to rounding.

        Given y, the density along the curves is 1 / D per length, with D the norm of the gradient
        (d_1, d_2) (coarea formula). Drawing one coordinate and solving for the other, i, turns it
        into 1 / abs(d_i), which is infinite at the turns of a curve. Therefore the unit is shared,
        as 1 = (d_1^2 + d_2^2) / D^2: half of the proposals solve for either coordinate, with weight
        abs(d_i) / D^2, which is at most 1 / D. On the curve of y the smallest D is 3 pi sqrt(abs y
        (2 - abs y)), as the sum of two squares is largest where a sine or cosine is +-1.

        Args:
            y: one wanted height (1,), or several (C, 1).
            n: number of draws for each.
            seed: seed of the draws.

        Returns:
            Points (n, 2), or (C, n, 2).

        Raises:
            GenoptError: if a height is 0 or lies outside (-2, 2), where curves meet or end.
        """

        def draw(row: Tensor, own_seed: int) -> Tensor:
            height = float(row)
            if not 0.0 < abs(height) < 2.0:
                raise GenoptError(
                    f"y = {height:g} has no posterior: it must lie inside (-2, 2) and not be 0"
                )
            return collect(lambda g: _accepted(height, g), n, own_seed, f"y = {height:g}")

        return posterior_rows(y, self.y_space, n, self.x_space.dim, draw, seed)


def _accepted(height: float, generator: torch.Generator) -> Tensor:
    """One round of rejection: the accepted points (M, 2), M random."""
    free, side, turn, which = torch.rand(4, _PROPOSALS, dtype=torch.float64, generator=generator)
    free = 2.0 * free - 1.0
    sign = torch.where(side < 0.5, -1.0, 1.0)
    shift = 2.0 / 3.0 * torch.tensor(_PERIODS, dtype=torch.float64)[(turn * 3.0).long()]
    first = which < 0.5

    # what the solved wave has to be, and its angle in one of two branches
    value = height - torch.where(first, torch.cos(_WAVES * free), torch.sin(_WAVES * free))
    angle = sign * torch.acos(value.clamp(-1.0, 1.0))
    solved = torch.where(first, 0.5 * math.pi - angle, angle) / _WAVES + shift
    # a branch that leaves the square at one side comes back at the other, as three periods fit
    solved = torch.remainder(solved + 1.0, 2.0) - 1.0
    x = torch.stack([torch.where(first, solved, free), torch.where(first, free, solved)], -1)

    slopes = torch.stack([torch.cos(_WAVES * x[:, 0]), torch.sin(_WAVES * x[:, 1])], -1)
    own = torch.where(first, slopes[:, 0], slopes[:, 1]).abs()
    flattest = math.sqrt(abs(height) * (2.0 - abs(height)))
    weight = own / slopes.square().sum(-1).clamp_min(1e-300) * flattest
    weight = torch.where(value.abs() <= 1.0, weight, 0.0)
    return x.repeat_interleave(copies(weight, generator), 0)
