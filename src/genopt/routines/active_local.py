"""Designs near the best row, once the search of the whole Space finds nothing better.

Where a few columns must still move by a little, a model of all rows has lost the detail: a second
Gaussian process, of the nearest rows alone and in their own units, looks into a box around the best
row whose sides are the spread of the best rows. The box grows with success and shrinks without
(Eriksson et al. 2019, arXiv 1910.01739, TuRBO).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from genopt.routines.active_pool import Region

_BEST_ROWS = 2
_LEAST_WIDTH, _MOST_WIDTH = 1e-9, 1.6
# rows nearer to each other than this share of the box say the same
_CELL = 0.05
_WIDEST, _NARROWEST, _FIRST = 8.0, 0.5, 4.0
_SUCCESSES = 2
_BETTER = 1e-3
_FORTH, _BACK, _MOST = 0.25, 0.1, 0.8


@dataclass(frozen=True)
class Stance:
    """How much of a batch is chosen near the best row, and in how wide a box.

    Args:
        share: the share of the batch; none while the search of the whole Space improves.
        factor: how many spreads of the best rows the box is wide.
        opened: how often the box has opened again since the last success.
    """

    share: float
    factor: float
    opened: int

    @classmethod
    def of(cls, value: list[float]) -> Stance:
        """Read off how a run went; every round without success moves more of the next one near.

        Args:
            value: the best value after each round, lower is better (T,).

        Returns:
            The stance for the next round.
        """
        share, factor, successes, opened = 0.0, _FIRST, 0, 0
        for before, after in pairwise(value):
            better = after < before - _BETTER * abs(before)
            successes = successes + 1 if better else 0
            # a box that was not looked into has neither failed nor succeeded
            if share and successes == _SUCCESSES:
                factor, successes = min(2.0 * factor, _WIDEST), 0
            elif share and not better and factor > _NARROWEST:
                factor /= 2.0
            elif share and not better:
                factor, opened = _WIDEST, opened + 1
            opened = 0 if better else opened
            share = max(share - _BACK, 0.0) if better else min(share + _FORTH, _MOST)
        return cls(share, factor, opened)


def region(x: Tensor, value: Tensor, width: Tensor, factor: float, least: float) -> Region:
    """The box around the best row.

    Args:
        x: measured designs (N, P).
        value: what they are worth, lower is better (N,).
        width: widths of the columns (P,).
        factor: how many spreads of the best rows the box is wide.
        least: the least width of its sides, as a share of the columns'.

    Returns:
        The best row (1, P) and the box's widths (P,), as shares of the columns'.
    """
    order = value.argsort(stable=True)
    best = x[order[: max(_BEST_ROWS * x.shape[-1], 8)]]
    away = (best - best[0]).square().mean(0).sqrt() / width
    return best[:1], (factor * away).clamp(max(least, _LEAST_WIDTH), _MOST_WIDTH)


def nearest_rows(x: Tensor, value: Tensor, around: Region, width: Tensor, count: int) -> Tensor:
    """The rows that say most of the box: the nearest different ones, in its own units.

    Args:
        x: measured designs (N, P).
        value: what they are worth (N,).
        around: the box.
        width: widths of the columns (P,).
        count: how many.

    Returns:
        Row numbers (at most count,).
    """
    centre, share = around
    away = (x - centre) / (width * share)
    kept = distinct_rows(away, value, _CELL)
    return kept[away[kept].square().mean(-1).argsort(stable=True)[:count]].sort().values


def distinct_rows(x: Tensor, value: Tensor, cell: float) -> Tensor:
    """The best row of each cell of a grid: a search that came to rest leaves many alike.

    Args:
        x: designs (N, P).
        value: what they are worth, lower is better (N,).
        cell: width of the cells.

    Returns:
        Row numbers, ascending.
    """
    order = value.argsort(stable=True)
    _, which = torch.unique((x[order] / cell).round(), dim=0, return_inverse=True)
    first = torch.full((int(which.max()) + 1,), len(x))
    first = first.scatter_reduce(0, which, torch.arange(len(x)), "amin")
    return order[first].sort().values
