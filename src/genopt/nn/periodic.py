"""An encoder that sees waves: each column as itself and as sines and cosines of it.

A perceptron learns slow changes first and may never find a property that rises and falls several
times over one column. With sines of learned frequencies beside each column (Gorishniy, Rubachev and
Babenko 2022, arXiv 2203.05556) it does. There the columns as they are give way to the waves; here
both are seen and the waves begin small, so that few rows are still explained by slow changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.blocks import check_sizes, mlp

# the share of the waves at the start: what is learned at 1 from a few hundred rows is noise
_SMALL = 0.1


class PeriodicEncoder(nn.Module):
    """A multilayer perceptron on columns and waves of columns.

    Args:
        input_dim: number of features E.
        latent_dim: width of the latent vector H.
        hidden_dims: widths of the layers before it.
        frequencies: waves F of each feature; their frequencies are learned.
        sigma: standard deviation of the frequencies at the start, in periods per standard deviation
            of a column; large values see finer waves and need more rows.
        width: numbers in which the 2 F sines and cosines of a feature are summed up.
        activation: the activation after every layer.
        dropout: share of units that are dropped in training.

    Raises:
        GenoptError: if a size is not positive or the dropout not in [0, 1).
    """

    def __init__(
        self,
        input_dim: int,
        latent_dim: int = 64,
        hidden_dims: Sequence[int] = (128, 128),
        frequencies: int = 8,
        sigma: float = 1.0,
        width: int = 4,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes([input_dim, latent_dim, frequencies, width], dropout)
        if not sigma > 0.0:
            raise GenoptError(f"sigma must be positive, got {sigma}")
        self.latent_dim = latent_dim
        self.frequency = nn.Parameter(sigma * torch.randn(input_dim, frequencies))
        start = _SMALL / math.sqrt(2 * frequencies)
        self.weight = nn.Parameter(start * torch.randn(input_dim, 2 * frequencies, width))
        sizes = [input_dim * (1 + width), *hidden_dims, latent_dim]
        self.layers = mlp(sizes, activation, dropout, linear_output=False)

    def forward(self, features: Tensor) -> Tensor:
        """The latent vectors.

        Args:
            features: scaled designs (..., E).

        Returns:
            Latent vectors (..., H).
        """
        angle = 2.0 * math.pi * features.unsqueeze(-1) * self.frequency
        waves = torch.cat([angle.sin(), angle.cos()], -1)
        seen = torch.einsum("...ef,efw->...ew", waves, self.weight)
        return self.layers(torch.cat([features, seen.flatten(-2)], -1))
