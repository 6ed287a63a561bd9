"""Embeddings of time: a number in [0, 1] as a vector that a small network can read sharply."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimeFeatures(nn.Module):
    """Time as itself and as sines and cosines of pi f t for f = 1, ..., F.

    Args:
        frequencies: number of frequencies F; the features are 2 F + 1 wide.
    """

    frequency: Tensor

    def __init__(self, frequencies: int = 8) -> None:
        super().__init__()
        scale = math.pi * torch.arange(1, frequencies + 1, dtype=torch.float32)
        self.register_buffer("frequency", scale, persistent=False)
        self.dim = 2 * frequencies + 1

    def forward(self, t: Tensor) -> Tensor:
        """Features of times.

        Args:
            t: times (...).

        Returns:
            Features (..., 2 F + 1).
        """
        t = t.unsqueeze(-1)
        angle = t * self.frequency
        return torch.cat([t, torch.sin(angle), torch.cos(angle)], -1)
