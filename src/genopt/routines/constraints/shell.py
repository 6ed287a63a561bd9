"""Shell: when a draw counts as keeping the rules, before projection makes it exact.

Conditioning on an equality h(x) = 0 is the limit of |h(x)| <= width for widths going to zero: the
density on the surface is p(x | y) over the length of the slope of h (the co-area formula), so it
depends on how h is written: ``a * b == 1`` and ``a == 1 / b`` are different laws on one curve. A
linear equality has one law however it is written. Shells have one width in h, in units of its
scatter among the draws; all draws within one then count alike. Weights for the slope, which would
allow shells of one thickness in x, lose more draws than the thickness is worth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.routines.constraints.rules import Rules

SHELL = 0.05
WIDE = 0.25
_QUARTILES = 1.349
_RIDGE = 1e-4


@dataclass(frozen=True)
class Measured:
    """How near draws are to the rules.

    Args:
        foot: the draws moved onto the equalities by one linear step (C, n, P); it is there that
            they have to keep the inequalities.
        distance: root of the summed squares of violations in units of scatter (C, n).
        shell: the shell that just holds them, in scatters; inf where they break an inequality, or
            an equality that no projection can make exact (C, n).
        inside: whether they keep the inequalities (C, n).
    """

    foot: Tensor
    distance: Tensor
    shell: Tensor
    inside: Tensor

    def within(self, width: float) -> Tensor:
        """The share of draws that lie within shells.

        Args:
            width: half width of the shells in scatters.

        Returns:
            Shares (C,).
        """
        return (self.shell <= width).double().mean(1)


@dataclass(frozen=True)
class Shell:
    """Units of distance for C conditions.

    Args:
        rules: the constraints.
        spread: how far each residual scatters among the draws (C, M).
        soft: which equalities a projection can make exact, so that a shell is enough (M,).
        metric: covariance of the draws in the unit box (C, P, P).
    """

    rules: Rules
    spread: Tensor
    soft: Tensor
    metric: Tensor

    @classmethod
    def of(cls, rules: Rules, x: Tensor) -> Shell:
        """Shells that fit draws.

        A rule that no movable column enters, such as a product of integers, cannot be projected:
        its shell is its tolerance.

        Args:
            rules: the constraints.
            x: draws (C, N, P).

        Returns:
            The shells.
        """
        residual = rules.residual(x)
        residual = torch.where(torch.isfinite(residual), residual, torch.nan)
        ends = residual.nanquantile(torch.tensor([0.25, 0.75], dtype=x.dtype), dim=1)
        spread = (ends[1] - ends[0]) / _QUARTILES
        # half of the draws on one value leave no quartiles apart
        middle = residual.nanmean(1, keepdim=True)
        wide = (residual - middle).square().nanmean(1).sqrt()
        spread = torch.where(spread > 0, spread, wide)
        spread = torch.where(torch.isfinite(spread), spread, rules.scale)
        spread = spread.maximum(rules.tolerance)
        some = x[:, : max(1, 64 // len(x))].reshape(-1, x.shape[-1])
        moved = (rules.linearised(some).slope[..., rules.movable] != 0).any(-1).any(0)
        return cls(rules, spread, rules.equality & moved, _covariance(rules, x))

    def at(self, rows: Tensor) -> Shell:
        """The shells of some conditions.

        Args:
            rows: their numbers.

        Returns:
            The fewer shells.
        """
        return Shell(self.rules, self.spread[rows], self.soft, self.metric[rows])

    def measure(self, x: Tensor) -> Measured:
        """How near draws are.

        Args:
            x: draws (C, n, P).

        Returns:
            The measures.
        """
        rules = self.rules
        foot = self._foot(x)
        excess = torch.where(rules.equality, rules.excess(x), rules.excess(foot))
        kept = excess <= rules.tolerance
        scatters = excess / self.spread[:, None]
        sure = (kept | self.soft).all(-1)
        widest = torch.where(self.soft, scatters, 0.0).amax(-1)
        return Measured(
            foot,
            scatters.square().sum(-1).sqrt(),
            torch.where(sure, widest, torch.inf),
            (kept | rules.equality).all(-1),
        )

    def _foot(self, x: Tensor) -> Tensor:
        """Draws moved onto the linearised equalities (C, n, P).

        The move is the smallest in the draws' covariance; of a Gaussian it makes its conditional.
        """
        rules, width = self.rules, self.rules.width
        index, parts, place = [], [], 0
        for constraint in rules.constraints:
            numbers = torch.arange(place, place + constraint.count)
            place += constraint.count
            if constraint.equality and (constraint.differentiable or constraint.linear):
                slope = rules.slope(constraint, x.flatten(0, 1)).slope
                index.append(numbers[self.soft[numbers]])
                parts.append(slope[:, self.soft[numbers]])
        chosen = torch.cat(index) if index else torch.arange(0)
        if not len(chosen):
            return x
        slope = torch.nan_to_num(torch.cat(parts, 1) * width * rules.movable)
        slope = slope.reshape(*x.shape[:2], len(chosen), x.shape[-1])
        wide = slope @ self.metric[:, None]
        square = wide @ slope.mT
        along = square.diagonal(dim1=2, dim2=3).clamp_min(0.0).sqrt()
        residual = torch.nan_to_num(rules.residual(x)[..., chosen])
        inverse = torch.linalg.pinv(square, rtol=1e-10, hermitian=True)
        step = (wide.mT @ (inverse @ residual[..., None]))[..., 0] * rules.movable * width
        # far from the rules a slope says little
        unit = along.maximum(rules.tolerance[chosen])
        far = (residual / unit).abs().amax(-1, keepdim=True).clamp_min(1.0)
        foot = x - step / far
        space = rules.space
        return torch.maximum(torch.minimum(foot, space.upper), space.lower)


def _covariance(rules: Rules, x: Tensor) -> Tensor:
    """Covariance (C, P, P) of draws in the unit box, with a ridge."""
    unit = x / rules.width
    gap = unit - unit.mean(1, keepdim=True)
    covariance = gap.mT @ gap / gap.shape[1]
    size = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    return covariance + _RIDGE * size[:, None, None] * torch.eye(unit.shape[-1], dtype=unit.dtype)
