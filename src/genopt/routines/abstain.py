"""Abstaining: targets that lie outside the data are refused rather than answered.

A goal whose targets are all refused keeps its place among the candidates and has no designs there:
its rows are NaN and not feasible. Of a goal with several targets (``min``, ``max``) only those
outside are refused; the others take their share of the designs.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.mixture.reach import ends_of, in_words, nearest_measured
from genopt.models.mixture.region_goals import Region

# scores (C,) of conditions (C, K), their intervals and their numbers among all targets
Score = Callable[[Tensor, Region | None, Tensor], Tensor]
_PER_DESIGN = ("y_predicted", "y_spread", "loss", "log_density", "ood", "trajectory")
_OPTIONS = ("weight", "tolerance", "direction")
_FEW = 3


class AbstainedWarning(UserWarning):
    """Targets were refused; the candidates' header holds the same under ``abstained``."""


def threshold_of(abstain: bool | float | None) -> float | None:
    """The score above which a target is refused.

    Args:
        abstain: None or false for never, true for 1, or the score.

    Returns:
        The score; None for never.

    Raises:
        GenoptError: if it is no positive number.
    """
    if abstain is None or abstain is False:
        return None
    if abstain is True:
        return 1.0
    if not isinstance(abstain, int | float) or not math.isfinite(abstain) or abstain <= 0:
        raise GenoptError(
            f"routine.abstain={abstain!r}: say null (never), true (scores above 1, outside the "
            "data) or a positive number"
        )
    return float(abstain)


