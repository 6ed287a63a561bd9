"""Heads: a latent vector to one property, each with its own scaling, loss and label mask.

A head called on a latent vector gives what a user reads (raw units, probabilities, designs);
`network` gives the scaled outputs that losses and searches compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.blocks import mlp
from genopt.nn.scalers import InputScaler, Standardiser

HEADS = {
    "regression": "genopt.nn.heads.RegressionHead",
    "classification": "genopt.nn.heads.ClassificationHead",
    "autoencoder": "genopt.nn.heads.AutoencoderHead",
}


def masked_mean(values: Tensor, known: Tensor) -> Tensor:
    """Mean over the known entries; zero, with zero gradient, where there is none.

    Args:
        values: entries of any shape; those not known may be NaN only if they carry no gradient.
        known: bool of the same shape.

    Returns:
        Scalar.
    """
    return torch.where(known, values, 0.0).sum() / known.sum().clamp_min(1)


class RegressionHead(nn.Module):
    """Real-valued properties with a linear output layer.

    Args:
        latent_dim: width of the latent vector H.
        dim: number of outputs T; a vector property has more than one.
        hidden_dims: widths of layers before the output.
        activation: the activation of these layers.
        dropout: share of units of these layers that are dropped in training.
    """

    label_width: int

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


class ClassificationHead(nn.Module):
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


class AutoencoderHead(nn.Module):
    """The design itself, from its latent vector.

    Args:
        latent_dim: width of the latent vector H.
        classes: for each of the P design columns the number of its classes; 0 for a number.
        hidden_dims: widths of layers before the output.
        activation: the activation of these layers.
        dropout: share of units of these layers that are dropped in training.
    """

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
