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
from genopt.models.mixture.reach import warn_outside
from genopt.models.mixture.region_goals import Region, sample_region
from genopt.protocols import ConditionalModel, ForwardModel
from genopt.routines.targets import confined_columns, reachable_targets


def condition(
    model: Mixture,
    goal: Goal,
    *,
    table: Table | None = None,
    samples: int = 1000,
    targets: int = 16,
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
        seed: seed of the draw.

    Returns:
        Candidates (B, R) with the log density of each design and the score of its target.

    Raises:
        GenoptError: if no target is reachable or a number is not positive.
    """
    wanted, n = _plan(goal, table, samples, targets, regions=True)
    conditions = wanted.reshape(-1, wanted.shape[-1])
    fixed = {i: value.repeat_interleave(wanted.shape[1]) for i, value in goal.fixed.items()}
    if not goal.batched:
        fixed = dict(goal.fixed)
    generator = torch.Generator().manual_seed(seed)
    columns, *ends = confined_columns(goal)
    region = None
    if columns:
        region = Region(columns, *(end.repeat_interleave(wanted.shape[1], 0) for end in ends))
        drawn = sample_region(model, conditions, region, n, generator, fixed=fixed)
        x, density, score = drawn.x, drawn.log_density, drawn.ood
    else:
        x = model.sample(conditions, n, generator, fixed=fixed)
        pairs = conditions.repeat_interleave(n, 0)
        density = model.log_prob(x.reshape(-1, x.shape[-1]), pairs).reshape(len(x), n)
        score = model.ood_score(conditions)
    warn_outside(model, conditions, score, region)
    return _collect(goal, wanted, x, model.predict_y(x), score, density)


def generate(
    model: ConditionalModel,
    goal: Goal,
    *,
    table: Table | None = None,
    judge: ForwardModel | None = None,
    samples: int = 1000,
    targets: int = 16,
    trajectory: bool = False,
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
        seed: seed of the draw.

    Returns:
        Candidates (B, R) with the score of each design's target.

    Raises:
        GenoptError: if the goal holds columns of x fixed, no target is reachable, or a number is
            not positive.
    """
    refuse_fixed(goal)
    wanted, n = _plan(goal, table, samples, targets)
    conditions = wanted.reshape(-1, wanted.shape[-1])
    generator = torch.Generator().manual_seed(seed)
    path, header = None, {}
    if trajectory:
        if not isinstance(model, ConditionalFlow):
            raise GenoptError(f"{type(model).__name__} has no trajectory: set trajectory=false")
        path = model.sample(conditions, n, generator, return_trajectory=True)
        x = path[..., -1, :]
        header = {"trajectory": "flow", "times": model.sampler.grid()}
    else:
        x = model.sample(conditions, n, generator)
    with torch.no_grad():
        claims = None if judge is None else judge.predict_y(x.to(torch.float64))
    score = model.ood_score(conditions)
    return _collect(goal, wanted, x, claims, score, trajectory=path, header=header)


def refuse_fixed(goal: Goal) -> None:
    """Refuse a goal that holds columns of x, which p(x | y) alone cannot.

    Args:
        goal: what is wanted.

    Raises:
        GenoptError: if a column of x is held.
    """
    if goal.fixed:
        names = ", ".join(goal.x_space.names[i] for i in goal.fixed)
        raise GenoptError(
            f"routine=generate cannot hold design columns fixed ({names}): use model=mixture or "
            "model=multitask, or drop them from the goal"
        )


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
