"""A region of outputs and the designs that fill it, side by side in the same colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.analysis.plots.style import GREY, legend, panels
from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.space import Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = "viridis"


def plot_study_space_map(candidates: Candidates, table: Table, title: str = "") -> Figure | None:
    """The designs of `space_map` in a study.

    Args:
        candidates: what the routine returned, verified where there is a simulator.
        table: all rows.
        title: title of the figure.

    Returns:
        The figure; None for another routine.
    """
    targets = candidates.header.get("targets")
    if not targets or candidates.header.get("routine") != "space_map":
        return None
    y = candidates.y_verified if candidates.verified else candidates.y_predicted
    return plot_space_map(
        candidates.x[0],
        y[0],
        torch.tensor(targets, dtype=torch.float64),
        candidates.header["columns"],
        candidates.x_space,
        candidates.y_space,
        (table.x, table.y),
        title,
    )


def plot_space_map(
    x: Tensor,
    y: Tensor,
    targets: Tensor,
    columns: Sequence[int],
    x_space: Space,
    y_space: Space,
    measured: tuple[Tensor, Tensor],
    title: str = "",
) -> Figure:
    """Left the targets and what the designs give, right the designs: equal colours belong together.

    Args:
        x: designs (R, P).
        y: their properties (R, K).
        targets: what was asked for (R, K).
        columns: numbers of the columns of y that the region is in; the first two are shown.
        x_space: the x Space.
        y_space: the y Space.
        measured: designs and properties that the model learnt from.
        title: title of the figure.

    Returns:
        The figure.
    """
    figure, (left, right) = panels(2, size=3.8, title=title)
    colour = targets[:, columns[0]].numpy()
    pair = list(columns[:2])
    _cloud(left, measured[1], pair)
    _cloud(right, measured[0], list(range(min(2, x_space.dim))))
    across, up = _plane(targets, pair)
    left.scatter(across, up, s=22, facecolor="none", edgecolor=GREY, linewidth=0.6, label="targets")
    across, up = _plane(y, pair)
    left.scatter(across, up, c=colour, cmap=_COLOURS, s=7, label="designs")
    shown = list(range(min(2, x_space.dim)))
    across, up = _plane(x, shown)
    right.scatter(across, up, c=colour, cmap=_COLOURS, s=7)
    _names(left, y_space, pair)
    _names(right, x_space, shown)
    legend(figure, left)
    return figure


def _plane(points: Tensor, columns: list[int]) -> tuple[Tensor, Tensor]:
    """Two columns; a single one is drawn along a line."""
    first = points[:, columns[0]]
    return first, points[:, columns[1]] if len(columns) > 1 else torch.zeros_like(first)


def _cloud(axes: Axes, points: Tensor, columns: list[int]) -> None:
    across, up = _plane(points, columns)
    label = "rows learnt from"
    axes.scatter(across, up, color=GREY, alpha=0.35, s=4, linewidth=0, label=label)


def _names(axes: Axes, space: Space, columns: list[int]) -> None:
    names = [space.variables[i].axis_label for i in columns]
    axes.set(xlabel=names[0], ylabel=names[1] if len(names) > 1 else "")
