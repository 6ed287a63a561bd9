"""Roots of many systems at once: a damped Newton method with a damping of its own for each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# a row gives up when no shorter step makes its residual smaller
_MOST_DAMPING = 1e12
_LEAST_DAMPING = 1e-15
# steps that are still taken once the residual is small: they cost little and give the last digits
_LAST_STEPS = 2


@dataclass(frozen=True)
class Linear:
    """A system at some points.

    Args:
        residual: what is to be zero (N, M); NaN where it is not defined.
        slope: its derivatives (N, M, W).
    """

    residual: Tensor
    slope: Tensor


@dataclass(frozen=True)
class Roots:
    """Where the rows ended.

    Args:
        point: the points (N, W).
        residual: their largest absolute residuals (N,).
        converged: bool (N,): whether that is below the tolerance.
        evaluations: how many points the system was worked out at.
    """

    point: Tensor
    residual: Tensor
    converged: Tensor
    evaluations: int


def newton(
    system: Callable[[Tensor], Linear],
    start: Tensor,
    *,
    clip: Callable[[Tensor], Tensor] | None = None,
    steps: int = 60,
    tolerance: float = 1e-9,
) -> Roots:
    """Levenberg and Marquardt's steps from every start until the residual is zero.

    Each row solves min |J d + r|^2 + w |d|^2 with a weight w of its own, smaller after a step that
    helps and larger after one that does not, so that no row waits for another. Systems with fewer
    equations than unknowns step with least length. Levenberg, Quarterly of Applied Mathematics 2
    (1944); Marquardt, SIAM Journal 11 (1963).

    Args:
        system: residuals and slopes at points (n, W), row by row.
        start: where to begin (N, W), float64.
        clip: moves points (n, W) to where the system is defined; None for nowhere.
        steps: most steps.
        tolerance: largest absolute residual of a root.

    Returns:
        The ends, never worse than the starts.
    """
    point = start.clone() if clip is None else clip(start)
    here = system(point)
    residual, slope = here.residual, here.slope
    square = _square(residual)
    damping = torch.full_like(square, 1e-3)
    left = torch.full_like(square, _LAST_STEPS)
    active = torch.isfinite(square)
    evaluations = len(point)
    for _ in range(steps):
        rows = active.nonzero()[:, 0]
        if not len(rows):
            break
        move = _step(residual[rows], slope[rows], damping[rows])
        there = point[rows] + move
        if clip is not None:
            there = clip(there)
        new = system(there)
        evaluations += len(rows)
        gain = _square(new.residual)
        better = gain < square[rows]
        taken = rows[better]
        point[taken], residual[taken], slope[taken] = (
            there[better],
            new.residual[better],
            new.slope[better],
        )
        square[taken] = gain[better]
        damping[rows] = torch.where(better, damping[rows] / 10.0, damping[rows] * 4.0)
        damping.clamp_min_(_LEAST_DAMPING)
        small = residual[rows].abs().amax(1) <= tolerance
        left[rows[small]] -= 1.0
        active[rows] = (damping[rows] < _MOST_DAMPING) & (left[rows] > 0.0) & (square[rows] > 0.0)
    largest = torch.where(torch.isfinite(square), residual.abs().amax(1), torch.inf)
    return Roots(point, largest, largest <= tolerance, evaluations)


def _square(residual: Tensor) -> Tensor:
    total = residual.square().sum(1)
    return torch.where(torch.isfinite(total), total, torch.inf)


def _step(residual: Tensor, slope: Tensor, damping: Tensor) -> Tensor:
    """The damped steps (n, W), by QR of the slopes with the damping below: no squared condition."""
    width = slope.shape[2]
    size = slope.square().sum((1, 2)).div(width).clamp_min(1e-300)
    eye = torch.eye(width, dtype=slope.dtype).expand(len(slope), -1, -1)
    tall = torch.cat([slope, (damping * size).sqrt()[:, None, None] * eye], 1)
    goal = torch.cat([-residual, residual.new_zeros(len(residual), width)], 1)
    return torch.linalg.lstsq(tall, goal.unsqueeze(-1)).solution.squeeze(-1)
