"""Arm kinematics: the postures of a planar arm whose hand is at a wanted point.

The answers form a surface and cannot be listed, so the problem brings an exact sampler of their
distribution instead.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.rail_arm import LENGTHS, REACH, SIGMA, RailArm

_PROPOSALS = 65_536
_PROBE_ROUNDS = 40
_MAX_ROUNDS = 2000
_FOLDED_WITHIN = math.pi / 6.0
_TURNS = (-1.0, 0.0, 1.0)
# the other two links of each link, and the standard deviation of a link's angle given theirs
_OTHERS = ((1, 2), (0, 2), (0, 1))
CONDITIONAL_SIGMA = (
    SIGMA[1] * SIGMA[2] / math.hypot(SIGMA[1], SIGMA[2]),
    SIGMA[2] * SIGMA[3] / math.hypot(SIGMA[2], SIGMA[3]),
    SIGMA[3],
)


class ArmKinematics(RailArm):
    """Height x1 of a rail and three joint angles x2..x4 from the hand's position (y1, y2).

    Each joint turns its own link and those after it: the directions of the links are a = x2,
    b = x2 + x3, c = x2 + x3 + x4.
    """

    def __init__(self) -> None:
        super().__init__(
            "arm_kinematics",
            ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (1.0, 1.0, 1.0)),
            "Postures of a planar arm on a rail whose hand is at a wanted point.",
            "Kruse, Ardizzone, Rother and Koethe, Benchmarking invertible architectures on "
            "inverse problems (2021), arXiv 2101.10763",
        )

    def posterior(self, y: Tensor, n: int = 1000, seed: int = 0) -> Tensor:
        """Exact draws from p(x | y); every draw reproduces y to rounding.

        Given the link directions q = (a, b, c), x1 = y2 - .5 sin a - .5 sin b - sin c is known, so
        what remains is the density of q on the surface g(q) = y1, g = .5 cos a + .5 cos b + cos c.
        With d_i the derivative of g for link i and D the norm of all three, that density is
        p(q) p(x1) / D per area (coarea formula). Solving g = y1 for link i, given the other two,
        turns it into p(q) p(x1) / abs(d_i) per area of those two: infinite where link i lies
        straight. Therefore the unit is shared among the three ways to solve, as
        1 = sum_i d_i^2 / D^2, and link i is drawn, the others coming from their prior, with weight

            p(q_i | others) p(x1) abs(d_i) / D^2.

        This is bounded, as abs(d_i) / D^2 <= 1 / D and D^2 = sum_i l_i^2 (1 - cos^2 q_i) is concave
        in the cosines: on the plane g = y1 it is smallest where two of them are +-1. Rejection is
        therefore exact. Near a folded arm (y1 = 0 or +-1) that smallest value is useless, so it is
        not allowed below a floor, and a weight w above one gives floor(w) or floor(w) + 1 copies, w
        on average: still exact, and the rare copies are the only dependence between draws.
        Solutions in neighbouring turns are included; the bounds of the x Space truncate the prior.

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
        self.y_space.check(y, "y")
        if y.ndim > 2:
            raise GenoptError(f"y has shape {tuple(y.shape)}; expected (2,) or (C, 2)")
        if y.ndim == 2:
            drawn = [self.posterior(row, n, seed + i) for i, row in enumerate(y)]
            return torch.stack(drawn) if drawn else y.new_empty((0, n, 4), dtype=torch.float64)
        along, across = (float(v) for v in y)
        slope = _smallest_slope(along)
        if slope <= 0.0:
            raise GenoptError(
                f"y1 = {along:g} is out of reach: it must lie inside (-{REACH:g}, {REACH:g})"
            )
        generator = torch.Generator().manual_seed(seed)
        kept: list[Tensor] = []
        count = 0
        for done in range(1, _MAX_ROUNDS + 1):
            kept.append(self._accepted(along, across, slope, generator))
            count += len(kept[-1])
            if count >= n:
                return torch.cat(kept)[:n]
            if done == _PROBE_ROUNDS and count * _MAX_ROUNDS < n * done:
                break
        raise GenoptError(
            f"y = ({along:g}, {across:g}) is too rare under the prior: {count} of {n} draws after "
            f"{done * _PROPOSALS} proposals; ask for fewer draws or another position"
        )

    def _accepted(
        self, along: float, across: float, slope: float, generator: torch.Generator
    ) -> Tensor:
        """One round of rejection: the accepted postures (M, 4), M random."""
        lengths = torch.tensor(LENGTHS, dtype=torch.float64)
        spread = torch.tensor(CONDITIONAL_SIGMA, dtype=torch.float64)
        prior = self.design(_PROPOSALS, int(torch.randint(2**62, (1,), generator=generator)))
        links = torch.cumsum(prior[:, 1:], -1)
        # a link whose conditional density peaks higher is solved for more often, so one bound
        # serves all three
        solved = torch.multinomial(1.0 / spread, _PROPOSALS, True, generator=generator)
        uniform = torch.rand(3, _PROPOSALS, dtype=torch.float64, generator=generator)
        row = torch.arange(_PROPOSALS)

        cosines = links.cos()
        rest = (lengths * cosines).sum(-1) - lengths[solved] * cosines[row, solved]
        cosine = (along - rest) / lengths[solved]
        possible = cosine.abs() <= 1.0
        sign = torch.where(uniform[0] < 0.5, -1.0, 1.0)
        turn = torch.tensor(_TURNS, dtype=torch.float64)[(uniform[1] * len(_TURNS)).long()]
        angle = sign * torch.acos(cosine.clamp(-1.0, 1.0)) + 2.0 * math.pi * turn
        centre = conditional_mean(links, solved)
        links[row, solved] = angle

        gradient = lengths * links.sin()
        size = gradient.square().sum(-1)
        rail = across - gradient.sum(-1)
        log_weight = (
            -0.5 * ((angle - centre) / spread[solved]).square() - 0.5 * (rail / SIGMA[0]).square()
        )
        weight = log_weight.exp() * gradient[row, solved].abs() / size * slope
        joints = torch.diff(links, dim=-1, prepend=torch.zeros(_PROPOSALS, 1, dtype=torch.float64))
        x = torch.cat([rail.unsqueeze(-1), joints], -1)
        inside = self.x_space.contains(x, tolerance=0.0)
        copies = torch.where(possible & inside, torch.floor(weight + uniform[2]), 0.0)
        return x.repeat_interleave(copies.long(), 0)


