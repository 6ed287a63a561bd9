"""Encoders: features of a design to a latent vector that all heads share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.blocks import ResidualBlock, check_sizes, mlp
from genopt.nn.scalers import InputScaler

ENCODERS = {
    "mlp": "genopt.nn.encoders.MLPEncoder",
    "residual": "genopt.nn.encoders.ResidualEncoder",
    "periodic": "genopt.nn.periodic.PeriodicEncoder",
    "transformer": "genopt.nn.transformer.TransformerEncoder",
}


class MLPEncoder(nn.Module):
    """A plain multilayer perceptron.

    Args:
        input_dim: number of features E.
        latent_dim: width of the latent vector H.
        hidden_dims: widths of the layers before it.
        activation: the activation after every layer.
        dropout: share of units that are dropped in training.
    """

    def __init__(
        self,
        input_dim: int,
        latent_dim: int = 64,
        hidden_dims: Sequence[int] = (128, 128),
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.layers = mlp(
            [input_dim, *hidden_dims, latent_dim], activation, dropout, linear_output=False
        )

    def forward(self, features: Tensor) -> Tensor:
        """The latent vectors.

        Args:
            features: scaled designs (..., E).

        Returns:
            Latent vectors (..., H).
        """
        return self.layers(features)


class ResidualEncoder(nn.Module):
    """A lift, a stack of pre-norm residual layers, and a projection to the latent vector.

    Args:
        input_dim: number of features E.
        latent_dim: width of the latent vector H.
        width: width of the residual stream.
        n_blocks: number of residual layers.
        activation: the activation inside the layers.
        dropout: share of units that are dropped in training.

    Raises:
        GenoptError: if there is no layer.
    """

    def __init__(
        self,
        input_dim: int,
        latent_dim: int = 64,
        width: int = 128,
        n_blocks: int = 3,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes([input_dim, latent_dim, width], dropout)
        if n_blocks < 1:
            raise GenoptError(f"n_blocks must be positive, got {n_blocks}")
        self.latent_dim = latent_dim
        self.lift = nn.Linear(input_dim, width)
        self.blocks = nn.Sequential(
            *(ResidualBlock(width, activation, dropout) for _ in range(n_blocks))
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
        return self.project(self.norm(self.blocks(self.lift(features))))


class TabularEncoder(nn.Module):
    """Designs in raw units to (features, latent): the scaler and the network in one module.

    Args:
        scaler: raw designs to features.
        network: features to latent vectors.
    """

    def __init__(self, scaler: InputScaler, network: nn.Module) -> None:
        super().__init__()
        self.scaler = scaler
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features and latent vectors of designs.

        Args:
            x: designs (..., P) in raw units.

        Returns:
            Features (..., E) and latent vectors (..., H); the second feeds the heads.
        """
        return self.from_wide(self.scaler.wide(x))

    def from_wide(self, wide: Tensor) -> tuple[Tensor, Tensor]:
        """The same for designs whose classes are (relaxed) one-hot blocks.

        Args:
            wide: wide designs (..., E).

        Returns:
            Features (..., E) and latent vectors (..., H).
        """
        features = self.scaler(wide)
        return features, self.network(features)
