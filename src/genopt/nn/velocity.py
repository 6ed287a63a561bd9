"""The velocity network of a flow, v(x, t | condition): a residual MLP driven by time and condition.

A network splits its work in two, `embed` for what depends on the condition alone and `forward` for
the rest, so that a solver embeds the conditions once and not once a step. Others with the same two
methods lie beside this file: `velocity_concat` and `velocity_transformer`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.embeddings import TimeFeatures

_FOLD_FROM = 4


class AdaLNVelocity(nn.Module):
    """Residual MLP whose layer norms are shifted, scaled and gated by time and condition.

    This is adaLN-zero (Peebles and Xie, arXiv 2212.09748) on vectors: every block starts as the
    identity and the output starts at zero, so training begins at a known map. The condition is also
    read by the first layer, beside the points, and a gated shortcut leads from there to the output:
    a layer norm hides how large its input is, which a velocity depends on.

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
        self.modulation = nn.Linear(embedding, (3 * depth + 3) * width)
        self.read = nn.Linear(x_dim, width)
        # modulation alone learns slowly how a wide condition moves the designs
        self.read_condition = nn.Linear(condition_dim, width, bias=False)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)
            )
            for _ in range(depth)
        )
        self.write = nn.Linear(width, x_dim)
        self.shortcut = nn.Linear(width, x_dim, bias=False)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():
            # shift 0, scale 1, gate 0 for each block; shift 0, scale 1 before the output, gate 1
            for i in range(depth + 1):
                self.modulation.bias[(3 * i + 1) * width : (3 * i + 2) * width] = 1.0
            self.modulation.bias[-width:] = 1.0
        nn.init.zeros_(self.shortcut.weight)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def embed(self, condition: Tensor) -> Tensor:
        """The part that depends on the condition alone.

        Args:
            condition: condition vectors (..., D).

        Returns:
            Embeddings (..., E).
        """
        return torch.cat([self.embed_condition(condition), self.read_condition(condition)], -1)

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
        driving, entry = embedded.tensor_split((embedded.shape[-1] - self.width,), -1)
        drive = nn.functional.silu(driving + self.embed_time(self.time_features(t)))
        if self._folds(x, drive):
            return self._folded(x, drive, entry)
        parts = self.modulation(drive).split(self.width, -1)
        first = h = self.read(x) + entry
        for i, block in enumerate(self.blocks):
            shift, scale, gate = parts[3 * i : 3 * i + 3]
            h = torch.addcmul(h, gate, block(torch.addcmul(shift, self.norm(h), scale)))
        shift, scale, gate = parts[-3:]
        out: Tensor = self.write(torch.addcmul(shift, self.norm(h), scale))
        return out + self.shortcut(gate * first)

    def _folds(self, x: Tensor, drive: Tensor) -> bool:
        """Whether many rows share their time and condition and no gradient is wanted."""
        return (
            not torch.is_grad_enabled()
            and not self.training
            and not torch.is_autocast_enabled(x.device.type)
            and x.ndim == drive.ndim > 1
            and drive.shape[-2] == 1
            and drive.shape[:-2] == x.shape[:-2]
            and x.shape[-2] >= _FOLD_FROM * self.width
        )

    def _folded(self, x: Tensor, drive: Tensor, entry: Tensor) -> Tensor:
        """`forward` with the modulation folded into the weights: half the passes over the rows.

        With every writer to h centred over its features a layer norm is a division by the root
        mean square, which commutes with the next matrix.
        """
        shape = x.shape
        x = x.reshape(-1, *shape[-2:])
        # (C, 1, W) each; they are the same for all n rows of a condition
        parts = self.modulation(drive.reshape(len(x), 1, -1)).split(self.width, -1)
        start = self.read.bias + entry.reshape(len(x), 1, -1)
        reader = _centred(self.read.weight, 0).T.expand(len(x), -1, -1)
        h = torch.baddbmm(_centred(start), x, reader)
        for i, block in enumerate(self.blocks):
            shift, scale, gate = parts[3 * i : 3 * i + 3]
            layers: Any = block
            inner, outer = layers[0], layers[-1]
            bias = nn.functional.linear(shift, inner.weight, inner.bias)
            hidden = torch.bmm(h, inner.weight.T * scale.mT)
            hidden = torch.addcmul(bias, hidden, self._over_rms(h), out=hidden)
            nn.functional.silu(hidden, inplace=True)
            h.add_(_centred(outer.bias * gate))
            h.baddbmm_(hidden, _centred(outer.weight.T * gate))
        shift, scale, gate = parts[-3:]
        bias = nn.functional.linear(shift, self.write.weight, self.write.bias)
        out = torch.bmm(h, self.write.weight.T * scale.mT)
        out = torch.addcmul(bias, out, self._over_rms(h))
        # the shortcut is one small matrix for each condition
        short = gate.mT * self.shortcut.weight.T
        out = out + torch.baddbmm(torch.bmm(start, short), x, self.read.weight.T @ short)
        return out.reshape(*shape[:-1], -1)

    def _over_rms(self, h: Tensor) -> Tensor:
        square = torch.linalg.vector_norm(h, dim=-1, keepdim=True).square_()
        return square.div_(self.width).add_(self.norm.eps).rsqrt_()


def _centred(weight: Tensor, dim: int = -1) -> Tensor:
    return weight - weight.mean(dim, keepdim=True)
