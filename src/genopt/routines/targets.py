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


def reachable_targets(goal: Goal, table: Table | None, n: int) -> Tensor:
    """Conditions (B, T, K) for a goal, T of them for each of its B goals.

    Columns that the goal does not name are NaN. Exact terms keep their value; the other named
    columns take the values of the n rows with the lowest loss.

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
    loss = goal.loss(y.expand(goal.batch_size, *y.shape)) if goal.batched else goal.loss(y)[None]
    best = loss.argsort(dim=1)[:, :n]
    targets = y[best]
    free = torch.ones(targets.shape[-1], dtype=torch.bool)
    free[named] = False
    targets[..., free] = torch.nan
    return torch.where(torch.isnan(exact), targets, exact)
