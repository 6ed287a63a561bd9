"""Roles read off a data frame: which kind a column is, and between which bounds it lies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genopt.errors import GenoptError, UnknownNameError
from genopt.space import Kind, Space, Variable

if TYPE_CHECKING:
    import pandas as pd

_FEW_LABELS = 50


def infer_space(
    frame: pd.DataFrame,
    names: Sequence[str],
    *,
    bounds: Mapping[str, Sequence[float]] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    units: Mapping[str, str] | None = None,
    simplexes: Sequence[Sequence[str]] = (),
    role: str = "x",
) -> Space:
    """A Space for some columns of a frame; whatever is given overrides what the data say.

    Text columns are categorical with sorted labels, numbers are continuous, and bounds are the
    observed range. Whole numbers stay continuous, because a rounded measurement looks just like a
    count: declare ``integer`` in ``kinds``.

    Args:
        frame: the data.
        names: the columns, in the order of the Space.
        bounds: ``{column: [lower, upper]}``.
        kinds: ``{column: kind}``.
        labels: ``{column: [labels]}`` of categorical columns.
        units: ``{column: unit}``.
        simplexes: groups of columns that sum to one.
        role: ``x`` or ``y``, for messages.

    Returns:
        The Space.

    Raises:
        UnknownNameError: if a column or an override names a column that is not there.
        GenoptError: if a column has text where numbers are needed, or no entry at all.
    """
    bounds, kinds, labels, units = bounds or {}, kinds or {}, labels or {}, units or {}
    if len(frame) == 0:
        raise GenoptError("the table has no row")
    if not names:
        raise GenoptError(
            f"problem.{role} names no column: give a list such as {role}=[{frame.columns[0]}]"
        )
    for name in names:
        if name not in frame.columns:
            raise UnknownNameError(f"{role} column", name, map(str, frame.columns))
    variables = []
    for name in names:
        column = frame[name]
        if column.isna().all():
            raise GenoptError(
                f"{role} column {name!r} has no entry: all {len(column)} values are missing"
            )
        kind = kinds.get(name) or ("categorical" if name in labels else _kind(column))
        unit = units.get(name, "")
        if kind == "categorical":
            found = tuple(
                str(v) for v in labels.get(name, sorted({str(v) for v in column.dropna()}))
            )
            if name not in labels and len(found) > max(_FEW_LABELS, len(column) // 2):
                raise GenoptError(
                    f"{role} column {name!r} holds text with {len(found)} different values, first "
                    f"{found[0]!r}: "
                    "a number is needed (fix the entries), or list its classes under labels"
                )
            variables.append(Variable(name, unit=unit, kind="categorical", labels=found))
            continue
        values = to_numbers(column, role)
        given = bounds.get(name, (float(values.min()), float(values.max())))
        if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
            raise GenoptError(f"problem.bounds.{name}: expected [lower, upper], got {given!r}")
        low, high = given
        variables.append(Variable(name, float(low), float(high), unit, kind))
    return Space(tuple(variables), tuple(tuple(group) for group in simplexes))


def to_numbers(column: pd.Series[Any], role: str = "x") -> pd.Series[Any]:
    """A column as float64, NaN where an entry is missing.

    Args:
        column: the raw column.
        role: ``x`` or ``y``, for messages.

    Returns:
        The numbers.

    Raises:
        GenoptError: if an entry is text or infinite; the message names the column, the row and the
            value.
    """
    import numpy as np
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = numbers.isna() & column.notna()
    if wrong.any():
        row = int(np.flatnonzero(wrong.to_numpy())[0])
        raise GenoptError(
            f"{role} column {column.name!r} needs numbers, but row {row} holds {column.iloc[row]!r}"
            f" ({int(wrong.sum())} such entries): fix them, or declare the column categorical"
        )
    if np.isinf(numbers.to_numpy()).any():
        row = int(np.flatnonzero(np.isinf(numbers.to_numpy()))[0])
        raise GenoptError(
            f"{role} column {column.name!r} is infinite in row {row}: leave missing entries empty"
        )
    return numbers


def _kind(column: pd.Series[Any]) -> Kind:
    import pandas as pd

    if pd.api.types.is_bool_dtype(column):
        return "categorical"
    if pd.api.types.is_numeric_dtype(column):
        return "continuous"
    numbers = pd.to_numeric(column.dropna(), errors="coerce")
    # mostly numbers with a few words is a typing error, not a set of classes
    if math.isclose(float(numbers.isna().mean()), 0.0) or float(numbers.notna().mean()) > 0.5:
        return "continuous"
    return "categorical"
