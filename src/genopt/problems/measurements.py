"""Measured data without a simulator, from a Table that a problem builds itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.problems.base import Problem


class MeasuredProblem(Problem):
    """A Table as a problem.

    Args:
        name: short name.
        table: the measured rows; its Spaces are the problem's.
        default_goal: what is asked when the user asks nothing.
        description: one or two sentences for the reader of a report.
        citation: where the data come from.

    Raises:
        GenoptError: if the goal does not fit the columns.
    """

    def __init__(
        self,
        name: str,
        table: Table,
        default_goal: Mapping[str, Any] | None = None,
        *,
        description: str = "",
        citation: str = "",
    ) -> None:
        self._table = table
        super().__init__(
            name,
            table.x_space,
            table.y_space,
            default_goal,
            default_rows=len(table),
            description=description,
            citation=citation,
        )

    def design(self, n: int, seed: int = 0) -> Tensor:
        """Measured designs, drawn without replacement.

        Args:
            n: number of designs, at most the number of rows.
            seed: seed of the draw.

        Returns:
            Designs (n, P).
        """
        return self.table(n, seed).x

    def table(self, n: int | None = None, seed: int = 0) -> Table:
        """The measured rows, or some of them.

        Args:
            n: number of rows; None for all. Fewer rows are drawn at random and keep their order,
                and as large a share of the rows beside them whose designs have gaps.
            seed: seed of the draw; without effect on the whole table.

        Returns:
            The Table.

        Raises:
            GenoptError: if more rows are asked for than were measured.
        """
        rows = self._row_count(n)
        if rows > len(self._table):
            raise GenoptError(
                f"problem {self.name!r} has {len(self._table)} measured rows, {rows} were asked: "
                "lower n, or leave it out for all rows"
            )
        if rows == len(self._table):
            return self._table
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(self._table), generator=generator)[:rows]
        part, more = self._table.rows(chosen.sort().values), self._table.incomplete
        if more is None:
            return part
        count = len(more) * rows // len(self._table)
        kept = torch.randperm(len(more), generator=generator)[:count]
        return replace(part, incomplete=more.rows(kept.sort().values))

    def describe(self) -> list[dict[str, str]]:
        """The columns with their roles and gaps.

        Returns:
            Rows with the keys ``column``, ``role``, ``kind``, ``range``, ``unit``, ``missing``.
        """
        x, y, _ = self._table.with_incomplete()
        gaps = torch.isnan(torch.cat([x, y], 1)).sum(0).tolist()
        rows = super().describe()
        for row, count in zip(rows, gaps, strict=True):
            row["missing"] = f"{count} of {len(x)}" if count else "none"
        return rows
