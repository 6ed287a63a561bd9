"""Plug flow: the rate constants of A -> B -> C from what leaves the reactor, a smooth inverse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.errors import UnknownNameError
from genopt.problems.base import Answer, Problem
from genopt.space import Space, Variable

_CASES = {"S1": (0.02, 0.05), "S2": (0.02, 0.65)}
_K_RANGE = (0.1, 3.0)
_RESIDENCE = 2.0
_SERIES_BELOW = 0.03


class PlugFlow(Problem):
    """Rate constants (k1, k2) of A -> B -> C from the flows of A and B at a reactor's exit.

    F_A = e^{-2 k1} and F_B = k1/(k2-k1) (e^{-2 k1} - e^{-2 k2}), for a unit inlet of pure A.

    Args:
        case: which exit flows (F_A, F_B) are wanted: ``S1`` is (.02, .05), ``S2`` is (.02, .65).

    Raises:
        UnknownNameError: if there is no such case.
    """

    def __init__(self, case: str = "S1") -> None:
        if case not in _CASES:
            raise UnknownNameError("case of plug_flow", case, _CASES)
        self.case = case
        flow_a, flow_b = _CASES[case]
        super().__init__(
            "plug_flow",
            Space((Variable("k1", *_K_RANGE), Variable("k2", *_K_RANGE))),
            Space((Variable("F_A", 0.0, 1.0), Variable("F_B", 0.0, 1.0))),
            {
                "F_A": {"equals": flow_a, "tolerance": 2e-3},
                "F_B": {"equals": flow_b, "tolerance": 2e-3},
            },
            default_rows=256,
            answers=(_answer(flow_a, flow_b),),
            description="Rate constants of A -> B -> C from the flows that leave the reactor.",
            citation="Alves and Kitchin, Generative approaches to optimization (2025)",
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The exit flows.

        With d = k2 - k1 the flow of B is 2 k1 e^{-(k1+k2)} sinh(d)/d, which has no singularity at
        k1 = k2.

        Args:
            x: rate constants (..., 2).

        Returns:
            Exit flows (..., 2) of A and B.
        """
        k1, k2 = self.columns(x)
        flow_a = torch.exp(-_RESIDENCE * k1)
        half = 0.5 * _RESIDENCE
        flow_b = _RESIDENCE * k1 * torch.exp(-half * (k1 + k2)) * _sinhc(half * (k2 - k1))
        return torch.stack([flow_a, flow_b], -1)


def _sinhc(d: Tensor) -> Tensor:
    """sinh(d)/d with finite values and gradients at d = 0."""
    small = d.abs() < _SERIES_BELOW
    safe = torch.where(small, 1.0, d)
    series = 1.0 + d**2 / 6.0 * (1.0 + d**2 / 20.0 * (1.0 + d**2 / 42.0))
    return torch.where(small, series, torch.sinh(safe) / safe)


def _answer(flow_a: float, flow_b: float) -> Answer:
    """The one pair of constants: k1 in closed form, then k2 by bisection, as F_B falls with k2."""
    k1 = -math.log(flow_a) / _RESIDENCE

    def exit_b(k2: float) -> float:
        return k1 / (k2 - k1) * (flow_a - math.exp(-_RESIDENCE * k2))

    low, high = _K_RANGE
    while (middle := 0.5 * (low + high)) not in (low, high):
        low, high = (middle, high) if exit_b(middle) > flow_b else (low, middle)
    x = torch.tensor([k1, low], dtype=torch.float64)
    return Answer(x, torch.tensor([flow_a, flow_b], dtype=torch.float64), 1.0, "exact")
