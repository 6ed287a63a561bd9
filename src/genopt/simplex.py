"""The simplex: fractions that are bounded and sum to one."""

from __future__ import annotations

import torch
from torch import Tensor

_BISECTION_STEPS = 80


def project_simplex(x: Tensor, lower: Tensor | float = 0.0, upper: Tensor | float = 1.0) -> Tensor:
    """Euclidean projection onto {lower <= x <= upper, sum x = 1}, row by row.

    The multiplier of the sum constraint is found by bisection on the monotone function
    sum clip(x - m, lower, upper) (Wang and Lu, arXiv 1503.01002).

    Args:
        x: points (..., n).
        lower: lower bounds, (n,) or a number.
        upper: upper bounds, (n,) or a number.

    Returns:
        Projected points (..., n).
    """
    low = torch.as_tensor(lower, dtype=x.dtype, device=x.device).expand(x.shape[-1])
    high = torch.as_tensor(upper, dtype=x.dtype, device=x.device).expand(x.shape[-1])
    left = (x - high).amin(-1, keepdim=True) - 1.0
    right = (x - low).amax(-1, keepdim=True) + 1.0
    for _ in range(_BISECTION_STEPS):
        middle = 0.5 * (left + right)
        too_big = torch.clamp(x - middle, low, high).sum(-1, keepdim=True) > 1.0
        left, right = torch.where(too_big, middle, left), torch.where(too_big, right, middle)
    out = torch.clamp(x - 0.5 * (left + right), low, high)
    free = ((out > low) & (out < high)).to(x)
    share = free / free.sum(-1, keepdim=True).clamp_min(1.0)
    return torch.clamp(out + share * (1.0 - out.sum(-1, keepdim=True)), low, high)
