"""How honest a spread is: the share of measured values inside the intervals that a model claims.

A prediction with a standard deviation is read as a Gaussian; its central interval of level p
should hold a share p of the values (Kuleshov et al. 2018, arXiv 1807.00263). Sharpness stands
beside the coverage: wide intervals are easily right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.space import Space

LEVELS = (0.5, 0.9)


@dataclass(frozen=True)
class CalibrationCurve:
    """Observed against expected coverage of one column.

    Args:
        column: its name.
        levels: shares that the central intervals should hold (S,).
        observed: shares that they do hold (S,).
        rows: how many values were looked at.
    """

    column: str
    levels: Tensor
    observed: Tensor
    rows: int


def interval_levels(y: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Level of the smallest central interval that holds each value.

    Uniform between 0 and 1 for a calibrated spread; a value is inside the interval of level p where
    its own level is at most p.

    Args:
        y: measured values (...).
        mean: predictions (...).
        std: their standard deviations (...); 0 for a claim without doubt.

    Returns:
        Levels (...) in [0, 1], float64; NaN where any of the three is missing.
    """
    gap = (y - mean).to(torch.float64).abs()
    std = std.to(torch.float64)
    level = torch.erf(gap / std / math.sqrt(2.0))
    # no doubt and no error: inside every interval
    return torch.where((gap == 0) & (std == 0), 0.0, level)


def miscalibration_area(levels: Tensor) -> float:
    """Area between observed and expected coverage over all levels (Chung et al. 2021).

    It is worked out exactly, as the distance between the levels' distribution and the uniform one
    (arXiv 2109.10254 sums over a grid): 0 for a calibrated spread, 1/2 at worst.

    Args:
        levels: of `interval_levels` (N,), none missing.

    Returns:
        The area.
    """
    n = len(levels)
    edges = torch.linspace(0.0, 1.0, n + 1, dtype=torch.float64)
    below, above = edges[:-1] - levels.sort().values, edges[1:] - levels.sort().values
    return float((above * above.abs() - below * below.abs()).sum() / 2.0)


def calibration_scores(y: Tensor, mean: Tensor, std: Tensor, y_space: Space) -> dict[str, float]:
    """Coverage, miscalibration area, sharpness and likelihood of each numeric column.

    Args:
        y: measured values (N, K); NaN where missing.
        mean: predictions (N, K).
        std: their standard deviations (N, K); NaN in a column whose model claims none.
        y_space: the y Space.

    Returns:
        For each column with two or more usable rows ``coverage_50/<column>`` and ``coverage_90``
        (shares inside the central intervals of 50 and 90 %), ``miscalibration_area``,
        ``sharpness`` (mean standard deviation, raw units) and ``nll`` (mean negative log
        likelihood in nats, per raw unit).

    Raises:
        GenoptError: if the shapes differ or a standard deviation is negative.
    """
    scores: dict[str, float] = {}
    for i, known in _usable(y, mean, std, y_space):
        name = y_space.names[i]
        levels = interval_levels(y[known, i], mean[known, i], std[known, i])
        for level in LEVELS:
            share = (levels <= level).to(torch.float64).mean()
            scores[f"coverage_{level * 100:.0f}/{name}"] = float(share)
        scores[f"miscalibration_area/{name}"] = miscalibration_area(levels)
        scores[f"sharpness/{name}"] = float(std[known, i].mean())
        scores[f"nll/{name}"] = _nll(y[known, i], mean[known, i], std[known, i])
    return scores


def calibration_curves(
    y: Tensor, mean: Tensor, std: Tensor, y_space: Space, points: int = 101
) -> list[CalibrationCurve]:
    """Observed coverage of central intervals of every level, for a figure.

    Args:
        y: measured values (N, K); NaN where missing.
        mean: predictions (N, K).
        std: their standard deviations (N, K); NaN in a column whose model claims none.
        y_space: the y Space.
        points: number of levels S from 0 to 1.

    Returns:
        A curve for each numeric column with two or more usable rows.
    """
    expected = torch.linspace(0.0, 1.0, points, dtype=torch.float64)
    curves = []
    for i, known in _usable(y, mean, std, y_space):
        levels = interval_levels(y[known, i], mean[known, i], std[known, i]).sort().values
        inside = torch.searchsorted(levels, expected, right=True)
        observed = inside.to(torch.float64) / len(levels)
        curves.append(CalibrationCurve(y_space.names[i], expected, observed, len(levels)))
    return curves


def _usable(y: Tensor, mean: Tensor, std: Tensor, y_space: Space) -> list[tuple[int, Tensor]]:
    """Numeric columns with the rows (N,) that have a label, a prediction and a spread."""
    shapes = {tuple(part.shape) for part in (y, mean, std)}
    if len(shapes) != 1 or y.ndim != 2 or y.shape[1] != y_space.dim:
        raise GenoptError(
            f"y, mean and std have shapes {tuple(y.shape)}, {tuple(mean.shape)} and "
            f"{tuple(std.shape)}; expected (N, {y_space.dim}) for columns "
            f"{', '.join(y_space.names)}"
        )
    if bool((std < 0).any()):
        column = int((std < 0).any(0).nonzero()[0])
        raise GenoptError(f"std is negative in column {y_space.names[column]!r}")
    known = torch.isfinite(y) & torch.isfinite(mean) & torch.isfinite(std)
    return [
        (i, known[:, i])
        for i, variable in enumerate(y_space)
        if not variable.labels and int(known[:, i].sum()) >= 2
    ]


def _nll(y: Tensor, mean: Tensor, std: Tensor) -> float:
    score = torch.distributions.Normal(0.0, 1.0).log_prob((y - mean) / std) - std.log()
    return float(-score.mean())
