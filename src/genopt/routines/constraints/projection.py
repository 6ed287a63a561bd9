"""Projection: designs moved onto their constraints, all rows at once, without leaving the Space.

Each step solves the linearised rules for the smallest move in a metric, with an active set of
inequalities and bounds (Gauss-Newton; Nocedal and Wright, Numerical Optimization, chapters 16 and
18). A row that does not get there is said to have failed; none is returned half-way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.routines.constraints.rules import Linearised, Rules

_STEPS = 60
_SHORTER = (1.0, 0.5, 0.2, 0.05)
_FINISH = 0.01
_SIMPLEX_TOLERANCE = 1e-12
_RANK = 1e-10


@dataclass(frozen=True)
class Projected:
    """Designs after projection.

    Args:
        x: designs (N, P), float64.
        kept: whether each keeps every rule and lies in the Space (N,).
    """

    x: Tensor
    kept: Tensor


def project(
    rules: Rules, x: Tensor, metric: Tensor | None = None, steps: int = _STEPS
) -> Projected:
    """Designs moved onto the constraints; those that keep them already stay as they are.

    Integer, class and held columns never move.

    Args:
        rules: the constraints.
        x: designs (N, P) inside the Space.
        metric: covariance (N, P, P) in the unit box that says how far each direction may be moved;
            None for the plain distance in the unit box.
        steps: most Gauss-Newton steps.

    Returns:
        The designs and whether each arrived.
    """
    system = _System(rules)
    x = x.detach().to(torch.float64).clone()
    plain = torch.eye(x.shape[-1], dtype=torch.float64).expand(len(x), -1, -1)
    rest = (~system.finished(x)).nonzero()[:, 0]
    for step in range(steps):
        if len(rest) == 0:
            break
        # a metric may point along a bound for ever: later steps take the plain distance
        chosen = plain if metric is None or step >= steps // 2 else metric
        moved = system.step(x[rest], chosen[rest])
        lost = ~torch.isfinite(moved).all(-1)
        x[rest[~lost]] = moved[~lost]
        going = ~lost & ~system.finished(moved)
        rest = rest[going]
    return Projected(x, system.kept(x))


class _System:
    """Rules and simplex sums as one set of residuals, columns in units of their widths."""

    def __init__(self, rules: Rules) -> None:
        space = rules.space
        self.rules = rules
        self.space = space
        self.width = rules.width
        self.groups = space.simplex_indices
        simplex = torch.ones(len(self.groups), dtype=torch.bool)
        self.equality = torch.cat([rules.equality, simplex])
        self.scale = torch.cat([rules.scale, simplex.double()])
        self.tolerance = torch.cat([rules.tolerance, _SIMPLEX_TOLERANCE * simplex.double()])
        # an inequality is aimed at a little inside, so that rounding does not undo it
        self.aim = torch.where(self.equality, 0.0, 0.5 * self.tolerance)

    def _misses(self, residual: Tensor) -> Tensor:
        miss = torch.where(self.equality, residual.abs(), residual.clamp_min(0.0))
        return torch.where(torch.isnan(miss), torch.inf, miss)

    def _residual(self, x: Tensor) -> Tensor:
        return torch.cat([self.rules.residual(x), self._sums(x)], -1)

    def _sums(self, x: Tensor) -> Tensor:
        sums = [x[..., list(group)].sum(-1) - 1.0 for group in self.groups]
        return torch.stack(sums, -1) if sums else x.new_empty(*x.shape[:-1], 0)

    def merit(self, x: Tensor) -> Tensor:
        """The largest violation of each row in units of its tolerance."""
        return (self._misses(self._residual(x)) / self.tolerance).amax(-1)

    def finished(self, x: Tensor) -> Tensor:
        """Whether equalities hold far within their tolerance and the rest within it."""
        miss = self._misses(self._residual(x))
        enough = torch.where(self.equality, _FINISH * self.tolerance, self.tolerance)
        enough[len(self.rules.names) :] = _SIMPLEX_TOLERANCE
        return (miss <= enough).all(-1)

    def kept(self, x: Tensor) -> Tensor:
        """Whether rows are valid in every respect."""
        inside = ((x >= self.space.lower) & (x <= self.space.upper)).all(-1)
        return inside & (self.merit(x) <= 1.0) & torch.isfinite(x).all(-1)

    def _linearised(self, x: Tensor) -> Linearised:
        found = self.rules.linearised(x)
        slope = x.new_zeros(len(x), len(self.groups), x.shape[-1])
        for j, group in enumerate(self.groups):
            slope[:, j, list(group)] = 1.0
        return Linearised(
            torch.cat([found.residual, self._sums(x)], -1), torch.cat([found.slope, slope], 1)
        )

    def step(self, x: Tensor, metric: Tensor) -> Tensor:
        """One step of each row; NaN where its rules are not defined."""
        found = self._linearised(x)
        residual = found.residual / self.scale
        slope = found.slope * self.width / self.scale[:, None]
        active = self.equality | (found.residual > -self.tolerance)
        target = torch.where(active, -residual - self.aim / self.scale, 0.0)
        move, pull = self._solved(x, metric, slope, active, target)
        # an inequality that holds a row back from going inside is none of its active ones
        idle = active & ~self.equality & (pull > 0)
        if bool(idle.any()):
            active = active & ~idle
            target = torch.where(active, target, 0.0)
            move, _ = self._solved(x, metric, slope, active, target)
        move = torch.where(torch.isfinite(residual).all(-1, keepdim=True), move, torch.nan)
        return self._shortened(x, move * self.width)

    def _solved(
        self, x: Tensor, metric: Tensor, slope: Tensor, active: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The smallest move (N, P) that meets the targets inside the bounds, and multipliers."""
        lower, upper = (self.space.lower - x) / self.width, (self.space.upper - x) / self.width
        a = torch.where(active[..., None], slope, 0.0)
        free = self.rules.movable.expand_as(x)
        stopped = torch.zeros_like(x)
        move, pull = stopped, target
        for _ in range(x.shape[-1] + 1):
            w = metric * free[:, None] * free[:, :, None]
            wide = w @ a.mT
            left = target - (a @ stopped[..., None])[..., 0]
            inverse = torch.linalg.pinv(a @ wide, rtol=_RANK, hermitian=True)
            pull = (inverse @ left[..., None])[..., 0]
            move = (wide @ pull[..., None])[..., 0] + stopped
            beyond = free & ((move < lower) | (move > upper))
            if not bool(beyond.any()):
                break
            stopped = torch.where(beyond, torch.maximum(torch.minimum(move, upper), lower), stopped)
            free = free & ~beyond
        return torch.maximum(torch.minimum(move, upper), lower), pull

    def _shortened(self, x: Tensor, move: Tensor) -> Tensor:
        """The end of the longest of a few steps that brings a row nearer to its rules."""
        if all(constraint.linear for constraint in self.rules.constraints):
            return self._inside(x + move)
        merit = self.merit(x)
        best = torch.full_like(x, torch.nan)
        left = torch.isfinite(move).all(-1).nonzero()[:, 0]
        for share in _SHORTER:
            ahead = self._inside(x[left] + share * move[left])
            best[left] = ahead
            left = left[self.merit(ahead) > (1.0 - 0.1 * share) * merit[left]]
            if len(left) == 0:
                break
        return best

    def _inside(self, x: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(x, self.space.upper), self.space.lower)
