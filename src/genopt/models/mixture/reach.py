"""The measured properties nearest to a target: what is said where a target lies outside."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.models.mixture.region_goals import Region

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
    lower, upper = y[worst].clone(), y[worst].clone()
    if region is not None:
        lower[list(region.columns)] = region.lower[worst]
        upper[list(region.columns)] = region.upper[worst]
    named = [int(k) for k in (~torch.isnan(lower)).nonzero().flatten()]
    near = nearest_measured(model, lower[named], upper[named], named)
    which = f"{len(outside)} of {len(y)} targets lie" if len(y) > 1 else "the target lies"
    asked = ", ".join(_words(model, k, float(lower[k]), float(upper[k])) for k in named)
    message = f"{which} outside the data: {asked} has a score of {float(ood[worst]):.2g}"
    if near is not None:
        values = (_words(model, k, v, v) for k, v in zip(named, near.tolist(), strict=True))
        message += f"; the nearest measured values are {', '.join(values)}"
    warnings.warn(message, UserWarning, stacklevel=3)


def nearest_measured(
    model: Mixture, lower: Tensor, upper: Tensor, named: list[int]
) -> Tensor | None:
    """The measured values of some columns of y that come nearest to intervals.

    Args:
        model: the fitted mixture.
        lower: lower ends (V,), a known value for both ends.
        upper: upper ends (V,).
        named: the V columns of y.

    Returns:
        Values (V,) of the nearest row, each column counted in its standard deviations and another
        class as far away as can be; None where no row has all of the columns.
    """
    seen = model.density.y_seen[:, [model.columns.y_columns.index(k) for k in named]]
    seen = seen[~torch.isnan(seen).any(1)]
    if not len(seen):
        return None
    unit = seen.std(0, correction=0)
    miss = (lower - seen).clamp_min(0.0) + (seen - upper).clamp_min(0.0)
    miss = miss / torch.where(unit > 0, unit, 1.0)
    for position, k in enumerate(named):
        if model.y_space.variables[k].labels:
            miss[:, position] = torch.where(miss[:, position] > 0, 1e6, 0.0)
    return seen[int(miss.square().sum(1).argmin())]


def _words(model: Mixture, column: int, lower: float, upper: float) -> str:
    variable = model.y_space.variables[column]
    if variable.labels:
        return f"{variable.name} {variable.labels[int(lower)]}"
    if lower == upper:
        return f"{variable.name} {lower:.4g}"
    if upper == float("inf"):
        return f"{variable.name} at least {lower:.4g}"
    if lower == -float("inf"):
        return f"{variable.name} at most {upper:.4g}"
    return f"{variable.name} between {lower:.4g} and {upper:.4g}"
