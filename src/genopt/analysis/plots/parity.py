"""Parity: predicted against measured, on rows that training did not see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.analysis.plots.style import BLUE, INK, panels
from genopt.space import Space

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure


def plot_parity(
    y: Tensor,
    predicted: Tensor,
    space: Space,
    scores: Mapping[str, float],
    source: str = "measured",
    title: str = "",
) -> Figure:
    """Predicted against measured (or simulated) values of each numeric column.

    Args:
        y: measured values (N, K); NaN where missing.
        predicted: predictions (N, K).
        space: the y Space.
        scores: of `genopt.analysis.metrics.regression_scores`, written into the panels.
        source: where the values come from, for the axis.
        title: title of the figure.

    Returns:
        The figure.
    """
    columns = [i for i, v in enumerate(space) if v.kind != "categorical"]
    figure, grid = panels(len(columns), title=title)
    for axes, i in zip(grid, columns, strict=True):
        both = torch.isfinite(y[:, i]) & torch.isfinite(predicted[:, i])
        true, guess = y[both, i].numpy(), predicted[both, i].numpy()
        axes.scatter(true, guess, s=14, color=BLUE, alpha=0.6, linewidths=0)
        if len(true):
            ends = [min(true.min(), guess.min()), max(true.max(), guess.max())]
            axes.plot(ends, ends, color=INK, linewidth=0.9)
        name = space.names[i]
        if f"r2/{name}" in scores:
            text = f"R² {scores[f'r2/{name}']:.3f}\nRMSE {scores[f'rmse/{name}']:.3g}"
            axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=8, color=INK)
        axes.set(xlabel=f"{source} {space.variables[i].axis_label}", ylabel="predicted")
    return figure
