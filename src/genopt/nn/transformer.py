"""A transformer whose tokens are the columns of a design, with smooth activations.

The FT-Transformer of Gorishniy et al. 2021 (arXiv 2106.11959); the last block works out the summary
token only, which is all that is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.blocks import activation as activation_of
from genopt.nn.blocks import check_sizes


class FeatureTokens(nn.Module):
    """A vector for each column: its value times a learned direction, plus a learned offset.

    A class column's direction is the weighted sum over its block of classes, so that a relaxed
    one-hot block lies between its classes.

    Args:
        classes: for each of the P columns the number of its classes; 0 for a number.
        width: width of a token.
    """

    columns: Tensor

    def __init__(self, classes: Sequence[int], width: int) -> None:
        super().__init__()
        column = [i for i, c in enumerate(classes) for _ in range(max(1, c))]
        self.plain = not any(classes)
        self.directions = nn.Parameter(torch.empty(len(column), width))
        self.offsets = nn.Parameter(torch.empty(len(classes), width))
        blocks = nn.functional.one_hot(torch.tensor(column), len(classes)).T.to(torch.float32)
        self.register_buffer("columns", blocks, persistent=False)
        for weights in (self.directions, self.offsets):
            nn.init.uniform_(weights, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, features: Tensor) -> Tensor:
        """Tokens of the columns.

        Args:
            features: scaled designs (N, E), classes as (relaxed) one-hot blocks.

        Returns:
            Tokens (N, P, width).
        """
        if self.plain:
            return features.unsqueeze(-1) * self.directions + self.offsets
        masked = self.columns * features.unsqueeze(-2)
        return masked @ self.directions + self.offsets


class AttentionBlock(nn.Module):
    """Pre-norm attention among tokens, then a pre-norm layer on each of them.

    Args:
        width: width of a token.
        n_heads: number of attention heads.
        hidden: width of the layer on each token.
        activation: its activation.
        dropout: share of its units that are dropped in training.
        only_first: whether only the first token is worked out, as the last block needs.
    """

    def __init__(
        self,
        width: int,
        n_heads: int,
        hidden: int,
        activation: str = "silu",
        dropout: float = 0.0,
        only_first: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.only_first = only_first
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.merge = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, hidden)
        self.act = activation_of(activation)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(hidden, width)
        for last in (self.merge, self.outer):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """The block's output.

        Args:
            tokens: tokens (N, L, width).

        Returns:
            Tokens (N, L, width), or (N, 1, width) where only the first is worked out.
        """
        normed = self.attention_norm(tokens)
        if self.only_first:
            tokens = tokens[:, :1]
        query = self._split(self.query(normed[:, : tokens.shape[1]]))
        key, value = (self._split(part) for part in self.key_value(normed).chunk(2, -1))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.merge(mixed.transpose(1, 2).flatten(2))
        hidden = self.dropout(self.act(self.inner(self.layer_norm(tokens))))
        return tokens + self.outer(hidden)

    def _split(self, tokens: Tensor) -> Tensor:
        """(N, L, width) to (N, heads, L, width / heads)."""
        return tokens.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class TransformerEncoder(nn.Module):
    """Attention among the columns of a design; a summary token becomes the latent vector.

    Args:
        input_dim: number of features E.
        classes: for each design column the number of its classes, 0 for a number; None for numbers
            only.
        latent_dim: width of the latent vector H.
        width: width of a token.
        n_blocks: number of attention blocks.
        n_heads: attention heads of a block; they share the width.
        hidden: width of the layer on each token; None for twice the width.
        activation: the activation of these layers.
        dropout: share of their units that are dropped in training.

    Raises:
        GenoptError: if there is no block, the heads do not divide the width, or the classes do not
            fit the features.
    """

    def __init__(
        self,
        input_dim: int,
        classes: Sequence[int] | None = None,
        latent_dim: int = 64,
        width: int = 64,
        n_blocks: int = 2,
        n_heads: int = 4,
        hidden: int | None = None,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = 2 * width if hidden is None else hidden
        check_sizes([input_dim, latent_dim, width, n_heads, hidden], dropout)
        if n_blocks < 1:
            raise GenoptError(f"n_blocks must be positive, got {n_blocks}")
        if width % n_heads:
            raise GenoptError(f"n_heads={n_heads} must divide width={width}")
        classes = [0] * input_dim if classes is None else [int(c) for c in classes]
        if sum(max(1, c) for c in classes) != input_dim:
            raise GenoptError(f"classes={classes} do not make input_dim={input_dim} features")
        self.latent_dim = latent_dim
        self.tokens = FeatureTokens(classes, width)
        self.summary = nn.Parameter(torch.empty(1, width))
        nn.init.uniform_(self.summary, -1 / math.sqrt(width), 1 / math.sqrt(width))
        self.blocks = nn.Sequential(
            *(
                AttentionBlock(width, n_heads, hidden, activation, dropout, i == n_blocks - 1)
                for i in range(n_blocks)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, latent_dim)

    def forward(self, features: Tensor) -> Tensor:
        """The latent vectors.

        Args:
            features: scaled designs (..., E).

        Returns:
            Latent vectors (..., H).
        """
        rows = features.reshape(-1, features.shape[-1])
        summary = self.summary.expand(len(rows), 1, -1)
        tokens = self.blocks(torch.cat([summary, self.tokens(rows)], 1))
        latent: Tensor = self.project(self.norm(tokens[:, 0]))
        return latent.reshape(*features.shape[:-1], self.latent_dim)
