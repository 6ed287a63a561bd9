"""Columns of a mixture, named by a number or by a name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from genopt.errors import GenoptError, UnknownNameError

Columns = str | ArrayLike | Sequence[str | int]


def checked_names(names: Iterable[Any] | None, width: int | None) -> tuple[str, ...] | None:
    """Names of all columns, or None.

    Args:
        names: the names; None for none.
        width: number of columns; None where it is not known yet.

    Returns:
        The names as texts.

    Raises:
        GenoptError: if there are more or fewer of them than columns, or one stands twice.
    """
    if names is None:
        return None
    if isinstance(names, str):
        raise GenoptError(f"names must be a list with one name a column, got the text {names!r}")
    listed = tuple(str(name) for name in names)
    if width is not None and len(listed) != width:
        raise GenoptError(f"names has {len(listed)} entries; the mixture has {width} columns")
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise GenoptError(f"names holds {', '.join(map(repr, twice))} more than once")
    return listed


def names_of(data: Any, names: Iterable[Any] | None) -> tuple[str, ...] | None:
    """Names of the columns of a table.

    Args:
        data: rows (N, p) or (N,), or a data frame, whose columns have names.
        names: other names; None for the data frame's own, if it is one.

    Returns:
        The names, or None.
    """
    names = getattr(data, "columns", None) if names is None else names
    shape = np.shape(data)
    return checked_names(names, shape[1] if len(shape) > 1 else 1)


def column_numbers(
    columns: Any, width: int, names: Sequence[str] | None, argument: str = "indices"
) -> list[int]:
    """The numbers of columns that are given by number or by name.

    Args:
        columns: one number or name, or several; a negative number counts from the end.
        width: number of columns.
        names: their names; None where they have none.
        argument: the caller's name for ``columns``.

    Returns:
        Numbers from 0 to width - 1, in the order given.

    Raises:
        GenoptError: if a column does not exist or is named twice, or is neither number nor name.
        UnknownNameError: if there is no column of a name.
    """
    many = isinstance(columns, Iterable) and not isinstance(columns, str | bytes)
    # an array of no dimension is one column
    items = np.asarray(columns).reshape(-1).tolist() if hasattr(columns, "dtype") else columns
    found = [_number(item, width, names, argument) for item in (items if many else [columns])]
    if len(set(found)) != len(found):
        shown = ", ".join(str(item) for item in items)
        raise GenoptError(f"{argument} [{shown}] name a column twice")
    return found


def one_column(column: Any, width: int, names: Sequence[str] | None) -> int:
    """The number of one column.

    Args:
        column: its number or name.
        width: number of columns.
        names: their names; None where they have none.

    Returns:
        The number, from 0 to width - 1.
    """
    return _number(column, width, names, "column")


def picked(names: Sequence[str] | None, columns: Iterable[int]) -> tuple[str, ...] | None:
    """The names of some columns.

    Args:
        names: the names of all columns; None where they have none.
        columns: their numbers.

    Returns:
        Their names, or None.
    """
    return None if names is None else tuple(names[i] for i in columns)


def _number(item: Any, width: int, names: Sequence[str] | None, argument: str) -> int:
    if isinstance(item, str):
        if names is None:
            raise GenoptError(
                f"{argument} names {item!r}, but the columns of this mixture have no names: give "
                "numbers, or names=[...] when it is made"
            )
        if item not in names:
            raise UnknownNameError("column", item, names)
        return list(names).index(item)
    try:
        number = int(item)
    except (TypeError, ValueError, OverflowError) as error:
        raise GenoptError(
            f"{argument} must be numbers or names of columns, got {item!r}"
        ) from error
    if isinstance(item, bool) or number != item:
        raise GenoptError(f"{argument} must be numbers or names of columns, got {item!r}")
    if not -width <= number < width:
        known = f" ({', '.join(names)})" if names else ""
        raise GenoptError(
            f"{argument} holds {number}; columns lie between 0 and {width - 1}{known}"
        )
    return number % width
