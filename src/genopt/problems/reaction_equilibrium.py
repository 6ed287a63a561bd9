"""Reaction equilibrium: the extent of A + B <=> 2 C, kept inside (0, 1) by a log barrier.

A minimum is asked for as a zero of a derivative, of a function whose barrier moves the answer by
5e-5 from the true equilibrium.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.base import Answer, Problem
from genopt.problems.roots import root_shares, simple_roots
from genopt.space import Space, Variable

_EXTENT = (0.02, 0.98)


class ReactionEquilibrium(Problem):
    """Extent xi where phi' = 0, phi = f^2 - mu ln xi - mu ln(1-xi), f = K (1-xi)^2 - 4 xi^2.

    The equilibrium itself, f = 0, is `equilibrium`: sqrt(K)/(2 + sqrt(K)).

    Args:
        constant: the equilibrium constant K.
        barrier: mu, the strength of the barrier.
        objective: the property is f^2, to be made least, instead of phi': a routine that finds
            stationary points then brings a barrier of its own and drives it to zero.

    Raises:
        GenoptError: if a number is not positive.
    """

    def __init__(
        self, constant: float = 1.0, barrier: float = 1e-3, objective: bool = False
    ) -> None:
        if min(constant, barrier) <= 0.0:
            raise GenoptError(
                f"reaction_equilibrium: constant={constant:g} and barrier={barrier:g} must be "
                "positive"
            )
        self.constant, self.barrier, self.objective = constant, barrier, objective
        self.equilibrium = math.sqrt(constant) / (2.0 + math.sqrt(constant))
        grid = torch.linspace(*_EXTENT, 100_001, dtype=torch.float64)
        if objective:
            name, values = "imbalance", self._imbalance(grid).square()
            goal: dict[str, Any] = {name: "min"}
            roots, shares = torch.tensor([self.equilibrium], dtype=torch.float64), [1.0]
        else:
            name, values = "dphi", self._slope(grid)
            goal = {name: {"equals": 0.0, "tolerance": 5e-3}}
            roots = simple_roots(self._slope, *_EXTENT)
            shares = root_shares(self._slope, roots).tolist()
        lowest = 0.0 if objective else float(values.min())
        super().__init__(
            "reaction_equilibrium",
            Space((Variable("xi", *_EXTENT),)),
            Space((Variable(name, lowest, float(values.max())),)),
            goal,
            default_rows=2000,
            answers=tuple(
                Answer(
                    torch.tensor([xi], dtype=torch.float64),
                    torch.zeros(1, dtype=torch.float64),
                    share,
                    f"xi = {xi:.4f}",
                )
                for xi, share in zip(roots.tolist(), shares, strict=True)
            ),
            description="Extent of reaction at the equilibrium of A + B <=> 2 C.",
            citation="Alves and Kitchin, Generative approaches to optimization (2025)",
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The derivative of the barrier function, or the objective.

        Args:
            x: extents (..., 1).

        Returns:
            phi' (..., 1); f^2 where the objective is the property.
        """
        (extent,) = self.columns(x)
        found = self._imbalance(extent).square() if self.objective else self._slope(extent)
        return found.unsqueeze(-1)

    def _imbalance(self, xi: Tensor) -> Tensor:
        return self.constant * (1.0 - xi) ** 2 - 4.0 * xi**2

    def _slope(self, xi: Tensor) -> Tensor:
        imbalance = self._imbalance(xi)
        falling = -2.0 * self.constant * (1.0 - xi) - 8.0 * xi
        return 2.0 * imbalance * falling - self.barrier / xi + self.barrier / (1.0 - xi)
