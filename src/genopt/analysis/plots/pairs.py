"""Pairs: draws of a posterior in the plane of any two columns, with what is known marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from genopt.analysis.plots.style import BLUE, GREY, INK, ORANGE, RED, class_ticks, legend, quiet
from genopt.problems.base import Answer
from genopt.space import Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_POINTS, _BINS = 2000, 40
# inches of a panel, and the range shown beyond the outermost draw
_SIDE, _MARGIN = 1.9, 0.05


def plot_pairs(
    x: Tensor,
    space: Space,
    answers: Sequence[Answer] = (),
    exact: Tensor | None = None,
    title: str = "",
    most: int = 6,
) -> Figure:
    """Draws by pairs of columns below the diagonal, by column on it, exact draws above it.

    Args:
        x: draws for one condition (R, P).
        space: the x Space.
        answers: known answers, red.
        exact: exact draws (S, P), orange; None where there are none.
        title: title of the figure.
        most: how many columns are shown, those that vary most in the unit box.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure as NewFigure

    shown = _widest(x, space, most)
    count = len(shown)
    side = _SIDE * count + 0.6
    figure = NewFigure(figsize=(side, side + 0.4), layout="constrained", dpi=130)
    grid = figure.subplots(count, count, squeeze=False)
    sets = [("draws", BLUE, x)] if exact is None else [("exact", ORANGE, exact), ("draws", BLUE, x)]
    limits = {i: _limits([part[:, i] for _, _, part in sets], answers, i) for i in shown}
    for row, i in enumerate(shown):
        for column, j in enumerate(shown):
            axes = grid[row, column]
            quiet(axes)
            if column > row and exact is None:
                axes.set_visible(False)
            elif row == column:
                _histogram(axes, sets, answers, i, limits[i])
            else:
                # above the diagonal the exact draws lie alone, for comparison with what lies below
                own = sets[:1] if column > row else sets[-1:]
                _cloud(axes, own, answers, j, i)
                axes.set(xlim=limits[j], ylim=limits[i])
            _label(axes, space, j, i, row == count - 1, column == 0 and row > 0)
    legend(figure, grid[0, 0])
    if title:
        figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left", weight="bold", wrap=True)
    return figure


def _widest(x: Tensor, space: Space, most: int) -> list[int]:
    """The columns that vary most, in their own order."""
    if space.dim <= most:
        return list(range(space.dim))
    width = (space.upper - space.lower).to(x)
    spread = x.std(0) / width.where(width.isfinite(), x.std(0).clamp_min(1e-12))
    return sorted(spread.argsort(descending=True)[:most].tolist())


def _limits(values: list[Tensor], answers: Sequence[Answer], i: int) -> tuple[float, float]:
    seen = np.concatenate([*(v.numpy() for v in values), [float(a.x[i]) for a in answers]])
    low, high = float(seen.min()), float(seen.max())
    margin = _MARGIN * (high - low) or 0.5
    return low - margin, high + margin


def _histogram(
    axes: Axes,
    sets: list[tuple[str, str, Tensor]],
    answers: Sequence[Answer],
    i: int,
    limits: tuple[float, float],
) -> None:
    for name, colour, part in sets:
        values = part[:, i].numpy()
        axes.hist(
            values,
            bins=np.linspace(*limits, _BINS + 1).tolist(),
            weights=np.full(len(values), 1.0 / len(values)),
            color=colour,
            alpha=0.7,
            histtype="stepfilled" if colour == BLUE else "step",
            linewidth=1.6,
            label=name,
        )
    for k, answer in enumerate(answers):
        label = "known answer" if k == 0 else None
        axes.axvline(float(answer.x[i]), color=RED, linewidth=1.2, linestyle="--", label=label)
    axes.set(xlim=limits, yticks=[])


def _cloud(
    axes: Axes,
    sets: list[tuple[str, str, Tensor]],
    answers: Sequence[Answer],
    i: int,
    j: int,
) -> None:
    for _, colour, part in sets:
        points = part[:_MOST_POINTS].numpy()
        axes.plot(points[:, i], points[:, j], ".", color=colour, markersize=1.6, alpha=0.5)
    for answer in answers:
        axes.plot(
            float(answer.x[i]),
            float(answer.x[j]),
            "X",
            color=RED,
            markeredgecolor="white",
            markersize=7,
        )


def _label(axes: Axes, space: Space, i: int, j: int, below: bool, left: bool) -> None:
    class_ticks(axes, space.variables[i])
    if below:
        axes.set_xlabel(space.variables[i].axis_label)
    if left:
        class_ticks(axes, space.variables[j], "y")
        axes.set_ylabel(space.variables[j].axis_label)
    axes.tick_params(colors=GREY if not (below or left) else INK)
