"""Checks of labels that several heads share."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from genopt.errors import GenoptError


def read_labels(labels: Tensor, n: int, width: int, argument: str) -> Tensor:
    """Labels of one head, of the right shape and without infinite entries.

    Args:
        labels: labels (N, L), or (N,) where L is one.
        n: number of rows N.
        width: label columns L.
        argument: the caller's name for them.

    Returns:
        Labels (N, L), float64; NaN where an entry is missing.

    Raises:
        GenoptError: if the shape is wrong or an entry is infinite.
    """
    labels = labels.to(torch.float64)
    if labels.ndim == 1 and width == 1:
        labels = labels[:, None]
    if tuple(labels.shape) != (n, width):
        raise GenoptError(
            f"{argument} has shape {tuple(labels.shape)}; expected ({n}, {width})"
            + (f" or ({n},)" if width == 1 else "")
        )
    refuse_infinite(labels, argument)
    return labels


def refuse_infinite(labels: Tensor, argument: str) -> None:
    """Refuse infinite labels.

    Args:
        labels: labels (N, L).
        argument: the caller's name for them.

    Raises:
        GenoptError: naming the first such row.
    """
    bad = torch.isinf(labels)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise GenoptError(
            f"{argument} holds an infinite value in row {row}: use NaN for a missing label"
        )


def warn_constant_labels(labels: Tensor, argument: str) -> None:
    """Warn of label columns that never vary.

    Args:
        labels: labels (N, L); NaN where an entry is missing.
        argument: the caller's name for them.
    """
    for i in range(labels.shape[1]):
        column = labels[:, i][~torch.isnan(labels[:, i])]
        if column.numel() > 1 and bool((column == column[0]).all()):
            which = f" column {i}" if labels.shape[1] > 1 else ""
            warnings.warn(
                f"{argument}{which} is constant ({float(column[0]):g}): its head learns nothing "
                "else",
                stacklevel=6,
            )


def check_codes(labels: Tensor, classes: int, argument: str) -> None:
    """Refuse labels that are no codes of classes, or of one class only.

    Args:
        labels: labels (N, 1); NaN where an entry is missing.
        classes: number of classes C.
        argument: the caller's name for them.

    Raises:
        GenoptError: naming what is wrong.
    """
    known = labels[~torch.isnan(labels)]
    wrong = (known != known.round()) | (known < 0) | (known >= classes)
    if bool(wrong.any()):
        raise GenoptError(
            f"{argument} holds {float(known[wrong][0]):g}, which is no class: codes are 0 to "
            f"{classes - 1}"
        )
    if known.unique().numel() < 2:
        raise GenoptError(
            f"{argument} holds one class only ({int(known[0])}): there is nothing to classify"
        )
