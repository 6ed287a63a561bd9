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
_CONFINED = ("at_least", "at_most", "between")
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


def confined_columns(goal: Goal) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """The columns of y that a goal wants in an interval or on a half-line.

    Args:
        goal: what is wanted, B goals.

    Returns:
        The r columns, their lower ends (B, r), -inf for none, and upper ends (B, r), inf for none.
    """
    terms = [term for term in goal.terms if term.kind in _CONFINED]
    lower = torch.full((goal.batch_size, len(terms)), -torch.inf, dtype=torch.float64)
    upper = torch.full_like(lower, torch.inf)
    for i, term in enumerate(terms):
        end = upper if term.kind == "at_most" else lower
        if term.value is not None:
            end[:, i] = term.value
        if term.upper is not None:
            upper[:, i] = term.upper
    return tuple(term.index for term in terms), lower, upper


def reachable_targets(goal: Goal, table: Table | None, n: int, *, regions: bool = False) -> Tensor:
    """Conditions (B, T, K) for a goal, T of them for each of its B goals.

    Columns that the goal does not name are NaN. Exact terms keep their value; the other named
    columns take the values of the n best rows, see `ranked_rows`.

    Args:
        goal: what is wanted.
        table: measured rows; needed unless every term is exact.
        n: how many rows to take; T is n, or fewer where fewer rows have all named columns, or 1 for
            an exact goal.
        regions: whether the caller confines the columns of `confined_columns` himself: they are NaN
            then, and a goal without a wish (``min``, ``max``) needs no rows.

    Returns:
        Conditions (B, T, K) in raw units.

    Raises:
        GenoptError: if rows are needed and none has all the named columns.
    """
    exact = goal.condition().reshape(goal.batch_size, 1, -1)
    open_kinds = _CONFINED if regions else ()
    if all(term.kind in _EXACT or term.kind in open_kinds for term in goal.terms):
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
    free[[term.index for term in goal.terms if term.kind not in open_kinds]] = False
    targets[..., free] = torch.nan
    return torch.where(torch.isnan(exact), targets, exact)
