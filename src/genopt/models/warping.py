"""Monotone warps of an output, for models that believe in Gaussian errors of one size.

A funnel whose walls flatten out, or a valley a thousand times lower than the hills, is no Gaussian
process; its values on another scale may well be. The scale is learned with the covariance (Snelson,
Rasmussen and Ghahramani 2003, warped Gaussian processes).

A warp is w(s) = s + a log(1 + s/e)/log(1 + 1/e) + b (1 - log(1 + (1-s)/f)/log(1 + 1/f)) of values s
in [0, 1], with a, b, e, f > 0: the first logarithm spreads the lowest values, the second the
highest ones. Beyond [0, 1] it goes on straight, so every number is the warp of some value.
"""

from __future__ import annotations

import torch
from torch import Tensor

# logs of a, e, b, f: close to no warp, low values spread, high values spread
PLAIN, LOW, HIGH = (-2.3, -2.3, -2.3, -2.3), (3.0, -8.0, -2.3, -2.3), (-2.3, -2.3, 3.0, -4.0)
# the prior's standard deviation of each around the plain one
SPREAD = 2.0
_LEAST, _MOST = -14.0, 5.0
_BISECTIONS = 40


def warped(s: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Values on the learned scale.

    Args:
        s: values, 0 the lowest and 1 the highest that are known (..., N).
        numbers: logs of a, e, b, f (..., 4).

    Returns:
        The warped values, and how steep the warp is there (..., N) each.
    """
    low, near, high, far = numbers.clamp(_LEAST, _MOST).exp().unsqueeze(-2).unbind(-1)
    inside = s.clamp(0.0, 1.0)
    lower, lower_slope = _log(inside, near)
    upper, upper_slope = _log(1.0 - inside, far)
    slope = 1.0 + low * lower_slope + high * upper_slope
    value = inside + low * lower + high * (1.0 - upper)
    return value + slope * (s - inside), slope


def unwarped(w: Tensor, numbers: Tensor) -> Tensor:
    """The values whose warp is given.

    Args:
        w: warped values (..., M).
        numbers: logs of a, e, b, f (..., 4).

    Returns:
        Values s (..., M), differentiable in w.
    """
    with torch.no_grad():
        ends = torch.tensor([0.0, 1.0], dtype=w.dtype).expand(*w.shape[:-1], 2)
        at, slope = warped(ends, numbers)
        left, right = torch.zeros_like(w), torch.ones_like(w)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (left + right)
            below = warped(middle, numbers)[0] < w
            left, right = torch.where(below, middle, left), torch.where(below, right, middle)
        inside = 0.5 * (left + right)
        start = torch.where(w < at[..., :1], (w - at[..., :1]) / slope[..., :1], inside)
        start = torch.where(w > at[..., 1:], 1.0 + (w - at[..., 1:]) / slope[..., 1:], start)
        value, steep = warped(start, numbers)
    # Newton's step gives the derivative too
    return start + (w - value) / steep


def _log(s: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 + s/near) / log(1 + 1/near) and its slope."""
    unit = torch.log1p(1.0 / near)
    return torch.log1p(s / near) / unit, 1.0 / ((near + s) * unit)
