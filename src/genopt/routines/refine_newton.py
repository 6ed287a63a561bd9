"""A quasi-Newton descent for merits with heavy penalties, for many designs at once.

What a penalty adds to the curvature is known from the slopes of its terms, so only the curvature of
the Lagrangian is learned from steps, by damped BFGS updates (Powell 1978; Nocedal and Wright 2006,
ch. 18). A descent that learns both from steps alone crawls along the walls of many equalities.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from genopt.routines.refine_room import Room

_FIRST, _LEAST, _MOST = 1e-3, 1e-12, 1e10
_GAIN = 1e-4
_LONGEST = 0.5
_STILL = 1e-15
_NOISE = 1e-14
_DAMPED = 0.2
_SHORT = 1e-12


class Penalised(Protocol):
    """What the descent asks of a merit; rows are designs."""

    room: Room

    def take(self, rows: Tensor) -> Penalised:
        """The merit of some rows."""
        ...

    def values(self, u: Tensor) -> Tensor:
        """Values (N, K) of coordinates (N, E)."""
        ...

    def slopes(self, u: Tensor, values: Tensor) -> Tensor:
        """Their derivatives (N, K, E)."""
        ...

    def worth(self, values: Tensor) -> Tensor:
        """The merit (N,)."""
        ...

    def weights(self, values: Tensor) -> Tensor:
        """Its derivative by the values (N, K)."""
        ...

    def walls(self, values: Tensor, slopes: Tensor) -> Tensor:
        """Slopes (N, T, E) whose squares are the curvature that penalties add."""
        ...


class Descent:
    """Points, slopes and learned curvature of N designs; goes on where it stopped.

    Args:
        merit: the first merit, of all rows.
        u: valid coordinates (N, E).
        values: their values (N, K).
    """

    def __init__(self, merit: Penalised, u: Tensor, values: Tensor) -> None:
        self.u, self.values = u.clone(), values.clone()
        self.slopes = merit.slopes(u, values)
        self.curvature = torch.eye(u.shape[1], dtype=u.dtype).repeat(len(u), 1, 1)

    def run(self, merit: Penalised, rows: Tensor, steps: int, tolerance: float) -> Tensor:
        """Minimise a merit for some rows.

        Args:
            merit: the merit of all rows.
            rows: which of them (M,).
            steps: most steps.
            tolerance: length of a projected gradient step at which a row ends.

        Returns:
            The length of that step (M,).
        """
        damping = torch.full((len(self.u),), _FIRST, dtype=self.u.dtype)
        rest = rows
        for _ in range(steps):
            rest = rest[self.unrest(merit, rest) > tolerance]
            if len(rest) == 0:
                break
            rest = self._step(merit.take(rest), rest, damping)
        return self.unrest(merit, rows)

    def unrest(self, merit: Penalised, rows: Tensor) -> Tensor:
        """How far a projected gradient step would lead (M,)."""
        part = merit.take(rows)
        slope = (part.weights(self.values[rows])[:, None] @ self.slopes[rows])[:, 0]
        return (part.room.project(self.u[rows] - slope) - self.u[rows]).abs().amax(-1)

    def _step(self, merit: Penalised, rows: Tensor, damping: Tensor) -> Tensor:
        """One step of some rows; those that can go on."""
        u, values, slopes = self.u[rows], self.values[rows], self.slopes[rows]
        gradient = (merit.weights(values)[:, None] @ slopes)[:, 0]
        walls = merit.walls(values, slopes)
        bend = self.curvature[rows] + walls.mT @ walls
        move = newton_move(bend, gradient, damping[rows], u, merit.room)
        trial = merit.room.project(u + move)
        move = trial - u
        promise = -(gradient * move).sum(-1) - 0.5 * _square(bend, move)
        found = merit.values(trial)
        before = merit.worth(values)
        gain = before - merit.worth(found)
        noise = _NOISE * (1.0 + before.abs())
        taken = gain >= torch.maximum(_GAIN * promise, -noise)
        easy = taken & (gain >= 0.5 * promise)
        harder = torch.where(taken, damping[rows], damping[rows] * 10.0)
        damping[rows] = torch.where(easy, damping[rows] / 10.0, harder).clamp_min(_LEAST)
        going = (move.abs().amax(-1) > _STILL) & (damping[rows] < _MOST)
        if bool(taken.any()):
            chosen, part = rows[taken], merit.take(taken.nonzero()[:, 0])
            self.u[chosen], self.values[chosen] = trial[taken], found[taken]
            new = part.slopes(trial[taken], found[taken])
            weights = part.weights(found[taken])
            change = (weights[:, None] @ (new - slopes[taken]))[:, 0]
            self.slopes[chosen] = new
            self.curvature[chosen] = updated(self.curvature[chosen], move[taken], change)
        return rows[going]


def newton_move(bend: Tensor, gradient: Tensor, damping: Tensor, u: Tensor, room: Room) -> Tensor:
    """The damped Newton step (N, E) inside the bounds, along which simplexes keep their sums.

    Args:
        bend: curvature (N, E, E), positive.
        gradient: gradients (N, E).
        damping: added to the curvature (N,).
        u: valid coordinates (N, E).
        room: where they may go.

    Returns:
        Steps (N, E); a coordinate that would leave its bounds stops there.
    """
    lower, upper = room.limits()
    lower, upper = lower - u, upper - u
    same = torch.eye(u.shape[1], dtype=u.dtype)
    bend = bend + damping[:, None, None] * same
    free = room.free(u, gradient)
    stopped = torch.zeros_like(u)
    move = stopped
    for _ in range(u.shape[1] + 1):
        base = room.balanced(stopped, free)
        along = room.flat(same.expand(len(u), -1, -1), free)
        pull = -(gradient + (bend @ base[..., None])[..., 0])
        whole = along @ bend @ along + (same - along)
        found, _ = torch.linalg.solve_ex(whole, along @ pull[..., None])
        move = base + (along @ found)[..., 0].nan_to_num(0.0)
        length = move.abs().amax(-1, keepdim=True)
        move = move * (_LONGEST / length.clamp_min(_LONGEST))
        beyond = free & ((move < lower) | (move > upper))
        if not bool(beyond.any()):
            break
        stopped = torch.where(beyond, torch.maximum(torch.minimum(move, upper), lower), stopped)
        free = free & ~beyond
    return torch.maximum(torch.minimum(move, upper), lower)


def updated(curvature: Tensor, move: Tensor, change: Tensor) -> Tensor:
    """Powell's damped BFGS update, which keeps a curvature positive.

    Args:
        curvature: (N, E, E).
        move: steps (N, E).
        change: of the gradient along them (N, E).

    Returns:
        (N, E, E); unchanged where a step is too short to say anything.
    """
    bent = (curvature @ move[..., None])[..., 0]
    own = (move * bent).sum(-1, keepdim=True)
    seen = (move * change).sum(-1, keepdim=True)
    share = torch.where(seen < _DAMPED * own, (1.0 - _DAMPED) * own / (own - seen), 1.0)
    mixed = share * change + (1.0 - share) * bent
    along = (move * mixed).sum(-1, keepdim=True)
    new = (
        curvature
        - bent[..., None] * bent[:, None] / own[..., None]
        + mixed[..., None] * mixed[:, None] / along[..., None]
    )
    told = (move.norm(dim=-1) > _SHORT) & torch.isfinite(new).all((-1, -2))
    return torch.where(told[:, None, None], new, curvature)


def _square(bend: Tensor, move: Tensor) -> Tensor:
    return (move[:, None] @ bend @ move[..., None])[:, 0, 0]
