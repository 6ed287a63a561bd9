"""Trade-offs: which designs no other one beats in every wish at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.terms import DIRECTIONS

_BLOCK = 2048
_MOST_TRADED = 100.0


@dataclass(frozen=True)
class Objectives:
    """The wishes of a goal, all turned so that lower is better.

    Args:
        columns: the M wished columns, in the order of the goal.
        index: their positions in the y Space.
        signs: 1 for ``min``, -1 for ``max``.
    """

    columns: tuple[str, ...]
    index: tuple[int, ...]
    signs: tuple[float, ...]

    @classmethod
    def of(cls, goal: Goal) -> Objectives:
        """Read the wishes of a goal.

        Args:
            goal: what is wanted; its other terms are constraints.

        Returns:
            The objectives.

        Raises:
            GenoptError: if fewer than two columns are wished for.
        """
        wishes = [term for term in goal.terms if term.kind in DIRECTIONS]
        if len(wishes) < 2:
            said = wishes[0].column if wishes else "none"
            raise GenoptError(
                "a front of trade-offs needs at least two columns with min or max, the goal has "
                f"{said}: add another, as in goal='{{cost: min, strength: max}}', or use "
                "another routine for one wish"
            )
        return cls(
            tuple(term.column for term in wishes),
            tuple(term.index for term in wishes),
            tuple(1.0 if term.kind == "min" else -1.0 for term in wishes),
        )

    def values(self, y: Tensor) -> Tensor:
        """What is to be made small.

        Args:
            y: properties (..., K).

        Returns:
            (..., M), float64.
        """
        columns = y[..., list(self.index)].to(torch.float64)
        return columns * columns.new_tensor(self.signs)

    def raw(self, values: Tensor) -> Tensor:
        """The wished columns in their own signs.

        Args:
            values: as `values` gives them (..., M).

        Returns:
            (..., M).
        """
        return values * values.new_tensor(self.signs)


def nondominated(values: Tensor, among: Tensor | None = None) -> Tensor:
    """Points that no other one beats: none is as good everywhere and better somewhere.

    Args:
        values: what is to be made small (N, M); a row that is not finite is beaten by all.
        among: which rows take part (N,), bool; None for all.

    Returns:
        bool (N,); equal points do not beat one another.

    Example:
        >>> nondominated(torch.tensor([[0.0, 2.0], [1.0, 1.0], [1.0, 2.0]])).tolist()
        [True, True, False]
    """
    there = torch.isfinite(values).all(-1)
    if among is not None:
        there &= among
    rows = there.nonzero()[:, 0]
    # a point has a smaller sum than all it beats, so later blocks cannot beat earlier ones
    rows = rows[values[rows].sum(-1).argsort(stable=True)]
    front = rows[:0]
    for block in rows.split(_BLOCK):
        left = block[~_beaten(values[block], values[front])]
        front = torch.cat([front, left[~_beaten(values[left], values[left])]])
    # sums that rounding made equal may hide a point behind one that it beats
    front = front[~_beaten(values[front], values[front])]
    mask = torch.zeros(len(values), dtype=torch.bool)
    mask[front] = True
    return mask


def _beaten(values: Tensor, by: Tensor) -> Tensor:
    """Which rows (N, M) some row of another set (n, M) beats."""
    found = [torch.zeros(0, dtype=torch.bool)]
    for part in values.split(_BLOCK):
        no_worse = (by[None] <= part[:, None]).all(-1)
        better = (by[None] < part[:, None]).any(-1)
        found.append((no_worse & better).any(1))
    return torch.cat(found)


def beaten(values: Tensor, by: Tensor) -> Tensor:
    """Points that some point of another set beats or equals.

    Args:
        values: what is to be made small (N, M).
        by: the other set (n, M).

    Returns:
        bool (N,).
    """
    found = [torch.zeros(0, dtype=torch.bool)]
    for part in values.split(_BLOCK):
        found.append((by[None] <= part[:, None]).all(-1).any(1))
    return torch.cat(found)


def worthwhile(values: Tensor) -> Tensor:
    """Points of a front with bounded trade-offs (Geoffrion 1968, doi 10.1016/0022-247X(68)90201-1).

    On the edge of a box the small errors of a model make whole faces seem a front: a hair better in
    one objective and far worse in another. A point gives way to one that loses less than a
    hundredth of what it gains, in widths of what is left of the front.

    Args:
        values: claimed objectives, to be made small (N, M).

    Returns:
        bool (N,); at least one point stays.

    Example:
        >>> worthwhile(torch.tensor([[0.0, 9.0], [0.001, 1.0], [0.5, 0.5], [1.0, 0.0]])).tolist()
        [False, True, True, True]
    """
    kept = torch.ones(len(values), dtype=torch.bool)
    while True:
        left = values[kept]
        if len(left) < 2:
            return kept
        width = (left.amax(0) - left.amin(0)).clamp_min(1e-300)
        scaled = left / width
        stays = []
        for part in scaled.split(_BLOCK):
            gain = part[:, None] - scaled[None]
            most, loss = gain.amax(-1), (-gain).amax(-1)
            stays.append(~((most > 0) & (_MOST_TRADED * loss < most)).any(1))
        good = torch.cat(stays)
        if bool(good.all()):
            return kept
        kept[kept.clone()] = good


def spread_out(values: Tensor, n: int, taken: Tensor | None = None) -> Tensor:
    """Points that lie far apart: each is the farthest from all that are chosen before it.

    Args:
        values: points in comparable units (N, M).
        n: how many; fewer where there are not so many different ones.
        taken: points that are there already (m, M).

    Returns:
        Positions (n,); without ``taken`` the best of each column come first.
    """
    if not len(values):
        return torch.zeros(0, dtype=torch.long)
    chosen: list[int] = []
    if taken is not None and len(taken):
        distance = torch.cdist(values, taken).amin(1)
    else:
        ends = values.argmin(0).tolist()
        chosen = list(dict.fromkeys(ends))[:n]
        distance = torch.cdist(values, values[chosen]).amin(1)
    while len(chosen) < n:
        farthest = int(distance.argmax())
        if float(distance[farthest]) <= 0.0:
            break
        chosen.append(farthest)
        distance = torch.minimum(distance, (values - values[farthest]).square().sum(-1).sqrt())
    return torch.tensor(chosen, dtype=torch.long)
