"""Faults of a table and of what is asked of it, seen before anything is learned."""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.analysis.findings import Finding, in_words
from genopt.data.table import Table
from genopt.goal import Goal
from genopt.models.mixture.reach import in_words as values_in_words
from genopt.routines.abstain import some_goals

# what networks in single precision can tell apart
_CONSTANT = 1e-6
_NARROW = 0.02
_TAIL = 30.0
_FEW_ROWS = 20
_FAR = 0.995
_MOST = 2000


def constant_columns(table: Table) -> Finding | None:
    """Columns that hardly vary: nothing can be learned of them, or from them.

    Args:
        table: the rows.

    Returns:
        The finding, if there is one.
    """
    names, shares = [], []
    for space, values in ((table.x_space, table.x), (table.y_space, table.y)):
        for i, v in enumerate(space):
            seen = values[:, i][torch.isfinite(values[:, i])]
            if v.labels or not len(seen):
                continue
            share = float(seen.std(correction=0)) / max(float(seen.abs().max()), 1e-300)
            if share < _CONSTANT:
                names.append(v.name)
                shares.append(share)
    if not names:
        return None
    return Finding(
        "constant columns",
        f"{in_words(names)} hardly var{'y' if len(names) > 1 else 'ies'}: the standard deviation "
        f"is at most {max(shares):.1g} of the numbers' size",
        "leave such columns out of problem.x or problem.y, or subtract their offset in the file",
        {"relative_spread": max(shares)},
        "designs.png",
    )


def unscaled_columns(table: Table) -> Finding | None:
    """Columns of which most rows sit in a sliver of the range: far bounds, or orders of magnitude.

    Args:
        table: the rows.

    Returns:
        The finding, if there is one.
    """
    wide, tails = {}, {}
    for space, values in ((table.x_space, table.x), (table.y_space, table.y)):
        for i, v in enumerate(space):
            seen = values[:, i][torch.isfinite(values[:, i])]
            if v.labels or v.kind == "integer" or len(seen) < _FEW_ROWS:
                continue
            low, first, middle, third, high = torch.quantile(
                seen, torch.tensor([0.005, 0.25, 0.5, 0.75, 0.995], dtype=seen.dtype)
            ).tolist()
            half = third - first
            if half <= 0:
                continue
            tail = max(high - middle, middle - low) / half
            if tail > _TAIL:
                tails[v.name] = tail
            elif v.bounded and space is table.x_space:
                share = (high - low) / (v.upper - v.lower)
                if share < _NARROW:
                    wide[v.name] = share
    if tails:
        name = max(tails, key=lambda n: tails[n])
        return Finding(
            "unscaled columns",
            f"{in_words(list(tails))} run{'s' if len(tails) == 1 else ''} over orders of magnitude"
            f": {name} reaches {tails[name]:.0f} times as far as its middle half is wide",
            "give such a column to the table as its logarithm",
            {"tail": tails[name]},
            "designs.png",
        )
    if wide:
        name = min(wide, key=lambda n: wide[n])
        return Finding(
            "unscaled columns",
            f"the rows fill {wide[name]:.1%} of the bounds of {name}, so distances between designs "
            "and steps of a search mean little there",
            f"narrow problem.bounds.{name} to where designs are wanted",
            {"filled": wide[name]},
            "designs.png",
        )
    return None


def outside_data(table: Table, goal: Goal) -> Finding | None:
    """A goal whose values lie farther from every measured row than rows lie from one another.

    Args:
        table: the rows.
        goal: what is wanted.

    Returns:
        The finding, for the worst of several goals, if there is one.
    """
    terms = [t for t in goal.terms if t.kind not in ("max", "min", "label")]
    columns = [t.index for t in terms]
    if not columns:
        return None
    seen = table.y[:, columns]
    rows = seen[torch.isfinite(seen).all(1)]
    if len(rows) < _FEW_ROWS:
        return None
    unit = rows.std(0, correction=0).clamp_min(1e-300)
    miss = torch.stack([_misses(goal, t.index, rows[:, i])
                        for i, t in enumerate(terms)], -1)  # fmt: skip
    distance, nearest = (miss / unit).square().sum(-1).sqrt().min(1)
    usual = _usual_distance(rows[:_MOST] / unit)
    worst = int(distance.argmax())
    if float(distance[worst]) <= usual:
        return None
    one = some_goals(goal, [worst])
    low = torch.full((table.y.shape[1],), torch.nan, dtype=torch.float64)
    low[columns] = rows[nearest[worst]]
    near = values_in_words(table.y_space, low, low)
    outside = int((distance > usual).sum())
    which = f"{outside} of {goal.batch_size} goals lie" if goal.batched else "the goal lies"
    return Finding(
        "goal outside the data",
        f"{which} outside the data: {one} is {float(distance[worst]):.2g} standard deviations "
        f"from the nearest row, which has {near}; rows lie within {usual:.2g} of one another",
        "ask for values nearer to that row, add rows there, or let the engine refuse such targets "
        "(routine.abstain=true)",
        {"distance": float(distance[worst]), "usual": usual},
        "properties.png",
    )


def _misses(goal: Goal, index: int, values: Tensor) -> Tensor:
    """How far a column's values (N,) are from what each of B goals wants (B, N)."""
    term = next(t for t in goal.terms if t.index == index)
    miss = term.miss(values.expand(goal.batch_size, -1)).abs()
    return (miss - (term.tolerance or 0.0)).clamp_min(0.0)


def _usual_distance(rows: Tensor) -> float:
    """How far nearly all rows (N, K) are at most from their nearest neighbour."""
    gaps = torch.cdist(rows, rows).fill_diagonal_(torch.inf).min(1).values
    return float(2.0 * torch.quantile(gaps, _FAR))
