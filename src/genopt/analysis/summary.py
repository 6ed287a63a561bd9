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
from genopt.routines.nondominated import Objectives, nondominated, spread_out
from genopt.routines.targets import ranked_rows
from genopt.space import Space
from genopt.terms import DIRECTIONS

if TYPE_CHECKING:
    import pandas as pd

    from genopt.analysis.unreachable import Reach

# what stationary points are
KIND = "kind"
# of many goals or messages only the first ones are told
_FEW = 3
# shares of answers mean something where most designs are at one
_MOSTLY = 0.5
# of a column's width: an optimum whose value is missed by more is not found
_FAR = 0.02


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
        several goals also the values asked for, ``<y>_wanted``; of stationary points their
        ``kind``. Classes of y are text.
    """
    asked = Goal(candidates.goal, candidates.x_space, candidates.y_space)
    candidates, goals, kept = answered(candidates, asked)
    best = _best(candidates, goals, n)
    if goals is None:
        best = best.take(torch.empty(candidates.shape[0], 0, dtype=torch.long))
    frame = best.to_frame()
    if goals is not None and goals.batched:
        wanted = goals.condition()[frame["goal"].to_list()]
        for term in goals.terms:
            if term.kind == "equals":
                frame[f"{term.column}_wanted"] = wanted[:, term.index].numpy()
    kinds = candidates.header.get("kinds")
    if kinds and goals is not None and not goals.batched and KIND not in candidates.x_space.names:
        same = (best.x[0][:, None] == candidates.x[0]).all(-1)
        frame[KIND] = [kinds[i] for i in same.to(torch.int8).argmax(1).tolist()]
    near = nearest_rows(best.x, table)
    rows = near.row.reshape(-1)
    frame["nearest_distance"] = near.distance.reshape(-1).numpy()
    frame["nearest_row"] = [table.row_ids[i] for i in rows.tolist()]
    for i, name in enumerate(table.y_space.names):
        frame[f"{name}_nearest"] = [_mean_of_replicates(table, row, i) for row in rows.tolist()]
    frame["goal"] = [kept[b] for b in frame["goal"]]
    return _classes_as_text(frame, table.y_space)


def _best(candidates: Candidates, goal: Goal | None, n: int) -> Candidates:
    """The best distinct designs; of a front its ends and what lies between them, in order."""
    if goal is None or goal.batched or candidates.header.get("routine") != "pareto":
        return candidates.top(n)
    y = candidates.y_verified if candidates.verified else candidates.y_predicted
    objectives = Objectives.of(goal)
    values = objectives.values(y[0])
    front = nondominated(values, goal.satisfied(y[0])).nonzero()[:, 0]
    if not len(front):
        return candidates.top(n)
    low, high = values[front].min(0).values, values[front].max(0).values
    unit = (values[front] - low) / (high - low).clamp_min(1e-300)
    chosen = front[spread_out(unit, n)]
    return candidates.take(chosen[values[chosen, 0].argsort(stable=True)][None])


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
    reach: Sequence[Reach] = (),
    lost: Sequence[str] = (),
) -> str:
    """What a study found, in one or two sentences.

    Args:
        candidates: what the routine returned, verified where there is a simulator.
        goal: what was wanted.
        scores: of `genopt.analysis.metrics.candidate_scores`.
        answers: the exact answers, if they are known.
        reach: goals that nothing reached, and what comes nearest.
        lost: what a simulator failed on, in words.

    Returns:
        The sentences.
    """
    refused = candidates.header.get("abstained")
    asked = goal.batch_size
    candidates, some, _ = answered(candidates, goal)
    parts = [abstained_in_words(refused, asked)] if refused else []
    parts += [str(entry) for entry in reach[:_FEW]]
    if some is None:
        return _sentences([*parts, *lost[:_FEW]])
    parts += candidates.header.get("says", [])
    count = round(scores["candidates"])
    if answers and "mode_recall" in scores:
        missed = _far_from_exact(candidates, goal, answers)
        parts.append(missed or _answers_found(scores, len(answers), candidates.ood is not None))
    verified = candidates.verified
    valued = [term for term in goal.terms if term.kind not in ("max", "min")]
    if valued:
        basis = "verified" if verified else "claimed"
        share = scores[f"{basis}/satisfied"]
        parts.append(f"{round(share * count)} of {count} designs reach the goal ({basis})")
    if "converged" in scores:
        parts.append(f"the solver converged for {round(scores['converged'] * count)} of {count}")
    residual = _largest_residual(goal, scores)
    if residual:
        whose = "of the converged" if "converged" in scores else "of the best"
        parts.append(f"largest residual {whose} {residual}")
    if verified:
        parts += _truth(candidates, goal, scores)
    else:
        parts.append(_claims(scores))
    outside = round((1.0 - scores["inside_space"]) * count)
    parts.append(f"{outside} of {count} designs outside the bounds")
    if scores.get("ood/outside"):
        far = round(scores["ood/outside"] * count)
        parts.append(f"{far} of {count} designs are extrapolated (ood above 1)")
    kept = candidates.header.get("constraints")
    if kept:
        parts.append(
            f"all designs keep the constraints, largest violation {kept['largest_violation']:.1g} "
            f"({kept['method']}; {100 * kept['acceptance']:.3g} % of the model's draws come near)"
        )
    return _sentences([*parts, *lost[:_FEW]])


def _sentences(parts: Sequence[str]) -> str:
    return "; ".join(part.rstrip(".") for part in parts) + "."


def _largest_residual(goal: Goal, scores: Mapping[str, float]) -> str:
    """The largest miss of a wanted value, that which is largest beside its column's width."""
    wanted = [term for term in goal.terms if f"residual/{term.column}" in scores]
    if not wanted:
        return ""
    size = {t.column: scores[f"residual/{t.column}"] / float(goal.scale[t.index]) for t in wanted}
    worst = max(size, key=lambda column: size[column])
    name = f"{worst} " if len(goal.terms) > 1 else ""
    return f"{name}{scores[f'residual/{worst}']:.2g}"


