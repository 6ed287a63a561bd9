"""The design itself from its latent vector, so that a search may walk in latent space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from genopt.nn.blocks import mlp
from genopt.nn.heads.base import Head, HeadKind
from genopt.nn.scalers import InputScaler


class AutoencoderHead(Head):
    """The design itself, from its latent vector.

    Args:
        latent_dim: width of the latent vector H.
        classes: for each of the P design columns the number of its classes; 0 for a number.
        hidden_dims: widths of layers before the output.
        activation: the activation of these layers.
        dropout: share of units of these layers that are dropped in training.
    """

    kind: ClassVar[HeadKind] = "design"

    def __init__(
        self,
        latent_dim: int,
        classes: Sequence[int],
        hidden_dims: Sequence[int] = (128,),
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.scaler = InputScaler(classes)
        self.dim = len(self.scaler.classes)
        self.label_width = 0
        self.network = mlp([latent_dim, *hidden_dims, self.scaler.wide_dim], activation, dropout)

    def forward(self, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Designs in raw units; a class column holds the code of the largest entry of its block.

        Args:
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.

        Returns:
            Designs (..., P).
        """
        return self.scaler.raw(self.wide(latent, dtype))

    def wide(self, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Designs whose classes are relaxed one-hot blocks; differentiable throughout.

        Args:
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.

        Returns:
            Wide designs (..., E).
        """
        return self.scaler.inverse(self.network(latent), dtype)

    def learn_designs(self, x: Tensor) -> None:
        """Take the scale from designs.

        Args:
            x: designs (N, P).
        """
        self.scaler.learn_designs(x)

    def loss(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """Mean squared error of the features.

        Args:
            latent: latent vectors (N, H).
            targets: not used; a reconstruction has no labels (N, 0).
            features: scaled designs (N, E).

        Returns:
            Scalar.
        """
        return (self.network(latent) - features).square().mean()

    def mass(self, targets: Tensor) -> Tensor:
        """What the loss divides by, up to a constant.

        Args:
            targets: no labels (N, 0).

        Returns:
            Scalar: the number of rows.
        """
        return torch.tensor(float(len(targets)), device=targets.device)
