"""Distribution functions and quantiles of mixtures of univariate Gaussians, many at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from genopt.errors import GenoptError
from genopt.models.mixture.conditioning import Array

_CHUNK = 1 << 20
_MOST_HALVINGS = 1100


def mixture_cdf(values: Array, weights: Array, means: Array, deviations: Array) -> Array:
    """Probability below some values.

    Args:
        values: (C, n).
        weights: (C, k), rows sum to one.
        means: (C, k).
        deviations: (k,).

    Returns:
        (C, n), precise in the lower tail.
    """
    out = np.empty(values.shape)
    for rows in _chunks(len(values), values.shape[1] * len(deviations)):
        z = (values[rows, :, None] - means[rows, None]) / deviations
        out[rows] = np.einsum("cnk,ck->cn", ndtr(z), weights[rows])
    return out


def mixture_quantiles(levels: ArrayLike, weights: Array, means: Array, deviations: Array) -> Array:
    """Quantiles by bisection, to the last digit of the distribution function.

    A quantile of a mixture lies between the least and the greatest of its components' quantiles.

    Args:
        levels: probabilities (Q,), each between 0 and 1, both excluded.
        weights: (C, k), rows sum to one.
        means: (C, k).
        deviations: (k,).

    Returns:
        (C, Q).

    Raises:
        GenoptError: if a level is not between 0 and 1.
    """
    level = np.asarray(levels, dtype=np.float64).reshape(-1)
    if not ((level > 0) & (level < 1)).all():
        raise GenoptError(
            f"levels must lie between 0 and 1, both excluded; they are {level.tolist()}"
        )
    out = np.empty((len(weights), len(level)))
    for rows in _chunks(len(weights), len(level) * len(deviations)):
        out[rows] = _bisect(level, weights[rows], means[rows], deviations)
    return out


def _bisect(level: Array, weights: Array, means: Array, deviations: Array) -> Array:
    ends = means[:, None, :] + deviations * ndtri(level)[:, None]
    alive = weights[:, None, :] > 0
    low = np.where(alive, ends, np.inf).min(-1)
    high = np.where(alive, ends, -np.inf).max(-1)
    # above the median the upper tail is compared: 1 - cdf would lose its digits
    sign = np.where(level > 0.5, -1.0, 1.0)
    tail = np.where(level > 0.5, 1.0 - level, level)
    for _ in range(_MOST_HALVINGS):
        middle = low + 0.5 * (high - low)
        if ((middle <= low) | (middle >= high)).all():
            break
        z = sign[:, None] * (middle[:, :, None] - means[:, None]) / deviations
        beyond = np.einsum("cqk,ck->cq", ndtr(z), weights)
        too_low = np.where(sign > 0, beyond < tail, beyond > tail)
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    return np.asarray(0.5 * low + 0.5 * high)


def _chunks(n: int, width: int) -> list[slice]:
    step = max(1, _CHUNK // max(width, 1))
    return [slice(start, start + step) for start in range(0, n, step)]
