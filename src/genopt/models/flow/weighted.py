"""Rows that count more or less in a flow's training: by the loss, so that each is seen as often.

Drawing rows by their weights would be unbiased too, but would leave out the very rows that were
simulated because they matter.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def with_weights(rows: tuple[Tensor, ...], weight: Tensor | None) -> tuple[Tensor, ...]:
    """Rows with their weights as one more column, brought to a mean of one.

    Args:
        rows: tensors (N, ...).
        weight: positive weights (N,); None for rows as they are.

    Returns:
        The tensors, with weights (N, 1) at the end if there are any.
    """
    if weight is None:
        return rows
    return (*rows, (weight / weight.mean()).to(torch.float32)[:, None])


def copies_of(
    batch: Iterable[Tensor], copies: int, weighted: bool
) -> tuple[list[Tensor], Tensor | None]:
    """A batch several times over, its weights taken off.

    Args:
        batch: tensors (N, ...).
        copies: how many times.
        weighted: whether the last tensor holds weights (N, 1).

    Returns:
        Tensors (copies * N, ...), and weights (copies * N, 1) or None.
    """
    parts = [part.repeat(copies, 1) for part in batch]
    return (parts[:-1], parts[-1]) if weighted else (parts, None)
