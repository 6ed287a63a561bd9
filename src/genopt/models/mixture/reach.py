"""The measured properties nearest to a target: what is said where a target lies outside."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.models.mixture.region_goals import Region, sample_region
from genopt.space import Space

if TYPE_CHECKING:
    from genopt.models.mixture.engine import Mixture

_INSIDE = 1.0


def warn_outside(model: Mixture, y: Tensor, ood: Tensor, region: Region | None = None) -> None:
    """Warn of targets outside the data, with the nearest values that were measured.

    Args:
        model: the fitted mixture.
        y: targets (C, K); NaN for a free column.
        ood: their scores (C,), at most 1 inside.
        region: intervals of further columns.
    """
    outside = torch.nonzero(ood > _INSIDE).flatten()
    if not len(outside):
        return
    worst = int(outside[ood[outside].argmax()])
    lower, upper = (ends[worst] for ends in ends_of(y, region))
    which = f"{len(outside)} of {len(y)} targets lie" if len(y) > 1 else "the target lies"
    asked = in_words(model.y_space, lower, upper)
    message = f"{which} outside the data: {asked} has a score of {float(ood[worst]):.2g}"
    near = nearest_measured(measured(model), lower, upper, model.y_space)
    if near is not None:
        message += f"; the nearest measured values are {in_words(model.y_space, near, near)}"
    warnings.warn(message, UserWarning, stacklevel=3)


def region_scores(model: Mixture, y: Tensor, region: Region) -> Tensor:
    """How unusual the most usual properties of regions are.

    Args:
        model: the fitted mixture.
        y: known values (C, K); NaN for a column that is free or confined.
        region: the confined columns.

    Returns:
        Scores (C,), as of `Mixture.ood_score`.
    """
    generator = torch.Generator().manual_seed(model.seed)
    return sample_region(model, y, region, 1, generator).ood


def ends_of(y: Tensor, region: Region | None) -> tuple[Tensor, Tensor]:
    """Targets as intervals, a known value for both ends.

    Args:
        y: targets (C, K); NaN for a free column.
        region: intervals of further columns.

    Returns:
        Lower and upper ends (C, K); NaN for a free column.
    """
    lower, upper = y.clone(), y.clone()
    if region is not None:
        lower[:, list(region.columns)] = region.lower
        upper[:, list(region.columns)] = region.upper
    return lower, upper


def measured(model: Mixture) -> Tensor:
    """The outputs that a mixture has learned from.

    Args:
        model: the fitted mixture.

    Returns:
        (N, K); NaN in a gap and in a column that is not modelled.
    """
    seen = model.density.y_seen
    out = seen.new_full((len(seen), model.y_space.dim), torch.nan)
    out[:, list(model.columns.y_columns)] = seen
    return out


def nearest_measured(seen: Tensor, lower: Tensor, upper: Tensor, y_space: Space) -> Tensor | None:
    """The measured values that come nearest to what is wanted.

    Args:
        seen: measured properties (N, K); NaN for a gap.
        lower: lower ends (K,), a known value for both ends; NaN for a free column.
        upper: upper ends (K,).
        y_space: the columns.

    Returns:
        Values (K,) of the nearest row, NaN in free columns; each column counts in its standard
        deviations and another class as far away as can be. None where no row has all the columns.
    """
    named = (~torch.isnan(lower)).nonzero().flatten().tolist()
    rows = seen[:, named]
    rows = rows[~torch.isnan(rows).any(1)]
    if not len(rows):
        return None
    unit = rows.std(0, correction=0)
    miss = (lower[named] - rows).clamp_min(0.0) + (rows - upper[named]).clamp_min(0.0)
    miss = miss / torch.where(unit > 0, unit, 1.0)
    for position, k in enumerate(named):
        if y_space.variables[k].labels:
            miss[:, position] = torch.where(miss[:, position] > 0, 1e6, 0.0)
    out = torch.full_like(lower, torch.nan)
    out[named] = rows[int(miss.square().sum(1).argmin())]
    return out


def in_words(y_space: Space, lower: Tensor, upper: Tensor) -> str:
    """What is wanted, or measured, in words.

    Args:
        y_space: the columns.
        lower: lower ends (K,), a known value for both ends; NaN for a column without a word.
        upper: upper ends (K,).

    Returns:
        Such as ``s 5.8, q at least 1``.
    """
    named = (~torch.isnan(lower)).nonzero().flatten().tolist()
    return ", ".join(_words(y_space, k, float(lower[k]), float(upper[k])) for k in named)


def _words(y_space: Space, column: int, lower: float, upper: float) -> str:
    variable = y_space.variables[column]
    if variable.labels:
        return f"{variable.name} {variable.labels[int(lower)]}"
    if lower == upper:
        return f"{variable.name} {lower:.4g}"
    if upper == float("inf"):
        return f"{variable.name} at least {lower:.4g}"
    if lower == -float("inf"):
        return f"{variable.name} at most {upper:.4g}"
    return f"{variable.name} between {lower:.4g} and {upper:.4g}"
