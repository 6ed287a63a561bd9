"""Which columns of a table a mixture can learn from; every row counts by the entries that it has.

A column with hardly any label is left out, as its covariances would be guesses.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.space import Space

if TYPE_CHECKING:
    from genopt.data.table import Table

_FEWEST_LABELS = 10
_SMALLEST_SHARE = 0.1
_SIMPLEX_TOLERANCE = 1e-2


@dataclass(frozen=True)
class UsableRows:
    """What enters EM.

    Args:
        x: designs (N, P); NaN where an entry is missing.
        y: properties (N, K'); NaN where an entry is missing.
        y_columns: the K' columns of y that are modelled.
    """

    x: Tensor
    y: Tensor
    y_columns: tuple[int, ...]


def usable_rows(
    x: Tensor,
    y: Tensor,
    x_space: Space,
    y_space: Space,
    wanted: Sequence[str] | None = None,
) -> UsableRows:
    """Choose the columns of y with enough labels.

    Args:
        x: designs (N, P); NaN where an entry is missing.
        y: properties (N, K); NaN where an entry is missing.
        x_space: the columns of x.
        y_space: the columns of y.
        wanted: the y columns to model; None for all that have enough labels.

    Returns:
        The rows in the chosen columns.

    Raises:
        GenoptError: if shapes do not fit, x is infinite or leaves a simplex, there are fewer than
            two rows or a column has no entry at all.
    """
    _check_shapes(x, y, x_space, y_space)
    known = torch.isfinite(y)
    if bool(torch.isinf(y).any()):
        raise GenoptError("y has infinite entries: use NaN for a missing entry")
    asked = [y_space.index(name) for name in wanted] if wanted else list(range(y_space.dim))
    counts = known.sum(0)
    for i in (i for i in asked if counts[i] == 0):
        raise GenoptError(
            f"y column {y_space.names[i]!r} has no label: all {len(y)} entries are missing; "
            "leave it out"
        )
    least = max(min(_FEWEST_LABELS, len(y)), _SMALLEST_SHARE * int(counts[asked].max()))
    kept = tuple(sorted(i for i in asked if counts[i] >= least))
    left_out = [i for i in asked if i not in kept]
    sparse = [f"{y_space.names[i]} ({int(counts[i])} labels)" for i in left_out]
    if not kept:
        raise GenoptError(f"too few labels for a mixture: {', '.join(sparse)}")
    if sparse:
        warnings.warn(
            f"y columns with too few labels are not modelled by the mixture: {', '.join(sparse)}",
            UserWarning,
            stacklevel=3,
        )
    return UsableRows(x, y[:, list(kept)], kept)


def _check_shapes(x: Tensor, y: Tensor, x_space: Space, y_space: Space) -> None:
    x_space.check(x, "x")
    y_space.check(y, "y")
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise GenoptError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected (N, {x_space.dim}) and "
            f"(N, {y_space.dim}) with the same N"
        )
    if len(x) < 2:
        raise GenoptError(f"x has {len(x)} rows; a mixture needs at least two")
    for i, gone in enumerate(torch.isnan(x).all(0).tolist()):
        if gone:
            raise GenoptError(
                f"x column {x_space.names[i]!r} has no value: all {len(x)} entries are missing; "
                "leave it out"
            )
    for i, bad in enumerate(torch.isinf(x).sum(0).tolist()):
        if bad:
            raise GenoptError(
                f"x column {x_space.names[i]!r} has {bad} infinite entries: use NaN for a missing "
                "entry"
            )
    for group, index in zip(x_space.simplexes, x_space.simplex_indices, strict=True):
        # a sum with gaps is NaN, and off by nothing
        off = ((x[:, list(index)].sum(1) - 1.0).abs() > _SIMPLEX_TOLERANCE).sum()
        if off:
            raise GenoptError(f"simplex {list(group)} does not sum to one in {int(off)} rows of x")


def check_columns(table: Table, x_space: Space, y_space: Space) -> None:
    """Refuse a table of other columns.

    Args:
        table: the table.
        x_space: the columns of x that the mixture was made for.
        y_space: those of y.

    Raises:
        GenoptError: if the names differ.
    """
    for what, mine, given in (("x", x_space, table.x_space), ("y", y_space, table.y_space)):
        if mine.names != given.names:
            raise GenoptError(
                f"the table's {what} columns are {', '.join(given.names)}; the mixture was "
                f"made for {', '.join(mine.names)}"
            )
