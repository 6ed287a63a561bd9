"""Ordered classes: one score and ordered thresholds between the classes.

The cumulative logit model (McCullagh 1980): P(class > k) is the logistic function of score minus
threshold k. One number orders all designs, so fewer labels are needed than for free logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.blocks import mlp
from genopt.nn.heads.base import Head, HeadKind, masked_mean
from genopt.nn.labels import check_codes


class OrdinalHead(Head):
    """Probabilities of ordered classes; labels are codes 0 to C-1 in their order.

    Args:
        latent_dim: width of the latent vector H.
        num_classes: number of classes C.
        hidden_dims: widths of layers before the score.
        activation: the activation of these layers.
        dropout: share of units of these layers that are dropped in training.

    Raises:
        GenoptError: if there are fewer than two classes.
    """

    kind: ClassVar[HeadKind] = "class"
    first: Tensor
    log_gaps: Tensor

    def __init__(
        self,
        latent_dim: int,
        num_classes: int,
        hidden_dims: Sequence[int] = (),
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise GenoptError(f"num_classes must be at least 2, got {num_classes}")
        self.dim = int(num_classes)
        self.label_width = 1
        self.network = mlp([latent_dim, *hidden_dims, 1], activation, dropout)
        self.shift = nn.Parameter(torch.zeros(1))
        self.stretch = nn.Parameter(torch.zeros(self.dim - 2))
        self.register_buffer("first", torch.zeros(1))
        self.register_buffer("log_gaps", torch.zeros(self.dim - 2))

    @property
    def thresholds(self) -> Tensor:
        """Increasing thresholds (C-1,): those of the class frequencies, shifted and stretched."""
        gaps = (self.log_gaps + self.stretch).exp()
        return torch.cat([self.first + self.shift, gaps]).cumsum(0)

    def log_probability(self, latent: Tensor) -> Tensor:
        """Log class probabilities, exact also where a probability underflows.

        With a and b the upper and lower threshold minus the score, the probability between them is
        s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), s the logistic function: no difference of numbers
        near one.

        Args:
            latent: latent vectors (..., H).

        Returns:
            Log probabilities (..., C).
        """
        log_sigmoid = nn.functional.logsigmoid
        above = self.thresholds - self.network(latent)
        under = nn.functional.pad(log_sigmoid(above), (0, 1))
        over = nn.functional.pad(log_sigmoid(-above), (1, 0))
        gaps = (self.log_gaps + self.stretch).exp()
        between = nn.functional.pad((-torch.expm1(-gaps)).log(), (1, 1))
        return under + over + between

    def forward(self, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Class probabilities.

        Args:
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.

        Returns:
            Probabilities (..., C), summing to one.
        """
        return self.log_probability(latent).to(dtype or latent.dtype).softmax(-1)

    def check(self, labels: Tensor, name: str) -> None:
        """Refuse labels that are no codes, or of one class only.

        Args:
            labels: codes (N, 1); NaN where an entry is missing.
            name: the caller's name for them, for messages.
        """
        check_codes(labels, self.dim, name)

    def learn(self, labels: Tensor) -> None:
        """Start from thresholds that give each class its share of the labels.

        Args:
            labels: codes (N, 1); NaN where an entry is missing.
        """
        codes = labels[~torch.isnan(labels)].long()
        # half a label more in each class keeps the thresholds of an empty one apart
        count = torch.bincount(codes, minlength=self.dim).to(torch.float64) + 0.5
        start = torch.logit((count.cumsum(0) / count.sum())[:-1])
        self.first.copy_(start[:1])
        self.log_gaps.copy_(start.diff().log())

    def loss(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """Cross-entropy over the known labels.

        Args:
            latent: latent vectors (N, H).
            targets: codes (N, 1); NaN where an entry is missing.
            features: scaled designs (N, E), not used.

        Returns:
            Scalar.
        """
        known = ~torch.isnan(targets)
        codes = torch.where(known, targets, 0.0).long()
        return masked_mean(-self.log_probability(latent).gather(-1, codes), known)
