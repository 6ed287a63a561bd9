"""Class properties: probabilities from logits, cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.blocks import mlp
from genopt.nn.heads.base import Head, HeadKind
from genopt.nn.labels import check_codes


class ClassificationHead(Head):
    """Class probabilities from logits; labels are codes 0 to C-1.

    Args:
        latent_dim: width of the latent vector H.
        num_classes: number of classes C.
        class_weights: None, a weight for each class, or ``balanced`` (inverse frequency in the
            training labels).
        hidden_dims: widths of layers before the logits.
        activation: the activation of these layers.
        dropout: share of units of these layers that are dropped in training.

    Raises:
        GenoptError: if there are fewer than two classes or the weights do not fit them.
    """

    kind: ClassVar[HeadKind] = "class"
    weights: Tensor

    def __init__(
        self,
        latent_dim: int,
        num_classes: int,
        class_weights: Sequence[float] | Literal["balanced"] | None = None,
        hidden_dims: Sequence[int] = (),
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise GenoptError(f"num_classes must be at least 2, got {num_classes}")
        if isinstance(class_weights, str) and class_weights != "balanced":
            raise GenoptError(
                f"class_weights must be a list of numbers or 'balanced', got {class_weights!r}"
            )
        self.dim = int(num_classes)
        self.label_width = 1
        self.balanced = class_weights == "balanced"
        self.network = mlp([latent_dim, *hidden_dims, self.dim], activation, dropout)
        weights = torch.ones(self.dim)
        if class_weights is not None and not isinstance(class_weights, str):
            weights = torch.tensor([float(w) for w in class_weights])
            if len(weights) != self.dim or bool((weights < 0).any()):
                raise GenoptError(
                    f"class_weights needs {self.dim} numbers >= 0, got {list(class_weights)}"
                )
        self.register_buffer("weights", weights)

    def forward(self, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Class probabilities.

        Args:
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.

        Returns:
            Probabilities (..., C).
        """
        return self.network(latent).to(dtype or latent.dtype).softmax(-1)

    def log_probability(self, latent: Tensor) -> Tensor:
        """Log class probabilities, exact also where a probability underflows.

        Args:
            latent: latent vectors (..., H).

        Returns:
            Log probabilities (..., C).
        """
        return self.network(latent).log_softmax(-1)

    def check(self, labels: Tensor, name: str) -> None:
        """Refuse labels that are no codes, or of one class only.

        Args:
            labels: codes (N, 1); NaN where an entry is missing.
            name: the caller's name for them, for messages.
        """
        check_codes(labels, self.dim, name)

    def learn(self, labels: Tensor) -> None:
        """Take balanced class weights from labels, where they are asked for.

        Args:
            labels: codes (N, 1); NaN where an entry is missing.
        """
        if self.balanced:
            codes = labels[~torch.isnan(labels)].long()
            count = torch.bincount(codes, minlength=self.dim).to(torch.float64)
            weights = count.sum() / (self.dim * count.clamp_min(1.0))
            self.weights.copy_(weights)

    def targets(self, labels: Tensor) -> Tensor:
        """What the loss compares with: the codes.

        Args:
            labels: codes (N, 1); NaN where an entry is missing.

        Returns:
            Codes (N, 1) in the dtype of the network.
        """
        return labels.to(self.weights.dtype)

    def loss(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """Class-weighted cross-entropy over the known labels.

        Args:
            latent: latent vectors (N, H).
            targets: codes (N, 1); NaN where an entry is missing.
            features: scaled designs (N, E), not used.

        Returns:
            Scalar.
        """
        known = ~torch.isnan(targets[:, 0])
        codes = torch.where(known, targets[:, 0], 0.0).long()
        entropy = nn.functional.cross_entropy(self.network(latent), codes, reduction="none")
        weight = torch.where(known, self.weights[codes], 0.0)
        return (weight * entropy).sum() / weight.sum().clamp_min(1e-12)

    def mass(self, targets: Tensor) -> Tensor:
        """What the loss divides by.

        Args:
            targets: codes (N, 1); NaN where an entry is missing.

        Returns:
            Scalar: the weights of the known labels, summed.
        """
        known = ~torch.isnan(targets[:, 0])
        codes = torch.where(known, targets[:, 0], 0.0).long()
        return torch.where(known, self.weights[codes], 0.0).sum()
