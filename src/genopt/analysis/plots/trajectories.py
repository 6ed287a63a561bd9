"""Trajectories: from noise to designs (flow) and from starts to optima (gradient search)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from genopt.analysis.plots.style import BLUE, GREEN, GREY, ORANGE, RED, legend, panels
from genopt.problems.base import Answer
from genopt.space import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_flow_trajectories(
    trajectory: Tensor,
    space: Space,
    times: Sequence[float],
    answers: Sequence[Answer] = (),
    most: int = 150,
    title: str = "",
) -> Figure:
    """The way of samples from noise to data.

    Args:
        trajectory: designs along the ODE (R, S, P) in raw units.
        space: the x Space.
        times: times of the states (S,), from 0 to 1.
        answers: exact answers.
        most: how many samples are drawn.
        title: title of the figure.

    Returns:
        The figure: a plane of the first two columns where there are two, and every column over
        time.
    """
    ways = trajectory[:most].numpy()
    plane = space.dim >= 2
    figure, grid = panels(space.dim + plane, title=title)
    if plane:
        axes = grid[0]
        axes.plot(ways[:, :, 0].T, ways[:, :, 1].T, color=GREY, linewidth=0.5, alpha=0.5)
        axes.scatter(
            ways[:, 0, 0], ways[:, 0, 1], s=6, color=ORANGE, label="noise (t = 0)", zorder=3
        )
        axes.scatter(
            ways[:, -1, 0], ways[:, -1, 1], s=6, color=BLUE, label="design (t = 1)", zorder=3
        )
        for k, answer in enumerate(answers):
            label = "exact answer" if k == 0 else None
            axes.scatter(*answer.x[:2], marker="*", s=90, color=RED, label=label, zorder=4)
        axes.set(xlabel=space.variables[0].axis_label, ylabel=space.variables[1].axis_label)
    for i, (axes, v) in enumerate(zip(grid[plane:], space, strict=True)):
        axes.plot(times, ways[:, :, i].T, color=BLUE, linewidth=0.5, alpha=0.35)
        for answer in answers:
            axes.axhline(float(answer.x[i]), color=RED, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.set(xlabel="time t", ylabel=v.axis_label)
    legend(figure, grid[0])
    return figure


def plot_search_trajectories(
    trajectory: Tensor,
    space: Space,
    best: int,
    answers: Sequence[Answer] = (),
    most: int = 100,
    title: str = "",
) -> Figure:
    """The way of restarts of a gradient search.

    Args:
        trajectory: designs after each step (R, S, P) in raw units.
        space: the x Space.
        best: which restart is the best one.
        answers: exact answers.
        most: how many restarts are drawn.
        title: title of the figure.

    Returns:
        The figure: a plane of the first two columns where there are two, and every column over
        steps.
    """
    others = trajectory[:most].numpy()
    winner = trajectory[best].numpy()
    steps = np.arange(1, others.shape[1] + 1)
    plane = space.dim >= 2
    figure, grid = panels(space.dim + plane, title=title)
    if plane:
        axes = grid[0]
        axes.plot(others[:, :, 0].T, others[:, :, 1].T, color=GREY, linewidth=0.5, alpha=0.6)
        axes.scatter(others[:, 0, 0], others[:, 0, 1], s=7, color=ORANGE, label="start", zorder=3)
        axes.scatter(others[:, -1, 0], others[:, -1, 1], s=7, color=BLUE, label="end", zorder=3)
        axes.plot(winner[:, 0], winner[:, 1], color=GREEN, linewidth=1.6, label="best restart")
        for k, answer in enumerate(answers):
            label = "exact answer" if k == 0 else None
            axes.scatter(*answer.x[:2], marker="*", s=90, color=RED, label=label, zorder=4)
        axes.set(xlabel=space.variables[0].axis_label, ylabel=space.variables[1].axis_label)
    for i, (axes, v) in enumerate(zip(grid[plane:], space, strict=True)):
        axes.plot(steps, others[:, :, i].T, color=GREY, linewidth=0.5, alpha=0.5)
        axes.plot(steps, winner[:, i], color=GREEN, linewidth=1.6, label="best restart")
        for answer in answers:
            axes.axhline(float(answer.x[i]), color=RED, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.set(xlabel="step", ylabel=v.axis_label)
    legend(figure, grid[0])
    return figure
