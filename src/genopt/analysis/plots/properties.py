"""Properties: what the designs found would measure, among the rows that were learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.analysis.plots.style import GREY, INK, PALETTE, RED, legend, panels
from genopt.goal import Goal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 60


def plot_properties(
    goal: Goal,
    rows: Tensor,
    designs: Mapping[str, Tensor],
    rows_name: str = "measured",
    title: str = "",
) -> Figure:
    """Designs and rows in the plane of the goal's first two properties, targets as dashed lines.

    With one property, the rows are a histogram and the designs ticks below it.

    Args:
        goal: what was wanted.
        rows: values of the rows learnt from (N, K).
        designs: for each series, predicted or verified values (n, K).
        rows_name: what the rows are called in the legend.
        title: title of the figure.

    Returns:
        The figure.
    """
    figure, (axes,) = panels(1, size=4.2, title=title)
    if len(goal.terms) == 1:
        _draw_line(axes, goal, rows, designs, rows_name)
    else:
        _draw_plane(axes, goal, rows, designs, rows_name)
    legend(figure, axes)
    return figure


def _draw_plane(
    axes: Axes, goal: Goal, rows: Tensor, designs: Mapping[str, Tensor], rows_name: str
) -> None:
    first, second = goal.terms[:2]
    pair = [first.index, second.index]
    a, b = rows[:, pair].T
    axes.scatter(a, b, s=8, color=GREY, alpha=0.5, linewidths=0, label=rows_name)
    for (name, values), color in zip(designs.items(), PALETTE, strict=False):
        a, b = values[:, pair].T
        axes.scatter(a, b, s=34, color=color, edgecolors="white", linewidths=0.5, label=name)
    for term, line in ((first, axes.axvline), (second, axes.axhline)):
        if term.kind == "equals" and term.value is not None and not goal.batched:
            line(float(term.value), color=RED, linewidth=1.0, linestyle=(0, (4, 2)))
    labels = [goal.y_space.variables[i].axis_label for i in pair]
    axes.set(xlabel=labels[0], ylabel=labels[1])


def _draw_line(
    axes: Axes, goal: Goal, rows: Tensor, designs: Mapping[str, Tensor], rows_name: str
) -> None:
    (term,) = goal.terms
    column = rows[:, term.index]
    known = column[torch.isfinite(column)].numpy()
    # one outline is drawn ten times as fast as its bars
    axes.hist(known, bins=_BINS, histtype="stepfilled", color=GREY, label=rows_name)
    height = axes.get_ylim()[1]
    for k, (name, values) in enumerate(designs.items()):
        level = [-0.04 * height * (k + 1)] * len(values)
        axes.scatter(values[:, term.index], level, s=30, marker="|", color=PALETTE[k], label=name)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    if term.kind == "equals" and term.value is not None and not goal.batched:
        axes.axvline(float(term.value), color=RED, linewidth=1.0, linestyle=(0, (4, 2)))
    axes.set(xlabel=goal.y_space.variables[term.index].axis_label, ylabel="rows")
