"""Test functions with one column to minimise, a known optimum and, if wanted, a random place of it.

An optimum at the middle of the box flatters whatever starts there; a random shift moves it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.base import Answer, Problem
from genopt.space import Space

_SHARE = 0.5


class ShiftedFunction(Problem):
    """A function f of d numbers in a box, to be minimised.

    A subclass gives `value`, the function before the shift.

    Args:
        name: short name.
        bounds: the box, a pair for each variable.
        optima: where the function is smallest before the shift (M, d).
        least: its value there.
        largest: about the largest value in the box, the upper bound of f.
        shift_seed: moves the optima at random, each coordinate by up to half of the way from the
            first optimum to the nearer bound (or, for an optimum on a bound, not at all); None to
            leave them.
        description: one or two sentences.
        citation: where it comes from.

    Raises:
        GenoptError: if there is no variable.
    """

    def __init__(
        self,
        name: str,
        bounds: list[tuple[float, float]],
        optima: Tensor,
        least: float,
        largest: float,
        shift_seed: int | None,
        description: str,
        citation: str,
    ) -> None:
        space = Space.from_bounds(bounds)
        self.shift = torch.zeros(space.dim, dtype=torch.float64)
        if shift_seed is not None:
            generator = torch.Generator().manual_seed(shift_seed)
            draw = 2.0 * torch.rand(space.dim, generator=generator, dtype=torch.float64) - 1.0
            room = torch.minimum(optima[0] - space.lower, space.upper - optima[0])
            self.shift = _SHARE * room * draw
        optima = optima.to(torch.float64) + self.shift
        inside = optima[space.contains(optima)]
        super().__init__(
            name,
            space,
            Space.of(f=(least, largest)),
            {"f": "min"},
            answers=[
                Answer(x, torch.tensor([least], dtype=torch.float64), 1.0 / len(inside), "minimum")
                for x in inside
            ],
            description=description,
            citation=citation,
        )

    def value(self, x: Tensor) -> Tensor:
        """The function before the shift.

        Args:
            x: points (..., d), float64.

        Returns:
            f (...).

        Raises:
            GenoptError: if the subclass does not bring it.
        """
        raise GenoptError(f"{type(self).__name__} has no method value(x)")

    def simulate(self, x: Tensor) -> Tensor:
        """The function with its optimum at its shifted place.

        Args:
            x: points (..., d).

        Returns:
            f (..., 1).
        """
        points = torch.stack(self.columns(x), -1)
        return self.value(points - self.shift)[..., None]


def check_dimension(name: str, dimension: int, least: int = 1) -> None:
    """Refuse a dimension for which a function is not defined.

    Args:
        name: the problem's name.
        dimension: d.
        least: smallest d.

    Raises:
        GenoptError: if it is smaller.
    """
    if dimension < least:
        raise GenoptError(f"{name}: dimension must be at least {least}, got {dimension}")
