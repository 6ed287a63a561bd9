"""How well each head does on the validation rows, in the units of its labels.

The scores are those of torchmetrics. Gaps are filled so that they change nothing, which lets one
call score all columns at once: scores must cost little beside the training that they watch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from genopt.nn.heads import HeadKind

_MOST_LOOKS, _LEAST_LOOKS = 100, 10
# a look at two dozen heads takes as long as two steps
_STEPS_PER_LOOK = 50


def looks_at(epoch: int, epochs: int, steps: int) -> bool:
    """Whether an epoch's heads are scored: 10 to 100 times in a training, at its start and end too.

    Args:
        epoch: number of the epoch, from 0.
        epochs: epochs of the training.
        steps: optimiser steps of the training.

    Returns:
        The answer.
    """
    looks = min(_MOST_LOOKS, max(_LEAST_LOOKS, steps // _STEPS_PER_LOOK))
    every = max(1, -(-epochs // looks))
    return epoch % every == 0 or epoch + 1 == epochs


def label_counts(labels: Tensor, widths: Mapping[str, int]) -> dict[str, Tensor]:
    """How many labels each head has; for a reconstruction the rows.

    Args:
        labels: labels (N, L) of all heads side by side; NaN where there is none.
        widths: label columns of each head.

    Returns:
        Scalars by head.
    """
    known = (~torch.isnan(labels)).sum(0)
    rows, start, counts = known.new_tensor(len(labels)), 0, {}
    for name, width in widths.items():
        counts[name] = known[start : start + width].sum() if width else rows
        start += width
    return counts


def task_scores(
    outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor], kinds: Mapping[str, HeadKind]
) -> dict[str, float]:
    """The scores of every head.

    Args:
        outputs: by head, what it says: numbers (N, T) in raw units or probabilities (N, C).
        labels: by head, raw labels (N, T), or codes (N, 1) for classes; NaN where there is none.
        kinds: by head, ``number`` or ``class``.

    Returns:
        ``<head>_r2`` and ``<head>_rmse`` of numbers (of a vector, the mean r2 of its columns and
        the error over all of them), ``<head>_accuracy`` and ``<head>_f1`` (macro) of classes. A
        score that the labels do not define is left out: r2 needs two different labels.
    """
    numbers = [name for name in outputs if kinds[name] == "number"]
    scores = _number_scores(
        {name: outputs[name] for name in numbers}, {name: labels[name] for name in numbers}
    )
    for name in outputs:
        if kinds[name] == "class":
            scores |= _class_scores(name, outputs[name], labels[name])
    return scores


def _number_scores(outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, float]:
    from torchmetrics.functional import mean_squared_error, r2_score

    if not outputs:
        return {}
    said = torch.cat([value.to(torch.float64) for value in outputs.values()], 1)
    true = torch.cat([value.to(torch.float64) for value in labels.values()], 1)
    known = ~torch.isnan(true)
    count = known.sum(0).clamp_min(1)
    # both sides in spreads around the labels' mean: zero then stands for a gap without changing
    # the sums of squares, and a large offset costs no digits
    mean = torch.where(known, true, 0.0).sum(0) / count
    spread = (torch.where(known, true - mean, 0.0).square().sum(0) / count).sqrt()
    varies = spread > 1e-9 * mean.abs().clamp_min(1e-300)
    unit = torch.where(varies, spread, 1.0)
    true = torch.where(known, (true - mean) / unit, 0.0)
    said = torch.where(known, (said - mean) / unit, 0.0)
    share = known.to(torch.float64).mean(0).clamp_min(1e-300)
    squares = mean_squared_error(said, true, num_outputs=said.shape[1]).reshape(-1)
    error = squares / share * unit.square()
    r2 = torch.full_like(unit, torch.nan)
    if len(true) > 1 and bool(varies.any()):
        r2[varies] = r2_score(said[:, varies], true[:, varies], multioutput="raw_values").reshape(
            -1
        )
    scores, start = {}, 0
    columns = list(zip(r2.tolist(), error.tolist(), known.sum(0).tolist(), strict=True))
    for name, value in outputs.items():
        part = columns[start : start + value.shape[1]]
        start += value.shape[1]
        explained = [column[0] for column in part if not math.isnan(column[0])]
        labels_of = sum(column[2] for column in part)
        if explained:
            scores[f"{name}_r2"] = sum(explained) / len(explained)
        if labels_of:
            total = sum(column[1] * column[2] for column in part)
            scores[f"{name}_rmse"] = math.sqrt(total / labels_of)
    return scores


def _class_scores(name: str, output: Tensor, labels: Tensor) -> dict[str, float]:
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

    known = ~torch.isnan(labels[:, 0])
    if not bool(known.any()):
        return {}
    said, true = output[known].argmax(-1), labels[known, 0].long()
    number = output.shape[-1]
    accuracy = multiclass_accuracy(said, true, number, average="micro", validate_args=False)
    f1 = multiclass_f1_score(said, true, number, average="macro", validate_args=False)
    return {f"{name}_accuracy": float(accuracy), f"{name}_f1": float(f1)}
