"""What every head has in common, and the mean over labels that are there.

A head called on a latent vector gives what a user reads (raw units, probabilities, designs);
losses compare scaled outputs with scaled labels, NaN where there is no label.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.labels import read_labels, warn_constant_labels

HeadKind = Literal["number", "class", "design"]


def masked_mean(values: Tensor, known: Tensor) -> Tensor:
    """Mean over the known entries; zero, with zero gradient, where there is none.

    Args:
        values: entries of any shape; those not known may be NaN only if they carry no gradient.
        known: bool of the same shape.

    Returns:
        Scalar.
    """
    return torch.where(known, values, 0.0).sum() / known.sum().clamp_min(1)


class Head(nn.Module):
    """A latent vector to one property, with its own scale and loss.

    A head of one's own sets ``dim`` and ``label_width``, and defines ``forward`` and ``loss``.

    Attributes:
        kind: ``number`` (raw units), ``class`` (probabilities) or ``design`` (a reconstruction).
        has_noise: whether `noise` says anything.
        dim: outputs T of ``forward``.
        label_width: label columns; 0 where there are no labels.
        learned: whether the model has let it take its scale from labels.
        enabled: whether the model trains and predicts the head.
        frozen: whether its weights are held.
    """

    kind: ClassVar[HeadKind] = "number"
    has_noise: ClassVar[bool] = False
    dim: int
    label_width: int
    learned: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.frozen = False
        self.register_buffer("learned", torch.zeros((), dtype=torch.bool))

    @property
    def unit(self) -> Tensor:
        """Training spread (T,) of each output, float64; 1 where there is no scale."""
        return torch.ones(self.dim, dtype=torch.float64, device=self.learned.device)

    def noise(self, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor | None:
        """Standard deviation of the noise of a label, in raw units.

        Args:
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.

        Returns:
            Standard deviations (..., T); None where the head has no opinion.
        """
        del latent, dtype
        return None

    def log_probability(self, latent: Tensor) -> Tensor:
        """Log class probabilities; only heads of the kind ``class`` have them.

        Args:
            latent: latent vectors (..., H).

        Returns:
            Log probabilities (..., C).

        Raises:
            GenoptError: if the head gives no classes.
        """
        del latent
        raise GenoptError(f"a {type(self).__name__} gives no class probabilities")

    def read(self, labels: Any, n: int, name: str) -> Tensor:
        """Labels in the form that the head learns from.

        Args:
            labels: what a fit was given for the head, as a tensor: (N, L), or (N,) where L is one.
            n: number of rows N.
            name: the caller's name for them, for messages.

        Returns:
            Labels (N, L), float64; NaN where an entry is missing.
        """
        return read_labels(labels, n, self.label_width, name)

    def check(self, labels: Tensor, name: str) -> None:
        """Refuse labels that the head cannot learn from, and warn of constant ones.

        Args:
            labels: raw labels (N, L), at least one of them known.
            name: the caller's name for them, for messages.
        """
        warn_constant_labels(labels, name)

    def learn(self, labels: Tensor) -> None:
        """Take the scale from labels.

        Args:
            labels: raw labels (N, L); NaN where an entry is missing.
        """

    def targets(self, labels: Tensor) -> Tensor:
        """What the loss compares with.

        Args:
            labels: raw labels (N, L).

        Returns:
            Scaled labels (N, L), float32; NaN stays NaN.
        """
        return labels.to(torch.float32)

    def loss(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """The mean loss over the known entries.

        Args:
            latent: latent vectors (N, H).
            targets: what `targets` gave (N, L); NaN where an entry is missing.
            features: scaled designs (N, E).

        Returns:
            Scalar.
        """
        raise TypeError(f"{type(self).__name__} must define loss")
