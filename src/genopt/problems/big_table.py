"""A table larger than memory as a problem: a sample is kept, the flow trains on the whole file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genopt.data.streaming import SAMPLE, ArrowTable
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.problems.measurements import MeasuredProblem
from genopt.space import Kind


class BigTableProblem(MeasuredProblem):
    """Measured or simulated data in a Parquet or Arrow file, read in pieces.

    Args:
        path: the file, ``.parquet``, ``.pq``, ``.arrow`` or ``.feather``.
        x: names of the design columns.
        y: names of the property columns; empty cells are missing labels.
        goal: the default goal, in the language of `genopt.goal.Goal`; none if it is not given.
        bounds: ``{column: [lower, upper]}`` instead of the observed range.
        kinds: ``{column: continuous | integer | categorical}`` instead of what the data look like.
        labels: ``{column: [labels]}`` of categorical columns, to fix their order.
        units: ``{column: unit}``.
        simplexes: groups of x columns that sum to one.
        name: short name; the file's name if it is not given.
        description: one or two sentences for the reader of a report.
        citation: where the data come from.

    Raises:
        GenoptError: if the file cannot be used; the message names the column.
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
        name: str | None = None,
        description: str = "",
        citation: str = "",
    ) -> None:
        self.path = Path(path)
        columns = [[c] if isinstance(c, str) else list(c) for c in (x, y)]
        self._options: dict[str, Any] = {
            "x": columns[0],
            "y": columns[1],
            "bounds": bounds,
            "kinds": kinds,
            "labels": labels,
            "units": units,
            "simplexes": simplexes or (),
        }
        sample = self._open(SAMPLE, 0)
        self.total = sample.stream.total
        super().__init__(
            name or self.path.stem,
            sample,
            goal,
            description=description or f"{self.total:,} rows of {self.path.name}.",
            citation=citation,
        )

    def _open(self, rows: int, seed: int) -> ArrowTable:
        # all rows are for training until a study splits them
        options = {**self._options, "validation": 0.0, "test": 0.0}
        return ArrowTable.open(self.path, rows=rows, seed=seed, **options)

    def table(self, n: int | None = None, seed: int = 0) -> Table:
        """A random sample of the rows, which knows its file.

        Args:
            n: rows of the sample; None for 20,000, or all where there are fewer.
            seed: seed of the draw; without effect where n is None.

        Returns:
            An `ArrowTable`.

        Raises:
            GenoptError: if the file has fewer rows.
        """
        if n is None:
            return self._table
        if not 1 <= n <= self.total:
            raise GenoptError(f"data.rows={n}: {self.path.name} has {self.total} rows")
        return self._open(n, seed)
