"""Synthetic pair: two random smooth properties of ten columns, for honest optima from few rows.

Both are exact at any point, also outside the bounds, so what a search claims can be compared with
the truth wherever it ends.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.base import Problem
from genopt.space import Space, Variable

_TARGETS = (2.0, -2.0)
_TOLERANCE = 0.2
_SLOWEST, _FASTEST = 1.0, 6.0


class SyntheticPair(Problem):
    """x in [-1, 1]^P; each property is a sum of P sines and P products, mean 0 and variance 1.

    y_k = [sum_i a_ki sin(w_ki x_i + p_ki) + sum_j b_kj x_l x_m - m_k] / s_k, where the pairs
    (l, m) differ from one another, a and b are standard Gaussian, w is uniform in [1, 6] and p in
    [0, 2 pi]. m_k and s_k are the exact mean and standard deviation for x uniform in the box, so
    the default goal asks for two standard deviations above and below the mean at once.

    Args:
        dimension: number of columns P, at least 3.
        variant: which random pair; the seed of a, b, w, p and of the pairs.

    Raises:
        GenoptError: if an argument is out of range.
    """

    def __init__(self, dimension: int = 10, variant: int = 0) -> None:
        if dimension < 3 or variant < 0:
            raise GenoptError(
                f"dimension must be at least 3 and variant not negative, got {dimension} and "
                f"{variant}"
            )
        generator = torch.Generator().manual_seed(variant)
        shape = (2, dimension)

        def gaussian() -> Tensor:
            return torch.randn(shape, dtype=torch.float64, generator=generator)

        def uniform(low: float, high: float) -> Tensor:
            draws = torch.rand(shape, dtype=torch.float64, generator=generator)
            return low + (high - low) * draws

        self.sines, self.products = gaussian(), gaussian()
        self.waves = uniform(_SLOWEST, _FASTEST)
        self.phases = uniform(0.0, 2.0 * math.pi)
        every = torch.combinations(torch.arange(dimension))
        self.pairs = torch.stack(
            [every[torch.randperm(len(every), generator=generator)[:dimension]] for _ in range(2)]
        )
        self.mean, self.spread = self._moments()
        reach = (self.sines.abs().sum(1) + self.products.abs().sum(1) + self.mean.abs()) / (
            self.spread
        )
        super().__init__(
            "synthetic_pair",
            Space(tuple(Variable(f"x{i + 1}", -1.0, 1.0) for i in range(dimension))),
            Space(
                tuple(
                    Variable(name, -float(r), float(r))
                    for name, r in zip(("first", "second"), reach, strict=True)
                )
            ),
            {
                name: {"equals": value, "tolerance": _TOLERANCE}
                for name, value in zip(("first", "second"), _TARGETS, strict=True)
            },
            default_rows=2000,
            description="Two random smooth properties, wanted two spreads off their means.",
        )

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Exact mean and standard deviation (2,) of the sums for x uniform in the box.

        All terms are uncorrelated: two sines have different columns, and a product has mean 0 given
        either of its columns.
        """
        sine = self.phases.sin() * self.waves.sin() / self.waves
        square = 0.5 - 0.5 * (2.0 * self.phases).cos() * (2.0 * self.waves).sin() / (
            2.0 * self.waves
        )
        mean = (self.sines * sine).sum(1)
        variance = (self.sines.square() * (square - sine.square())).sum(1)
        variance = variance + self.products.square().sum(1) / 9.0
        return mean, variance.sqrt()

    def simulate(self, x: Tensor) -> Tensor:
        """Both properties.

        Args:
            x: points (..., P), also outside the bounds.

        Returns:
            Properties (..., 2).
        """
        wide = torch.stack(self.columns(x), -1).unsqueeze(-2)
        waves = (self.sines * torch.sin(self.waves * wide + self.phases)).sum(-1)
        first, second = (wide.squeeze(-2)[..., self.pairs[..., i]] for i in range(2))
        products = (self.products * first * second).sum(-1)
        return (waves + products - self.mean) / self.spread
