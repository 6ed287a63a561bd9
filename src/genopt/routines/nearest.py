"""The nearest measured rows: what a table answers without any model."""

from __future__ import annotations

from typing import Any

import torch

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.routines.targets import ranked_rows


def nearest(_model: Any, goal: Goal, *, table: Table, rows: int = 1) -> Candidates:
    """The measured rows that come nearest to a goal; a win that does not beat them is no win.

    Args:
        _model: not asked.
        goal: what is wanted, B goals.
        table: measured rows; those that do not hold the goal's fixed columns are passed over.
        rows: how many rows for each goal.

    Returns:
        Candidates (B, R) whose claims are the measured values; R is smaller where the table is.

    Raises:
        GenoptError: if no row has labels for the goal, or ``rows`` is not positive.
    """
    if rows < 1:
        raise GenoptError(f"routine.rows must be at least 1, got {rows}")
    if goal.fixed and goal.batched:
        raise GenoptError("routine=nearest takes one goal where design columns are held fixed")
    kept = torch.isfinite(table.y[:, [term.index for term in goal.terms]]).all(1)
    for column, value in goal.fixed.items():
        kept &= table.x[:, column] == value
    if not bool(kept.any()):
        raise GenoptError("no row of the table has all labels of the goal and holds its columns")
    x, y = table.x[kept], table.y[kept]
    order = ranked_rows(goal, y)[:, :rows]
    return Candidates.from_claims(goal, x[order], y[order], header={"routine": "nearest"})
