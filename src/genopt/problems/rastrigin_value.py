"""Rastrigin to be minimised; `genopt.problems.rastrigin` asks for the zeros of its gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.problems.shifted import ShiftedFunction, check_dimension

_BOUND = 5.12


class RastriginValue(ShiftedFunction):
    """Minimise 10 d + sum (x_i^2 - 10 cos 2 pi x_i): 0 at 0, and about 10^d minima beside it.

    Args:
        dimension: d.
        bound: half the width of the box.
        shift_seed: moves the optimum at random; None leaves it at 0.

    Raises:
        GenoptError: if the dimension is not positive.
    """

    def __init__(
        self, dimension: int = 2, bound: float = _BOUND, shift_seed: int | None = None
    ) -> None:
        check_dimension("rastrigin_value", dimension)
        super().__init__(
            "rastrigin_value",
            [(-bound, bound)] * dimension,
            torch.zeros(1, dimension, dtype=torch.float64),
            0.0,
            dimension * (20.0 + (bound if shift_seed is None else 1.5 * bound) ** 2),
            shift_seed,
            "A bowl full of dents, with one smallest value.",
            "Rastrigin, Systems of extremal control (1974)",
        )

    def value(self, x: Tensor) -> Tensor:
        """The function before the shift.

        Args:
            x: points (..., d).

        Returns:
            f (...).
        """
        return (10.0 + x.square() - 10.0 * torch.cos(2.0 * math.pi * x)).sum(-1)
