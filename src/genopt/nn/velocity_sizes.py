"""Named sizes of the velocity network, by the number of columns of x and of the condition."""

from __future__ import annotations

from genopt.nn.velocity import AdaLNVelocity

_SMALL_BELOW = 5
_MEDIUM_TO = 20


def small(
    x_dim: int,
    condition_dim: int,
    width: int = 64,
    depth: int = 3,
    embedding: int = 64,
    frequencies: int = 8,
    dropout: float = 0.0,
) -> AdaLNVelocity:
    """The network for tables below 5 columns.

    Args:
        x_dim: width U of the points.
        condition_dim: width of the condition vector.
        width: width of the blocks.
        depth: number of residual blocks.
        embedding: width of the embedding that drives the blocks.
        frequencies: frequencies of the time features.
        dropout: share of hidden units that are dropped in training.

    Returns:
        The network.
    """
    return AdaLNVelocity(x_dim, condition_dim, width, depth, embedding, frequencies, dropout)


def medium(
    x_dim: int,
    condition_dim: int,
    width: int = 96,
    depth: int = 3,
    embedding: int = 64,
    frequencies: int = 8,
    dropout: float = 0.0,
) -> AdaLNVelocity:
    """The network for tables of 5 to 20 columns.

    Args:
        x_dim: width U of the points.
        condition_dim: width of the condition vector.
        width: width of the blocks.
        depth: number of residual blocks.
        embedding: width of the embedding that drives the blocks.
        frequencies: frequencies of the time features.
        dropout: share of hidden units that are dropped in training.

    Returns:
        The network.
    """
    return AdaLNVelocity(x_dim, condition_dim, width, depth, embedding, frequencies, dropout)


def large(
    x_dim: int,
    condition_dim: int,
    width: int = 128,
    depth: int = 4,
    embedding: int = 128,
    frequencies: int = 8,
    dropout: float = 0.0,
) -> AdaLNVelocity:
    """The network for tables of more than 20 columns.

    Args:
        x_dim: width U of the points.
        condition_dim: width of the condition vector.
        width: width of the blocks.
        depth: number of residual blocks.
        embedding: width of the embedding that drives the blocks.
        frequencies: frequencies of the time features.
        dropout: share of hidden units that are dropped in training.

    Returns:
        The network.
    """
    return AdaLNVelocity(x_dim, condition_dim, width, depth, embedding, frequencies, dropout)


def auto(
    x_dim: int, condition_dim: int, frequencies: int = 8, dropout: float = 0.0
) -> AdaLNVelocity:
    """`small`, `medium` or `large`, by the number of columns.

    A condition vector has a value and a mask entry for each column, so half of it counts.

    Args:
        x_dim: width U of the points.
        condition_dim: width of the condition vector.
        frequencies: frequencies of the time features.
        dropout: share of hidden units that are dropped in training.

    Returns:
        The network.
    """
    columns = x_dim + condition_dim / 2
    size = small if columns < _SMALL_BELOW else medium if columns <= _MEDIUM_TO else large
    return size(x_dim, condition_dim, frequencies=frequencies, dropout=dropout)
