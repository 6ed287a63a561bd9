"""Designs drawn from a model of p(x | y): `condition` for the mixture, `generate` for the flow.

Both ask for the goal's values, or for the values of the best measured rows where the goal has none,
in one batched call; the mixture is asked for intervals and half-lines as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.mixture.engine import Mixture
from genopt.models.mixture.reach import measured, region_scores, warn_outside
from genopt.models.mixture.region_goals import Region, sample_region
from genopt.protocols import ConditionalModel, ForwardModel
from genopt.routines.abstain import Asked
from genopt.routines.constraints.limits import Limits, flow_source, judged, way_of, with_limits
from genopt.routines.constraints.planes import plane_source
from genopt.routines.constraints.source import Source
from genopt.routines.densest import check_highest_density, densest, density_of, surplus
from genopt.routines.targets import confined_columns, reachable_targets


def condition(
    model: Mixture,
    goal: Goal,
    *,
    table: Table | None = None,
    samples: int = 1000,
    targets: int = 16,
    highest_density: float = 1.0,
    abstain: bool | float | None = None,
    constraints: Any = None,
    constraint_method: str = "auto",
    constraint_tries: int = 500,
    seed: int = 0,
) -> Candidates:
    """Designs from the exact conditional of a joint density, with the density's own prediction.

    Intervals and half-lines (``between``, ``at_least``, ``at_most``) are conditioned on as they
    are; ``min`` and ``max`` ask for the values of the best rows. Columns of x that the goal holds
    fixed are conditioned on as well. A target outside the data gives a warning with the nearest
    measured values.

    Args:
        model: the fitted mixture.
        goal: what is wanted, B goals.
        table: measured rows, for goals with ``min`` or ``max``.
        samples: designs for each goal (rounded up to fill every target).
        targets: how many of the best rows become targets where the goal has ``min`` or ``max``.
        highest_density: share of the model's probability that is kept: below 1, more designs are
            drawn and those of the highest density kept, see `genopt.routines.densest`.
        abstain: true to refuse targets outside the data (scores above 1), a number for another
            score; see `genopt.routines.abstain`. None to answer all of them.
        constraints: rules that every design keeps, such as ``["a + 2 * b <= 3"]``; see
            `genopt.Constraint`.
        constraint_method: ``auto`` or ``select``: draws that come near are kept and projected.
        constraint_tries: most draws for each design where there are constraints.
        seed: seed of the draw.

    Returns:
        Candidates (B, R) with the log density of each design and the score of its target.

    Raises:
        GenoptError: if no target is reachable, a number is not positive, or no design keeps the
            constraints.
    """
    check_highest_density(highest_density, constraints)
    limits = Limits.of(constraints, goal, constraint_method, constraint_tries, model)
    wanted, n = _plan(goal, table, samples, targets, regions=True)
    columns, *ends = confined_columns(goal)
    region = None
    if columns:
        region = Region(columns, *(end.repeat_interleave(wanted.shape[1], 0) for end in ends))
    asked = Asked.of(
        goal,
        wanted,
        region,
        abstain,
        lambda y, part, _: model.ood_score(y) if part is None else region_scores(model, y, part),
        measured(model),
    )
    if asked.nothing:
        return asked.empty(n * wanted.shape[1])
    goal, wanted, region = asked.goal, asked.wanted, asked.region
    conditions = wanted.reshape(-1, wanted.shape[-1])
    fixed = {i: value.repeat_interleave(wanted.shape[1]) for i, value in goal.fixed.items()}
    if not goal.batched:
        fixed = dict(goal.fixed)
    generator = torch.Generator().manual_seed(seed)
    most = surplus(n, highest_density)
    if region is not None:
        drawn = sample_region(model, conditions, region, most, generator, fixed=fixed)
        x, density, score = drawn.x, drawn.log_density, drawn.ood
    else:
        x = model.sample(conditions, most, generator, fixed=fixed)
        density, score = density_of(model, x, conditions, {}), model.ood_score(conditions)
    if most > n:
        kept = densest(density, n)
        x, density = x.take_along_dim(kept[..., None], 1), density.gather(1, kept)
    warn_outside(model, conditions, score, region)
    if limits is None:
        return asked.complete(_collect(goal, wanted, x, model.predict_y(x), score, density))

    def draw(rows: Tensor, count: int) -> Tensor:
        held = {i: value.expand(len(conditions))[rows] for i, value in fixed.items()}
        if region is None:
            return model.sample(conditions[rows], count, generator, fixed=held)
        part = region.take(rows)
        return sample_region(model, conditions[rows], part, count, generator, fixed=held).x

    source = Source(len(conditions), model.x_space, generator, draw)
    if region is None:
        held = {i: value.expand(len(conditions)) for i, value in fixed.items()}
        source = plane_source(model, conditions, held, limits.rules, generator) or source
    found = limits.draws(source, n)
    logs = density_of(model, found.x, conditions, {}) if region is None else None
    claims = model.predict_y(found.x)
    candidates = _collect(goal, wanted, found.x, claims, score, logs)
    return asked.complete(with_limits(candidates, found))


def generate(
    model: ConditionalModel,
    goal: Goal,
    *,
    table: Table | None = None,
    judge: ForwardModel | None = None,
    samples: int = 1000,
    targets: int = 16,
    trajectory: bool = False,
    guidance: float = 1.0,
    highest_density: float = 1.0,
    abstain: bool | float | None = None,
    constraints: Any = None,
    constraint_method: str = "auto",
    constraint_tries: int = 500,
    seed: int = 0,
) -> Candidates:
    """Designs from a generative model of p(x | y).

    Without a judge the claim of a design is the target that it was drawn for.

    Args:
        model: the fitted model, such as `genopt.ConditionalFlow`.
        goal: what is wanted, B goals.
        table: measured rows, for goals without exact values.
        judge: predicts y of the designs, to rank them.
        samples: designs for each goal (rounded up to fill every target).
        targets: how many of the best rows become targets where the goal has no exact values.
        trajectory: whether to keep each design's way from noise to data.
        guidance: weight of the properties; above 1 the designs are sharper than p(x | y).
        highest_density: share of the model's probability that is kept: below 1, more designs are
            drawn and those of the highest density kept, see `genopt.routines.densest`.
        abstain: true to refuse targets outside the data (scores above 1), a number for another
            score; see `genopt.routines.abstain`. None to answer all of them.
        constraints: rules that every design keeps, such as ``["a + 2 * b <= 3"]``; see
            `genopt.Constraint`.
        constraint_method: ``select``, ``smc``, ``gradient`` or ``auto``, see
            `genopt.routines.constraints.drawing.constrained_draws`.
        constraint_tries: most draws for each design where there are constraints.
        seed: seed of the draw.

    Returns:
        Candidates (B, R) with the score of each design's target.

    Raises:
        GenoptError: if the model was not trained for columns of x that the goal holds fixed or for
            guidance, no target is reachable, a number is out of range, or no design keeps the
            constraints.
    """
    check_request(model, goal, guidance)
    check_highest_density(highest_density, constraints)
    limits = Limits.of(constraints, goal, constraint_method, constraint_tries, model)
    wanted, n = _plan(goal, table, samples, targets)
    asked = Asked.of(
        goal,
        wanted,
        None,
        abstain,
        lambda y, _, rows: model.ood_score(y, **_held(goal, wanted, rows)),
        None if table is None else table.y,
    )
    if asked.nothing:
        return asked.empty(n * wanted.shape[1])
    goal, wanted = asked.goal, asked.wanted
    conditions = wanted.reshape(-1, wanted.shape[-1])
    generator = torch.Generator().manual_seed(seed)
    held = _held(goal, wanted)
    extra = held if guidance == 1.0 else {"guidance": guidance, **held}
    path, header, found = None, {}, None
    if limits is not None:
        source = flow_source(model, conditions, generator, extra)
        found = limits.draws(source, n, judged(goal, judge, wanted.shape[1]))
    most = surplus(n, highest_density)
    if trajectory:
        if not isinstance(model, ConditionalFlow):
            raise GenoptError(f"{type(model).__name__} has no trajectory: set trajectory=false")
        if found is None:
            path = model.sample(conditions, most, generator, return_trajectory=True, **extra)
        else:
            path = way_of(found, model, conditions, extra)
        x = path[..., -1, :]
        header = {"trajectory": "flow", "times": model.sampler.grid()}
    elif found is not None:
        x = found.x
    else:
        x = model.sample(conditions, most, generator, **extra)
    density = None
    if most > n:
        density = density_of(model, x, conditions, held)
        kept = densest(density, n)
        x, density = x.take_along_dim(kept[..., None], 1), density.gather(1, kept)
        path = None if path is None else path.take_along_dim(kept[..., None, None], 1)
    with torch.no_grad():
        claims = None if judge is None else judge.predict_y(x.to(torch.float64))
    score = model.ood_score(conditions, **held)
    candidates = _collect(goal, wanted, x, claims, score, density, path, header)
    return asked.complete(candidates if found is None else with_limits(candidates, found))


def _held(goal: Goal, wanted: Tensor, rows: Tensor | None = None) -> dict[str, Any]:
    """The held columns of x, one value for each target (B * T,) or some of them, if there are."""
    if not goal.fixed:
        return {}
    count = wanted.shape[:2]
    every = {i: v.reshape(-1, 1).expand(count).reshape(-1) for i, v in goal.fixed.items()}
    return {"fixed": every if rows is None else {i: v[rows] for i, v in every.items()}}


def check_request(model: ConditionalModel, goal: Goal, guidance: float = 1.0) -> None:
    """Refuse held columns of x, or guidance, that the model is not made for.

    Args:
        model: the model, fitted or not.
        goal: what is wanted.
        guidance: weight of the properties.

    Raises:
        GenoptError: if the model cannot hold these columns or cannot be guided.
    """
    if isinstance(model, ConditionalFlow):
        model.check_request(goal.fixed, guidance, goal.batch_size)
        return
    name = type(model).__name__
    if goal.fixed:
        columns = ", ".join(goal.x_space.names[i] for i in goal.fixed)
        raise GenoptError(
            f"{name} cannot hold design columns fixed ({columns}) in routine=generate: use "
            "model=flow with model.given_x=0.3, model=mixture or model=multitask, or drop them"
        )
    if guidance != 1.0:
        raise GenoptError(f"{name} cannot be guided: set routine.guidance=1, or use model=flow")


def _plan(
    goal: Goal, table: Table | None, samples: int, targets: int, *, regions: bool = False
) -> tuple[Tensor, int]:
    """Targets (B, T, K) and the number of draws for each of them."""
    if samples < 1 or targets < 1:
        raise GenoptError(f"samples={samples} and targets={targets} must be positive")
    wanted = reachable_targets(goal, table, targets, regions=regions)
    return wanted, -(-samples // wanted.shape[1])


def _collect(
    goal: Goal,
    wanted: Tensor,
    x: Tensor,
    claims: Tensor | None,
    score: Tensor,
    log_density: Tensor | None = None,
    trajectory: Tensor | None = None,
    header: Mapping[str, Any] | None = None,
) -> Candidates:
    """Candidates (B, T * n) from draws (B * T, n, P)."""
    goals, count, n = wanted.shape[0], wanted.shape[1], x.shape[1]

    def by_goal(value: Tensor) -> Tensor:
        return value.detach().reshape(goals, count * n, *value.shape[2:])

    if claims is None:
        claims = wanted.reshape(goals * count, 1, -1).expand(-1, n, -1)
    return Candidates.from_claims(
        goal,
        by_goal(x),
        by_goal(claims),
        ood=by_goal(score.reshape(-1, 1).expand(-1, n)),
        log_density=None if log_density is None else by_goal(log_density),
        trajectory=None if trajectory is None else by_goal(trajectory),
        header=header or {},
    )
