"""What a model that reduces its columns to factors loses of each, on seen and on unseen rows."""

from __future__ import annotations

from typing import Any

from genopt.data.table import Table


def lost_by_rows(model: Any, table: Table) -> dict[str, dict[str, float]]:
    """The share of each column's variance that factors lose.

    Args:
        model: a fitted model; one with ``reconstruction_error`` is asked for it.
        table: all rows, with split labels.

    Returns:
        Shares by column of the rows ``training`` and, where there are test rows, ``held out``;
        empty for a model without factors.
    """
    ask = getattr(model, "reconstruction_error", None)
    if ask is None or not (training := ask()):
        return {}
    test = table.part("test")
    return {"training": training} | ({"held out": ask(test.x, test.y)} if len(test) else {})
