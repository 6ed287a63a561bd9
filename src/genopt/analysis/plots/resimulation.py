"""Re-simulation against the number of proposals, with published values and the diversity beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from genopt.analysis.plots.style import GREY, INK, PALETTE, legend, panels
from genopt.analysis.resimulation import ResimulationCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "^", "D")


def plot_resimulation(
    curves: Mapping[str, ResimulationCurve],
    published: Mapping[str, Mapping[int, float]] | None = None,
    title: str = "",
) -> Figure:
    """Two panels: r_T against T on logarithmic axes, and how different the T proposals are.

    Args:
        curves: a curve by name; the median over targets is the dotted line of the same colour.
        published: by method, r_T by T.
        title: title of the figure.

    Returns:
        The figure.
    """
    from matplotlib.ticker import NullFormatter

    figure, (left, right) = panels(2, title=title)
    for colour, (name, curve) in zip(PALETTE * len(curves), curves.items(), strict=False):
        left.plot(curve.proposals, curve.error, color=colour, linewidth=1.8, label=name)
        left.plot(curve.proposals, curve.median, color=colour, linewidth=1.0, linestyle=":")
        right.plot(curve.proposals[1:], curve.diversity[1:], color=colour, linewidth=1.8)
    for marker, (method, values) in zip(_MARKERS * 9, (published or {}).items(), strict=False):
        left.plot(
            list(values),
            list(values.values()),
            marker,
            color=GREY,
            markeredgecolor=INK,
            markersize=6,
            label=f"{method}, published",
        )
    left.set(xscale="log", yscale="log", xlabel="proposals T", ylabel="r_T, mean squared miss")
    left.set_title("dotted: median over targets", fontsize=8, loc="right")
    right.set(xscale="log", xlabel="proposals T", ylabel="mean distance, unit box")
    right.set_ylim(bottom=0.0)
    for axes in (left, right):
        # on a short logarithmic axis the labels of minor ticks lie on one another
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(left=0.9)
    right.set_title("diversity", fontsize=8, loc="right")
    legend(figure, left)
    return figure
