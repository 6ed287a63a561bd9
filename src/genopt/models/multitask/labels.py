"""Training data of a multi-task model: checks before any work, scales, labels side by side."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.nn.heads import Head
from genopt.nn.labels import read_labels, warn_constant_labels
from genopt.space import Space

_STEPS = 4_000


def as_tensor(values: Any, argument: str) -> Tensor:
    """Numbers as a floating tensor.

    Args:
        values: a tensor, an array, a data frame or nested lists.
        argument: the caller's name for it.

    Returns:
        The tensor; float64 unless it came as a floating tensor.

    Raises:
        GenoptError: if it does not hold numbers.
    """
    if isinstance(values, Tensor):
        return values if values.is_floating_point() else values.to(torch.float64)
    import numpy as np

    try:
        return torch.from_numpy(np.array(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise GenoptError(
            f"{argument} must hold numbers in a regular array, got {type(values).__name__}: {error}"
        ) from error


def check_designs(x: Any, space: Space, argument: str = "x") -> Tensor:
    """Training designs, complete and of the right width.

    Args:
        x: designs (N, P).
        space: the Space of x.
        argument: the caller's name for it.

    Returns:
        Designs (N, P), floating.

    Raises:
        GenoptError: if the shape is wrong or an entry is not finite; the message names the column.
    """
    x = as_tensor(x, argument)
    if x.ndim != 2 or x.shape[1] != space.dim:
        raise GenoptError(
            f"{argument} has shape {tuple(x.shape)}; expected (N, {space.dim}) for columns "
            f"{', '.join(space.names)}"
        )
    check_finite(x, space, argument)
    return x


def check_finite(x: Tensor, space: Space, argument: str) -> None:
    """Refuse designs with NaN or infinite entries.

    Args:
        x: designs (N, P).
        space: the Space of x.
        argument: the caller's name for it.

    Raises:
        GenoptError: naming the first such row and column.
    """
    bad = ~torch.isfinite(x)
    if bool(bad.any()):
        row, column = (int(i) for i in bad.nonzero()[0])
        raise GenoptError(
            f"{argument} column {space.names[column]!r} is {float(x[row, column])} in row {row}: "
            f"{argument} must have shape (N, {space.dim}) with finite entries only"
        )


def check_labels(
    y: Mapping[str, Any], n: int, heads: Mapping[str, Any], widths: Mapping[str, int]
) -> Tensor:
    """The labels of all heads, side by side.

    A head without any label is warned of, once: it is not trained, and predicts NaN until it is.

    Args:
        y: labels by head: (N,) or (N, T), classes as codes, NaN where there is none; for a sequence
            also a pair (t, values).
        n: number of rows N.
        heads: the model's heads; one with ``enabled`` false needs no labels and is not looked at.
        widths: label columns of each head; 0 for a reconstruction.

    Returns:
        Labels (N, L), float64, in the order of the heads; NaN for a head without labels.

    Raises:
        UnknownNameError: if a name is no head.
        GenoptError: if a shape is wrong, all labels are missing, or a label does not fit its head.
    """
    for name in y:
        if name not in widths:
            raise UnknownNameError("head in y", str(name), widths)
        if widths[name] == 0:
            raise GenoptError(f"head {name!r} reconstructs the design and takes no labels in y")
    parts, empty = [torch.empty(n, 0, dtype=torch.float64)], []
    for name, width in widths.items():
        head = heads[name]
        if width == 0 or not getattr(head, "enabled", True) or name not in y:
            parts.append(torch.full((n, width), torch.nan, dtype=torch.float64))
            if (
                width
                and getattr(head, "enabled", True)
                and not bool(getattr(head, "learned", True))
            ):
                empty.append(f"y[{name!r}] is not given")
            continue
        argument = f"y[{name!r}]"
        own = isinstance(head, Head)
        given = _given(y[name], n, argument)
        labels = head.read(given, n, argument) if own else read_labels(given, n, width, argument)
        if bool(torch.isnan(labels).all()):
            empty.append(f"{argument} has no label: all {len(labels)} entries are missing")
        elif own:
            head.check(labels, argument)
        else:
            warn_constant_labels(labels, argument)
        parts.append(labels)
    if n == 0 or (any(widths.values()) and bool(torch.isnan(torch.cat(parts, 1)).all())):
        raise GenoptError(
            "; ".join([*empty, "y has no label at all: give labels for at least one head"])
        )
    for message in empty:
        warnings.warn(f"{message}; this head is not trained and predicts NaN", stacklevel=3)
    return torch.cat(parts, 1)


def _given(values: Any, n: int, argument: str) -> Any:
    """Labels as a tensor; a pair (t, values) of a sequence as a pair of tensors (N, L)."""
    if not isinstance(values, tuple):
        return as_tensor(values, argument)
    if len(values) != 2:
        raise GenoptError(f"{argument} must be a pair (t, values), got {len(values)} parts")
    for row, (a, b) in enumerate(zip(_lengths(values[0]), _lengths(values[1]), strict=False)):
        if a != b:
            raise GenoptError(f"{argument} row {row}: t has {a} entries, the values have {b}")
    t = _padded(values[0], f"{argument} t")
    # one grid for all rows
    t = t.expand(n, -1) if t.ndim == 1 else t
    return t, _padded(values[1], f"{argument} values")


def _padded(values: Any, argument: str) -> Tensor:
    """An array, or rows of different lengths padded with NaN."""
    if len(set(_lengths(values))) < 2:
        return as_tensor(values, argument).to(torch.float64)
    rows = [as_tensor(row, f"{argument} row {i}").to(torch.float64) for i, row in enumerate(values)]
    table = torch.full((len(rows), max(map(len, rows))), torch.nan, dtype=torch.float64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table


def _lengths(values: Any) -> list[int]:
    """Lengths of the rows of a list of rows; nothing for an array, whose gaps are NaN."""
    if not isinstance(values, list | tuple):
        return []
    return [len(row) for row in values if hasattr(row, "__len__")]


def warn_constant(x: Tensor, names: Sequence[str]) -> None:
    """Warn of design columns that never vary: a model cannot learn their effect.

    Args:
        x: designs (N, P).
        names: the columns' names.
    """
    if len(x) < 2:
        return
    flat = [name for i, name in enumerate(names) if bool((x[:, i] == x[0, i]).all())]
    if flat:
        warnings.warn(
            f"x column {', '.join(map(repr, flat))} is constant in the training rows: its effect "
            "cannot be learned, hold it fixed in a search",
            stacklevel=4,
        )


def labels_by_head(
    y: Tensor, columns: Sequence[tuple[str, int] | None], widths: Mapping[str, int]
) -> dict[str, Tensor]:
    """Columns of y gathered by head.

    Args:
        y: properties (N, K).
        columns: for each of the K columns (head, position), or None.
        widths: label columns of each head; 0 for a reconstruction.

    Returns:
        Labels (N, T) by head, in the order of the heads.
    """
    found: dict[str, dict[int, Tensor]] = {name: {} for name, width in widths.items() if width}
    for column, where in zip(y.T, columns, strict=True):
        if where is not None:
            found[where[0]][where[1]] = column
    return {
        name: torch.stack([parts[i] for i in sorted(parts)], 1) for name, parts in found.items()
    }


def learn_scales(
    heads: Mapping[str, Any], widths: Mapping[str, int], x: Tensor, labels: Tensor
) -> None:
    """Let every head that has not yet done so take its scale from the training rows.

    Args:
        heads: the heads.
        widths: label columns of each head; 0 for a reconstruction.
        x: designs (N, P).
        labels: labels (N, L) in the order of the heads; a head without a label stays as it is.
    """
    start = 0
    for name, width in widths.items():
        part = labels[:, start : start + width]
        start += width
        head = heads[name]
        if isinstance(head, Head) and bool(head.learned):
            continue
        if not width:
            head.learn_designs(x)
        elif bool(torch.isnan(part).all()):
            continue
        else:
            head.learn(part)
        if isinstance(head, Head):
            head.learned.fill_(True)


def scaled_labels(heads: Mapping[str, Any], widths: Mapping[str, int], labels: Tensor) -> Tensor:
    """What the heads' losses compare with.

    Args:
        heads: the heads.
        widths: label columns of each head; 0 for a reconstruction.
        labels: raw labels (N, L) in the order of the heads.

    Returns:
        Scaled labels (N, L), float32; NaN where there is none.
    """
    parts, start = [labels[:, :0].to(torch.float32)], 0
    for name, width in widths.items():
        if width:
            parts.append(heads[name].targets(labels[:, start : start + width]))
        start += width
    return torch.cat(parts, 1)


def batch_size_for(n: int) -> int:
    """Rows of a mini-batch for a table of n rows: a power of two near n / 12, 32 to 512.

    Args:
        n: rows of the table.

    Returns:
        The number.
    """
    return min(512, max(32, 2 ** round(math.log2(max(n / 12, 1)))))


def epochs_for(n: int, batch_size: int) -> int:
    """Epochs that make about 4,000 steps, 40 to 1,000 of them.

    Args:
        n: rows of the table.
        batch_size: rows of a mini-batch.

    Returns:
        The number.
    """
    return min(1000, max(40, -(-_STEPS // max(1, -(-n // batch_size)))))
