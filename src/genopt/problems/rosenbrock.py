"""Rosenbrock: a curved valley, easy to reach and slow to follow."""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.problems.shifted import ShiftedFunction, check_dimension

_BOUND = 2.048


class Rosenbrock(ShiftedFunction):
    """Minimise sum 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2: 0 at (1, ..., 1).

    Args:
        dimension: d, at least two.
        bound: half the width of the box.
        shift_seed: moves the optimum at random; None leaves it at (1, ..., 1).

    Raises:
        GenoptError: if there are fewer than two dimensions.
    """

    def __init__(
        self, dimension: int = 2, bound: float = _BOUND, shift_seed: int | None = None
    ) -> None:
        check_dimension("rosenbrock", dimension, 2)
        # a shift lengthens the way to the farther bound
        reach = bound if shift_seed is None else 1.5 * bound
        steepest = 100.0 * (reach + reach**2) ** 2 + (1.0 + reach) ** 2
        super().__init__(
            "rosenbrock",
            [(-bound, bound)] * dimension,
            torch.ones(1, dimension, dtype=torch.float64),
            0.0,
            (dimension - 1) * steepest,
            shift_seed,
            "A curved valley with one smallest value.",
            "Rosenbrock, The Computer Journal 3 (1960) 175",
        )

    def value(self, x: Tensor) -> Tensor:
        """The function before the shift.

        Args:
            x: points (..., d).

        Returns:
            f (...).
        """
        here, next_one = x[..., :-1], x[..., 1:]
        valley = 100.0 * (next_one - here.square()).square()
        return (valley + (1.0 - here).square()).sum(-1)
