"""Tables larger than memory: a sample of rows in memory, all rows as a stream from a file.

Scales, validation and whatever looks at single rows use the sample; what is trained in mini-batches
passes all rows. Rows are split by a hash of their design, so equal designs stay together without a
list of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from genopt.data.arrow_file import ArrowFile, numbers
from genopt.data.survey import survey
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.space import Kind, Space

SAMPLE = 20_000
_EPOCH = 262_144
_SPLIT_STEPS = ((0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31))


@dataclass(frozen=True)
class RowStream:
    """The training rows of a file, in an order that is new in each pass.

    Args:
        file: the file.
        x_space: the Space of x.
        y_space: the Space of y.
        total: rows of the file.
        validation: share of designs that watch the training.
        test: share of designs that training never sees.
        seed: seed of the split.
    """

    file: ArrowFile
    x_space: Space
    y_space: Space
    total: int
    validation: float = 0.0
    test: float = 0.0
    seed: int = 0

    @property
    def rows(self) -> int:
        """About how many rows are for training: the split is by chance."""
        return max(1, round(self.total * (1.0 - self.validation - self.test)))

    def rows_of_epoch(self, epochs: int | None) -> int:
        """Rows after which a training looks at its validation loss.

        Args:
            epochs: passes over all rows; None for a training that counts its steps.

        Returns:
            All training rows, or at most some hundred thousand: the next epoch goes on from there.
        """
        return self.rows if epochs is not None else min(self.rows, _EPOCH)

    def split(self, x: Tensor) -> np.ndarray[Any, np.dtype[np.str_]]:
        """Split labels of designs: the same design always gets the same one.

        Args:
            x: designs (N, P).

        Returns:
            Labels (N,).
        """
        level = design_hash(x.numpy(), self.seed)
        return np.where(
            level < self.test,
            "test",
            np.where(level < self.test + self.validation, "validation", "train"),
        )

    def one_pass(self, order: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All training rows once, chunk by chunk.

        Args:
            order: source of randomness of the order of chunks.

        Yields:
            Designs (N, P) and properties (N, K) with NaN for gaps, float64.
        """
        names = [*self.x_space.names, *self.y_space.names]
        labels = {v.name: v.labels for v in (*self.x_space, *self.y_space) if v.labels}
        for batch in self.file.chunks(names, order):
            rows = torch.from_numpy(numbers(batch, names, labels))
            x, y = rows[:, : self.x_space.dim], rows[:, self.x_space.dim :]
            keep = torch.from_numpy(self.split(x) == "train")
            if bool(keep.any()):
                # rounding may have left rows just beside the Space
                yield self.x_space.project(x[keep]), y[keep]


@dataclass(frozen=True, kw_only=True)
class ArrowTable(Table):
    """A Table whose rows are a sample of a file that may be larger than memory.

    A model that can, the flow, trains on all training rows of the file when it is given to
    ``fit_table``. Everything else sees an ordinary Table: the sample.

    Args:
        stream: the training rows of the file.
    """

    stream: RowStream

    @classmethod
    def open(
        cls,
        path: str | Path,
        x: Sequence[str],
        y: Sequence[str],
        *,
        rows: int | None = None,
        bounds: Mapping[str, Sequence[float]] | None = None,
        kinds: Mapping[str, Kind] | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,
        units: Mapping[str, str] | None = None,
        simplexes: Sequence[Sequence[str]] = (),
        validation: float = 0.1,
        test: float = 0.0,
        seed: int = 0,
    ) -> Self:
        """Look once through a Parquet or Arrow file: bounds, labels, gaps, and a sample of rows.

        Rows should be in no order, or the file be written in many row groups: neighbours of a row
        group are mixed within about a hundred thousand rows only.

        Args:
            path: the file.
            x: names of the design columns.
            y: names of the property columns.
            rows: rows of the sample; None for 20,000.
            bounds: ``{column: [lower, upper]}`` instead of the observed range.
            kinds: ``{column: kind}`` instead of the inferred kind.
            labels: ``{column: [labels]}`` of columns of classes.
            units: ``{column: unit}``.
            simplexes: groups of x columns that sum to one.
            validation: share of designs that watch the training.
            test: share of designs that training never sees.
            seed: seed of the sample and the split.

        Returns:
            The table.

        Raises:
            GenoptError: if the file or a column cannot be used; the message names the column.
        """
        file = ArrowFile(Path(path))
        for role, names in (("x", x), ("y", y)):
            file.require(names, role)
        seen = survey(
            file,
            x,
            y,
            SAMPLE if rows is None else rows,
            bounds=bounds,
            kinds=kinds,
            labels=labels,
            units=units,
            simplexes=simplexes,
            seed=seed,
        )
        stream = RowStream(file, seen.x_space, seen.y_space, seen.total)
        table = cls(
            seen.x,
            seen.y,
            seen.x_space,
            seen.y_space,
            tuple(str(i) for i in seen.places),
            stream=stream,
        )
        return table.with_split(validation, test, seed)

    def rows(self, index: Tensor) -> Table:
        """Some rows of the sample.

        Args:
            index: positions (n,) or a mask (N,) of bool.

        Returns:
            An ordinary Table, without the stream: a chosen part of the sample stands for itself.
        """
        whole = Table(self.x, self.y, self.x_space, self.y_space, self.row_ids, self.split)
        return whole.rows(index)

    def with_split(self, validation: float = 0.1, test: float = 0.1, seed: int = 0) -> Self:
        """The same rows, split by a hash of their design; the stream is split alike.

        Args:
            validation: share of designs that watch the training.
            test: share of designs that training never sees.
            seed: seed of the hash.

        Returns:
            The table with split labels.

        Raises:
            GenoptError: if the shares leave no training row.
        """
        if validation < 0 or test < 0 or validation + test >= 1:
            raise GenoptError(
                f"data.validation={validation} and data.test={test} must be shares >= 0 with a "
                "sum below 1"
            )
        stream = replace(self.stream, validation=validation, test=test, seed=seed)
        return replace(self, stream=stream, split=tuple(map(str, stream.split(self.x))))


def warn_sampled(table: Table, model: str) -> None:
    """Say that a model learns from the sample only, where the file has more rows.

    Args:
        table: what it learns from.
        model: its name.
    """
    if isinstance(table, ArrowTable) and table.stream.total > len(table):
        warnings.warn(
            f"{model} learns from {len(table):,} sampled rows of the {table.stream.total:,} in "
            f"{table.stream.file.path.name}: set data.rows for more of them, or use the flow, "
            "which reads all",
            stacklevel=3,
        )


def design_hash(
    x: np.ndarray[Any, np.dtype[np.float64]], seed: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A number in [0, 1) for each design, uniform over designs and the same for equal ones.

    Args:
        x: designs (N, P).
        seed: another seed gives other numbers.

    Returns:
        Numbers (N,).
    """
    # adding zero makes -0 the same as 0
    bits = np.ascontiguousarray(x.round(12) + 0.0).view(np.uint64)
    state = np.full(len(x), np.uint64(seed), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in bits.T:
            # the mixing function of splitmix64 (Steele, Lea and Flood 2014)
            state = (state + np.uint64(0x9E3779B97F4A7C15)) ^ column
            state ^= state >> np.uint64(30)
            for factor, shift in _SPLIT_STEPS:
                state *= np.uint64(factor)
                state ^= state >> np.uint64(shift)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
