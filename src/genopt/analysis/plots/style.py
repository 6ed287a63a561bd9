"""The look of all figures: one palette, quiet axes, no pyplot state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from genopt.space import Variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#2f6db3",
    "#d9822b",
    "#3a9d5d",
    "#c0392b",
    "#7d5ba6",
    "#9aa5b1",
)
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)
INK = "#2b3440"
# inches that a letter of a title and of a legend takes, and what stands before a legend's text
_LETTER, _SMALL_LETTER, _HANDLE = 0.094, 0.065, 0.5


def panels(count: int, columns: int = 4, size: float = 3.2, title: str = "") -> tuple[Figure, Any]:
    """A figure with a grid of axes, unused ones hidden.

    Args:
        count: how many axes are used.
        columns: most axes in a row.
        size: side of an axes in inches.
        title: title of the figure.

    Returns:
        The figure and a list of ``count`` axes.
    """
    from matplotlib.figure import Figure as NewFigure

    high = max(1, -(-count // columns))
    wide = max(1, -(-count // high))
    figure = NewFigure(
        figsize=(size * 1.18 * wide, size * high + 0.35), layout="constrained", dpi=130
    )
    grid = figure.subplots(high, wide, squeeze=False).flatten()
    for axes in grid[count:]:
        axes.set_visible(False)
    for axes in grid[:count]:
        quiet(axes)
    if title:
        # nothing else breaks a title that is wider than its figure
        text = fill(title, int(figure.get_figwidth() / _LETTER), break_long_words=False)
        figure.suptitle(text, fontsize=11, color=INK, x=0.01, ha="left", weight="bold")
    return figure, list(grid[:count])


def write_png(figure: Figure, path: Path) -> None:
    """Draw a figure once and write it; `Figure.savefig` draws it twice to measure it first.

    Args:
        figure: the figure.
        path: a PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    wide, high = canvas.get_width_height()
    picture = Image.frombuffer("RGBA", (wide, high), canvas.buffer_rgba())
    # the figures are opaque, and three channels are written faster than four
    picture.convert("RGB").save(path, dpi=(figure.dpi, figure.dpi), compress_level=4)


def quiet(axes: Axes) -> None:
    """Thin axes that leave the eye to the data."""
    from matplotlib.ticker import MaxNLocator

    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=8, length=3)
    axes.grid(True, color="#e6eaee", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_fontsize(9)
        label.set_color(INK)


def legend(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, below them.

    Args:
        figure: the figure.
        axes: the axes whose entries are shown.
    """
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        entry = _HANDLE + _SMALL_LETTER * max(map(len, labels))
        fitting = max(1, int(figure.get_figwidth() / entry))
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(4, len(labels), fitting),
            frameon=False,
            fontsize=8,
        )


def class_ticks(axes: Axes, variable: Variable, axis: str = "x") -> None:
    """Class labels instead of codes on an axis.

    Args:
        axes: the axes.
        variable: the column; nothing happens unless it is categorical.
        axis: ``x`` or ``y``.
    """
    if not variable.labels:
        return
    ticks: Sequence[int] = range(len(variable.labels))
    if axis == "x":
        axes.set_xticks(ticks, variable.labels, rotation=45, ha="right")
    else:
        axes.set_yticks(ticks, variable.labels)
