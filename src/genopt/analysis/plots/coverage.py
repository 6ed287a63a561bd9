"""Coverage: the share of true designs inside a model's regions against the share it claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genopt.analysis.plots.style import GREY, INK, PALETTE, panels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from genopt.analysis.coverage import Coverage


def plot_coverage(coverages: Sequence[Coverage], title: str = "") -> Figure:
    """A panel for each kind of region.

    A curve below the line: the model is too sure; above it: its regions are wider than they need to
    be. Around random points a curve that winds about the line says the same, or that draws are
    moved to one side. The grey band holds 95 % of the points of a calibrated model.

    Args:
        coverages: of `genopt.analysis.coverage` and `genopt.analysis.tarp`.
        title: title of the figure.

    Returns:
        The figure.
    """
    figure, grid = panels(len(coverages), title=title)
    for axes, coverage, colour in zip(grid, coverages, PALETTE, strict=False):
        levels = np.sort(coverage.levels.numpy())
        expected = np.linspace(0.0, 1.0, 101)
        band = 1.96 * (expected * (1.0 - expected) / len(levels)) ** 0.5
        axes.fill_between(expected, expected - band, expected + band, color=GREY, alpha=0.25, lw=0)
        axes.plot([0.0, 1.0], [0.0, 1.0], color=INK, linewidth=0.9)
        shares = np.arange(len(levels) + 1) / len(levels)
        axes.step([0.0, *levels], shares, where="post", color=colour, linewidth=1.8)
        scores = coverage.summary()
        lines = [f"{len(levels)} conditions"]
        for name, value in scores.items():
            if name.startswith("coverage_"):
                lines.append(f"{name.rpartition('_')[2]} %: {100.0 * value:.0f} % inside")
        lines.append(f"area {scores['area']:.3f}, p = {scores['p_value']:.2g}")
        text = "\n".join(lines)
        axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=8, color=INK)
        axes.set_title(coverage.name, fontsize=9, color=INK)
        axes.set(xlabel="claimed share", ylabel="observed share", xlim=(0.0, 1.0), ylim=(0.0, 1.0))
    return figure
