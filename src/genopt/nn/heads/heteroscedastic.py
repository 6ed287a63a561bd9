"""Real-valued properties whose noise depends on the design: a mean and a variance.

The plain Gaussian likelihood divides each error by the predicted variance, so a network may give up
on hard rows by calling them noisy. The loss here multiplies each row's term by its variance to the
power beta, held constant (Seitzer et al. 2022, arXiv 2203.09168): beta 0 is the likelihood, beta 1
has the gradients of squared errors for the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.blocks import mlp
from genopt.nn.heads.base import Head, masked_mean
from genopt.nn.scalers import Standardiser

# of labels scaled to unit spread: standard deviations from .0025 to 7.4
_LOWEST, _HIGHEST = -12.0, 4.0


class HeteroscedasticHead(Head):
    """A mean and a standard deviation for each output.

    Args:
        latent_dim: width of the latent vector H.
        dim: number of outputs T; a vector property has more than one.
        beta: power of the variance that weighs each row's likelihood in training, 0 to 1.
        hidden_dims: widths of layers before the output.
        activation: the activation of these layers.
        dropout: share of units of these layers that are dropped in training.

    Raises:
        GenoptError: if beta is outside [0, 1].
    """

    has_noise: ClassVar[bool] = True

    def __init__(
        self,
        latent_dim: int,
        dim: int = 1,
        beta: float = 0.5,
        hidden_dims: Sequence[int] = (),
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0.0 <= beta <= 1.0:
            raise GenoptError(f"beta must lie in [0, 1], got {beta}")
        self.dim = self.label_width = int(dim)
        self.beta = float(beta)
        self.network = mlp([latent_dim, *hidden_dims, 2 * self.dim], activation, dropout)
        self.scaler = Standardiser(self.dim)

    @property
    def unit(self) -> Tensor:
        """Training spread (T,) of each output, float64."""
        return self.scaler.scale.to(torch.float64)

    def moments(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled means and log variances; the latter approach their bounds smoothly.

        Args:
            latent: latent vectors (..., H).

        Returns:
            Means (..., T) and log variances (..., T).
        """
        mean, raw = self.network(latent).chunk(2, -1)
        softplus = nn.functional.softplus
        below = _HIGHEST - softplus(_HIGHEST - raw)
        return mean, _LOWEST + softplus(below - _LOWEST)

    def forward(self, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Means in raw units.

        Args:
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.

        Returns:
            Properties (..., T).
        """
        return self.scaler.inverse(self.moments(latent)[0], dtype)

    def noise(self, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Standard deviations in raw units.

        Args:
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.

        Returns:
            Standard deviations (..., T).
        """
        spread = (0.5 * self.moments(latent)[1]).exp()
        spread = spread.to(dtype or spread.dtype)
        return self.scaler.scale.to(spread) * spread

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
        """Mean negative log-likelihood of the known entries; weighted with beta in training only.

        Without the weights the loss of held-out rows says which epoch was best.

        Args:
            latent: latent vectors (N, H).
            targets: scaled labels (N, T); NaN where an entry is missing.
            features: scaled designs (N, E), not used.

        Returns:
            Scalar.
        """
        known = ~torch.isnan(targets)
        mean, log_variance = self.moments(latent)
        error = torch.where(known, targets, 0.0) - mean
        nll = 0.5 * (log_variance + error.square() * (-log_variance).exp() + math.log(2 * math.pi))
        if self.training and self.beta:
            nll = nll * (self.beta * log_variance.detach()).exp()
        return masked_mean(nll, known)
