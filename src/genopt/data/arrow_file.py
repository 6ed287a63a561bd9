"""Parquet and Arrow files read chunk by chunk, never as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genopt.errors import GenoptError, UnknownNameError

_PARQUET = (".parquet", ".pq")
_ARROW = (".arrow", ".feather")
CHUNK = 32_768
_SIDE_BY_SIDE = 4


@dataclass(frozen=True)
class ArrowFile:
    """A table on disk: Parquet, or Arrow's own format, which is mapped into memory.

    Args:
        path: the file, ``.parquet``, ``.pq``, ``.arrow`` or ``.feather``.

    Raises:
        GenoptError: if there is no such file or it is of another kind.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path).expanduser())
        if not self.path.exists():
            raise GenoptError(
                f"problem.path: {self.path} does not exist (looked from {Path.cwd()})"
            )
        if self.path.suffix.lower() not in _PARQUET + _ARROW:
            raise GenoptError(
                f"problem.path: {self.path.name} cannot be read in pieces: write it as .parquet or "
                ".arrow"
            )

    def _open(self) -> Any:
        import pyarrow as pa

        try:
            if self.path.suffix.lower() in _PARQUET:
                from pyarrow import parquet

                # what is mapped counts as used memory until it is evicted, so it is not mapped
                return parquet.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False)
            return pa.ipc.open_file(pa.memory_map(str(self.path)))
        except pa.ArrowInvalid as error:
            raise GenoptError(f"problem.path: {self.path.name}: {error}") from error

    def names_and_rows(self) -> tuple[list[str], int]:
        """Names of the columns, and the number of rows."""
        file = self._open()
        if self.path.suffix.lower() in _PARQUET:
            return list(file.schema_arrow.names), int(file.metadata.num_rows)
        rows = sum(file.get_batch(i).num_rows for i in range(file.num_record_batches))
        return list(file.schema.names), rows

    def require(self, names: Sequence[str], role: str) -> None:
        """Refuse names that are no columns.

        Args:
            names: names of columns.
            role: what they are, for the message.

        Raises:
            UnknownNameError: if one is not there.
        """
        there, _ = self.names_and_rows()
        for name in names:
            if name not in there:
                raise UnknownNameError(f"{role} column", name, there)

    def chunks(
        self, columns: Sequence[str], order: np.random.Generator | None = None
    ) -> Iterator[Any]:
        """All rows as record batches of some ten thousand rows.

        Args:
            columns: names of the columns.
            order: for pieces of the file in random order, a few of them side by side.

        Yields:
            Record batches with these columns.
        """
        file = self._open()
        parquet = self.path.suffix.lower() in _PARQUET
        pieces = np.arange(file.num_row_groups if parquet else file.num_record_batches)
        if order is not None:
            order.shuffle(pieces)
        waiting = [int(piece) for piece in pieces]
        reading: list[Iterator[Any]] = []
        while waiting or reading:
            while waiting and len(reading) < (1 if order is None else _SIDE_BY_SIDE):
                piece = waiting.pop(0)
                reading.append(
                    _row_group(file, piece, columns)
                    if parquet
                    else _record_batch(file, piece, columns)
                )
            for piece_of in list(reading):
                batch = next(piece_of, None)
                if batch is None:
                    reading.remove(piece_of)
                else:
                    yield batch


def _row_group(file: Any, piece: int, columns: Sequence[str]) -> Iterator[Any]:
    yield from file.iter_batches(
        CHUNK, row_groups=[piece], columns=list(columns), use_threads=False
    )


def _record_batch(file: Any, piece: int, columns: Sequence[str]) -> Iterator[Any]:
    batch = file.get_batch(piece).select(list(columns))
    for start in range(0, batch.num_rows, CHUNK):
        yield batch.slice(start, CHUNK)


def numbers(
    batch: Any, columns: Sequence[str], labels: Mapping[str, Sequence[str]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Columns of a record batch as numbers.

    Args:
        batch: the record batch.
        columns: names of the columns.
        labels: the labels of each column of classes.

    Returns:
        (N, number of columns), float64; classes as codes, NaN where an entry is missing.

    Raises:
        GenoptError: if a column holds text where a number is needed, or an unknown label.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found = np.empty((batch.num_rows, len(columns)))
    for i, name in enumerate(columns):
        column = batch.column(name)
        if name in labels:
            text = _text(column)
            codes = pc.index_in(text, value_set=pa.array(list(labels[name]), pa.string()))
            unknown = pc.and_(pc.is_null(codes), pc.is_valid(text))
            if pc.any(unknown).as_py():
                value = text.filter(unknown)[0].as_py()
                raise UnknownNameError(f"class of column {name!r}", value, labels[name])
            column = codes
        try:
            values = pc.cast(column, pa.float64(), safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise GenoptError(
                f"column {name!r} needs numbers ({error}): fix its entries, or list its classes "
                "under labels"
            ) from error
        found[:, i] = pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False)
    return found


def words(batch: Any, column: str) -> set[str]:
    """The different labels of a column.

    Args:
        batch: the record batch.
        column: name of the column.

    Returns:
        The labels.
    """
    import pyarrow.compute as pc

    return {str(value) for value in pc.unique(_text(batch.column(column))).to_pylist()} - {"None"}


def is_text(batch: Any, column: str) -> bool:
    """Whether a column holds classes rather than numbers.

    Args:
        batch: a record batch.
        column: name of the column.

    Returns:
        True for text, dictionaries and booleans.
    """
    import pyarrow.types as kinds

    kind = batch.schema.field(column).type
    return bool(
        kinds.is_string(kind)
        or kinds.is_large_string(kind)
        or kinds.is_dictionary(kind)
        or kinds.is_boolean(kind)
    )


def _text(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kinds.is_boolean(column.type):
        # as pandas writes them
        return pc.if_else(column, "True", "False")
    return pc.cast(column, pa.string())
