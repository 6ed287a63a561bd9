"""Learning curves: the losses of every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from genopt.analysis.plots.style import BLUE, GREY, ORANGE, legend, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_LOG_RATIO = 10.0
_LOSSES = {"train/loss": BLUE, "validation/loss": ORANGE}


def plot_learning_curves(history: Sequence[Mapping[str, float]], title: str = "") -> Figure:
    """Training and validation loss over epochs.

    Args:
        history: a mapping for each epoch, as `genopt.models.training.TabularModule.history`.
        title: title of the figure.

    Returns:
        The figure; the best epoch is marked.
    """
    figure, (axes,) = panels(1, size=3.6, title=title)
    losses = []
    for name, color in _LOSSES.items():
        points = [(entry["epoch"] + 1, entry[name]) for entry in history if name in entry]
        if not points:
            continue
        losses += [value for _, value in points]
        axes.plot(*zip(*points, strict=True), color=color, linewidth=1.2, label=name.split("/")[0])
        if name == "validation/loss":
            best = min(points, key=lambda point: point[1])
            axes.axvline(best[0], color=GREY, linewidth=1.0, label=f"best, epoch {best[0]:.0f}")
    if min(losses) > 0 and max(losses) > _LOG_RATIO * min(losses):
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel="loss")
    legend(figure, axes)
    return figure
