"""Wishes under conditions: an augmented Lagrangian, for many designs at once.

Each term is an interval for a value, so equalities and inequalities are one case: the value, moved
by its multiplier, is drawn to the interval (Powell 1969, Hestenes 1969, Rockafellar 1973). Every
row has its own multipliers, penalty and end; bounds and simplexes are kept by every step. A wish
without conditions is followed by the projected L-BFGS of `genopt.routines.lbfgs`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genopt.routines.gauss_newton import Solved
from genopt.routines.lbfgs import lbfgs
from genopt.routines.refine_ask import Ask
from genopt.routines.refine_newton import Descent
from genopt.routines.refine_room import Room
from genopt.routines.residuals import Wanted
from genopt.routines.search import Evaluation, Log, SearchOptions

_FIRST, _MOST = 10.0, 1e8
_ROUNDS = 30
_SHRINK = 0.25
_FINISH = 1e-3
_PATIENCE = 20
_STATIONARY = 1e-6
_SETTLED = 1e-3
_RANK = 1e-10


def augmented_lagrangian(
    ask: Ask,
    wanted: Wanted,
    room: Room,
    values: Tensor,
    *,
    steps: int,
    tolerance: float,
    tick: Callable[[], None] = lambda: None,
) -> Solved:
    """Move designs to where a wish is met as well as the terms of the goal allow.

    Args:
        ask: the simulator.
        wanted: of N designs.
        room: where they may go.
        values: what the simulator says of where they are (N, K).
        steps: most steps of each descent; multipliers are brought up to date between them.
        tolerance: largest miss of a converged design, in widths of the properties.
        tick: is called after each descent.

    Returns:
        Where they ended; converged where the terms hold and no direction improves the wish.
    """
    u = room.first()
    there = torch.isfinite(values).all(-1)
    merit = Merit(ask, wanted, room)
    if not len(wanted.index):
        options = SearchOptions(steps, 0.05, tolerance=0.0, patience=_PATIENCE, optimizer="lbfgs")
        u = lbfgs(u[:, None], merit, room.coordinates, options, Log())[:, 0]
        values = ask.values(room.x(u))
        tick()
        unrest = Descent(merit, u, values).unrest(merit, torch.arange(len(u)))
        return Solved(u, values, there & (unrest <= _STATIONARY))
    descent = Descent(merit, u, values)
    merit.pull = _first_pull(merit, descent)
    before = torch.full((len(u),), torch.inf, dtype=torch.float64)
    converged = torch.zeros(len(u), dtype=torch.bool)
    rest = there.nonzero()[:, 0]
    for _ in range(_ROUNDS):
        if len(rest) == 0:
            break
        unrest = descent.run(merit, rest, steps, 0.1 * _STATIONARY)
        miss = wanted.largest(descent.values)[rest]
        converged[rest] = (unrest <= _STATIONARY) & (miss <= tolerance)
        merit.pull[rest] = merit.take(rest).pulled(descent.values[rest])
        # a descent that is still on its way says nothing of the penalty
        slow = (miss > _SHRINK * before[rest]) & (miss > tolerance) & (unrest <= _SETTLED)
        grown = torch.where(slow[:, None], merit.penalty[rest] * 10.0, merit.penalty[rest])
        merit.penalty[rest] = grown.clamp_max(_MOST)
        # within the tolerance a row goes on only as long as each round brings it nearer
        enough = (miss <= _FINISH * tolerance) | (miss > _SHRINK * before[rest])
        before[rest] = miss
        tick()
        rest = rest[~(converged[rest] & enough)]
    return Solved(descent.u, descent.values, converged)


class Merit:
    """The augmented Lagrangian of N designs.

    Args:
        ask: the simulator.
        wanted: of the designs.
        room: where they may go.

    Attributes:
        pull: multipliers (N, T), in units of the wish by units of a miss.
        penalty: price of a squared miss (N, 1).
    """

    def __init__(self, ask: Ask, wanted: Wanted, room: Room) -> None:
        self.ask, self.wanted, self.room = ask, wanted, room
        self.pull = torch.zeros_like(wanted.low)
        self.penalty = torch.full((len(wanted.low), 1), _FIRST, dtype=torch.float64)

    def take(self, rows: Tensor) -> Merit:
        """The merit of some designs.

        Args:
            rows: their numbers (M,).

        Returns:
            The same for M designs.
        """
        out = Merit(self.ask, self.wanted.take(rows), self.room.take(rows))
        out.pull, out.penalty = self.pull[rows], self.penalty[rows]
        return out

    def __call__(self, point: Tensor, rows: Tensor | None) -> Evaluation:
        """The worth of coordinates (N, 1, E), or of those of some rows (M, 1, E)."""
        part = self if rows is None else self.take(rows)
        u = point[:, 0]
        values = part.ask.traced(part.room.x(u))
        # a row without an answer has no gradient, the sum of all rows needs one
        total = part.worth(values) + 0.0 * u.sum(-1)
        return Evaluation(point, values[:, None], total[:, None], torch.zeros_like(total)[:, None])

    def values(self, u: Tensor) -> Tensor:
        """Values (N, K) of coordinates (N, E)."""
        return self.ask.values(self.room.x(u))

    def slopes(self, u: Tensor, values: Tensor) -> Tensor:
        """Derivatives (N, K, E) of values by coordinates."""
        return self.room.slope(self.ask.slopes(self.room.x(u), values))

    def pulled(self, values: Tensor) -> Tensor:
        """The next multipliers (N, T): the pull back into the intervals."""
        wanted = self.wanted
        moved = values[:, wanted.index] + wanted.unit * self.pull / self.penalty
        inside = torch.minimum(torch.maximum(moved, wanted.low), wanted.high)
        return self.penalty * (moved - inside) / wanted.unit

    def worth(self, values: Tensor) -> Tensor:
        """The merit (N,)."""
        paid = (0.5 / self.penalty * self.pulled(values).square()).sum(-1)
        return self.wanted.objective(values) + paid

    def weights(self, values: Tensor) -> Tensor:
        """The merit's derivative by the values (N, K)."""
        out = torch.zeros_like(values)
        out[:, self.wanted.wish] += self.wanted.slope
        # several terms may be of one value
        return out.index_add(1, self.wanted.index, self.pulled(values) / self.wanted.unit)

    def walls(self, values: Tensor, slopes: Tensor) -> Tensor:
        """Slopes (N, T, E) whose squares are the curvature of the penalties."""
        pulling = (self.pulled(values) != 0) | (self.wanted.low == self.wanted.high)
        factor = pulling * self.penalty.sqrt() / self.wanted.unit
        return slopes[:, self.wanted.index] * factor[..., None]


def _first_pull(merit: Merit, descent: Descent) -> Tensor:
    """Multipliers (N, T) that balance the wish best where the designs are, of equalities alone.

    Without them the first descent would follow the wish far away from a start that keeps them.
    """
    wanted = merit.wanted
    equal = (wanted.low == wanted.high).all(0)
    pull = torch.zeros_like(wanted.low)
    if bool(equal.any()):
        wish = (wanted.slope[:, None] * descent.slopes[:, wanted.wish]).sum(1)
        terms = descent.slopes[:, wanted.index[equal]] / wanted.unit[equal, None]
        lower, upper = merit.room.limits()
        rows = merit.room.flat(torch.cat([wish[:, None], terms], 1), upper > lower)
        inverse = torch.linalg.pinv(rows[:, 1:], rtol=_RANK)
        pull[:, equal] = -(rows[:, :1] @ inverse)[:, 0]
    return pull
