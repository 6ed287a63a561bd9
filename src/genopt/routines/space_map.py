"""`space_map`: a region of outputs mapped back to designs.

Targets spread over the region are asked of the model, all in one call, and for each the design that
is claimed to come nearest is kept; with a simulator the designs can be brought onto their targets.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.problems.base import Problem
from genopt.problems.simulator import Simulator
from genopt.protocols import ConditionalModel, ForwardModel
from genopt.routines.abstain import threshold_of
from genopt.routines.space_map_region import Region
from genopt.routines.stationary_newton import Linear, newton
from genopt.routines.stationary_system import Conditions, Coordinates

_STEPS = 20
# percent
_SPARE = 110


class OutOfReachWarning(UserWarning):
    """A part of the region lies where no design was measured."""


def space_map(
    model: Any,
    goal: Goal,
    *,
    table: Table | None = None,
    judge: ForwardModel | None = None,
    problem: Problem | None = None,
    region: Any = None,
    samples: int = 1000,
    draws: int = 8,
    abstain: bool | float | None = None,
    refine: bool = False,
    seed: int = 0,
) -> Candidates:
    """Designs whose outputs fill a region.

    Args:
        model: a fitted mixture, flow or other ConditionalModel.
        goal: the region: every output that satisfies the goal.
        table: measured rows, for the message where the region is out of reach.
        judge: predicts y, to choose among the draws of a model that cannot.
        problem: whose simulator verifies the designs; None for none.
        region: rules that outputs keep as well, over the columns of y, such as ``["(a - 0.5)**2 +
            b**2 <= 0.04"]``; a polygon is one rule for each side.
        samples: targets, one design each.
        draws: designs drawn for each target, of which the one with the best claim is kept.
        abstain: true to leave out targets outside the data (scores above 1), a number for another
            score, None to ask for all; see `genopt.routines.abstain`. Models of many thin
            components call gaps between rows outside, too.
        refine: bring each design onto its target by Newton steps on the simulator, which torch must
            be able to differentiate.
        seed: seed of the targets and of the draws.

    Returns:
        Candidates (1, R), R at most ``samples``; the header says the ``targets``, what share of the
        region is in reach and, with a simulator, of the designs inside it.

    Raises:
        GenoptError: if the region is empty or out of reach, or the model draws no designs.
    """
    check_space_map(
        model,
        goal,
        region=region,
        samples=samples,
        draws=draws,
        abstain=abstain,
        refine=refine,
    )
    if refine and (problem is None or not problem.has_simulator):
        raise GenoptError("routine.refine=true needs a simulator: set it to false")
    area = Region.of(goal, region)
    # some more than wanted: designs that are claimed to miss the region make room for them
    targets = area.draw(-(-samples * _SPARE // 100), seed)
    score = model.ood_score(targets)
    limit = threshold_of(abstain)
    near = torch.ones(len(score), dtype=torch.bool) if limit is None else score <= limit
    reach = float(near.double().mean())
    if reach == 0.0:
        raise GenoptError(
            f"no part of the region is in reach: its smallest ood is {float(score.min()):.3g}, "
            f"above {limit:g} (routine.abstain){_nearest(table, targets)}"
        )
    if reach < 1.0:
        warnings.warn(
            f"{100.0 * (1.0 - reach):.3g} % of the region lies where no design was measured: no "
            "designs are returned for it",
            OutOfReachWarning,
            stacklevel=2,
        )
    targets, score = targets[near], score[near]
    generator = torch.Generator().manual_seed(seed)
    held = {i: value.expand(len(targets)) for i, value in goal.fixed.items()}
    extra: dict[str, Any] = {"fixed": held} if held else {}
    x = model.sample(targets, draws, generator, **extra).to(torch.float64)
    predictor = model if isinstance(model, ForwardModel) else judge
    claims = targets.unsqueeze(1).expand(-1, draws, -1)
    if predictor is not None:
        with torch.no_grad():
            claims = predictor.predict_y(x).to(torch.float64)
    miss = _miss(claims, targets.unsqueeze(1), goal)
    best = torch.where(torch.isnan(miss), torch.inf, miss).argmin(1)
    rows = torch.arange(len(x))
    x, claims = x[rows, best], claims[rows, best]
    kept = (~area.contains(claims)).to(torch.int8).argsort(stable=True)[:samples].sort().values
    x, claims, targets, score = x[kept], claims[kept], targets[kept], score[kept]
    numbers: dict[str, float] = {"targets": float(samples), "reach": reach}
    says = [f"{100.0 * reach:.3g} % of the region is in reach"] if reach < 1.0 else []
    calls = 0
    if refine and problem is not None:
        x, calls = _onto_targets(x, targets, goal, problem)
        claims = problem.simulate(x).detach().to(torch.float64)
    verified: dict[str, Tensor] = {}
    if problem is not None and problem.has_simulator:
        simulate = Simulator(problem)
        y = simulate(x)
        calls += simulate.calls
        verified["y_verified"] = y.unsqueeze(0)
        inside = area.contains(y)
        distance = (y - targets)[:, list(area.columns)].norm(dim=1)
        share, median = float(inside.double().mean()), float(distance.nanmedian())
        numbers |= {"inside": share, "round_trip_median": median, "calls": float(calls)}
        says.append(
            f"{100.0 * share:.4g} % of {len(x)} designs lie inside the region, median round trip "
            f"{median:.3g}"
        )
    return Candidates.from_claims(
        goal,
        x.unsqueeze(0),
        claims.unsqueeze(0),
        ood=score.unsqueeze(0),
        header={
            "routine": "space_map",
            "region": [rule.name for rule in area.rules],
            "targets": targets.tolist(),
            "columns": list(area.columns),
            "numbers": numbers,
            "says": says,
        },
        **verified,
    )


def check_space_map(
    model: Any,
    goal: Goal,
    *,
    region: Any = None,
    samples: int = 1000,
    draws: int = 8,
    abstain: bool | float | None = None,
    refine: bool = False,
) -> None:
    """Refuse what cannot be mapped, before any training.

    Args:
        model: the model, fitted or not.
        goal: the region.
        region: rules over the columns of y.
        samples: number of targets.
        draws: designs for each.
        abstain: which targets are left out.
        refine: whether designs are brought onto their targets.

    Raises:
        GenoptError: if the model draws no designs, the region is empty, or a number is out of
            range.
    """
    if not isinstance(model, ConditionalModel):
        raise GenoptError(
            f"routine=space_map works with model=mixture or model=flow, not with "
            f"{type(model).__name__}"
        )
    for name, count in (("samples", samples), ("draws", draws)):
        if count < 1:
            raise GenoptError(f"routine.{name} must be at least 1, got {count}")
    threshold_of(abstain)
    Region.of(goal, region).draw(1)
    if refine:
        _coordinates(goal)


def _coordinates(goal: Goal) -> Coordinates:
    return Coordinates(goal.x_space, {i: float(value) for i, value in goal.fixed.items()})


def _miss(y: Tensor, targets: Tensor, goal: Goal) -> Tensor:
    """Distance from targets in units of the y Space's widths; columns without a target are free."""
    gap = (y - targets) / goal.scale
    return torch.where(torch.isnan(targets), 0.0, gap).square().sum(-1)


def _onto_targets(x: Tensor, targets: Tensor, goal: Goal, problem: Problem) -> tuple[Tensor, int]:
    """Designs moved until the simulator gives their targets; how many designs that simulated."""
    coordinates = _coordinates(goal)
    asked = torch.isfinite(targets).all(0)
    calls = 0

    def values(design: Tensor) -> list[Tensor]:
        nonlocal calls
        calls += len(design)
        y = problem.simulate(design)[:, asked]
        return [y[:, :1], y]

    names = tuple(f"y{i}" for i in range(int(asked.sum())))
    conditions = Conditions(values, names, torch.ones(len(names), dtype=torch.bool), coordinates)
    dim = len(coordinates.moving)
    size = goal.scale[asked]

    def system(w: Tensor) -> Linear:
        # the targets travel with their rows as unknowns that do not move
        found = conditions.derivatives(w[:, :dim])
        value, slope = found.value[:, 1:] * conditions.size[1:], found.slope[:, 1:]
        slope = slope * conditions.size[1:, None] / size[:, None]
        still = slope.new_zeros(len(w), slope.shape[1], w.shape[1] - dim)
        return Linear((value - w[:, dim:]) / size, torch.cat([slope, still], 2))

    def clip(w: Tensor) -> Tensor:
        return torch.cat([w[:, :dim].clamp(0.0, 1.0), w[:, dim:]], 1)

    start = torch.cat([coordinates.unit(x), targets[:, asked]], 1)
    ends = newton(system, start, clip=clip, steps=_STEPS, tolerance=1e-10)
    return coordinates.raw(ends.point[:, :dim]), calls


def _nearest(table: Table | None, targets: Tensor) -> str:
    if table is None:
        return ""
    asked = torch.isfinite(targets).all(0)
    y = table.y[:, asked]
    y = y[torch.isfinite(y).all(1)]
    if not len(y):
        return ""
    spread = y.std(0).clamp_min(1e-300)
    gap = torch.cdist(y / spread, targets[:, asked] / spread).amin(1)
    row = y[int(gap.argmin())]
    names = [name for name, use in zip(table.y_space.names, asked.tolist(), strict=True) if use]
    words = ", ".join(f"{n} = {v:.4g}" for n, v in zip(names, row.tolist(), strict=True))
    return f"; the nearest measured row has {words}"
