"""The standard normal law between two limits: probability and draws, precise in both tails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri_exp

from genopt.models.mixture.conditioning import Array

Mask = NDArray[np.bool_]

_FARTHEST = 1e150
_NARROW = 1e-4
_LEAST_WIDTH = 1e-300
_HALF_LOG_2PI = 0.5 * np.log(2.0 * np.pi)


def log_interval(low: Array, high: Array, width: Array | None = None) -> Array:
    """Log of the probability between two limits.

    Between limits that are closer than the digits of the distribution function can tell apart it is
    density times width.

    Args:
        low: lower limits, -inf for none.
        high: upper limits of the same shape, inf for none.
        width: positive distances of the limits, where the caller knows them to more digits.

    Returns:
        Log probabilities, finite wherever low <= high.
    """
    a, b, _ = _lower_side(low, high)
    outer, inner = log_ndtr(b), log_ndtr(a)
    with np.errstate(divide="ignore", invalid="ignore"):
        wide = outer + np.log1p(-np.exp(np.minimum(inner - outer, 0.0)))
    middle = 0.5 * a + 0.5 * b
    between = np.clip(b - a if width is None else width, _LEAST_WIDTH, 1.0)
    thin = np.log(between) - 0.5 * middle**2 - _HALF_LOG_2PI
    return np.where(_narrow(a, b) | ~np.isfinite(wide), thin, wide)


def draw_interval(low: Array, high: Array, uniform: Array, log_mass: Array | None = None) -> Array:
    """Standard normal draws between two limits, by the inverse of the distribution function.

    Args:
        low: lower limits, -inf for none.
        high: upper limits, inf for none.
        uniform: draws between 0 and 1, of the limits' shape.
        log_mass: `log_interval` of the limits, where the caller has it already.

    Returns:
        Draws within the limits.
    """
    a, b, flipped = _lower_side(low, high)
    mass = log_interval(a, b) if log_mass is None else log_mass
    with np.errstate(divide="ignore"):
        level = np.logaddexp(log_ndtr(a), np.log(uniform) + mass)
    inverse = ndtri_exp(np.minimum(level, -1e-300))
    drawn = np.where(_narrow(a, b), a + uniform * (b - a), np.clip(inverse, a, b))
    return np.where(flipped, -drawn, drawn)


def _lower_side(low: Array, high: Array) -> tuple[Array, Array, Mask]:
    """Limits, mirrored where that brings them into the lower tail, which keeps its digits."""
    low, high = np.clip(low, -_FARTHEST, _FARTHEST), np.clip(high, -_FARTHEST, _FARTHEST)
    flipped: Mask = np.asarray(low > -high)
    return np.where(flipped, -high, low), np.where(flipped, -low, high), flipped


def _narrow(a: Array, b: Array) -> Mask:
    return np.asarray((b - a) * (1.0 + np.maximum(np.abs(a), np.abs(b))) < _NARROW)
