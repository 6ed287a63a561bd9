"""How an active run goes: the best value after each round, the trust region, the best rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.goal import Goal
from genopt.routines.acquisition import Aims, undominated
from genopt.routines.active_record import Record
from genopt.terms import DIRECTIONS

_WIDEST, _NARROWEST = 1.6, 2.0**-7
_SUCCESSES = 3
_BETTER = 1e-3
_HELD = 1e-9
_WEIGHTINGS = 16
_GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)


@dataclass(frozen=True)
class History:
    """The best value of each goal after each round.

    Args:
        calls: simulations so far (T,), 0 first.
        best: the value of the goal's one wish, or its loss, of the best row (B, T).
        value: how far that row is from what is wanted, lower is better (B, T).
        what: name of the wish, or ``loss``.
        front: whether the goal has several wishes.
    """

    calls: list[int]
    best: list[list[float]]
    value: list[list[float]]
    what: str
    front: bool

    @classmethod
    def of(cls, goal: Goal, record: Record) -> History:
        """Read the history off the rows.

        Args:
            goal: what is wanted, B goals.
            record: all rows.

        Returns:
            The history.
        """
        wishes = [term for term in goal.terms if term.kind in DIRECTIONS]
        y, rounds = record.table.y, record.rounds
        value = held_values(goal, record.table)
        shown = goal.loss(y.expand(goal.batch_size, *y.shape) if goal.batched else y[None])
        if len(wishes) == 1:
            shown = y[None, :, wishes[0].index].expand(goal.batch_size, -1)
        calls, best, values = [], [], []
        for number in range(int(rounds.max()) + 1):
            so_far = rounds <= number
            place = value[:, so_far].argmin(1, keepdim=True)
            calls.append(int(so_far.sum()) - record.given)
            values.append(value[:, so_far].gather(1, place)[:, 0])
            there = shown[:, so_far].gather(1, place)[:, 0]
            best.append(torch.where(torch.isinf(values[-1]), torch.nan, there))
        return cls(
            calls,
            torch.stack(best, 1).tolist(),
            torch.stack(values, 1).tolist(),
            wishes[0].column if len(wishes) == 1 else "loss",
            len(wishes) > 1,
        )

    def plain(self) -> dict[str, Any]:
        """Plain data, for the header of Candidates."""
        return {"calls": self.calls, "best": self.best, "what": self.what}

    def words(self) -> str:
        """The best value now, for a progress bar."""
        return f"{self.what} {self.best[0][-1]:.4g}"

    def says(self, record: Record) -> list[str]:
        """The outcome in words.

        Args:
            record: all rows.

        Returns:
            Parts of a sentence.
        """
        said = []
        for i, best in enumerate(self.best):
            of = f" of goal {i + 1}" if len(self.best) > 1 else ""
            before = "no row with the held columns" if math.isnan(best[0]) else f"{best[0]:.4g}"
            said.append(
                f"best {self.what}{of} {best[-1]:.4g} after {record.calls} simulations, "
                f"{before} before"
            )
        if bool(record.lost[record.given :].any()):
            said.append(f"{int(record.lost[record.given :].sum())} designs could not be simulated")
        return said


def held_values(goal: Goal, rows: Table) -> Tensor:
    """The same as `middle_values`, infinite for rows that do not hold the goal's fixed columns.

    Args:
        goal: what is wanted, B goals.
        rows: N rows.

    Returns:
        Values (B, N), lower is better.
    """
    value = middle_values(goal, rows.y)
    for i, held in goal.fixed.items():
        off = (rows.x[:, i] - held.reshape(-1, 1)).abs() > _HELD
        value = torch.where(off, torch.inf, value)
    return value


def middle_values(goal: Goal, y: Tensor) -> Tensor:
    """How far rows are from each goal, with equal shares of its wishes.

    Args:
        goal: what is wanted, B goals.
        y: measured properties (N, K).

    Returns:
        Values (B, N), lower is better; infinite without a named property.
    """
    aims = Aims.of(goal, y, 1, torch.Generator().manual_seed(0))
    equal = torch.full_like(aims.weights, 1.0 / max(aims.weights.shape[1], 1))
    if aims.weights.shape[1] > 1:
        aims = Aims(goal, equal, aims.lower, aims.width)
    value = aims.values(y[None])
    return torch.where(torch.isnan(value), torch.inf, value)


def telling_rows(goal: Goal, y: Tensor, best: int, others: int) -> Tensor:
    """The rows that say most of where good designs lie: the best ones, and some of the rest.

    Far from the optimum a function may look quite different, and time grows with the cube of the
    number of rows.

    Args:
        goal: what is wanted, B goals.
        y: measured properties (N, K).
        best: how many of the best rows, over all goals and weightings of wishes.
        others: how many of the rest.

    Returns:
        Row numbers (at most best + others,), ascending.
    """
    if len(y) <= best + others:
        return torch.arange(len(y))
    generator = torch.Generator().manual_seed(0)
    value = Aims.of(goal, y, _WEIGHTINGS, generator).values(y[None])
    value = torch.where(torch.isnan(value), torch.inf, value)
    rank = value.argsort(1).argsort(1).amin(0)
    order = rank.argsort(stable=True)
    rest = order[best:]
    # by golden steps, so that rows that come in leave most of the choice as it is
    rest = rest[(_GOLDEN * rest.double()).frac().argsort()[:others]]
    return torch.cat([order[:best], rest]).sort().values


def scale_of_round(value: list[list[float]]) -> int:
    """Which of two surrogates the next round asks: the one whose last round gained more.

    Both are tried first, and take turns where neither gains anything.

    Args:
        value: the best value of each goal after each round, lower is better (B, T).

    Returns:
        0 or 1.
    """
    turn, last = 0, [math.inf, math.inf]
    for step in zip(*(pairwise(each) for each in value), strict=True):
        gains = (before - after for before, after in step if math.isfinite(before))
        last[turn] = max(gains, default=0.0)
        turn = 1 - turn if last[turn] <= last[1 - turn] else turn
    return turn


def trust_width(value: list[float], dim: int, batch: int) -> float:
    """The width of the trust region after the rounds so far, as a share of each column's.

    It begins with nearly the whole box: a model that finds its way needs no region. Three rounds in
    a row that improve double it; as many without as the dimension asks for halve it. When it is too
    small, it opens again.

    Args:
        value: the best value after each round, lower is better (T,).
        dim: number of columns.
        batch: designs of each round.

    Returns:
        The width, at most 1.6.
    """
    width, successes, failures = _WIDEST, 0, 0
    patience = max(2, math.ceil(max(4.0, dim) / batch))
    for before, after in pairwise(value):
        if after < before - _BETTER * abs(before):
            successes, failures = successes + 1, 0
        else:
            successes, failures = 0, failures + 1
        if successes == _SUCCESSES:
            width, successes = min(2.0 * width, _WIDEST), 0
        elif failures == patience:
            width, failures = width / 2.0, 0
        if width < _NARROWEST:
            width, successes, failures = _WIDEST, 0, 0
    return width


def best_buffer(goal: Goal, rows: Table, keep: int) -> tuple[Tensor, Tensor]:
    """The best rows of each goal; all that are not dominated, where it has several wishes.

    Args:
        goal: what is wanted, B goals.
        rows: all rows with labels.
        keep: how many, at least, where there are so many.

    Returns:
        Designs (B, R, P) and properties (B, R, K), the best first.
    """
    y = rows.y
    claims = y.expand(goal.batch_size, *y.shape)
    value = held_values(goal, rows)
    rank = (~goal.satisfied(claims if goal.batched else y)).reshape(value.shape).to(torch.float64)
    wishes = [term for term in goal.terms if term.kind in DIRECTIONS]
    count = keep
    if len(wishes) > 1:
        misses = torch.stack([term.miss(y[:, term.index]) for term in wishes], -1)
        for b in range(goal.batch_size):
            good = (rank[b] == 0) & torch.isfinite(misses).all(1) & torch.isfinite(value[b])
            front = torch.zeros_like(good)
            front[good] = undominated(misses[good])
            rank[b] += 2.0 * ~front
            count = max(count, int(front.sum()))
    if goal.fixed:
        # rows that do not hold the goal's columns are no answers
        rank += 4.0 * torch.isinf(value)
        count = min(count, max(1, int(torch.isfinite(value).sum(1).min())))
    order = value.argsort(dim=1, stable=True)
    order = order.gather(1, rank.gather(1, order).argsort(dim=1, stable=True))[:, :count]
    return rows.x[order], y[order]
