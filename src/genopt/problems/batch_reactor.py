"""Batch reactor: the time of the best yield of B in A -> B -> C, asked for as a zero of dC_B/dt.

The derivative also tends to zero in the long tail, where nothing is optimal: a false mode for
models that are smooth where they should be sharp.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.base import Answer, Problem
from genopt.space import Space, Variable

_T_RANGE = (0.1, 20.0)


class BatchReactor(Problem):
    """Time t of the largest C_B = C_A0 k1/(k2-k1) (e^{-k1 t} - e^{-k2 t}).

    y is dC_B/dt. The answer is t = ln(k1/k2)/(k1-k2). In the tail dC_B/dt rises to zero from below
    (-.006 at t = 20), three times the goal's tolerance.

    Args:
        k1: rate constant of A -> B per minute.
        k2: rate constant of B -> C per minute.
        inlet: C_A0, the concentration of A at the start in mol/L.

    Raises:
        GenoptError: if a number is not positive or k1 equals k2.
    """

    def __init__(self, k1: float = 0.5, k2: float = 0.2, inlet: float = 1.0) -> None:
        if min(k1, k2, inlet) <= 0.0 or k1 == k2:
            raise GenoptError(
                f"batch_reactor: k1={k1:g}, k2={k2:g} and inlet={inlet:g} must be positive, and "
                "k1 and k2 must differ"
            )
        self.k1, self.k2, self.inlet = k1, k2, inlet
        best = math.log(k1 / k2) / (k1 - k2)
        inside = _T_RANGE[0] <= best <= _T_RANGE[1]
        # dC_B/dt falls until 2 t*, then rises
        turning = [t for t in (*_T_RANGE, 2.0 * best) if _T_RANGE[0] <= t <= _T_RANGE[1]]
        slopes = self._slope(torch.tensor(turning, dtype=torch.float64))
        super().__init__(
            "batch_reactor",
            Space((Variable("t", *_T_RANGE, "min"),)),
            Space((Variable("dCB_dt", float(slopes.min()), float(slopes.max()), "mol/L/min"),)),
            {"dCB_dt": {"equals": 0.0, "tolerance": 2e-3}},
            default_rows=200,
            answers=(
                Answer(
                    torch.tensor([best], dtype=torch.float64),
                    torch.zeros(1, dtype=torch.float64),
                    1.0,
                    "best yield",
                ),
            )
            if inside
            else (),
            description="Time of the best yield of B in a batch reactor with A -> B -> C.",
            citation="Alves and Kitchin, Generative approaches to optimization (2025)",
        )

    def simulate(self, x: Tensor) -> Tensor:
        """How fast the concentration of B changes.

        Args:
            x: times (..., 1).

        Returns:
            dC_B/dt (..., 1).
        """
        (time,) = self.columns(x)
        return self._slope(time).unsqueeze(-1)

    def concentration(self, x: Tensor) -> Tensor:
        """The concentration of B, the yield that is to be large.

        Args:
            x: times (..., 1).

        Returns:
            C_B (...).
        """
        (time,) = self.columns(x)
        return self._factor() * (torch.exp(-self.k1 * time) - torch.exp(-self.k2 * time))

    def _slope(self, time: Tensor) -> Tensor:
        first = self.k1 * torch.exp(-self.k1 * time)
        second = self.k2 * torch.exp(-self.k2 * time)
        return self._factor() * (second - first)

    def _factor(self) -> float:
        return self.inlet * self.k1 / (self.k2 - self.k1)
