"""Claimed against verified: what the model promised of its designs and what the simulator says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.analysis.plots.style import BLUE, INK, ORANGE, panels
from genopt.goal import Goal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_claimed_verified(
    goal: Goal, predicted: Tensor, verified: Tensor, title: str = ""
) -> Figure:
    """Two panels a property of the goal: claim against truth, and the distribution of the error.

    Args:
        goal: what was wanted.
        predicted: claims (B, R, K).
        verified: the simulator's values (B, R, K).
        title: title of the figure.

    Returns:
        The figure.
    """
    figure, grid = panels(2 * len(goal.terms), title=title)
    for k, term in enumerate(goal.terms):
        claim = predicted[..., term.index].reshape(-1)
        truth = verified[..., term.index].reshape(-1)
        both = torch.isfinite(claim) & torch.isfinite(truth)
        claim, truth = claim[both], truth[both]
        errors = (claim - truth).numpy()
        left, right = grid[2 * k], grid[2 * k + 1]
        variable = goal.y_space.variables[term.index]
        left.scatter(truth, claim, s=10, color=BLUE, alpha=0.5, linewidths=0)
        if len(truth):
            ends = [float(min(truth.min(), claim.min())), float(max(truth.max(), claim.max()))]
            left.plot(ends, ends, color=INK, linewidth=0.9)
        left.set(xlabel=f"verified {variable.axis_label}", ylabel="claimed")
        reach = (min(errors.min(initial=0.0), 0.0), max(errors.max(initial=0.0), 0.0))
        right.hist(errors, 50, reach, histtype="stepfilled", color=ORANGE, alpha=0.85)
        right.axvline(0.0, color=INK, linewidth=0.9)
        right.set(xlabel=f"claimed - verified {variable.axis_label}", ylabel="designs")
        if len(errors):
            median = float((claim - truth).abs().median())
            right.set_title(f"median |error| {median:.3g}", fontsize=8, loc="right")
    return figure
