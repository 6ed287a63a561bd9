"""The front of a study: measured rows, claimed and verified designs, and the true front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genopt.analysis.plots.style import GREEN, GREY, INK, ORANGE, RED, legend, panels
from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.routines.abstain import some_goals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_ROWS = 2000


def plot_front(
    columns: Sequence[str],
    measured: Tensor,
    claimed: Tensor,
    verified: Tensor | None = None,
    true: Tensor | None = None,
    reference: Tensor | None = None,
    title: str = "",
) -> Figure:
    """Designs in the plane of each pair of objectives, at most three of them.

    Args:
        columns: the M objectives.
        measured: measured rows that keep the constraints (N, M), in the signs of the goal.
        claimed: what the model claims of the designs (R, M).
        verified: what the simulator says of those that keep the constraints (R', M).
        true: points of the true front (n, M).
        reference: the reference point (M,).
        title: title of the figure.

    Returns:
        The figure.

    Raises:
        GenoptError: if there are fewer than two objectives.
    """
    if len(columns) < 2:
        raise GenoptError("a front has at least two objectives")
    count = min(len(columns), 3)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    figure, grid = panels(len(pairs), columns=3, size=4.0, title=title)
    for axes, (i, j) in zip(grid, pairs, strict=True):
        series = {
            "measured": (measured[:_MOST_ROWS], {"s": 8, "color": GREY, "alpha": 0.5}),
            "claimed": (claimed, {"s": 24, "color": ORANGE, "alpha": 0.7}),
            "verified": (verified, {"s": 24, "color": GREEN}),
            # last: good designs lie on it and would hide it
            "true front": (true, {"s": 3, "color": INK}),
        }
        for name, (points, look) in series.items():
            _draw(axes, points, i, j, name, look)
        if reference is not None:
            axes.scatter(
                *reference[[i, j]].tolist(), marker="x", s=40, color=RED, label="reference point"
            )
        _zoom(axes, [p for p in (true, claimed, verified) if p is not None], reference, i, j)
        axes.set(xlabel=columns[i], ylabel=columns[j])
    legend(figure, grid[0])
    return figure


def plot_study_front(
    candidates: Candidates, goal: Goal, table: Table, title: str = ""
) -> Figure | None:
    """The front of a study's first goal.

    Args:
        candidates: what the routine returned; `pareto` describes its front in the header.
        goal: what was wanted.
        table: measured rows.
        title: title of the figure.

    Returns:
        The figure; None where the routine looked for no front.
    """
    front = candidates.header.get("front")
    if not front:
        return None
    one = some_goals(goal, [0]) if goal.batched else goal
    index = [goal.y_space.index(name) for name in front["columns"]]
    verified = None
    if candidates.verified:
        verified = candidates.y_verified[0][one.satisfied(candidates.y_verified[0])]
    kept = table.y.to(torch.float64)[one.satisfied(table.y.to(torch.float64))]
    true = front.get("true")
    return plot_front(
        front["columns"],
        kept[:, index],
        candidates.y_predicted[0][:, index],
        None if verified is None else verified[:, index],
        None if true is None else torch.tensor(true, dtype=torch.float64),
        torch.tensor(front["reference"], dtype=torch.float64),
        title,
    )


def _draw(
    axes: Axes, points: Tensor | None, i: int, j: int, name: str, look: dict[str, Any]
) -> None:
    if points is None or not len(points):
        return
    there = torch.isfinite(points[:, [i, j]]).all(1)
    if bool(there.any()):
        axes.scatter(*points[there][:, [i, j]].T.tolist(), linewidths=0, label=name, **look)


def _zoom(axes: Axes, shown: list[Tensor], reference: Tensor | None, i: int, j: int) -> None:
    """Axes that hold the fronts and the reference point; far rows may lie outside."""
    parts = [part[:, [i, j]] for part in shown if len(part)]
    if reference is not None:
        parts.append(reference[None, [i, j]])
    if not parts:
        return
    points = torch.cat(parts)
    points = points[torch.isfinite(points).all(1)]
    if not len(points):
        return
    low, high = points.amin(0), points.amax(0)
    room = 0.06 * torch.where(high > low, high - low, 1.0)
    axes.set_xlim(float(low[0] - room[0]), float(high[0] + room[0]))
    axes.set_ylim(float(low[1] - room[1]), float(high[1] + room[1]))