@dataclass(frozen=True)
class Asked:
    """What is left of a goal after targets were refused.

    Args:
        goal: the goals that are answered; all of them where every one is refused.
        wanted: their targets (B', T, K).
        region: their intervals, for B' * T conditions.
        whole: the goal as it was asked, B goals.
        kept: which of the B goals are answered (B',).
        scores: scores of the best target of each of the B goals (B,).
        refusals: what was refused, one entry a goal, plain data.
    """

    goal: Goal
    wanted: Tensor
    region: Region | None
    whole: Goal
    kept: Tensor
    scores: Tensor
    refusals: list[dict[str, Any]] | None = field(default=None)

    @classmethod
    def of(
        cls,
        goal: Goal,
        wanted: Tensor,
        region: Region | None,
        abstain: bool | float | None,
        score: Score,
        seen: Tensor | None,
    ) -> Asked:
        """Refuse the targets that lie outside the data, with one warning.

        Args:
            goal: what is wanted, B goals.
            wanted: targets (B, T, K).
            region: intervals of further columns, for B * T conditions.
            abstain: see `threshold_of`.
            score: scores of conditions, see `Score`.
            seen: measured properties (N, K), for the nearest ones.

        Returns:
            What is to be answered.
        """
        count, width, _ = wanted.shape
        everything = torch.arange(count)
        threshold = threshold_of(abstain)
        if threshold is None:
            return cls(goal, wanted, region, goal, everything, torch.zeros(count))
        conditions = wanted.reshape(count * width, -1)
        scores = score(conditions, region, torch.arange(count * width))
        scores = scores.reshape(count, width).to(torch.float64)
        inside = scores <= threshold
        refusals = []
        for b in (~inside).any(1).nonzero().flatten().tolist():
            # the refused target that is nearest to the data says what could be asked instead
            best = int(torch.where(inside[b], torch.inf, scores[b]).argmin())
            place = torch.tensor([b * width + best])
            target, own = conditions[place], None if region is None else region.take(place)
            entry = {
                "goal": b,
                "refused": int((~inside[b]).sum()),
                "targets": width,
                "score": float(scores[b, best]),
                "threshold": threshold,
                **_reasons(goal, target, own, threshold, score, seen, place),
            }
            refusals.append({**entry, "text": _text(entry, count)})
        kept = inside.any(1).nonzero().flatten()
        if refusals:
            warnings.warn(abstained_in_words(refusals, count), AbstainedWarning, stacklevel=3)
        left, smaller = wanted, goal
        if len(kept):
            # refused targets give their place to the others, in turn
            turn = [inside[b].nonzero().flatten() for b in kept.tolist()]
            chosen = torch.stack([rows.repeat(-(-width // len(rows)))[:width] for rows in turn])
            left = wanted[kept[:, None], chosen]
            smaller = goal if len(kept) == count else some_goals(goal, kept.tolist())
            # the intervals of a goal are the same for all of its targets
            rows = (kept[:, None] * width + chosen).reshape(-1)
            region = None if region is None else region.take(rows)
        return cls(smaller, left, region, goal, kept, scores.amin(1), refusals)

    @property
    def nothing(self) -> bool:
        """Whether every goal is refused."""
        return len(self.kept) == 0

    def empty(self, n: int) -> Candidates:
        """Candidates without a design.

        Args:
            n: how many there would have been for each goal.

        Returns:
            Candidates (B, n) of NaN.
        """
        goals = self.whole.batch_size
        x = torch.full((goals, n, self.whole.x_space.dim), torch.nan, dtype=torch.float64)
        y = torch.full((goals, n, self.whole.y_space.dim), torch.nan, dtype=torch.float64)
        ood = self.scores[:, None].expand(-1, n).clone()
        return Candidates.from_claims(
            self.whole, x, y, ood=ood, header={"abstained": self.refusals}
        )

    def complete(self, candidates: Candidates) -> Candidates:
        """Candidates with the refused goals in their places.

        Args:
            candidates: the designs of the goals that were answered (B', R).

        Returns:
            Candidates (B, R), unchanged where nothing may be refused.
        """
        if self.refusals is None:
            return candidates
        header = {**candidates.header, "abstained": self.refusals}
        goals = self.whole.batch_size
        if len(self.kept) == goals:
            return replace(candidates, header=header)

        def spread(value: Tensor) -> Tensor:
            out = value.new_full((goals, *value.shape[1:]), torch.nan)
            out[self.kept] = value
            return out

        parts: dict[str, Any] = {
            name: spread(value)
            for name in ("x", *_PER_DESIGN)
            if (value := getattr(candidates, name)) is not None
        }
        if "ood" in parts:
            refused = [b for b in range(goals) if b not in self.kept.tolist()]
            parts["ood"][refused] = self.scores[refused, None].to(parts["ood"])
        feasible = torch.zeros(parts["loss"].shape, dtype=torch.bool)
        feasible[self.kept] = candidates.feasible
        return replace(
            candidates,
            **parts,
            feasible=feasible,
            y_verified=spread(candidates.y_verified),
            goal=self.whole.spec,
            header=header,
        )


def some_goals(goal: Goal, rows: Sequence[int]) -> Goal:
    """Some of a batch of goals.

    Args:
        goal: B goals.
        rows: which of them.

    Returns:
        The smaller batch.
    """
    count = goal.batch_size

    def pick(value: Any) -> Any:
        batch = isinstance(value, list) and len(value) == count
        return [value[i] for i in rows] if batch and count > 1 else value

    def words(wanted: Any) -> Any:
        if not isinstance(wanted, dict):
            return pick(wanted)
        return {
            kind: value
            if kind in _OPTIONS
            else [pick(end) for end in value]
            if kind == "between"
            else pick(value)
            for kind, value in wanted.items()
        }

    spec = {column: words(copy.deepcopy(wanted)) for column, wanted in goal.spec.items()}
    return Goal(spec, goal.x_space, goal.y_space)


def answered(candidates: Candidates, goal: Goal) -> tuple[Candidates, Goal | None, list[int]]:
    """The goals that have designs.

    Args:
        candidates: what a routine returned (B, R).
        goal: what was wanted, B goals.

    Returns:
        Their candidates (B', R), the goals, None where no goal has any, and their numbers.
    """
    none = {e["goal"] for e in candidates.header.get("abstained") or [] if _wholly(e)}
    # other routines leave goals without designs too, where nothing keeps the constraints
    there = torch.isfinite(candidates.x).all(-1).any(1).tolist()
    rows = [b for b in range(candidates.shape[0]) if b not in none and there[b]]
    if len(rows) == candidates.shape[0] or not rows:
        return candidates, goal if rows else None, rows
    smaller = some_goals(goal, rows)
    parts: dict[str, Any] = {
        name: value[rows]
        for name in ("x", "feasible", "y_verified", *_PER_DESIGN)
        if (value := getattr(candidates, name)) is not None
    }
    return replace(candidates, **parts, goal=smaller.spec), smaller, rows


def abstained_in_words(refusals: Sequence[dict[str, Any]], count: int) -> str:
    """What was refused, in one line.

    Args:
        refusals: entries of the header's ``abstained``.
        count: number of goals B.

    Returns:
        The line; only the first ones of many are told.
    """
    wholly = sum(_wholly(entry) for entry in refusals)
    lead = f"abstained from {wholly} of {count} goals: " if count > 1 and wholly else ""
    told = "; ".join(entry["text"] for entry in refusals[:_FEW])
    more = len(refusals) - _FEW
    return f"{lead}{told}{f'; and {more} more' if more > 0 else ''}"


def _wholly(entry: dict[str, Any]) -> bool:
    return bool(entry["refused"] == entry["targets"])


def _reasons(
    goal: Goal,
    target: Tensor,
    region: Region | None,
    threshold: float,
    score: Score,
    seen: Tensor | None,
    place: Tensor,
) -> dict[str, Any]:
    """Which columns of one target (1, K) lie outside by themselves, and what is nearest."""
    space = goal.y_space
    lower, upper = (ends[0] for ends in ends_of(target, region))
    named = (~torch.isnan(lower)).nonzero().flatten().tolist()
    alone = []
    for k in named:
        one = torch.full_like(target, torch.nan)
        confined = None
        if region is not None and k in region.columns:
            i = region.columns.index(k)
            confined = Region((k,), region.lower[:, [i]], region.upper[:, [i]])
        else:
            one[:, k] = target[:, k]
        if float(score(one, confined, place)[0]) > threshold:
            alone.append(space.names[k])
    near = None if seen is None else nearest_measured(seen, lower, upper, space)
    return {
        "columns": alone,
        "asked": in_words(space, lower, upper),
        "nearest": None if near is None else in_words(space, near, near),
    }


def _text(entry: dict[str, Any], count: int) -> str:
    who = f"goal {entry['goal']}: " if count > 1 else ""
    if not _wholly(entry):
        who += f"{entry['refused']} of {entry['targets']} targets refused, the nearest: "
    outside = " and ".join(entry["columns"]) or "together they"
    verb = "lies" if len(entry["columns"]) == 1 else "lie"
    line = (
        f"{who}no designs for {entry['asked']}: {outside} {verb} outside the data (score "
        f"{entry['score']:.3g}, allowed {entry['threshold']:.3g})"
    )
    near = entry["nearest"]
    return line if near is None else f"{line}, the nearest measured values are {near}"
