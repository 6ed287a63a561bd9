"""Summary: the best distinct candidates as a table, and a study's verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.analysis.metrics import nearest_rows
from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.goal import Goal
from genopt.problems.base import Answer
from genopt.routines.abstain import abstained_in_words, answered
from genopt.routines.targets import ranked_rows
from genopt.space import Space

if TYPE_CHECKING:
    import pandas as pd


def top_frame(candidates: Candidates, table: Table, n: int) -> pd.DataFrame:
    """The best distinct candidates of each goal beside the nearest measured rows.

    Args:
        candidates: what a routine returned.
        table: measured or simulated rows.
        n: candidates of each goal.

    Returns:
        The columns of `Candidates.to_frame` and, for the nearest row, ``nearest_distance`` (root
        mean square over the columns of the unit box), ``nearest_row`` and ``<y>_nearest``; a row
        measured twice shows the mean of its measurements, or their most frequent class. With
        several goals also the values asked for, ``<y>_wanted``. Classes of y are text.
    """
    asked = Goal(candidates.goal, candidates.x_space, candidates.y_space)
    candidates, goals, kept = answered(candidates, asked)
    best = candidates.top(n)
    if goals is None:
        best = best.take(torch.empty(candidates.shape[0], 0, dtype=torch.long))
    frame = best.to_frame()
    if goals is not None and goals.batched:
        wanted = goals.condition()[frame["goal"].to_list()]
        for term in goals.terms:
            if term.kind == "equals":
                frame[f"{term.column}_wanted"] = wanted[:, term.index].numpy()
    near = nearest_rows(best.x, table)
    rows = near.row.reshape(-1)
    frame["nearest_distance"] = near.distance.reshape(-1).numpy()
    frame["nearest_row"] = [table.row_ids[i] for i in rows.tolist()]
    for i, name in enumerate(table.y_space.names):
        frame[f"{name}_nearest"] = [_mean_of_replicates(table, row, i) for row in rows.tolist()]
    frame["goal"] = [kept[b] for b in frame["goal"]]
    return _classes_as_text(frame, table.y_space)


def best_rows_frame(goal: Goal, table: Table, n: int) -> pd.DataFrame:
    """The best known rows for each goal, as the baseline beside `top_frame`.

    A design measured several times counts once, with the mean of its measurements.

    Args:
        goal: what is wanted.
        table: measured or simulated rows.
        n: rows for each goal.

    Returns:
        The columns of `top_frame` that a row can fill; the values of y are both ``<y>_nearest``
        and ``<y>_verified``.
    """
    import pandas as pd

    x, owner = torch.unique(table.x, dim=0, return_inverse=True)
    known = torch.isfinite(table.y).to(torch.float64)
    total = torch.zeros(len(x), table.y.shape[1], dtype=torch.float64)
    count = total.index_add(0, owner, known)
    y = total.index_add(0, owner, table.y.nan_to_num(0.0)) / count
    for i, v in enumerate(table.y_space):
        if v.labels:
            y[:, i] = _frequent_class(table.y[:, i], owner, len(x), len(v.labels))
    loss = goal.loss(y.expand(goal.batch_size, *y.shape) if goal.batched else y)
    loss = loss.reshape(goal.batch_size, -1)
    frames = []
    for b, best in enumerate(ranked_rows(goal, y)[:, :n]):
        columns: dict[str, object] = {"goal": b}
        for i, v in enumerate(table.x_space):
            values = x[best, i].tolist()
            columns[v.name] = [v.labels[int(c)] for c in values] if v.labels else values
        for i, name in enumerate(table.y_space.names):
            columns[f"{name}_nearest"] = columns[f"{name}_verified"] = y[best, i].numpy()
        columns["loss"] = loss[b, best].numpy()
        columns["nearest_distance"] = 0.0
        frames.append(pd.DataFrame(columns))
    return _classes_as_text(pd.concat(frames, ignore_index=True), table.y_space)


def _mean_of_replicates(table: Table, row: int, column: int) -> float:
    same = (table.x == table.x[row]).all(1)
    values = table.y[same, column]
    labels = table.y_space.variables[column].labels
    if labels:
        one = torch.zeros(len(values), dtype=torch.long)
        return float(_frequent_class(values, one, 1, len(labels)))
    return float(values.nanmean())


def _frequent_class(codes: Tensor, owner: Tensor, owners: int, classes: int) -> Tensor:
    """The most frequent class of each owner's rows (owners,); NaN where none has a label."""
    known = torch.isfinite(codes)
    place = owner[known] * classes + codes[known].long()
    count = torch.bincount(place, minlength=owners * classes).reshape(owners, classes)
    most = count.argmax(1).to(codes.dtype)
    return torch.where(count.sum(1) > 0, most, torch.nan)


