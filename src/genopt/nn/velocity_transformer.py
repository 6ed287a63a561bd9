"""A velocity network whose tokens are the columns of the point and of the condition."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.embeddings import TimeFeatures

_MODULATIONS = 6


class TransformerVelocity(nn.Module):
    """Attention from the columns of x to one another and to the columns of the condition.

    Each column is a token, its value times a learned direction plus an offset. Blocks are those of
    a diffusion transformer (Peebles and Xie, arXiv 2212.09748): layer norms shifted, scaled and
    gated by time and condition, starting as the identity; the output starts at zero. The condition
    does not change along a solve, so `embed` works out its keys and values for every block.

    Args:
        x_dim: width U of the points.
        condition_dim: width D of the condition vector.
        width: width of a token.
        depth: number of blocks.
        n_heads: attention heads of a block; they share the width.
        embedding: width of the embedding that drives the blocks.
        frequencies: frequencies of the time features.
        dropout: share of the hidden units of a token's layer that are dropped in training.

    Raises:
        GenoptError: if a size is not positive, the heads do not divide the width or dropout is not
            in [0, 1).
    """

    def __init__(
        self,
        x_dim: int,
        condition_dim: int,
        width: int = 32,
        depth: int = 2,
        n_heads: int = 4,
        embedding: int = 64,
        frequencies: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = {
            "width": width,
            "depth": depth,
            "n_heads": n_heads,
            "embedding": embedding,
            "frequencies": frequencies,
        }
        if min(x_dim, *sizes.values()) < 1 or not 0 <= dropout < 1:
            given = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise GenoptError(f"network: {given} must be positive, dropout={dropout} in [0, 1)")
        if width % n_heads:
            raise GenoptError(f"network: n_heads={n_heads} must divide width={width}")
        self.width = width
        self.depth = depth
        self.n_heads = n_heads
        self.embedding = embedding
        self.condition_dim = condition_dim
        self.time_features = TimeFeatures(frequencies)
        self.embed_time = nn.Sequential(
            nn.Linear(self.time_features.dim, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.embed_condition = nn.Sequential(
            nn.Linear(condition_dim, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.x_tokens = _Tokens(x_dim, width)
        self.condition_tokens = _Tokens(condition_dim, width)
        self.condition_layer = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        self.condition_norm = nn.LayerNorm(width)
        self.condition_keys = nn.Linear(width, 2 * width * depth)
        self.modulation = nn.Linear(embedding, (_MODULATIONS * depth + 2) * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.query_key_value = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.merge = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, 2 * width),
                nn.SiLU(),
                nn.Dropout(dropout),
                nn.Linear(2 * width, width),
            )
            for _ in range(depth)
        )
        self.write = nn.Parameter(torch.zeros(x_dim, width))
        self.offset = nn.Parameter(torch.zeros(x_dim))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def embed(self, condition: Tensor) -> Tensor:
        """Keys and values of the condition's columns for every block, and their common summary.

        Args:
            condition: condition vectors (..., D).

        Returns:
            Embeddings (..., E).
        """
        tokens = self.condition_tokens(condition)
        tokens = self.condition_norm(tokens + self.condition_layer(tokens))
        return torch.cat(
            [self.embed_condition(condition), self.condition_keys(tokens).flatten(-2)], -1
        )

    def forward(self, x: Tensor, t: Tensor, embedded: Tensor) -> Tensor:
        """Velocities.

        Args:
            x: points (..., U).
            t: times, of a shape that broadcasts with ``x.shape[:-1]``.
            embedded: what `embed` returned, (..., E), broadcast in the same way.

        Returns:
            Velocities (..., U).
        """
        summary, keys = embedded[..., : self.embedding], embedded[..., self.embedding :]
        each = 2 * self.width
        outside = keys.unflatten(-1, (self.condition_dim, each * self.depth)).split(each, -1)
        drive = nn.functional.silu(summary + self.embed_time(self.time_features(t)))
        parts = self.modulation(drive).unsqueeze(-2).split(self.width, -1)
        h = self.x_tokens(x)
        for i in range(self.depth):
            shift, scale, gate, shift_2, scale_2, gate_2 = parts[
                _MODULATIONS * i : _MODULATIONS * (i + 1)
            ]
            h = h + gate * self._attend(i, self._normed(h, shift, scale), outside[i])
            h = h + gate_2 * self.layers[i](self._normed(h, shift_2, scale_2))
        h = self._normed(h, *parts[-2:])
        return (h * self.write).sum(-1) + self.offset

    def _normed(self, h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return torch.addcmul(shift, self.norm(h), 1.0 + scale)

    def _attend(self, block: int, h: Tensor, outside: Tensor) -> Tensor:
        """Attention of the tokens (..., U, W) to themselves and to the condition (..., D, 2 W)."""
        query, *own = (
            self._heads(part) for part in self.query_key_value[block](h).split(self.width, -1)
        )
        given = [self._heads(part) for part in outside.split(self.width, -1)]
        # two products side by side: joining the tokens would copy the condition's for every row
        score = torch.cat([query @ own[0].mT, query @ given[0].mT], -1)
        share = torch.softmax(score / math.sqrt(query.shape[-1]), -1)
        inner, outer = share.split((h.shape[-2], self.condition_dim), -1)
        mixed = inner @ own[1] + outer @ given[1]
        merged: Tensor = self.merge[block](mixed.transpose(-3, -2).flatten(-2))
        return merged

    def _heads(self, tokens: Tensor) -> Tensor:
        """(..., L, W) to (..., heads, L, W / heads)."""
        return tokens.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2)


class _Tokens(nn.Module):
    """One token for each number: the number times a direction, plus an offset."""

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.empty(columns, width))
        self.offsets = nn.Parameter(torch.empty(columns, width))
        for weights in (self.directions, self.offsets):
            nn.init.uniform_(weights, -1.0, 1.0)

    def forward(self, values: Tensor) -> Tensor:
        return torch.addcmul(self.offsets, values.unsqueeze(-1), self.directions)
