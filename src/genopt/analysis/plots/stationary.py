"""Stationary points over the function that they belong to: minima, maxima and saddles apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from genopt.analysis.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    legend,
    panels,
)
from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.goal import Goal
from genopt.space import Space
from genopt.terms import DIRECTIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKS = {
    "minimum": ("v", BLUE, "minima"),
    "maximum": ("^", RED, "maxima"),
    "saddle": ("X", ORANGE, "saddles"),
    "degenerate": ("s", PURPLE, "degenerate"),
    "root": ("o", GREEN, "roots"),
}


def plot_study_stationary(
    candidates: Candidates, goal: Goal, table: Table, title: str = ""
) -> Figure | None:
    """The points of `stationary` in a study of one or two design columns.

    Args:
        candidates: what the routine returned.
        goal: what was wanted.
        table: all rows.
        title: title of the figure.

    Returns:
        The figure; None for another routine, more columns, or no points.
    """
    kinds = candidates.header.get("kinds")
    if not kinds or candidates.x_space.dim > 2:
        return None
    wish = [term for term in goal.terms if term.kind in DIRECTIONS]
    if wish:
        height, name = table.y[:, wish[0].index], wish[0].column
    else:
        columns = [term.index for term in goal.terms]
        miss = (table.y - goal.condition())[:, columns] / goal.scale[columns]
        height, name = miss.norm(dim=1), "distance of the properties from the goal"
    known = torch.isfinite(height)
    x = candidates.x[0]
    return plot_stationary(x, kinds, candidates.x_space, table.x[known], height[known], name, title)


def plot_stationary(
    x: Tensor,
    kinds: Sequence[str],
    space: Space,
    measured: Tensor,
    height: Tensor,
    name: str,
    title: str = "",
) -> Figure:
    """Points in the plane of the first two columns, or a single column with the height above it.

    Args:
        x: stationary points (R, P).
        kinds: the kind of each.
        space: the x Space.
        measured: designs whose height is known (N, P).
        height: the objective, or the norm of the derivatives, at those designs (N,).
        name: what the height is.
        title: title of the figure.

    Returns:
        The figure.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = panels(1, size=4.4, title=title)
    first = space.variables[0]
    if space.dim == 1:
        order = measured[:, 0].argsort()
        across, above = measured[order, 0].numpy(), height[order].numpy()
        axes.plot(across, above, color=GREY, linewidth=1.2)
        lines = torch.from_numpy(np.interp(x[:, 0].numpy(), across, above))
        axes.set(xlabel=first.axis_label, ylabel=name)
    else:
        low, high = float(height.min()), float(height.max())
        # the darkest greys would swallow the marks
        cloud = axes.tricontourf(
            *measured[:, :2].T.numpy(),
            height.numpy(),
            levels=24,
            cmap="Greys",
            vmin=low,
            vmax=high + 0.6 * (high - low),
        )
        bar = figure.colorbar(cloud, ax=axes, shrink=0.8, ticks=MaxNLocator(5))
        bar.outline.set_visible(False)
        bar.set_label(name, fontsize=9, color=INK)
        bar.ax.tick_params(colors=INK, labelsize=8, length=3)
        lines = x[:, 1]
        axes.set(xlabel=first.axis_label, ylabel=space.variables[1].axis_label)
    for kind, (mark, color, label) in _MARKS.items():
        mine = torch.tensor([k == kind for k in kinds], dtype=torch.bool)
        if bool(mine.any()):
            axes.scatter(
                x[mine, 0].numpy(),
                lines[mine].numpy(),
                marker=mark,
                color=color,
                s=26,
                edgecolor="white",
                linewidth=0.5,
                label=f"{label} ({int(mine.sum())})",
                zorder=3,
            )
    legend(figure, axes)
    return figure