def conditional_mean(links: Tensor, solved: Tensor) -> Tensor:
    """Prior mean of one link's direction given the other two; directions are a random walk.

    Args:
        links: directions (N, 3); the solved entry is not read.
        solved: which link is solved for (N,), 0 to 2.

    Returns:
        Means (N,).
    """
    first, second, third = (s**2 for s in SIGMA[1:])
    a, b, c = links.unbind(-1)
    means = torch.stack(
        [b * first / (first + second), (a * third + c * second) / (second + third), b], -1
    )
    return means.gather(-1, solved.unsqueeze(-1)).squeeze(-1)


def _smallest_slope(along: float) -> float:
    """Smallest D (see `posterior`) where y1 = along, folded arms aside; zero if out of reach."""
    if abs(along) >= REACH:
        return 0.0
    squares = []
    for i, (j, k) in enumerate(_OTHERS):
        for end_j in (-1.0, 1.0):
            for end_k in (-1.0, 1.0):
                cosine = (along - end_j * LENGTHS[j] - end_k * LENGTHS[k]) / LENGTHS[i]
                if abs(cosine) <= 1.0:
                    squares.append(LENGTHS[i] ** 2 * (1.0 - cosine**2))
    slope = math.sqrt(min(squares, default=0.0))
    # Folded arms (y1 = 0 or +-1) make that zero, yet they are rare. If every link is closer than
    # delta to a multiple of pi and y1 < 2 cos(delta), one of them is folded; only there is grad g
    # shorter than the floor.
    if along < REACH * math.cos(_FOLDED_WITHIN):
        slope = max(slope, min(LENGTHS) * math.sin(_FOLDED_WITHIN))
    return slope
