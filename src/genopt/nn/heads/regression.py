"""Real-valued properties: a linear output layer and squared errors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genopt.nn.blocks import mlp
from genopt.nn.heads.base import Head, masked_mean
from genopt.nn.scalers import Standardiser


class RegressionHead(Head):
    """Real-valued properties with a linear output layer.

    Args:
        latent_dim: width of the latent vector H.
        dim: number of outputs T; a vector property has more than one.
        hidden_dims: widths of layers before the output.
        activation: the activation of these layers.
        dropout: share of units of these layers that are dropped in training.
    """

    def __init__(
        self,
        latent_dim: int,
        dim: int = 1,
        hidden_dims: Sequence[int] = (),
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim = self.label_width = int(dim)
        self.network = mlp([latent_dim, *hidden_dims, self.dim], activation, dropout)
        self.scaler = Standardiser(self.dim)

    @property
    def unit(self) -> Tensor:
        """Training spread (T,) of each output, float64."""
        return self.scaler.scale.to(torch.float64)

    def forward(self, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Properties in raw units.

        Args:
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.

        Returns:
            Properties (..., T).
        """
        return self.scaler.inverse(self.network(latent), dtype)

    def learn(self, labels: Tensor) -> None:
        """Take the scale from labels.

        Args:
            labels: raw labels (N, T); NaN where an entry is missing.
        """
        self.scaler.learn(labels)

    def targets(self, labels: Tensor) -> Tensor:
        """What the loss compares with: scaled labels.

        Args:
            labels: raw labels (N, T).

        Returns:
            Scaled labels (N, T); NaN stays NaN.
        """
        return self.scaler(labels)

    def loss(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """Mean squared scaled error over the known entries.

        Args:
            latent: latent vectors (N, H).
            targets: scaled labels (N, T); NaN where an entry is missing.
            features: scaled designs (N, E), not used.

        Returns:
            Scalar.
        """
        known = ~torch.isnan(targets)
        error = self.network(latent) - torch.where(known, targets, 0.0)
        return masked_mean(error.square(), known)
