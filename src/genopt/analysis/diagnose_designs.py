"""Faults of what a study returned: missing answers, collapse, draws unlike the data, claims."""

from __future__ import annotations

import math
from typing import Any

import torch

from genopt.analysis.facts import groups_of, near_target
from genopt.analysis.findings import Finding
from genopt.analysis.metrics import diversity
from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.goal import Goal
from genopt.models.mixture.engine import Mixture
from genopt.protocols import ConditionalModel
from genopt.routines.abstain import answered, some_goals

_LOOKED_AT = 500
_COLLAPSE = 0.05
_HELD_OUT, _DRAWS, _LEAST_HELD_OUT = 200, 20, 40
_SURE, _FAR_OFF, _MOVED = 1e-4, 0.15, 0.12
_FINER, _CHECKED, _STEP_ERROR = 4, 64, 0.05
_OVERCLAIM = 100.0
# routines that return draws; those of the engines themselves do not say their name
_DRAWING = (None, "hybrid", "space_map")


def missing_answers(candidates: Candidates, table: Table, goal: Goal, model: Any) -> Finding | None:
    """One group of designs where the rows near the target fall into several.

    Args:
        candidates: what was returned.
        table: the rows.
        goal: what was wanted; of several goals the first one that has designs is looked at.
        model: the model, for what to change.

    Returns:
        The finding, if there is one.
    """
    candidates, some, _ = answered(candidates, goal)
    if some is None:
        return None
    near = near_target(table, some)
    # rows near a wish are just the best ones
    if all(t.kind in ("max", "min") for t in some.terms) or len(near) < 2 * 3:
        return None
    good = candidates.x[0][torch.isfinite(candidates.x[0]).all(-1)][:_LOOKED_AT]
    rows = table.x_space.encode(table.x[near])
    group = groups_of(rows)
    # only what a row has shown to be possible is missed
    reached = some_goals(some, [0]).satisfied(table.y[near])
    expected = {int(g) for g in group[reached].tolist()} - {-1}
    if len(expected) < 2 or len(good) < 2:
        return None
    owners = torch.cdist(table.x_space.encode(good), rows).argmin(1)
    seen = expected & {int(g) for g in group[owners].tolist()}
    if len(seen) == len(expected):
        return None
    advice = "model.max_components twice as many, or model=flow"
    if not isinstance(model, Mixture):
        advice = (
            "more routine.starts and routine.restarts, more model.epochs for a flow, or "
            "model=mixture"
        )
        if candidates.log_density is not None:
            advice = f"routine.highest_density=1, which keeps rare answers; {advice}"
    return Finding(
        "missing answers",
        f"rows that reach the goal fall into {len(expected)} groups of designs, and the designs "
        f"returned are in {len(seen)} of them",
        advice,
        {"groups_in_data": float(len(expected)), "groups_found": float(len(seen))},
        "designs.png",
    )


def collapsed(candidates: Candidates, table: Table, goal: Goal, model: Any) -> Finding | None:
    """Draws that are nearly alike although more columns are free than values are wanted.

    Args:
        candidates: what was returned.
        table: the rows.
        goal: what was wanted.
        model: the model; only one that draws designs can collapse, a search may end in one point.

    Returns:
        The finding, if there is one.
    """
    # what a search brought to one optimum is alike because it is right
    drawn = candidates.header.get("routine") in _DRAWING
    if not isinstance(model, ConditionalModel) or not drawn:
        return None
    candidates, some, _ = answered(candidates, goal)
    if some is None or candidates.shape[1] < 10:
        return None
    free = table.x_space.dim - len(some.fixed) - len(table.x_space.simplexes)
    wanted = sum(t.kind not in ("max", "min") for t in some.terms)
    near = near_target(table, some)
    if free <= wanted or len(near) < 10:
        return None
    here = diversity(candidates.x[0], table.x_space)
    there = diversity(table.x[near], table.x_space)
    if here >= _COLLAPSE * there:
        return None
    return Finding(
        "collapse",
        f"the designs are nearly alike: their mean distance is {here:.2g}, that of the rows "
        f"nearest to the target {there:.2g}",
        "routine.guidance=1, a lower model.learning_rate, more model.condition_dropout, or "
        "model=mixture",
        {"diversity": here, "diversity_of_rows": there},
        "designs.png",
    )


