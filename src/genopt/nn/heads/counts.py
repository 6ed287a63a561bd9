"""Counts: non-negative integers with Poisson noise around a rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.nn.blocks import mlp
from genopt.nn.heads.base import Head, masked_mean

# the log rate may leave that of the mean count by so much: a factor of 3,000 either way
_REACH = 8.0


class CountHead(Head):
    """The expected count of each output, through a log link.

    Args:
        latent_dim: width of the latent vector H.
        dim: number of outputs T.
        hidden_dims: widths of layers before the output.
        activation: the activation of these layers.
        dropout: share of units of these layers that are dropped in training.
    """

    has_noise: ClassVar[bool] = True
    log_mean: Tensor
    scale: Tensor
    weight: Tensor

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
        self.register_buffer("log_mean", torch.zeros(self.dim))
        self.register_buffer("scale", torch.ones(self.dim))
        self.register_buffer("weight", torch.ones(self.dim))

    @property
    def unit(self) -> Tensor:
        """Training spread (T,) of each output, float64."""
        return self.scale.to(torch.float64)

    def log_rate(self, latent: Tensor) -> Tensor:
        """Logarithms of the expected counts.

        Args:
            latent: latent vectors (..., H).

        Returns:
            Log rates (..., T).
        """
        return self.log_mean + _REACH * torch.tanh(self.network(latent) / _REACH)

    def forward(self, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Expected counts.

        Args:
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.

        Returns:
            Rates (..., T).
        """
        return self.log_rate(latent).to(dtype or latent.dtype).exp()

    def noise(self, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Standard deviations of counts: the square root of the rate.

        Args:
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.

        Returns:
            Standard deviations (..., T).
        """
        return (0.5 * self.log_rate(latent)).to(dtype or latent.dtype).exp()

    def check(self, labels: Tensor, name: str) -> None:
        """Refuse labels that are no counts, and warn of constant ones.

        Args:
            labels: raw labels (N, T), at least one of them known.
            name: the caller's name for them, for messages.

        Raises:
            GenoptError: if a label is negative or has a fraction.
        """
        known = labels[~torch.isnan(labels)]
        wrong = (known < 0) | (known != known.round())
        if bool(wrong.any()):
            raise GenoptError(
                f"{name} holds {float(known[wrong][0]):g}, which is no count: a count head takes "
                "integers from 0; use a regression head for other numbers"
            )
        super().check(labels, name)

    def learn(self, labels: Tensor) -> None:
        """Take mean and spread from labels.

        Args:
            labels: counts (N, T); NaN where an entry is missing.
        """
        known = ~torch.isnan(labels)
        n = known.sum(0).clamp_min(1)
        filled = torch.where(known, labels, 0.0).to(torch.float64)
        # half a count more keeps the logarithm finite where all are zero
        mean = (filled.sum(0) + 0.5) / n
        variance = torch.where(known, filled - filled.sum(0) / n, 0.0).square().sum(0) / n
        self.log_mean.copy_(mean.log())
        self.scale.copy_(torch.where(variance > 0, variance, mean).sqrt())
        self.weight.copy_(2.0 * mean / torch.maximum(variance, mean))

    def loss(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """Mean Poisson deviance over the known labels, in the units of a squared scaled error.

        The deviance is twice the log-likelihood lost against the best rate of each label. Near the
        mean m it is squared error / m; multiplied by m / spread^2 it is of the size of other heads'
        losses, whatever the size of the counts.

        Args:
            latent: latent vectors (N, H).
            targets: counts (N, T); NaN where an entry is missing.
            features: scaled designs (N, E), not used.

        Returns:
            Scalar.
        """
        known = ~torch.isnan(targets)
        count = torch.where(known, targets, 0.0)
        log_rate = self.log_rate(latent)
        lost = log_rate.exp() - count + torch.xlogy(count, count) - count * log_rate
        return masked_mean(self.weight * lost, known)
