"""Closeness: how near properties are to what a goal turns on, as a function of y alone.

A goal turns on its wanted values, on the best values seen where it wishes for more (``min``,
``max``), and on the boundaries of what it allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.goal import Goal
from genopt.terms import DIRECTIONS, Term, match

_BOUNDED = ("at_least", "at_most", "between")


def gaps(goal: Goal, y: Tensor, best: Tensor | None = None) -> Tensor:
    """How far properties are from each of the things that a goal turns on.

    The first is the goal itself: root mean square of the scaled misses of its values, classes and
    limits and of what its wishes fall short of the best; it is left out where the goal has limits
    only. Then each limit's boundary, from either side.

    Args:
        goal: what is wanted, B goals.
        y: properties (N, K).
        best: what `best_seen` gives; needed where the goal has a wish.

    Returns:
        Distances (B, T, N) in widths of the columns; infinite where a named property is missing.
    """
    claims = y.to(torch.float64).expand(goal.batch_size, *y.shape)
    squares, boundaries, wishes = [], [], 0
    for term in goal.terms:
        column = claims[..., term.index]
        unit = goal.scale[term.index]
        miss = term.miss(column) / unit
        if term.kind in DIRECTIONS:
            floor = 0.0 if best is None else best[:, wishes : wishes + 1]
            miss = (miss - floor).clamp_min(0.0)
            wishes += 1
        elif term.kind == "label":
            miss = term.miss(column)
        elif term.kind in _BOUNDED:
            boundaries.append(_from_boundary(term, column) / unit)
        squares.append(torch.where(torch.isnan(column), torch.inf, miss).square())
    found = []
    if any(term.kind not in _BOUNDED for term in goal.terms):
        found.append(torch.stack(squares).mean(0).sqrt())
    far = torch.stack([*found, *boundaries], 1)
    return torch.where(torch.isnan(far), torch.inf, far)


def best_seen(goal: Goal, y: Tensor) -> Tensor | None:
    """The best value of each wish among rows that satisfy the rest of the goal.

    Args:
        goal: what is wanted, B goals.
        y: measured properties (N, K).

    Returns:
        Misses (B, W) in widths of the columns, one for each ``min`` and ``max`` in order; among all
        rows where none satisfies the rest; None without a wish.
    """
    wishes = [term for term in goal.terms if term.kind in DIRECTIONS]
    if not wishes:
        return None
    claims = y.to(torch.float64).expand(goal.batch_size, *y.shape)
    kept = goal.satisfied(claims if goal.batched else claims[0]).reshape(claims.shape[:2])
    kept = kept | ~kept.any(1, keepdim=True)
    values = []
    for term in wishes:
        miss = term.miss(claims[..., term.index]) / goal.scale[term.index]
        values.append(torch.where(kept & ~torch.isnan(miss), miss, torch.inf).amin(1))
    return torch.stack(values, 1)


def _from_boundary(term: Term, column: Tensor) -> Tensor:
    gap = (column - match(term.value, column)).abs()
    return (
        gap
        if term.upper is None
        else torch.minimum(gap, (column - match(term.upper, column)).abs())
    )


@dataclass(frozen=True)
class Closeness:
    """A number from 0 to 1 for properties: 1 at what the goal turns on, falling off around it.

    Args:
        goal: what is wanted, B goals.
        best: the best values of its wishes (B, W), or None.
        width: where each thing's kernel has fallen to a quarter (B, T), in widths of the columns.
    """

    goal: Goal
    best: Tensor | None
    width: Tensor

    @classmethod
    def of(cls, goal: Goal, seen: Tensor, expected: Tensor, share: float) -> Closeness:
        """A closeness that takes in a share of the designs.

        Args:
            goal: what is wanted, B goals.
            seen: properties measured so far (N, K).
            expected: what designs drawn from the prior are expected to have (M, K).
            share: share of these designs that lie within the width.

        Returns:
            The closeness.
        """
        best = best_seen(goal, seen)
        far = gaps(goal, expected, best)
        finite = torch.where(torch.isinf(far), torch.nan, far)
        width = torch.nanquantile(finite, share, dim=-1)
        smallest = torch.nan_to_num(finite, nan=torch.inf).amin(-1)
        tiny = torch.finfo(torch.float64).eps
        return cls(goal, best, torch.nan_to_num(torch.maximum(width, smallest), nan=1.0) + tiny)

    def __call__(self, y: Tensor) -> Tensor:
        """The closeness of properties.

        Args:
            y: properties (N, K).

        Returns:
            (N,): mean over goals and over the things that they turn on; 0 where nothing is known.
        """
        scaled = gaps(self.goal, y, self.best) / self.width[..., None]
        return (1.0 + scaled.square()).pow(-2).mean((0, 1))