def unlike_held_out(model: Any, table: Table, seed: int = 0) -> Finding | None:
    """Draws for the properties of unseen rows that do not scatter as those rows do.

    The rank of each true value among its draws is uniform where they do (Talts et al. 2018).

    Args:
        model: the fitted model; only one that draws designs is looked at.
        table: the rows, with split labels.
        seed: seed of the draws.

    Returns:
        The finding for the worst column, if there is one.
    """
    from scipy.stats import kstest

    rows = table.part("test")
    rows = rows if len(rows) >= _LEAST_HELD_OUT else table.part("validation")
    if not isinstance(model, ConditionalModel) or len(rows) < _LEAST_HELD_OUT:
        return None
    rows = rows.rows(torch.isfinite(rows.y).any(1))
    rows = rows.rows(torch.arange(min(len(rows), _HELD_OUT)))
    generator = torch.Generator().manual_seed(seed)
    draws = model.sample(rows.y, _DRAWS, generator=generator).to(torch.float64)
    noise = torch.rand(len(rows), generator=generator, dtype=torch.float64)
    worst, distance = "", _FAR_OFF
    middle, centre = 0.0, 0.5
    for i, v in enumerate(table.x_space):
        if v.labels:
            continue
        truth = rows.x[:, i, None]
        below = (draws[..., i] < truth).double().sum(1)
        ties = (draws[..., i] == truth).double().sum(1)
        rank = (below + noise * (ties + 1.0)) / (_DRAWS + 1.0)
        test = kstest(rank.numpy(), "uniform")
        if test.pvalue < _SURE and test.statistic > distance:
            worst, distance = v.name, float(test.statistic)
            middle = float(((rank > 0.25) & (rank < 0.75)).double().mean())
            centre = float(rank.mean())
    if not worst:
        return None
    how = "too narrow" if middle < 0.5 else "too wide"
    if abs(centre - 0.5) > _MOVED:
        how = f"moved {'down' if centre > 0.5 else 'up'}"
    return Finding(
        "draws unlike the data",
        f"draws of {worst} for the properties of {len(rows)} unseen rows are {how}: their ranks "
        f"are {distance:.2g} from uniform (Kolmogorov-Smirnov)",
        "look at calibration=200; more model.epochs for a flow, model.members=3 or more "
        "model.max_components for a mixture, more rows for both",
        {"distance": distance, "in_middle_half": middle},
        "ranks.png",
    )


def too_few_steps(model: Any, table: Table, seed: int = 0) -> Finding | None:
    """Draws of a flow that move when the solver takes four times as many steps.

    Args:
        model: the fitted model; only a flow is looked at.
        table: the rows; their properties are asked for.
        seed: seed of the noise.

    Returns:
        The finding, if there is one.
    """
    steps = getattr(getattr(model, "sampler", None), "steps", None)
    if steps is None or not hasattr(model, "transport") or hasattr(model.sampler, "noise"):
        return None
    rows = table.part("train")
    y = rows.y[torch.isfinite(rows.y).any(1)][:_CHECKED]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((len(y), 4, model.transform.dim), generator=generator)
    with torch.no_grad():
        ends = [model.transport(noise, y, n_steps=n) for n in (steps, _FINER * steps)]
    space = table.x_space
    numbers = [i for i, v in enumerate(space) if not v.labels]
    if not numbers:
        return None
    moved = (ends[0] - ends[1])[..., numbers]
    # beside the spread of one condition's draws: what a narrow posterior has to resolve
    spread = (ends[1] - ends[1].mean(1, keepdim=True))[..., numbers].square().mean((0, 1)).sqrt()
    unit = torch.where(spread > 0, spread, 1.0)
    error = float((moved.square().mean((0, 1)).sqrt() / unit).max())
    if not error > _STEP_ERROR:
        return None
    return Finding(
        "too few solver steps",
        f"draws move by {error:.2g} of their spread when the solver takes {_FINER * steps} steps "
        f"instead of {steps}",
        f"sampler.steps={_FINER * steps}",
        {"error": error, "steps": float(steps)},
        "trajectories.png",
    )


def overclaimed(candidates: Candidates, goal: Goal, table: Table) -> Finding | None:
    """A best claim that the simulator contradicts, and that is no better than the best row.

    Args:
        candidates: what was returned, verified.
        goal: what was wanted.
        table: the rows.

    Returns:
        The finding, if there is one.
    """
    # a routine that asks the simulator puts its claims right itself
    if candidates.header.get("numbers", {}).get("calls"):
        return None
    candidates, some, _ = answered(candidates, goal)
    if some is None or not candidates.verified or all(t.kind in ("max", "min") for t in some.terms):
        return None
    claim = candidates.best("claimed")
    claimed = float(claim.loss.nanmean())
    true = float(some.loss(claim.y_verified).nanmean())
    y = table.y.expand(some.batch_size, *table.y.shape) if some.batched else table.y
    rows = some.loss(y).reshape(some.batch_size, -1)
    best_row = float(rows.nan_to_num(math.inf).min(1).values.mean())
    reached = bool(some.satisfied(claim.y_verified).all())
    if reached or true <= max(_OVERCLAIM * claimed, best_row, 1e-12):
        return None
    return Finding(
        "claims not held",
        f"the design with the best claim ({claimed:.2g}) is at {true:.2g} in truth, worse than the "
        f"best row ({best_row:.2g})",
        "model=ensemble routine.spread_penalty=100, routine=refine with the simulator, or more "
        "rows near the target",
        {"claimed": claimed, "true": true, "best_row": best_row},
        "claimed_verified.png",
    )
