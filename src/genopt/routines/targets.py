"""Targets: which property values a conditional model is asked for.

A goal such as ``min`` or ``at_most`` has no value to condition on. The values of the best measured
rows are reachable for certain, so designs are drawn for those; a goal of exact values is asked for
as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal

_EXACT = ("equals", "label")
_MISS_FACTOR = 100.0


def ranked_rows(goal: Goal, y: Tensor) -> Tensor:
    """Rows from best to worst for each goal: those that satisfy it first, then by loss.

    A sum of squared misses and of wishes (``min``, ``max``) would let a wish pay for a missed
    value, so misses count a hundredfold here.

    Args:
        goal: what is wanted, B goals.
        y: measured properties (N, K).

    Returns:
        Row numbers (B, N); rows without a named property come last.
    """
    claims = y.expand(goal.batch_size, *y.shape) if goal.batched else y[None]
    loss = torch.zeros_like(claims[..., 0])
    for term in goal.terms:
        column = claims[..., term.index]
        miss = term.miss(column) / goal.scale[term.index]
        if term.kind == "label":
            miss = torch.where(torch.isnan(column), torch.nan, term.miss(column))
        wish = term.kind in ("max", "min")
        loss = loss + term.weight * (miss if wish else _MISS_FACTOR * miss.square())
    order = torch.where(torch.isnan(loss), torch.inf, loss).argsort(dim=1, stable=True)
    missed = (~goal.satisfied(claims if goal.batched else claims[0])).reshape(loss.shape)
    return order.gather(1, missed.to(torch.int8).gather(1, order).argsort(dim=1, stable=True))


def reachable_targets(goal: Goal, table: Table | None, n: int) -> Tensor:
    """Conditions (B, T, K) for a goal, T of them for each of its B goals.

    Columns that the goal does not name are NaN. Exact terms keep their value; the other named
    columns take the values of the n best rows, see `ranked_rows`.

    Args:
        goal: what is wanted.
        table: measured rows; needed unless every term is exact.
        n: how many rows to take; T is n, or fewer where fewer rows have all named columns, or 1 for
            an exact goal.

    Returns:
        Conditions (B, T, K) in raw units.

    Raises:
        GenoptError: if rows are needed and none has all the named columns.
    """
    exact = goal.condition().reshape(goal.batch_size, 1, -1)
    if all(term.kind in _EXACT for term in goal.terms):
        return exact
    named = [term.index for term in goal.terms]
    if table is None:
        raise GenoptError(
            "this goal names no exact value: give table=, whose best rows become the targets"
        )
    y = table.y[~torch.isnan(table.y[:, named]).any(1)]
    if len(y) == 0:
        columns = ", ".join(term.column for term in goal.terms)
        raise GenoptError(
            f"no row of the table has values for all of {columns}: name fewer columns in the goal"
        )
    targets = y[ranked_rows(goal, y)[:, :n]]
    free = torch.ones(targets.shape[-1], dtype=torch.bool)
    free[named] = False
    targets[..., free] = torch.nan
    return torch.where(torch.isnan(exact), targets, exact)
