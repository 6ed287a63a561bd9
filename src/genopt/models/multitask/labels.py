"""Training data of a multi-task model: checks before any work, scales, labels side by side."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError, UnknownNameError
from genopt.nn.heads import ClassificationHead
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
    y: Mapping[str, Any], n: int, heads: Mapping[str, nn.Module], widths: Mapping[str, int]
) -> Tensor:
    """The labels of all heads, side by side.

    Args:
        y: labels by head: (N,) or (N, T), classes as codes, NaN where there is none.
        n: number of rows N.
        heads: the model's heads.
        widths: label columns of each head; 0 for a reconstruction.

    Returns:
        Labels (N, L), float64, in the order of the heads; NaN for a head without labels.

    Raises:
        UnknownNameError: if a name is no head.
        GenoptError: if a shape is wrong, all labels are missing, or a code is no class.
    """
    for name in y:
        if name not in widths:
            raise UnknownNameError("head in y", str(name), widths)
        if widths[name] == 0:
            raise GenoptError(f"head {name!r} reconstructs the design and takes no labels in y")
    parts = []
    for name, width in widths.items():
        if name not in y:
            parts.append(torch.full((n, width), torch.nan, dtype=torch.float64))
            continue
        labels = as_tensor(y[name], f"y[{name!r}]").to(torch.float64)
        if labels.ndim == 1 and width == 1:
            labels = labels[:, None]
        if tuple(labels.shape) != (n, width):
            raise GenoptError(
                f"y[{name!r}] has shape {tuple(labels.shape)}; expected ({n}, {width})"
                + (f" or ({n},)" if width == 1 else "")
            )
        if bool(torch.isinf(labels).any()):
            raise GenoptError(f"y[{name!r}] holds an infinite value: use NaN for a missing label")
        _check_head(name, labels, heads[name])
        parts.append(labels)
    if n == 0 or (any(widths.values()) and bool(torch.isnan(torch.cat(parts, 1)).all())):
        raise GenoptError("y has no label at all: give labels for at least one head")
    return torch.cat(parts, 1)


def _check_head(name: str, labels: Tensor, head: nn.Module) -> None:
    known = labels[~torch.isnan(labels)]
    if known.numel() == 0:
        raise GenoptError(f"y[{name!r}] has no label: all {len(labels)} entries are missing")
    if isinstance(head, ClassificationHead):
        wrong = (known != known.round()) | (known < 0) | (known >= head.dim)
        if bool(wrong.any()):
            raise GenoptError(
                f"y[{name!r}] holds {float(known[wrong][0]):g}, which is no class: codes are 0 to "
                f"{head.dim - 1}"
            )
        if known.unique().numel() < 2:
            raise GenoptError(
                f"y[{name!r}] holds one class only ({int(known[0])}): there is nothing to classify"
            )
        return
    for i in range(labels.shape[1]):
        column = labels[:, i][~torch.isnan(labels[:, i])]
        if column.numel() > 1 and bool((column == column[0]).all()):
            warnings.warn(
                f"y[{name!r}] is constant ({float(column[0]):g}): its head learns nothing else",
                stacklevel=4,
            )


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
    found: dict[str, list[Tensor]] = {name: [] for name, width in widths.items() if width}
    for column, where in zip(y.T, columns, strict=True):
        if where is not None:
            found[where[0]].append(column)
    return {name: torch.stack(parts, 1) for name, parts in found.items()}


def learn_scales(
    heads: Mapping[str, Any], widths: Mapping[str, int], x: Tensor, labels: Tensor
) -> None:
    """Let every head take its scale from the training rows.

    Args:
        heads: the heads.
        widths: label columns of each head; 0 for a reconstruction.
        x: designs (N, P).
        labels: labels (N, L) in the order of the heads.
    """
    start = 0
    for name, width in widths.items():
        if width:
            heads[name].learn(labels[:, start : start + width])
        else:
            heads[name].learn_designs(x)
        start += width


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
