"""Blocks that encoders and heads are made of: activations, plain layers, residual layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from genopt.errors import GenoptError, UnknownNameError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
}


def activation(name: str) -> nn.Module:
    """A new activation module.

    Args:
        name: ``silu``, ``gelu``, ``tanh``, ``relu`` or ``softplus``; a smooth one gives a search
            useful gradients.

    Returns:
        The module.

    Raises:
        UnknownNameError: if the name is unknown.
    """
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def mlp(
    sizes: Sequence[int], act: str = "silu", dropout: float = 0.0, linear_output: bool = True
) -> nn.Sequential:
    """A multilayer perceptron.

    Args:
        sizes: widths of input, hidden layers and output.
        act: the activation after each hidden layer.
        dropout: share of hidden units that are dropped in training.
        linear_output: whether the last layer has no activation.

    Returns:
        The layers.

    Raises:
        GenoptError: if a width is not positive or the dropout not in [0, 1).
    """
    check_sizes(sizes, dropout)
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(fan_in, fan_out))
        if linear_output and i == len(sizes) - 2:
            break
        layers.append(activation(act))
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def check_sizes(sizes: Sequence[int], dropout: float = 0.0) -> None:
    """Refuse widths and dropout shares that make no network.

    Args:
        sizes: widths of layers.
        dropout: share of dropped units.

    Raises:
        GenoptError: if a width is not positive or the dropout not in [0, 1).
    """
    if any(size < 1 for size in sizes):
        raise GenoptError(f"layer widths must be positive, got {list(sizes)}")
    if not 0.0 <= dropout < 1.0:
        raise GenoptError(f"dropout must lie in [0, 1), got {dropout}")


class ResidualBlock(nn.Module):
    """x + W2 act(W1 norm(x)): a pre-norm residual layer.

    The last weights start at zero, so a deep stack begins as the identity.

    Args:
        width: width of input and output.
        act: the activation.
        dropout: share of hidden units that are dropped in training.
    """

    def __init__(self, width: int, act: str = "silu", dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.act = activation(act)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output.

        Args:
            x: activations (..., width).

        Returns:
            Activations (..., width).
        """
        return x + self.outer(self.dropout(self.act(self.inner(self.norm(x)))))
