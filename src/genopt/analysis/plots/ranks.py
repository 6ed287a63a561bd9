"""Ranks: histograms of where true designs lie among draws, flat where a model is calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genopt.analysis.plots.style import BLUE, GREY, INK, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from genopt.analysis.ranks import RankCalibration

_FEWEST, _MOST, _PER_BAR = 5, 20, 10
_BAND = (0.005, 0.995)


def plot_ranks(ranks: RankCalibration, title: str = "") -> Figure:
    """A histogram of the levels of each design column.

    Bars that rise to both ends: the draws are too narrow; that rise to the middle: too wide; that
    slope: moved to one side. The grey band holds 99 % of the bars of a calibrated model.

    Args:
        ranks: of `genopt.analysis.ranks.rank_calibration`.
        title: title of the figure.

    Returns:
        The figure.
    """
    from scipy.stats import binom

    scores, count = ranks.summary(), len(ranks.levels)
    bars = min(_MOST, max(_FEWEST, count // _PER_BAR))
    low, high = (float(binom.ppf(q, count, 1.0 / bars)) for q in _BAND)
    figure, grid = panels(len(ranks.columns), title=title)
    for axes, name, levels in zip(grid, ranks.columns, ranks.levels.T, strict=True):
        axes.axhspan(low, high, color=GREY, alpha=0.25, lw=0)
        axes.axhline(count / bars, color=INK, linewidth=0.9)
        for edge in (low, high):
            # the bars hide the lower edge of the band
            axes.axhline(edge, color=INK, linewidth=0.7, linestyle=":")
        edges = np.linspace(0.0, 1.0, bars + 1)
        axes.hist(levels.numpy(), bins=edges, color=BLUE, alpha=0.85)
        axes.set_title(f"{name}: p = {scores[f'p_value/{name}']:.2g}", fontsize=9, color=INK)
        axes.set(xlabel="rank of the truth among draws", xlim=(0.0, 1.0))
        # the bars may not hide how far the band lies below the highest of them
        axes.set_ylim(0.0, 1.15 * max(high, axes.get_ylim()[1]))
    grid[0].set_ylabel(f"of {count} conditions")
    return figure
