"""Velocity networks: the learned part of a flow, v(x, t | condition).

A network splits its work in two, `embed` for what depends on the condition alone and `forward` for
the rest, so that a solver embeds the conditions once and not once a step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.embeddings import TimeFeatures


class AdaLNVelocity(nn.Module):
    """Residual MLP whose layer norms are shifted, scaled and gated by time and condition.

    This is adaLN-zero (Peebles and Xie, arXiv 2212.09748) on vectors: every block starts as the
    identity and the output starts at zero, so training begins at a known map.

    Args:
        x_dim: width U of the points.
        condition_dim: width of the condition vector.
        width: width of the blocks.
        depth: number of residual blocks.
        embedding: width of the embedding that drives the blocks.
        frequencies: frequencies of the time features.
        dropout: share of hidden units that are dropped in training.

    Raises:
        GenoptError: if a size is not positive or dropout is not in [0, 1).
    """

    def __init__(
        self,
        x_dim: int,
        condition_dim: int,
        width: int = 64,
        depth: int = 3,
        embedding: int = 64,
        frequencies: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(x_dim, width, depth, embedding, frequencies) < 1 or not 0 <= dropout < 1:
            raise GenoptError(
                f"network: width={width}, depth={depth}, embedding={embedding} and "
                f"frequencies={frequencies} must be positive, dropout={dropout} in [0, 1)"
            )
        self.width = width
        self.depth = depth
        self.time_features = TimeFeatures(frequencies)
        self.embed_time = nn.Sequential(
            nn.Linear(self.time_features.dim, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.embed_condition = nn.Sequential(
            nn.Linear(condition_dim, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, embedding),
        )
        self.modulation = nn.Linear(embedding, (3 * depth + 2) * width)
        self.read = nn.Linear(x_dim, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)
            )
            for _ in range(depth)
        )
        self.write = nn.Linear(width, x_dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():
            # shift 0, scale 1, gate 0 for each block; shift 0, scale 1 before the output
            for i in range(depth + 1):
                self.modulation.bias[(3 * i + 1) * width : (3 * i + 2) * width] = 1.0
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def embed(self, condition: Tensor) -> Tensor:
        """The part that depends on the condition alone.

        Args:
            condition: condition vectors (..., D).

        Returns:
            Embeddings (..., E).
        """
        embedded: Tensor = self.embed_condition(condition)
        return embedded

    def forward(self, x: Tensor, t: Tensor, embedded: Tensor) -> Tensor:
        """Velocities.

        Args:
            x: points (..., U).
            t: times, of a shape that broadcasts with ``x.shape[:-1]``.
            embedded: what `embed` returned, (..., E), broadcast in the same way; rows that share a
                condition may share one embedding.

        Returns:
            Velocities (..., U).
        """
        drive = nn.functional.silu(embedded + self.embed_time(self.time_features(t)))
        parts = self.modulation(drive).split(self.width, -1)
        h = self.read(x)
        for i, block in enumerate(self.blocks):
            shift, scale, gate = parts[3 * i : 3 * i + 3]
            h = torch.addcmul(h, gate, block(torch.addcmul(shift, self.norm(h), scale)))
        shift, scale = parts[-2:]
        out: Tensor = self.write(torch.addcmul(shift, self.norm(h), scale))
        return out
