"""Robot arm: the arm whose joints turn against one another, with fewer data than arm_kinematics.

The answers form a surface. The exact sampler follows the same idea as that of
`genopt.problems.arm_kinematics`, for link directions with any Gaussian prior.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.base import Problem
from genopt.problems.rejection import collect, copies, posterior_rows
from genopt.space import Space, Variable

_SIGMA = (0.25, 0.5, 0.5, 0.5)
_LENGTHS = (0.5, 0.5, 1.0)
_REACH = sum(_LENGTHS)
_BOUND = 6.0
_TARGET = (1.7, 0.5)
_PROPOSALS = 65_536
_TURNS = (-1.0, 0.0, 1.0)
# the scale of the weights: the norm of the gradient of y1 where no link is near a straight line
_SLOPE = 0.25
# link directions (a1, a2, a3) from the joint angles (x2, x3, x4)
_DIRECTIONS = ((1.0, 0.0, 0.0), (-1.0, 1.0, 0.0), (-1.0, -1.0, 1.0))


class RobotArm(Problem):
    """Height x1 of a rail and three joint angles x2..x4 from the hand's position (y1, y2).

    y1 = .5 cos a1 + .5 cos a2 + cos a3 and y2 = x1 + .5 sin a1 + .5 sin a2 + sin a3, with a1 = x2,
    a2 = x3 - x2, a3 = x4 - x3 - x2. Prior: x ~ N(0, diag(.25^2, .5^2, .5^2, .5^2)); the bounds lie
    at six standard deviations.
    """

    def __init__(self) -> None:
        names = ("x1", "x2", "x3", "x4")
        units = ("", "rad", "rad", "rad")
        height = _REACH + _BOUND * _SIGMA[0]
        super().__init__(
            "robot_arm",
            Space(
                tuple(
                    Variable(name, -_BOUND * s, _BOUND * s, unit)
                    for name, s, unit in zip(names, _SIGMA, units, strict=True)
                )
            ),
            Space((Variable("y1", -_REACH, _REACH), Variable("y2", -height, height))),
            {
                name: {"equals": value, "tolerance": 0.01}
                for name, value in zip(("y1", "y2"), _TARGET, strict=True)
            },
            default_rows=10_000,
            description="Postures of a planar robot arm whose hand is at a wanted point.",
            citation=(
                "Ren, Padilla and Malof, Benchmarking deep inverse models over time, and the "
                "neural-adjoint method, NeurIPS 33 (2020), arXiv 2009.12919"
            ),
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The position of the hand.

        Args:
            x: postures (..., 4).

        Returns:
            Positions (..., 2).
        """
        rail, *joints = self.columns(x)
        angles = torch.stack(joints, -1)
        links = angles @ angles.new_tensor(_DIRECTIONS).T
        lengths = links.new_tensor(_LENGTHS)
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
        draws = torch.randn(n, len(_SIGMA), dtype=torch.float64, generator=generator)
        return self.x_space.project(draws * draws.new_tensor(_SIGMA))

    def posterior(self, y: Tensor, n: int = 1000, seed: int = 0) -> Tensor:
        """Exact draws from p(x | y); every draw reproduces y to rounding.

        As for `genopt.problems.arm_kinematics.ArmKinematics.posterior`: two links come from their
        prior, link i is solved from y1, the rail from y2, and the weight is p(a_i | others) p(x1)
        abs(d_i) / D^2, with d the derivatives of y1 by the links and D their norm. The prior of the
        links is a Gaussian with precision matrix Q, so a_i given the others has the mean -sum_j
        Q_ij a_j / Q_ii and the variance 1 / Q_ii. A large weight, near a straight or folded arm,
        gives several copies of a draw.

        Args:
            y: one wanted position (2,), or several (C, 2).
            n: number of draws for each.
            seed: seed of the draws.

        Returns:
            Postures (n, 4), or (C, n, 4).

        Raises:
            GenoptError: if a position cannot be reached, or only by postures that the prior hardly
                allows.
        """

        def draw(row: Tensor, own_seed: int) -> Tensor:
            along, across = (float(v) for v in row)
            if abs(along) >= _REACH:
                raise GenoptError(
                    f"y1 = {along:g} is out of reach: it must lie inside (-{_REACH:g}, {_REACH:g})"
                )
            what = f"y = ({along:g}, {across:g})"
            return collect(lambda g: self._accepted(along, across, g), n, own_seed, what)

        return posterior_rows(y, self.y_space, n, self.x_space.dim, draw, seed)

    def _accepted(self, along: float, across: float, generator: torch.Generator) -> Tensor:
        """One round of rejection: the accepted postures (M, 4), M random."""
        directions = torch.tensor(_DIRECTIONS, dtype=torch.float64)
        lengths = torch.tensor(_LENGTHS, dtype=torch.float64)
        sigma = torch.tensor(_SIGMA, dtype=torch.float64)
        inverse = torch.linalg.inv(directions)
        precision = inverse.T @ torch.diag(sigma[1:] ** -2) @ inverse
        spread = precision.diagonal().rsqrt()

        prior = torch.randn(_PROPOSALS, 3, dtype=torch.float64, generator=generator) * sigma[1:]
        links = prior @ directions.T
        # a link whose conditional density peaks higher is solved for more often, so one bound
        # serves all three
        solved = torch.multinomial(1.0 / spread, _PROPOSALS, True, generator=generator)
        uniform = torch.rand(2, _PROPOSALS, dtype=torch.float64, generator=generator)
        row = torch.arange(_PROPOSALS)

        others = links.clone()
        others[row, solved] = 0.0
        centre = -(others * precision[solved]).sum(-1) * spread[solved].square()
        rest = (lengths * links.cos()).sum(-1) - lengths[solved] * links[row, solved].cos()
        cosine = (along - rest) / lengths[solved]
        sign = torch.where(uniform[0] < 0.5, -1.0, 1.0)
        turn = torch.tensor(_TURNS, dtype=torch.float64)[(uniform[1] * len(_TURNS)).long()]
        angle = sign * torch.acos(cosine.clamp(-1.0, 1.0)) + 2.0 * math.pi * turn
        links[row, solved] = angle

        gradient = lengths * links.sin()
        rail = across - gradient.sum(-1)
        log_weight = (
            -0.5 * ((angle - centre) / spread[solved]).square() - 0.5 * (rail / sigma[0]).square()
        )
        steepness = gradient.square().sum(-1).clamp_min(1e-300)
        weight = log_weight.exp() * gradient[row, solved].abs() / steepness * _SLOPE
        x = torch.cat([rail.unsqueeze(-1), links @ inverse.T], -1)
        possible = (cosine.abs() <= 1.0) & self.x_space.contains(x, tolerance=0.0)
        weight = torch.where(possible, weight, 0.0)
        return x.repeat_interleave(copies(weight, generator), 0)
