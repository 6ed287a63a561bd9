"""The plainest velocity network: one MLP on point, time and condition side by side."""

from __future__ import annotations

from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.embeddings import TimeFeatures


class ConcatVelocity(nn.Module):
    """An MLP on [x, time features, condition].

    The first layer's product with the condition is `embed`, so a solver works it out once.

    Args:
        x_dim: width U of the points.
        condition_dim: width of the condition vector.
        width: width of the hidden layers.
        depth: number of hidden layers.
        frequencies: frequencies of the time features.
        dropout: share of hidden units that are dropped in training.

    Raises:
        GenoptError: if a size is not positive or dropout is not in [0, 1).
    """

    def __init__(
        self,
        x_dim: int,
        condition_dim: int,
        width: int = 128,
        depth: int = 4,
        frequencies: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(x_dim, width, depth, frequencies) < 1 or not 0 <= dropout < 1:
            raise GenoptError(
                f"network: width={width}, depth={depth} and frequencies={frequencies} must be "
                f"positive, dropout={dropout} in [0, 1)"
            )
        self.x_dim = x_dim
        self.time_features = TimeFeatures(frequencies)
        self.features = x_dim + self.time_features.dim
        self.first = nn.Linear(self.features + condition_dim, width)
        layers: list[nn.Module] = [nn.SiLU(), nn.Dropout(dropout)]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.write = nn.Linear(width, x_dim)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def embed(self, condition: Tensor) -> Tensor:
        """The first layer's share of the condition.

        Args:
            condition: condition vectors (..., D).

        Returns:
            Embeddings (..., E).
        """
        return nn.functional.linear(
            condition, self.first.weight[:, self.features :], self.first.bias
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
        on_x, on_t, _ = self.first.weight.tensor_split((self.x_dim, self.features), 1)
        drive = embedded + nn.functional.linear(self.time_features(t), on_t)
        out: Tensor = self.write(self.hidden(nn.functional.linear(x, on_x) + drive))
        return out