def _far_from_exact(candidates: Candidates, goal: Goal, answers: Sequence[Answer]) -> str:
    """Designs near an optimum may be far from its value: where the function is steep."""
    wishes = [term for term in goal.terms if term.kind in DIRECTIONS]
    if len(wishes) != 1 or goal.batched or not candidates.verified:
        return ""
    index = wishes[0].index
    best = float(candidates.best().y_verified[0, 0, index])
    exact = float(answers[0].y[index])
    if not abs(best - exact) > _FAR * float(goal.scale[index]):
        return ""
    column = wishes[0].column
    return f"the exact answer, {column} {exact:.4g}, is not reached: the best is {best:.4g}"


def _answers_found(scores: Mapping[str, float], count: int, draws: bool) -> str:
    """How many exact answers were found; of draws also how they are shared among them."""
    found = round(scores["mode_recall"] * count)
    text = f"{found} of {count} exact answers found"
    at_one = scores["mode_precision"]
    if found:
        text += f", {at_one:.0%} of the designs at one"
    if draws and count > 1 and at_one > _MOSTLY and found == count:
        text += f", their shares off by {scores['weight_tv']:.2g}"
    return text


def _truth(candidates: Candidates, goal: Goal, scores: Mapping[str, float]) -> list[str]:
    """What the simulator says, beside the claims and the best training row."""
    parts = [
        f"verified by the simulator: best loss {scores['verified/best_loss']:.3g}"
        f"{' in the mean of the goals' if goal.batched else ''}, median of all designs "
        f"{scores['verified/median_loss']:.3g}"
    ]
    told, true = scores["claimed/best_loss"], scores["verified/loss_of_best_claim"]
    # claims that tie rank nothing, and a routine that asked the simulator claims what it said
    if not bool((candidates.loss == candidates.loss[:, :1]).all()) and told != true:
        parts.append(f"best claim {told:.3g}, in truth {true:.3g}")
    if not math.isnan(scores.get("baseline/best_row_loss", math.nan)):
        parts.append(f"best training row {scores['baseline/best_row_loss']:.3g}")
    return parts


def _claims(scores: Mapping[str, float]) -> str:
    """What is claimed where no simulator can say what is true."""
    claim = f"best loss {scores['claimed/best_loss']:.3g} claimed"
    if "baseline/best_row_loss" in scores:
        known = scores["baseline/best_row_loss"]
        none = math.isnan(known)
        row = "no measured row has all labels of the goal"
        claim += f", {row if none else f'best measured row {known:.3g}'}"
    return f"{claim}: measure before you trust it"