def _classes_as_text(frame: pd.DataFrame, y_space: Space) -> pd.DataFrame:
    """Codes of classes replaced by their labels, nothing where there is none."""
    for v in y_space:
        for kind in ("predicted", "verified", "wanted", "nearest"):
            name = f"{v.name}_{kind}"
            if v.labels and name in frame:
                codes = frame[name].tolist()
                frame[name] = [c if math.isnan(c) else v.labels[int(c)] for c in codes]
    return frame


def verdict(
    candidates: Candidates,
    goal: Goal,
    scores: Mapping[str, float],
    answers: Sequence[Answer] = (),
) -> str:
    """What a study found, in one or two sentences.

    Args:
        candidates: what the routine returned, verified where there is a simulator.
        goal: what was wanted.
        scores: of `genopt.analysis.metrics.candidate_scores`.
        answers: the exact answers, if they are known.

    Returns:
        The sentences.
    """
    refused = candidates.header.get("abstained")
    asked = goal.batch_size
    candidates, some, _ = answered(candidates, goal)
    parts = [abstained_in_words(refused, asked)] if refused else []
    if some is None:
        return "; ".join(parts) + "."
    parts += candidates.header.get("says", [])
    count = len(candidates)
    if answers and "mode_recall" in scores:
        found = round(scores["mode_recall"] * len(answers))
        parts.append(f"{found} of {len(answers)} exact answers found")
    verified = candidates.verified
    valued = [term for term in goal.terms if term.kind not in ("max", "min")]
    if valued:
        basis = "verified" if verified else "claimed"
        share = scores[f"{basis}/satisfied"]
        parts.append(f"{round(share * count)} of {count} designs reach the goal ({basis})")
    if verified:
        parts.append(
            f"verified by the simulator: best loss {scores['verified/best_loss']:.3g}"
            f"{' in the mean of the goals' if goal.batched else ''}, median of all designs "
            f"{scores['verified/median_loss']:.3g}"
        )
        ties = bool((candidates.loss == candidates.loss[:, :1]).all())
        if not ties:
            parts.append(
                f"best claim {scores['claimed/best_loss']:.3g}, in truth "
                f"{scores['verified/loss_of_best_claim']:.3g}"
            )
        if "baseline/best_row_loss" in scores:
            parts.append(f"best training row {scores['baseline/best_row_loss']:.3g}")
    elif "baseline/best_row_loss" in scores:
        known = scores["baseline/best_row_loss"]
        row = "no measured row has all labels of the goal"
        if not math.isnan(known):
            row = f"best measured row {known:.3g}"
        parts.append(
            f"best loss {scores['claimed/best_loss']:.3g} claimed, {row}: measure before you trust "
            "it"
        )
    outside = round((1.0 - scores["inside_space"]) * count)
    parts.append(f"{outside} of {count} designs outside the bounds")
    kept = candidates.header.get("constraints")
    if kept:
        parts.append(
            f"all designs keep the constraints, largest violation {kept['largest_violation']:.1g} "
            f"({kept['method']}; {100 * kept['acceptance']:.3g} % of the model's draws come near)"
        )
    return "; ".join(parts) + "."
