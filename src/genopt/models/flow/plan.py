"""How long a flow trains and on what mini-batches, where the user does not say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from genopt.data.stream_loader import Encode, EncodedStream
from genopt.data.streaming import RowStream

_STEPS = 4000
# few columns and many rows: fine structure is learned long before rows are learned by heart
_LONG_STEPS, _LONG_ROWS, _LONG_COLUMNS = 6000, 1500, 4
# many columns: rows are soon learned by heart, and draws too narrow
_SHORT_STEPS, _SHORT_ROWS, _SHORT_COLUMNS = 2500, 20_000, 10
_EPOCH_STEPS = 32
_PAIRS = 256
_LEAST_EPOCHS = 10
_VALIDATIONS = 60


@dataclass(frozen=True)
class TrainingPlan:
    """Sizes of one fit.

    Args:
        batch_size: rows of a mini-batch.
        epochs: passes of the trainer.
        repeats: how often an epoch passes the rows.
        draws: times and noises a row gets in a mini-batch.
        rows: rows of one pass; of a stream, those of one epoch.
    """

    batch_size: int
    epochs: int
    repeats: int
    draws: int
    rows: int = field(default=0, compare=False)

    @classmethod
    def of(
        cls,
        rows: int,
        epochs: int | None,
        batch_size: int | None,
        draws: int | None,
        columns: int | None = None,
    ) -> TrainingPlan:
        """The plan for a table.

        Args:
            rows: number of training rows.
            epochs: passes over the rows; None for about 4,000 optimiser steps: 6,000 for up to four
                columns and at least 1,500 rows, 2,500 for more than ten columns and at most 20,000.
            batch_size: rows of a mini-batch; None to choose by the number of rows.
            draws: times and noises a row; None for as many as make 256 pairs.
            columns: latent columns that are learned; None where it should not count.

        Returns:
            The plan.
        """
        size = min(batch_size or _batch_size(rows), rows)
        draws = draws or max(1, _PAIRS // size)
        if epochs is not None:
            return cls(size, epochs, 1, draws, rows)
        # short epochs cost more than their steps, so an epoch may pass a small table many times
        repeats = max(1, _EPOCH_STEPS * size // rows)
        passes = max(_LEAST_EPOCHS, _steps(rows, columns) * size // (rows * repeats))
        return cls(size, passes, repeats, draws, rows)

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.epochs * -(-self.rows * self.repeats // self.batch_size)

    def feed(
        self, rows: tuple[Tensor, ...], stream: RowStream | None, encode: Encode
    ) -> tuple[Tensor, ...] | EncodedStream:
        """What the training reads.

        Args:
            rows: tensors (N, ...) of the rows in memory.
            stream: the rows of a file that are read instead, or None.
            encode: designs and properties to such tensors.

        Returns:
            The rows of an epoch.
        """
        if stream is None:
            return tuple(row.repeat(self.repeats, 1) for row in rows)
        return EncodedStream(stream, encode, self.rows * self.repeats)

    def validate_every(self, schedule: str) -> int:
        """Epochs from one validation to the next.

        Args:
            schedule: the schedule of the learning rate; ``plateau`` looks at every epoch.

        Returns:
            The number.
        """
        return 1 if schedule == "plateau" else max(1, self.epochs // _VALIDATIONS)


def _steps(rows: int, columns: int | None) -> int:
    if columns is not None and columns <= _LONG_COLUMNS and rows >= _LONG_ROWS:
        return _LONG_STEPS
    if columns is not None and columns > _SHORT_COLUMNS and rows <= _SHORT_ROWS:
        return _SHORT_STEPS
    return _STEPS


def _batch_size(rows: int) -> int:
    """Mini-batches that are small for small tables, so that an epoch has several steps."""
    return min(512, max(64, 2 ** round(math.log2(max(rows, 1) / 16))))
