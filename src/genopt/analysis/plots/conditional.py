"""Conditional distributions: where the designs for a goal lie, with the known answers marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from genopt.analysis.plots.style import BLUE, GREY, RED, class_ticks, legend, panels
from genopt.problems.base import Answer
from genopt.space import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 60


def plot_conditional(
    x: Tensor,
    space: Space,
    measured: Tensor,
    answers: Sequence[Answer] = (),
    title: str = "",
) -> Figure:
    """Histograms of each design column: the designs found, the rows learnt from, the exact answers.

    Args:
        x: designs for one goal (R, P).
        space: the x Space.
        measured: designs that the model learnt from (N, P).
        answers: exact answers; the height of a mark is its weight.
        title: title of the figure.

    Returns:
        The figure.
    """
    figure, grid = panels(space.dim, title=title)
    for i, (axes, v) in enumerate(zip(grid, space, strict=True)):
        found, seen = x[:, i].numpy(), measured[:, i].numpy()
        low = v.lower if v.bounded else float(min(found.min(), seen.min()))
        high = v.upper if v.bounded else float(max(found.max(), seen.max()))
        low, high, cells = (low, high, _BINS) if not v.labels else (-0.5, high + 0.5, len(v.labels))
        bins = np.linspace(low, high, cells + 1)
        for values, color, alpha, name in (
            (seen, GREY, 0.45, "rows learnt from"),
            (found, BLUE, 0.85, "designs found"),
        ):
            share = np.full(len(values), 1.0 / len(values))
            look = {"histtype": "stepfilled", "color": color, "alpha": alpha, "label": name}
            axes.hist(values, bins=bins, weights=share, **look)
        top = axes.get_ylim()[1]
        for k, answer in enumerate(answers):
            axes.plot(
                [float(answer.x[i])] * 2,
                [0, top],
                color=RED,
                linewidth=1.2,
                linestyle=(0, (4, 2)),
                label="exact answer" if k == 0 else None,
            )
        axes.set(xlabel=v.axis_label, ylabel="share" if i == 0 else "")
        class_ticks(axes, v)
    legend(figure, grid[0])
    return figure
