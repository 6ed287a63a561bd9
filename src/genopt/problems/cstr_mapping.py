"""CSTR mapping: a region of wanted outlet compositions, mapped back to reactor designs.

The inverse is known in closed form, so every design that a routine returns can be compared with
the one design that gives the same outlet.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.base import Answer, Problem
from genopt.space import Space

_CENTRE = (0.58, 0.30)
_RADIUS = 0.08


class CstrMapping(Problem):
    """Radius R and thermal energy RT of a stirred tank from its outlet (C_A, C_B).

    V = pi R^2, k1 = e^{-3/RT}, k2 = e^{-10/RT}; C_A is the positive root of V k1 C_A^2 + (1 + V k2)
    C_A - 1 = 0 and C_B = V k1 C_A^2. The region that is asked for is the disk of radius .08 around
    (.58, .30); the default goal is its centre, `disk` gives more targets.
    """

    def __init__(self) -> None:
        centre = torch.tensor(_CENTRE, dtype=torch.float64)
        self.y_space = Space.of(C_A=(0.0, 1.0), C_B=(0.0, 1.0))
        super().__init__(
            "cstr_mapping",
            Space.of(R=(0.1, 3.0), RT=(0.1, 15.0)),
            self.y_space,
            {
                name: {"equals": value, "tolerance": 0.01}
                for name, value in zip(self.y_space.names, _CENTRE, strict=True)
            },
            default_rows=1024,
            answers=(Answer(self.inverse(centre), centre, 1.0, "centre of the disk"),),
            description="Designs of a stirred tank whose outlet lies in a disk of compositions.",
            citation="Alves and Kitchin, Generative approaches to optimization (2025)",
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The outlet.

        Args:
            x: radii and thermal energies (..., 2).

        Returns:
            Concentrations (..., 2) of A and B.
        """
        radius, thermal = self.columns(x)
        volume = math.pi * radius**2
        quadratic = volume * torch.exp(-3.0 / thermal)
        linear = 1.0 + volume * torch.exp(-10.0 / thermal)
        # the root in the form that does not subtract nearly equal numbers
        c_a = 2.0 / (linear + torch.sqrt(linear**2 + 4.0 * quadratic))
        return torch.stack([c_a, quadratic * c_a**2], -1)

    def inverse(self, y: Tensor) -> Tensor:
        """The one design with a wanted outlet.

        With q = [(1-C_A-C_B)/C_A] / [C_B/C_A^2] = k2/k1: RT = -7 / ln q and R = sqrt(C_B / (C_A^2
        k1 pi)).

        Args:
            y: concentrations (..., 2).

        Returns:
            Designs (..., 2), NaN where no design of any size has that outlet; they need not lie in
            the x Space.
        """
        c_a, c_b = self.y_space.check(y, "y").to(torch.float64).unbind(-1)
        ratio = (1.0 - c_a - c_b) * c_a / c_b
        possible = (c_a > 0.0) & (c_b > 0.0) & (ratio > 0.0) & (ratio < 1.0)
        thermal = -7.0 / torch.log(torch.where(possible, ratio, torch.nan))
        radius = torch.sqrt(c_b / (c_a**2 * torch.exp(-3.0 / thermal) * math.pi))
        return torch.stack([radius, thermal], -1)

    def disk(self, n: int, seed: int = 0) -> Tensor:
        """Targets of the disk, uniform: a batch of goals.

        Args:
            n: number of targets.
            seed: seed of the draw.

        Returns:
            Concentrations (n, 2).

        Raises:
            GenoptError: if n is negative.
        """
        if n < 0:
            raise GenoptError(f"cstr_mapping: n must not be negative, got {n}")
        generator = torch.Generator().manual_seed(seed)
        unit = torch.rand(n, 2, dtype=torch.float64, generator=generator)
        distance, angle = _RADIUS * unit[:, 0].sqrt(), 2.0 * math.pi * unit[:, 1]
        offset = torch.stack([distance * angle.cos(), distance * angle.sin()], -1)
        return offset.new_tensor(_CENTRE) + offset

    def in_disk(self, y: Tensor) -> Tensor:
        """Whether outlets lie in the disk that is asked for.

        Args:
            y: concentrations (..., 2).

        Returns:
            bool (...).
        """
        y = self.y_space.check(y, "y").to(torch.float64)
        return (y - y.new_tensor(_CENTRE)).norm(dim=-1) <= _RADIUS
