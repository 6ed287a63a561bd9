"""A table as a problem: the user's own CSV or Parquet file.

Roles, kinds and bounds are read off the data. Everything that is inferred can be overridden, and
`describe` shows what was inferred, so nothing is guessed in silence.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genopt.data.incomplete import LEARN, by_policy, check_policy
from genopt.data.table import Table
from genopt.errors import GenoptError, UnknownNameError
from genopt.problems.measurements import MeasuredProblem
from genopt.space import Kind, Space

_SIMPLEX_ROUNDING = 0.02


class TableProblem(MeasuredProblem):
    """Measured data without a simulator.

    Args:
        path: the file, ``.csv`` or ``.parquet``.
        x: names of the design columns.
        y: names of the property columns; empty cells are missing labels.
        goal: the default goal, in the language of `genopt.goal.Goal`; none if it is not given.
        bounds: ``{column: [lower, upper]}`` instead of the observed range.
        kinds: ``{column: continuous | integer | categorical}`` instead of what the data look like.
        labels: ``{column: [labels]}`` of categorical columns, to fix their order.
        units: ``{column: unit}``.
        simplexes: groups of x columns that sum to one; rows within two percent of one are scaled to
            sum to one exactly.
        row_id: a column that names the rows.
        incomplete: what becomes of rows with gaps in x: ``learn`` (a mixture and a flow learn from
            what they hold, nothing else sees them), ``drop`` or ``refuse``.
        name: short name; the file's name if it is not given.
        description: one or two sentences for the reader of a report.
        citation: where the data come from.

    Raises:
        GenoptError: if the file cannot be used; the message names the column, the row and the
            value.
    """

    def __init__(
        self,
        path: str | Path,
        x: Sequence[str],
        y: Sequence[str],
        goal: Mapping[str, Any] | None = None,
        bounds: Mapping[str, Sequence[float]] | None = None,
        kinds: Mapping[str, Kind] | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,
        units: Mapping[str, str] | None = None,
        simplexes: Sequence[Sequence[str]] | None = None,
        row_id: str | None = None,
        incomplete: str = LEARN,
        name: str | None = None,
        description: str = "",
        citation: str = "",
    ) -> None:
        check_policy(incomplete)
        designs, properties = _names(x, "x"), _names(y, "y")
        groups = tuple(tuple(group) for group in simplexes or ())
        for group in groups:
            for column in group:
                if column not in designs:
                    raise UnknownNameError("column under problem.simplexes", column, designs)
        read = Table.read(
            path,
            designs,
            properties,
            bounds=bounds,
            kinds=kinds,
            labels=labels,
            units=units,
            row_id=row_id,
        )
        given = {column for mapping in (bounds, kinds, labels) for column in mapping or {}}
        table = by_policy(_on_simplexes(read, groups, keep=set(bounds or {})), incomplete)
        self._given = given | {column for group in groups for column in group}
        self.path = Path(path)
        super().__init__(
            name or self.path.stem,
            table,
            goal,
            description=description or f"Measured data of {self.path.name}.",
            citation=citation,
        )
        self._warn_outside()

    def describe(self) -> list[dict[str, str]]:
        """The columns with their roles, and what was read off the data.

        Returns:
            Rows with the keys ``column``, ``role``, ``kind``, ``range``, ``unit``, ``missing`` (a
            count) and ``source`` (``data`` if kind and range were inferred, else ``given``).
        """
        rows = super().describe()
        for row in rows:
            row["source"] = "given" if row["column"] in self._given else "data"
        return rows

    def _warn_outside(self) -> None:
        outside = int((~self.x_space.contains(self._table.x)).sum())
        if outside:
            warnings.warn(
                f"{outside} of {len(self._table)} rows of {self.path.name} lie outside the given "
                "bounds or kinds of x; they are learned from, but candidates stay inside",
                stacklevel=3,
            )


def _names(columns: Sequence[str], argument: str) -> list[str]:
    """The column names as a list; one bare name is a list of one."""
    names = [columns] if isinstance(columns, str) else [str(column) for column in columns]
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise GenoptError(f"problem.{argument} names column {twice[0]!r} twice: name it once")
    return names


def _on_simplexes(table: Table, groups: tuple[tuple[str, ...], ...], keep: set[str]) -> Table:
    """The Table with its simplex columns scaled to sum to one, and bounds that hold them.

    Args:
        table: rows whose groups sum to one up to rounding.
        groups: the groups of columns.
        keep: columns whose bounds the user gave; they are not widened.

    Returns:
        The Table; its x Space declares the groups.

    Raises:
        GenoptError: if a row is negative or its sum is too far from one.
    """
    if not groups:
        return table
    x, y, weight = table.with_incomplete()
    x = x.clone()
    more = () if table.incomplete is None else table.incomplete.row_ids
    row_ids, split = (*table.row_ids, *more), (*table.split, *("train" for _ in more))
    variables = list(table.x_space.variables)
    for group in groups:
        index = [table.x_space.index(column) for column in group]
        x[:, index] = _scaled(x[:, index], group, row_ids)
        for i in index:
            if variables[i].name not in keep:
                known = x[:, i][~torch.isnan(x[:, i])]
                low, high = float(known.min()), float(known.max())
                variables[i] = replace(variables[i], lower=low, upper=high)
    space = Space(tuple(variables), groups)
    return Table.with_gaps(x, y, space, table.y_space, row_ids, split, weight)


def _scaled(shares: Tensor, group: tuple[str, ...], row_ids: Sequence[str]) -> Tensor:
    """Fractions that sum to one exactly; one gap of a row is what the others leave of it."""
    gaps = torch.isnan(shares)
    total = shares.nansum(1)
    lone = gaps.sum(1) == 1
    shares = torch.where(gaps & lone[:, None], (1.0 - total)[:, None].clamp_min(0.0), shares)
    # of several fractions that are not known it is known only that they are no less than zero
    missed = torch.where(gaps.any(1), (total - 1.0).clamp_min(0.0), (total - 1.0).abs())
    wrong = (missed > _SIMPLEX_ROUNDING) | (shares < 0.0).any(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise GenoptError(
            f"simplex {', '.join(group)}: row {row_ids[row]} holds "
            f"{shares[row].tolist()} with the sum {float(total[row]):.6g} "
            f"({int(wrong.sum())} such rows); fractions must be >= 0 and sum to one"
        )
    closed = ~torch.isnan(shares).any(1)
    return torch.where(closed[:, None], shares / shares.sum(1, keepdim=True), shares)
