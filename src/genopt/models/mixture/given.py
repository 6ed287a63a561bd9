"""What is known of some columns, read by name: numbers, class labels and gaps, one row a query."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.models.mixture.columns import JointColumns
from genopt.space import Space
from genopt.variable import Variable

_SLACK = 1e-6


def variable_numbers(
    names: Iterable[str], columns: JointColumns, y_space: Space, argument: str
) -> tuple[int, ...]:
    """The variables of the joint that have some names.

    Args:
        names: names of columns of x or y.
        columns: the joint columns.
        y_space: the columns of y, modelled or not.
        argument: the caller's name for ``names``.

    Returns:
        Their numbers.

    Raises:
        GenoptError: if a column is not modelled or is named twice.
        UnknownNameError: if there is no such column.
    """
    if isinstance(names, str):
        names = [names]
    known = [variable.name for variable in columns.variables]
    found = []
    for name in names:
        if name not in known:
            if name in y_space:
                raise GenoptError(
                    f"{argument}: y column {name!r} had too few labels and is not modelled: leave "
                    "it out"
                )
            raise UnknownNameError("column", name, known)
        found.append(known.index(name))
    if not found and argument == "wanted":
        raise GenoptError("wanted names no column: name some, or leave it out for all")
    if len(set(found)) != len(found):
        raise GenoptError(f"{argument} names a column twice: {', '.join(map(str, names))}")
    return tuple(found)


def read_given(
    given: Mapping[str, Any], columns: JointColumns, y_space: Space
) -> tuple[tuple[int, ...], Tensor]:
    """The known columns and their values.

    Args:
        given: for each known column one value for all queries, or C of them: numbers, class labels
            or codes; None or NaN where a query does not know it.
        columns: the joint columns.
        y_space: the columns of y, modelled or not.

    Returns:
        The V variables and their values (C, V), NaN for a gap.

    Raises:
        GenoptError: if ``given`` is no mapping, a column or value cannot be used, the numbers of
            queries differ, or fractions do not leave a sum of one.
    """
    if not isinstance(given, Mapping):
        raise GenoptError(
            f"given must map names of columns to values, such as {{'density': 5.0}}, got {given!r}"
        )
    variables = variable_numbers(given, columns, y_space, "given")
    read = [
        values_of(values, columns.variables[i], "given: ")
        for i, values in zip(variables, given.values(), strict=True)
    ]
    counts = sorted({len(values) for values in read} - {1})
    if len(counts) > 1:
        told = ", ".join(f"{name} {len(v)}" for name, v in zip(given, read, strict=True))
        raise GenoptError(f"given has different numbers of queries: {told}")
    count = counts[0] if counts else 1
    matrix = torch.empty(count, len(read), dtype=torch.float64)
    for position, values in enumerate(read):
        matrix[:, position] = values
    _check_fractions(matrix, variables, columns)
    return variables, matrix


def values_of(values: Any, variable: Variable, lead: str = "") -> Tensor:
    """The values of one column as numbers.

    Args:
        values: one value or a list of them: numbers, class labels or codes; None for a gap.
        variable: the column.
        lead: how messages begin.

    Returns:
        (n,) float64; NaN for a gap.

    Raises:
        GenoptError: if a value cannot be used.
    """
    if isinstance(values, Tensor):
        values = values.detach().reshape(-1).tolist()
    elif hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str):
        values = [values]
    found = torch.tensor(
        [_value(value, variable, f"{lead}{variable.name!r}") for value in values],
        dtype=torch.float64,
    )
    if not len(found):
        raise GenoptError(f"{lead}{variable.name!r} has no values")
    return found


def _value(value: Any, variable: Variable, who: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str):
        if not variable.labels:
            raise GenoptError(f"{who} is a number, got {value!r}")
        return float(variable.code(value))
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise GenoptError(f"{who} must be one value or a list of them, got {value!r}") from error
    if math.isinf(number):
        raise GenoptError(f"{who} has an infinite value: None or NaN leaves it free")
    codes = range(len(variable.labels))
    if variable.labels and not math.isnan(number) and number not in codes:
        raise GenoptError(
            f"{who} takes one of {', '.join(variable.labels)} or a code from 0 to "
            f"{len(codes) - 1}, got {value!r}"
        )
    return number


def _check_fractions(values: Tensor, variables: tuple[int, ...], columns: JointColumns) -> None:
    """Refuse known fractions of a simplex that exceed one, or that are all known and miss it."""
    for group in columns.groups:
        members = [i for i, block in enumerate(columns.blocks) if set(block) <= set(group)]
        part = [variables.index(i) for i in members if i in variables]
        if not part or any(columns.variables[i].labels for i in members):
            continue
        total = values[:, part].nansum(1)
        closed = (len(part) == len(members)) & ~values[:, part].isnan().any(1)
        wrong = (total > 1.0 + _SLACK) | (closed & (total < 1.0 - _SLACK))
        if bool(wrong.any()):
            names = ", ".join(columns.variables[variables[j]].name for j in part)
            raise GenoptError(
                f"given: the fractions {names} do not leave a sum of one in query "
                f"{int(wrong.nonzero()[0])}, their sum is {float(total[wrong][0]):.6g}"
            )
