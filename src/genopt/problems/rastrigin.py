"""Rastrigin: every stationary point of a function with many minima, as the zeros of its gradient.

A gradient has no preference among minima, maxima and saddles: all of them are answers, and a model
of the density must hold them apart.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.base import Answer, Problem
from genopt.problems.roots import root_shares, simple_roots
from genopt.space import Space

_BOUND = 2.5
_STEEPEST = 2.0 * _BOUND + 20.0 * math.pi
_MOST_LISTED = 3


class Rastrigin(Problem):
    """Points where the gradient of f = 10 d + sum (x_i^2 - 10 cos 2 pi x_i) is zero.

    The gradient 2 x_i + 20 pi sin 2 pi x_i separates, so the stationary points in [-2.5, 2.5]^d are
    all combinations of the nine on one axis: 0, +-.502546, +-.994959, +-1.507641, +-1.989912. The
    probability mass at each is proportional to the product of 1 / abs f''.

    Args:
        dimension: d; the 9^d answers are listed up to three dimensions.

    Raises:
        GenoptError: if the dimension is not positive.
    """

    def __init__(self, dimension: int = 2) -> None:
        if dimension < 1:
            raise GenoptError(f"rastrigin: dimension must be at least 1, got {dimension}")
        self.axis_points = simple_roots(_slope, -_BOUND, _BOUND)
        names = [f"x{i}" for i in range(1, dimension + 1)]
        super().__init__(
            "rastrigin",
            Space.of(**dict.fromkeys(names, (-_BOUND, _BOUND))),
            Space.of(**{f"df_d{name}": (-_STEEPEST, _STEEPEST) for name in names}),
            {f"df_d{name}": {"equals": 0.0, "tolerance": 1.0} for name in names},
            default_rows=4096,
            answers=self._answers(dimension) if dimension <= _MOST_LISTED else (),
            description="All stationary points of the Rastrigin function.",
            citation=(
                "Rastrigin, Systems of extremal control (1974); as an inverse problem: Alves and "
                "Kitchin, Generative approaches to optimization (2025)"
            ),
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The gradient of the function.

        Args:
            x: points (..., d).

        Returns:
            Derivatives (..., d).
        """
        return _slope(torch.stack(self.columns(x), -1))

    def height(self, x: Tensor) -> Tensor:
        """The function itself.

        Args:
            x: points (..., d).

        Returns:
            f (...).
        """
        points = torch.stack(self.columns(x), -1)
        return (10.0 + points**2 - 10.0 * torch.cos(2.0 * math.pi * points)).sum(-1)

    def _answers(self, dimension: int) -> tuple[Answer, ...]:
        shares = root_shares(_slope, self.axis_points).tolist()
        axis = list(zip(self.axis_points.tolist(), shares, strict=True))
        return tuple(
            Answer(
                torch.tensor([value for value, _ in point], dtype=torch.float64),
                torch.zeros(dimension, dtype=torch.float64),
                math.prod(share for _, share in point),
                "(" + ", ".join(f"{value:.3g}" for value, _ in point) + ")",
            )
            for point in itertools.product(axis, repeat=dimension)
        )


def _slope(x: Tensor) -> Tensor:
    return 2.0 * x + 20.0 * math.pi * torch.sin(2.0 * math.pi * x)
