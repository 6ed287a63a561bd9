"""Ackley: a funnel full of ripples; far from the optimum the ripples hide the slope."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.problems.shifted import ShiftedFunction, check_dimension

_BOUND = 32.768


class Ackley(ShiftedFunction):
    """Minimise 20 + e - 20 exp(-.2 sqrt(mean x^2)) - exp(mean cos 2 pi x): 0 at 0.

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
        check_dimension("ackley", dimension)
        super().__init__(
            "ackley",
            [(-bound, bound)] * dimension,
            torch.zeros(1, dimension, dtype=torch.float64),
            0.0,
            23.0,
            shift_seed,
            "A funnel with ripples and one smallest value.",
            "Ackley, A Connectionist Machine for Genetic Hillclimbing (1987)",
        )

    def value(self, x: Tensor) -> Tensor:
        """The function before the shift.

        Args:
            x: points (..., d).

        Returns:
            f (...).
        """
        # the root's slope at 0 would be infinite
        distance = x.square().mean(-1).clamp_min(1e-300).sqrt()
        ripples = torch.exp(torch.cos(2.0 * math.pi * x).mean(-1))
        return 20.0 + math.e - 20.0 * torch.exp(-0.2 * distance) - ripples
