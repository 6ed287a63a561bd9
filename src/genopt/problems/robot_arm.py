"""Robot arm: the arm whose joints turn against one another, with fewer data than arm_kinematics.

The answers form a surface. The exact sampler follows the same idea as that of
`genopt.problems.arm_kinematics`, for link directions with any Gaussian prior.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.rail_arm import LENGTHS, REACH, SIGMA, RailArm
from genopt.problems.rejection import collect, copies, posterior_rows

_PROPOSALS = 65_536
_TURNS = (-1.0, 0.0, 1.0)
# the scale of the weights: the norm of the gradient of y1 where no link is near a straight line
_SLOPE = 0.25


class RobotArm(RailArm):
    """Height x1 of a rail and three joint angles x2..x4 from the hand's position (y1, y2).

    The directions of the links are a1 = x2, a2 = x3 - x2, a3 = x4 - x3 - x2.
    """

    def __init__(self) -> None:
        super().__init__(
            "robot_arm",
            ((1.0, 0.0, 0.0), (-1.0, 1.0, 0.0), (-1.0, -1.0, 1.0)),
            "Postures of a planar robot arm whose hand is at a wanted point.",
            "Ren, Padilla and Malof, Benchmarking deep inverse models over time, and the "
            "neural-adjoint method, NeurIPS 33 (2020), arXiv 2009.12919",
        )

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
            if abs(along) >= REACH:
                raise GenoptError(
                    f"y1 = {along:g} is out of reach: it must lie inside (-{REACH:g}, {REACH:g})"
                )
            what = f"y = ({along:g}, {across:g})"
            return collect(lambda g: self._accepted(along, across, g), n, own_seed, what)

        return posterior_rows(y, self.y_space, n, self.x_space.dim, draw, seed)

    def _accepted(self, along: float, across: float, generator: torch.Generator) -> Tensor:
        """One round of rejection: the accepted postures (M, 4), M random."""
        lengths = torch.tensor(LENGTHS, dtype=torch.float64)
        sigma = torch.tensor(SIGMA, dtype=torch.float64)
        inverse = torch.linalg.inv(self.directions)
        precision = inverse.T @ torch.diag(sigma[1:] ** -2) @ inverse
        spread = precision.diagonal().rsqrt()

        prior = torch.randn(_PROPOSALS, 3, dtype=torch.float64, generator=generator) * sigma[1:]
        links = prior @ self.directions.T
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
