"""Branin: three equally good minima in two dimensions, one pair of variables after the other."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.shifted import ShiftedFunction, check_dimension

_LEAST = 10.0 / (8.0 * math.pi)
_LARGEST, _LARGEST_SHIFTED = 308.2, 950.0
_MOST_LISTED = 6


class Branin(ShiftedFunction):
    """Minimise (u - 5.1/(4 pi^2) t^2 + 5/pi t - 6)^2 + 10 (1 - 1/(8 pi)) cos t + 10.

    With t in [-5, 10] and u in [0, 15] it is 10/(8 pi) = .397887 at (-pi, 12.275), (pi, 2.275) and
    (3 pi, 2.475). In more dimensions the mean over pairs of variables is taken, and there are
    3^(d/2) optima, which are listed up to six dimensions.

    Args:
        dimension: d, even.
        shift_seed: moves the optima at random; None leaves them.

    Raises:
        GenoptError: if the dimension is odd or not positive.
    """

    def __init__(self, dimension: int = 2, shift_seed: int | None = None) -> None:
        check_dimension("branin", dimension, 2)
        if dimension % 2:
            raise GenoptError(f"branin: dimension must be even, got {dimension}: it takes pairs")
        pairs = [(math.pi, 2.275), (-math.pi, 12.275), (3.0 * math.pi, 2.475)]
        several = itertools.product(pairs, repeat=dimension // 2)
        listed = list(several) if dimension <= _MOST_LISTED else [(pairs[0],) * (dimension // 2)]
        super().__init__(
            "branin",
            [(-5.0, 10.0), (0.0, 15.0)] * (dimension // 2),
            torch.tensor(listed, dtype=torch.float64).flatten(1),
            _LEAST,
            _LARGEST if shift_seed is None else _LARGEST_SHIFTED,
            shift_seed,
            "Three equally good minima for each pair of variables.",
            "Branin, IBM Journal of Research and Development 16 (1972) 504",
        )

    def value(self, x: Tensor) -> Tensor:
        """The function before the shift.

        Args:
            x: points (..., d).

        Returns:
            f (...).
        """
        t, u = x[..., 0::2], x[..., 1::2]
        bend = u - 5.1 / (4.0 * math.pi**2) * t.square() + 5.0 / math.pi * t - 6.0
        wave = 10.0 * (1.0 - 1.0 / (8.0 * math.pi)) * torch.cos(t)
        return (bend.square() + wave + 10.0).mean(-1)
