"""Gauss-Newton with damping for many designs at once: each row its own damping, step and end.

Every step solves the linearised misses for the shortest move in widths of the columns (Levenberg
1944, Marquardt 1963, with the damping in proportion to the miss of Fan and Yuan 2005), so that
designs of a goal with many answers go to the nearest one and keep their diversity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.routines.refine_ask import Ask
from genopt.routines.refine_room import Room
from genopt.routines.residuals import Wanted

_FIRST, _LEAST, _MOST = 1e-2, 1e-10, 1e12
_LONGEST = 0.5
_RANK = 1e-14
_STILL = 1e-14
_GAIN = 1e-4
_FINISH = 1e-4


@dataclass(frozen=True)
class Solved:
    """Where designs came to rest.

    Args:
        u: coordinates (N, E).
        values: their values (N, K).
        converged: whether each meets all that is wanted of it (N,).
    """

    u: Tensor
    values: Tensor
    converged: Tensor


def gauss_newton(
    ask: Ask,
    wanted: Wanted,
    room: Room,
    values: Tensor,
    *,
    steps: int,
    tolerance: float,
    tick: Callable[[], None] = lambda: None,
) -> Solved:
    """Move designs to where they miss nothing; none gets worse.

    A row ends when its largest miss is within the tolerance, or when no step makes it smaller.

    Args:
        ask: the simulator.
        wanted: of N designs, values only.
        room: where they may go.
        values: what the simulator says of where they are (N, K).
        steps: most steps.
        tolerance: largest miss of a converged design, in widths of the properties.
        tick: is called after each step.

    Returns:
        Where they ended.
    """
    u, values = room.first(), values.clone()
    slope = values.new_zeros(len(u), len(wanted.index), u.shape[-1])
    damping = torch.full((len(u),), _FIRST, dtype=torch.float64)
    miss = wanted.largest(values)
    rest = (torch.isfinite(miss) & (miss > tolerance)).nonzero()[:, 0]
    fresh = rest
    for _ in range(steps):
        if len(rest) == 0:
            break
        if len(fresh):
            place, known = room.take(fresh), values[fresh]
            found = wanted.take(fresh).residual_slope(known, ask.slopes(place.x(u[fresh]), known))
            slope[fresh] = place.slope(found)
        part, place = wanted.take(rest), room.take(rest)
        residual = part.residual(values[rest])
        size = residual.square().sum(-1)
        move = _move(slope[rest], residual, damping[rest] * size.sqrt(), u[rest], place)
        trial = place.project(u[rest] + move)
        move = trial - u[rest]
        promise = size - (residual + (slope[rest] @ move[..., None])[..., 0]).square().sum(-1)
        found = ask.values(place.x(trial))
        gain = size - part.residual(found).square().sum(-1)
        taken = (gain > 0) & (gain >= _GAIN * promise)
        good = taken & (gain >= 0.5 * promise)
        damping[rest] = torch.where(
            good,
            damping[rest] / 10.0,
            torch.where(taken, damping[rest], damping[rest] * 10.0),
        ).clamp_min(_LEAST)
        u[rest[taken]], values[rest[taken]] = trial[taken], found[taken]
        tick()
        stuck = (move.abs().amax(-1) <= _STILL) | (damping[rest] > _MOST)
        miss = wanted.largest(values)[rest]
        # within the tolerance a row goes on only as long as each step brings it nearer
        going = ~stuck & ((miss > tolerance) | (taken & (miss > _FINISH * tolerance)))
        fresh = rest[taken & going]
        rest = rest[going]
    return Solved(u, values, wanted.largest(values) <= tolerance)


def _move(slope: Tensor, residual: Tensor, damping: Tensor, u: Tensor, room: Room) -> Tensor:
    """The damped step (N, E) inside the bounds that the linearised residuals ask for.

    Coordinates that would leave the bounds are stopped there, and the others try again.
    """
    lower, upper = room.limits()
    lower, upper = lower - u, upper - u
    free = room.free(u, (slope.mT @ residual[..., None])[..., 0])
    stopped = torch.zeros_like(u)
    move = stopped
    for _ in range(u.shape[-1] + 1):
        base = room.balanced(stopped, free)
        flat = room.flat(slope, free)
        left = -(residual + (slope @ base[..., None])[..., 0])
        level, axes = torch.linalg.eigh(flat @ flat.mT)
        least = _RANK * level[:, -1:].clamp_min(1e-300)
        pull = (axes.mT @ left[..., None])[..., 0]
        pull = torch.where(level > least, pull / (level + damping[:, None]), 0.0)
        move = base + (flat.mT @ (axes @ pull[..., None]))[..., 0]
        length = move.abs().amax(-1, keepdim=True)
        move = move * (_LONGEST / length.clamp_min(_LONGEST))
        beyond = free & ((move < lower) | (move > upper))
        if not bool(beyond.any()):
            break
        stopped = torch.where(beyond, torch.maximum(torch.minimum(move, upper), lower), stopped)
        free = free & ~beyond
    return torch.maximum(torch.minimum(move, upper), lower)
