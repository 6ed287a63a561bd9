"""What a caller of the mixture gives, checked: conditions on y, held columns of x."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.mixture.columns import JointColumns
from genopt.models.mixture.given import values_of
from genopt.models.mixture.names import column_numbers
from genopt.space import Space


def as_numbers(values: Any, name: str) -> Tensor:
    """Anything array-like as a float64 tensor without a gradient.

    Args:
        values: the array.
        name: the caller's name for it.

    Returns:
        The tensor.

    Raises:
        GenoptError: if it does not hold numbers.
    """
    try:
        return torch.as_tensor(values, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenoptError(f"{name} must be a tensor of numbers") from error


def conditions(y: Any, y_space: Space, columns: JointColumns) -> Tensor:
    """Conditions as a matrix; a vector is one condition.

    Args:
        y: conditions (C, K) or (K,); NaN for a free entry.
        y_space: the columns of y.
        columns: the joint columns, which say what is modelled.

    Returns:
        (C, K) float64.

    Raises:
        GenoptError: if the shape does not fit or a column that is not modelled is not free.
    """
    matrix = as_numbers(y, "y")
    if matrix.ndim == 1:
        matrix = matrix[None]
    y_space.check(matrix, "y")
    if matrix.ndim != 2:
        raise GenoptError(f"y has shape {tuple(matrix.shape)}; expected (C, {y_space.dim})")
    if bool(torch.isinf(matrix).any()):
        raise GenoptError("y has infinite entries: use NaN for a free entry")
    for i in range(y_space.dim):
        if i not in columns.y_columns and not bool(torch.isnan(matrix[:, i]).all()):
            raise GenoptError(
                f"y column {y_space.names[i]!r} had too few labels and is not modelled: "
                "leave it free"
            )
    return matrix


def patterns(y: Tensor, columns: JointColumns) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """Group conditions by which of their columns are known.

    Args:
        y: conditions (C, K).
        columns: the joint columns.

    Yields:
        Row numbers of a group and its known columns as variables of the joint.
    """
    known = ~torch.isnan(y[:, list(columns.y_columns)])
    distinct, member = torch.unique(known, dim=0, return_inverse=True)
    for p, pattern in enumerate(distinct):
        variables = (columns.x_dim + pattern.nonzero().flatten()).tolist()
        yield (member == p).nonzero().flatten(), tuple(variables)


def known_values(y: Tensor, known: tuple[int, ...], columns: JointColumns) -> Tensor:
    """The values of known variables.

    Args:
        y: conditions (C, K).
        known: the known y columns as variables of the joint.
        columns: the joint columns.

    Returns:
        (C, V).
    """
    return y[:, [columns.y_columns[i - columns.x_dim] for i in known]]


def held_values(
    fixed: Mapping[int, Any] | Mapping[str, Any], count: int, x_space: Space
) -> dict[int, Tensor]:
    """Held x columns, one value for each condition.

    Args:
        fixed: one value or (C,) values for each held column, given by number or name; a class by
            label or code.
        count: number of conditions C.
        x_space: the columns of x.

    Returns:
        (C,) values of each held column, in ascending order of column.

    Raises:
        GenoptError: if a column does not exist or is named twice, or a value is not valid in the x
            Space.
    """
    held = {}
    listed = column_numbers(list(fixed), x_space.dim, x_space.names, "fixed")
    for i, value in sorted(zip(listed, fixed.values(), strict=True), key=lambda pair: pair[0]):
        variable = x_space.variables[i]
        numbers = values_of(value, variable, "fixed value of ")
        if len(numbers) not in (1, count):
            raise GenoptError(
                f"fixed value of {variable.name!r} has {len(numbers)} entries; expected 1 or "
                f"{count}"
            )
        valid = (numbers >= variable.lower) & (numbers <= variable.upper)
        if i in x_space.discrete:
            valid &= numbers == numbers.round()
        if not bool(valid.all()):
            raise GenoptError(
                f"fixed value {float(numbers[~valid][0]):g} of {variable.name!r} is not valid: it "
                f"is {variable.kind} in [{variable.lower:g}, {variable.upper:g}]"
            )
        held[i] = numbers.expand(count)
    for group, index in zip(x_space.simplexes, x_space.simplex_indices, strict=True):
        total = torch.zeros(count, dtype=torch.float64)
        for i in index:
            total = total + held.get(i, torch.zeros_like(total))
        closed = all(i in held for i in index)
        if bool((total > 1 + 1e-9).any()) or (closed and bool((total < 1 - 1e-6).any())):
            raise GenoptError(f"fixed values of simplex {list(group)} do not leave a sum of one")
    return held
