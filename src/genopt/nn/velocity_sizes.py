"""Named sizes of the velocity network, by the number of columns of x and of the condition.

`small` is for tables below 5 columns, `medium` for 5 to 20, `large` for more. They take the
arguments of `genopt.nn.velocity.AdaLNVelocity`, whose sizes they set.
"""

from __future__ import annotations

from functools import partial

from genopt.nn.velocity import AdaLNVelocity

_SMALL_BELOW = 5
_MEDIUM_TO = 20

small = partial(AdaLNVelocity, width=64, depth=3, embedding=64)
medium = partial(AdaLNVelocity, width=96, depth=3, embedding=64)
large = partial(AdaLNVelocity, width=128, depth=4, embedding=128)


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
