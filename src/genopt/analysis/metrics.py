"""Metrics: how good designs and models are. Every error stands beside a coverage.

All functions read tensors in raw units and return plain numbers, so they fit in a JSON file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.goal import Goal
from genopt.problems.base import Answer
from genopt.routines.abstain import answered
from genopt.routines.targets import ranked_rows
from genopt.space import Space


@dataclass(frozen=True)
class Nearest:
    """The nearest measured row of each design.

    Args:
        distance: root mean square over the columns of the unit box (...).
        row: the row's number in the table (...).
    """

    distance: Tensor
    row: Tensor


def nearest_rows(x: Tensor, table: Table) -> Nearest:
    """The measured row next to each design, in the unit box of the x Space.

    Args:
        x: designs (..., P).
        table: measured rows.

    Returns:
        Distances and row numbers (...).
    """
    from scipy.spatial import cKDTree

    space = table.x_space
    tree = cKDTree(space.encode(table.x).numpy())
    unit = space.encode(x.reshape(-1, space.dim)).numpy()
    distance, row = tree.query(unit)
    scale = math.sqrt(space.encoded_dim)
    shape = x.shape[:-1]
    return Nearest(
        torch.from_numpy(np.asarray(distance) / scale).reshape(shape),
        torch.from_numpy(np.asarray(row)).reshape(shape),
    )


def regression_scores(y: Tensor, predicted: Tensor, space: Space) -> dict[str, float]:
    """R2 and root mean square error of each numeric column, over the rows that have a label.

    Args:
        y: measured values (N, K); NaN where missing.
        predicted: predictions (N, K); NaN where the model has none.
        space: the y Space.

    Returns:
        ``{"r2/<column>": ..., "rmse/<column>": ...}``; ``accuracy/<column>`` for a class column.
    """
    scores: dict[str, float] = {}
    for i, variable in enumerate(space):
        both = torch.isfinite(y[:, i]) & torch.isfinite(predicted[:, i])
        if int(both.sum()) < 2:
            continue
        true, guess = y[both, i].double(), predicted[both, i].double()
        if variable.kind == "categorical":
            scores[f"accuracy/{variable.name}"] = float((true == guess).double().mean())
            continue
        scores[f"r2/{variable.name}"] = _r2(true, guess)
        scores[f"rmse/{variable.name}"] = float((true - guess).square().mean().sqrt())
    return scores


def _r2(true: Tensor, guess: Tensor) -> float:
    """As scikit-learn counts it, whose import would cost every study half a second."""
    missed = float((true - guess).square().sum())
    spread = float((true - true.mean()).square().sum())
    if spread > 0:
        return 1.0 - missed / spread
    return float(missed == 0)


def mode_scores(
    x: Tensor, answers: Sequence[Answer], space: Space, tolerance: float = 0.05
) -> dict[str, float]:
    """How samples of one goal cover the exact answers.

    Args:
        x: samples (R, P).
        answers: exact answers with their weights.
        space: the x Space; distances are root mean squares in its unit box.
        tolerance: within which a sample counts as being at an answer.

    Returns:
        ``mode_recall`` (share of answers with a sample near), ``mode_precision`` (share of samples
        near an answer), ``x_rmse`` (to the nearest answer, unit box), ``weight_tv`` (total
        variation between the shares of samples and the exact weights).
    """
    truth = space.encode(torch.stack([answer.x for answer in answers]))
    gaps = (space.encode(x)[:, None] - truth).square().mean(-1).sqrt()
    nearest, owner = gaps.min(1)
    found = torch.bincount(owner, minlength=len(answers)).to(torch.float64) / len(x)
    exact = torch.tensor([answer.weight for answer in answers], dtype=torch.float64)
    return {
        "mode_recall": float((gaps <= tolerance).any(0).to(torch.float64).mean()),
        "mode_precision": float((nearest <= tolerance).to(torch.float64).mean()),
        "x_rmse": float(nearest.square().mean().sqrt()),
        "weight_tv": float(0.5 * (found - exact).abs().sum()),
    }


def diversity(x: Tensor, space: Space, most: int = 500) -> float:
    """Mean distance between designs, root mean square over the columns of the unit box.

    Args:
        x: designs (R, P).
        space: the x Space.
        most: how many designs are looked at.

    Returns:
        The mean; 0 for a single design.
    """
    if len(x) < 2:
        return 0.0
    unit = space.encode(x[:most])
    return float(torch.pdist(unit).mean() / math.sqrt(space.encoded_dim))


def candidate_scores(
    candidates: Candidates,
    goal: Goal,
    answers: Sequence[Answer] = (),
    baseline: Table | None = None,
) -> dict[str, float]:
    """What candidates are worth, claimed beside verified, error beside coverage.

    Args:
        candidates: what a routine returned, verified where there is a simulator.
        goal: what was wanted.
        answers: exact answers to the goal, if they are known.
        baseline: the training rows, whose best one is the baseline.

    Returns:
        Plain numbers; means over the goals of a batch that have designs. Where a routine may
        abstain, ``abstained`` is the share of goals without.
    """
    refusals = candidates.header.get("abstained")
    asked = goal.batch_size
    candidates, some, kept = answered(candidates, goal)
    extra = {} if refusals is None else {"abstained": 1.0 - len(kept) / asked}
    if some is None:
        return {"candidates": 0.0, **extra}
    goal = some
    best, claim = candidates.best(), candidates.best("claimed")
    space = candidates.x_space
    # a routine that found fewer designs for a goal than for others leaves rows of NaN
    there = torch.isfinite(candidates.x).all(-1)
    inside = space.contains(candidates.x)[there].to(torch.float64).mean()
    scores = {
        "candidates": float(there.sum()),
        **extra,
        "inside_space": float(inside),
        "claimed/best_loss": _mean(claim.loss),
        "claimed/satisfied": _share(_satisfied(goal, candidates.y_predicted), there),
        "diversity": float(
            np.mean([diversity(x[h], space) for x, h in zip(candidates.x, there, strict=True)])
        ),
    }
    if candidates.converged is not None:
        scores["converged"] = _share(candidates.converged, there)
    if candidates.ood is not None:
        scores["ood/outside"] = _share(candidates.ood > 1.0, there)
    verified = candidates.y_verified
    if bool(torch.isfinite(verified).any()):
        loss = goal.loss(verified)
        scores["verified/best_loss"] = _mean(goal.loss(best.y_verified))
        scores["verified/loss_of_best_claim"] = _mean(goal.loss(claim.y_verified))
        scores["verified/median_loss"] = float(loss.nanmedian())
        scores["verified/satisfied"] = _share(_satisfied(goal, verified), there)
        scores |= residual_scores(candidates, goal)
        for term in goal.terms:
            if term.kind in ("max", "min", "label"):
                continue
            miss = term.miss(verified[..., term.index])
            scores[f"round_trip_rmse/{term.column}"] = _mean(miss.square()) ** 0.5
    if answers and not goal.batched:
        scores.update(mode_scores(candidates.x[0][there[0]], answers, space))
    for name, value in candidates.header.get("constraints", {}).items():
        if isinstance(value, int | float):
            scores[f"constraints/{name}"] = float(value)
    if baseline is not None:
        y = baseline.y.expand(goal.batch_size, -1, -1) if goal.batched else baseline.y
        loss = goal.loss(y).reshape(goal.batch_size, -1)
        first = ranked_rows(goal, baseline.y)[:, :1]
        scores["baseline/best_row_loss"] = _mean(loss.gather(1, first))
    return scores


def residual_scores(candidates: Candidates, goal: Goal) -> dict[str, float]:
    """The largest misses of the designs that count: the converged ones, else the best of each goal.

    Args:
        candidates: what a routine returned, verified.
        goal: what was wanted.

    Returns:
        ``residual/<column>`` in raw units for each property with a wanted value; nothing where no
        value is wanted or no design counts.
    """
    best = candidates if candidates.converged is not None else candidates.best()
    found = {}
    for term in goal.terms:
        if term.kind != "equals":
            continue
        miss = term.miss(best.y_verified[..., term.index]).abs()
        counts = torch.isfinite(miss)
        if best.converged is not None:
            counts &= best.converged
        if bool(counts.any()):
            found[f"residual/{term.column}"] = float(miss[counts].max())
    return found


def _satisfied(goal: Goal, y: Tensor) -> Tensor:
    """Which designs (B, R) reach the goal, by their properties (B, R, K)."""
    return goal.satisfied(y if goal.batched else y[0]).reshape(y.shape[:2])


def _share(which: Tensor, there: Tensor) -> float:
    """The share of the designs that are there."""
    return float(which[there].double().mean())


def _mean(values: Tensor) -> float:
    return float(values.nanmean())
