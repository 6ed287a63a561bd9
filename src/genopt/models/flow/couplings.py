"""Couplings: which noise is paired with which data when a flow is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Coupling(Protocol):
    """A coupling draws the noise; data and conditions never move."""

    def noise(
        self, x_1: Tensor, condition: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Noise (N, U) for data (N, U) under conditions (N, D)."""
        ...


@dataclass(frozen=True)
class IndependentCoupling:
    """Noise that knows nothing of the data.

    Pairing by optimal transport within a mini-batch is tempting, but when it ignores the condition
    the flow no longer samples p(x | y).
    """

    def noise(
        self, x_1: Tensor, condition: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Standard normal noise.

        Args:
            x_1: data (N, U).
            condition: conditions (N, D); not looked at.
            generator: source of randomness, on the data's device.

        Returns:
            Noise (N, U).
        """
        return torch.randn(x_1.shape, generator=generator, dtype=x_1.dtype, device=x_1.device)
