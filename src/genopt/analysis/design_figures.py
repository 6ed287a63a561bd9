"""Figures of all designs that a study returned, as benchmarks publish them.

They are of the samples themselves, never of their mean, and coverage stands beside error.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genopt.analysis.metrics import diversity, mode_scores
from genopt.candidates import Candidates
from genopt.goal import Goal
from genopt.problems.base import Answer


def design_figures(
    candidates: Candidates,
    answers: Sequence[Answer] = (),
    tolerance: float = 0.05,
    radius: float | None = None,
) -> dict[str, float]:
    """What the designs of a study are worth.

    Args:
        candidates: designs, verified by the simulator.
        answers: exact answers to the goal, if they are known.
        tolerance: within which a design is at an answer, in the unit box.
        radius: largest norm of simulated minus wanted outputs that counts as reached; None for the
            goal's own tolerances.

    Returns:
        ``output_error`` (mean norm over the goal's columns of exact values), ``output_rmse``,
        ``median_output_error``, ``error/<column>`` (mean absolute miss), ``best_loss``, ``reached``
        (share of designs), ``inside`` (share within the bounds), ``diversity``; with answers also
        those of `genopt.analysis.metrics.mode_scores`, and ``x_bias``, ``x_std``, ``x_error``
        (largest over the columns of the mean, standard deviation and median absolute miss of the
        nearest answer, raw units).
    """
    goal = Goal(candidates.goal, candidates.x_space, candidates.y_space)
    y = candidates.y_verified if candidates.verified else candidates.y_predicted
    there = torch.isfinite(y).any(-1)
    figures: dict[str, float] = {
        "designs": float(there.sum()),
        "inside": float(candidates.x_space.contains(candidates.x)[there].double().mean()),
        "diversity": diversity(candidates.x[0][there[0]], candidates.x_space),
    }
    misses = []
    for term in goal.terms:
        if term.kind in ("max", "min", "label"):
            continue
        miss = term.miss(y[..., term.index])
        figures[f"error/{term.column}"] = float(miss.abs().nanmean())
        misses.append(miss)
    reached = goal.satisfied(y)
    if misses:
        norm = torch.stack(misses, -1).square().sum(-1).sqrt()
        figures["output_error"] = float(norm.nanmean())
        figures["output_rmse"] = float(norm.square().nanmean().sqrt())
        figures["median_output_error"] = float(norm.nanmedian())
        if radius is not None:
            reached = norm <= radius
    figures["reached"] = float(reached[there].double().mean())
    best = candidates.best()
    value = best.y_verified if candidates.verified else best.y_predicted
    figures["best_loss"] = float(goal.loss(value).nanmean())
    if answers and not goal.batched:
        x = candidates.x[0][there[0]]
        figures |= mode_scores(x, answers, candidates.x_space, tolerance)
        figures |= _misses(x, torch.stack([answer.x for answer in answers]), candidates)
    return figures


def _misses(x: Tensor, answers: Tensor, candidates: Candidates) -> dict[str, float]:
    """How far designs are from their nearest answer, in raw units, worst column."""
    space = candidates.x_space
    gaps = torch.cdist(space.encode(x), space.encode(answers))
    miss = x - answers.to(x)[gaps.argmin(1)]
    return {
        "x_bias": float(miss.mean(0).abs().amax()),
        "x_std": float(miss.std(0, correction=0).amax()),
        "x_error": float(miss.abs().median(0).values.amax()),
        "x_largest": float(miss.abs().amax()),
    }
