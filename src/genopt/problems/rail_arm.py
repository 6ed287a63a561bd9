"""A planar arm of three links on a rail: what the two published versions of it share.

They differ in how the joint angles turn the links.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.problems.base import Problem
from genopt.space import Space, Variable

# standard deviations of the rail's height and of the three joint angles
SIGMA = (0.25, 0.5, 0.5, 0.5)
LENGTHS = (0.5, 0.5, 1.0)
REACH = sum(LENGTHS)
_BOUND = 6.0
_TARGET = (1.7, 0.5)


class RailArm(Problem):
    """Height x1 of the rail and three joint angles x2..x4 from the hand's position (y1, y2).

    y1 = .5 cos a1 + .5 cos a2 + cos a3 and y2 = x1 + .5 sin a1 + .5 sin a2 + sin a3, with the
    directions a of the links. Prior: x ~ N(0, diag(.25^2, .5^2, .5^2, .5^2)); the bounds lie at six
    standard deviations.

    Args:
        name: of the problem.
        directions: the links' directions (a1, a2, a3) from the joint angles (x2, x3, x4), a matrix.
        description: one sentence.
        citation: the source.
    """

    def __init__(
        self,
        name: str,
        directions: tuple[tuple[float, ...], ...],
        description: str,
        citation: str,
    ) -> None:
        names = ("x1", "x2", "x3", "x4")
        units = ("", "rad", "rad", "rad")
        height = REACH + _BOUND * SIGMA[0]
        super().__init__(
            name,
            Space(
                tuple(
                    Variable(name, -_BOUND * s, _BOUND * s, unit)
                    for name, s, unit in zip(names, SIGMA, units, strict=True)
                )
            ),
            Space((Variable("y1", -REACH, REACH), Variable("y2", -height, height))),
            {
                name: {"equals": value, "tolerance": 0.01}
                for name, value in zip(("y1", "y2"), _TARGET, strict=True)
            },
            default_rows=10_000,
            description=description,
            citation=citation,
        )
        self.directions = torch.tensor(directions, dtype=torch.float64)

    def simulate(self, x: Tensor) -> Tensor:
        """The position of the hand.

        Args:
            x: postures (..., 4).

        Returns:
            Positions (..., 2).
        """
        rail, *joints = self.columns(x)
        angles = torch.stack(joints, -1)
        links = angles @ self.directions.to(angles).T
        lengths = links.new_tensor(LENGTHS)
        along = (lengths * links.cos()).sum(-1)
        across = (lengths * links.sin()).sum(-1)
        return torch.stack([along, rail + across], -1)

    def design(self, n: int, seed: int = 0) -> Tensor:
        """Draws from the prior, clipped to the bounds (which touches one value in 5e8).

        Args:
            n: number of postures.
            seed: seed of the draw.

        Returns:
            Postures (n, 4).
        """
        generator = torch.Generator().manual_seed(seed)
        draws = torch.randn(n, len(SIGMA), dtype=torch.float64, generator=generator)
        return self.x_space.project(draws * draws.new_tensor(SIGMA))
