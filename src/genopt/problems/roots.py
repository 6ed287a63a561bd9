"""Roots: all simple roots of a function of one variable, and the shares of samples near them.

Several problems state their exact answers this way. A fine grid separates the roots, bisection then
finds them to the last digits, so nothing depends on a starting point.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_HALVINGS = 80


def simple_roots(
    function: Callable[[Tensor], Tensor], lower: float, upper: float, cells: int = 4096
) -> Tensor:
    """Every root in (lower, upper) at which the function changes its sign.

    Args:
        function: maps points (N,) to values (N,), one by one.
        lower: left end.
        upper: right end.
        cells: number of grid cells; each may hold one root.

    Returns:
        Roots (R,), ascending, float64.

    Example:
        >>> simple_roots(lambda x: x**2 - 4.0, 0.0, 3.0)
        tensor([2.], dtype=torch.float64)
    """
    grid = torch.linspace(lower, upper, cells + 1, dtype=torch.float64)
    # a grid point that is a root counts as not positive: one change of sign, not two
    positive = function(grid) > 0.0
    change = positive[:-1] != positive[1:]
    low, high, sign = grid[:-1][change], grid[1:][change], positive[:-1][change]
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        left = (function(middle) > 0.0) == sign
        low, high = torch.where(left, middle, low), torch.where(left, high, middle)
    return torch.where(function(low).abs() <= function(high).abs(), low, high)


def root_shares(function: Callable[[Tensor], Tensor], roots: Tensor) -> Tensor:
    """The shares of the probability mass near each root, for uniform points given the value zero.

    A band of values of width h around zero holds points within h / abs f' of each root.

    Args:
        function: as for `simple_roots`, differentiable.
        roots: its roots (R,).

    Returns:
        Shares (R,) that sum to one.
    """
    x = roots.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(function(x).sum(), x)
    mass = 1.0 / slope.abs()
    return mass / mass.sum()
