"""`pareto`: a front of trade-offs, for goals with two or more wishes.

What else the goal asks are constraints. A model that predicts y is searched along many directions
of the objectives; a conditional model is asked for properties a little better than the best
measured ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.models.mixture.engine import Mixture
from genopt.problems.base import Problem
from genopt.problems.simulator import Simulator
from genopt.protocols import ConditionalModel, ForwardModel
from genopt.routines.abstain import some_goals
from genopt.routines.hypervolume import require_moocore, score_front, true_front
from genopt.routines.nondominated import (
    Objectives,
    beaten,
    nondominated,
    spread_out,
    worthwhile,
)
from genopt.routines.pareto_draws import conditioned
from genopt.routines.pareto_search import Found, Limits, scalarise, span
from genopt.routines.sample import check_request

METHODS = ("auto", "scalarise", "condition", "guidance")
_SHOWN = 200
_KEEP = 300
_DIRECTIONS = 48
_DEGREES = (1.0 / 3.0, 1.0)
_EVEN = 1e-3


def pareto(
    model: Any,
    goal: Goal,
    *,
    table: Table | None = None,
    judge: ForwardModel | None = None,
    problem: Problem | None = None,
    method: str = "auto",
    n: int = 100,
    budget: int | None = None,
    directions: int | None = None,
    starts: int = 6,
    steps: int = 200,
    lr: float = 0.05,
    caution: float = 1.5,
    stretch: float = 0.05,
    guidance: float = 2.0,
    reference: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Candidates:
    """Designs of which no other one beats any in all wishes at once.

    Many constraints meet at the edge of what is feasible, and claims there are often wrong by a
    little, so designs keep away from it by the model's own doubt, the bold half of them by a third
    of that. Claims that trade a hair of one wish for far more of another are left out (`worthwhile`
    in `genopt.routines.nondominated`). With a problem the designs are simulated, and front and
    hypervolume are those of the simulated designs that keep all constraints.

    Args:
        model: a fitted model of any kind.
        goal: what is wanted, B goals: at least two columns ``min`` or ``max``, the other terms are
            constraints.
        table: measured rows, where the search starts.
        judge: predicts y of the designs of a model that cannot.
        problem: whose simulator verifies the designs, and whose true front, if it is known, they
            are compared with.
        method: ``scalarise`` (search on the model along directions of the objectives),
            ``condition`` (draws for properties a little better than the best rows'), ``guidance``
            (the same by a flow that is pushed towards them), or ``auto``: a search where the model
            predicts y, else draws.
        n: designs for each goal.
        budget: most simulator calls; None for one a design, 0 for none.
        directions: directions T of the objectives, or targets of the draws; None for half as many
            as designs, but 48 at least.
        starts: searches of each direction.
        steps: steps of each search.
        lr: first step of a search, in widths of a column.
        caution: how many standard deviations the careful half of the designs keeps away from
            constraints, the bold half a third of it; 0 to take claims as they are.
        stretch: how far the targets of draws go beyond the measured front, in widths of it.
        guidance: weight of the properties in ``guidance``.
        reference: the reference point of the hypervolume by wished column; None for a tenth of its
            range behind the true front, or behind the best rows.
        seed: seed of starts and draws.

    Returns:
        Candidates (B, n), verified if there is a simulator; NaN designs fill up goals with fewer.

    Raises:
        GenoptError: if an option does not fit the model or the goal, or there are no rows to start
            from.
    """
    chosen = check_pareto(
        model, goal, judge=judge, method=method, n=n, budget=budget, directions=directions,
        starts=starts, steps=steps, lr=lr, caution=caution, stretch=stretch, guidance=guidance,
        reference=reference,
    )  # fmt: skip
    if table is None:
        raise GenoptError("pareto starts from measured rows: give table=")
    forward = judge if judge is not None else model
    claims = forward.predict_y if isinstance(forward, ForwardModel) else None
    simulate = None
    if problem is not None and problem.has_simulator and budget != 0:
        simulate = Simulator(problem, budget)
    fronts: list[Candidates] = []
    count = max(_DIRECTIONS, n // 2) if directions is None else directions
    for b in range(goal.batch_size):
        one = some_goals(goal, [b]) if goal.batched else goal
        rows = _measured(one, table)
        if chosen == "scalarise" and claims is not None:
            pools = scalarise(
                claims,
                one,
                rows,
                doubts=_doubts(forward, one, table, caution),
                n_directions=count,
                starts=starts,
                steps=steps,
                lr=lr,
                keep=max(_KEEP, 2 * n),
                seed=seed,
            )
        else:
            weight = guidance if chosen == "guidance" else None
            found = conditioned(model, one, rows, n, count, stretch, claims, table, weight, seed)
            pools = [found]
        # rows with other values of held columns set no standard
        kept = rows.but(one.satisfied(rows.y) & _held(one, rows.x))
        pools = [pool.but(worthwhile(pool.values)) for pool in pools]
        best = _chosen(pools, kept, n, seed)
        fronts.append(_candidates(one, best, forward, n))
    joined = _joined(goal, fronts)
    return _scored(joined, goal, table, problem, simulate, reference, chosen)


def check_pareto(
    model: Any,
    goal: Goal,
    *,
    judge: ForwardModel | None = None,
    method: str = "auto",
    n: int = 100,
    budget: int | None = None,
    reference: Mapping[str, float] | None = None,
    guidance: float = 2.0,
    caution: float = 1.5,
    stretch: float = 0.05,
    lr: float = 0.05,
    **counts: int | None,
) -> str:
    """Refuse what cannot work, before anything is trained.

    Args:
        model: the model, fitted or not.
        goal: what is wanted.
        judge: as in `pareto`.
        method: as in `pareto`.
        n: as in `pareto`.
        budget: as in `pareto`.
        reference: as in `pareto`.
        guidance: as in `pareto`.
        caution: as in `pareto`.
        stretch: as in `pareto`.
        lr: as in `pareto`.
        **counts: further numbers that must be positive.

    Returns:
        The method that is used.

    Raises:
        GenoptError: if an option does not fit.
    """
    require_moocore()
    objectives = Objectives.of(goal)
    if method not in METHODS:
        raise UnknownNameError("routine.method", method, METHODS)
    for name, count in {"n": n, "lr": lr, **counts}.items():
        if count is not None and count <= 0:
            raise GenoptError(f"routine.{name} must be positive, got {count}")
    for name, number in {"caution": caution, "stretch": stretch, "budget": budget or 0}.items():
        if number < 0:
            raise GenoptError(f"routine.{name} must not be negative, got {number}")
    for column in objectives.columns if reference is not None else ():
        if column not in (reference or {}):
            raise GenoptError(
                f"routine.reference needs a value for each of {', '.join(objectives.columns)}"
            )
    for column in reference or {}:
        if column not in objectives.columns:
            raise UnknownNameError("column of routine.reference", column, objectives.columns)
    predicts = isinstance(model, ForwardModel) or judge is not None
    draws = isinstance(model, ConditionalModel)
    if method == "auto":
        method = "scalarise" if predicts else "condition"
    kind = type(model).__name__
    if method == "scalarise" and not predicts:
        raise GenoptError(
            f"routine.method=scalarise searches a model that predicts y, {kind} does not: use "
            "method=condition, or model=mixture, multitask or ensemble"
        )
    if method in ("condition", "guidance") and not draws:
        raise GenoptError(
            f"routine.method={method} draws designs from a mixture or a flow, not from {kind}: use "
            "method=scalarise"
        )
    if method == "guidance":
        if isinstance(model, Mixture):
            raise GenoptError(
                "routine.method=guidance is for flows: use method=condition with a mixture"
            )
        check_request(model, goal, guidance)
    elif method == "condition" and not isinstance(model, Mixture):
        check_request(model, goal)
    return method


def _measured(goal: Goal, table: Table) -> Found:
    """The front of the measured rows, or of those that come nearest to the constraints."""
    objectives, limits = Objectives.of(goal), Limits.of(goal)
    known = torch.isfinite(table.y[:, [term.index for term in goal.terms]]).all(1)
    if not bool(known.any()):
        columns = ", ".join(term.column for term in goal.terms)
        raise GenoptError(f"no row of the table has values for all of {columns}")
    y = table.y.to(torch.float64)
    values = objectives.values(y)
    good = known & goal.satisfied(y)
    if not bool(good.any()):
        outside = torch.where(known, limits.violation(y), torch.inf)
        good = outside <= outside[known].quantile(min(1.0, 20.0 / int(known.sum())))
    front = nondominated(values, good)
    return Found(table.x[front].to(torch.float64), y[front], values[front])


def _held(goal: Goal, x: Tensor) -> Tensor:
    """Which designs (N, P) have the values at which the goal holds columns."""
    return (x - goal.hold(x)).abs().amax(-1) <= 1e-9


def _doubts(
    model: Any, goal: Goal, table: Table, caution: float
) -> list[Callable[[Tensor], Tensor] | None]:
    """How far the constraints' claims may be wrong, for each degree of caution."""
    limits = Limits.of(goal)
    if not limits.index or caution == 0.0:
        return [None]
    index = limits.index
    ask: Callable[[Tensor], Tensor]
    if getattr(model, "has_spread", False):
        ask = model.spread_y
    elif isinstance(model, Mixture):
        ask = model.predict_spread
    else:
        # a model without a spread of its own: what it misses on the rows it has learned
        with torch.no_grad():
            missed = (model.predict_y(table.x) - table.y).to(torch.float64)
        usual = missed.square().nanmean(0).sqrt()
        ask = partial(_everywhere, usual)

    def doubt(degree: float, x: Tensor) -> Tensor:
        with torch.no_grad():
            spread = torch.nan_to_num(ask(x)[:, index].to(torch.float64))
        return degree * caution * spread

    return [partial(doubt, degree) for degree in _DEGREES]


def _everywhere(spread: Tensor, x: Tensor) -> Tensor:
    """One spread (K,) for all designs (N, P)."""
    return spread.expand(len(x), len(spread))


def _chosen(pools: list[Found], rows: Found, n: int, seed: int) -> Found:
    """Designs that fill the gaps of the measured front, a part from each degree of caution."""
    parts: list[Found] = []
    left = n
    for k, pool in enumerate(pools):
        quota = -(-left // (len(pools) - k))
        better = pool.but(~beaten(pool.values, rows.values))
        source = better if len(better.x) else pool
        if not len(source.x):
            continue
        known = torch.cat([rows.values, *[part.values for part in parts]])
        _, width = span(torch.cat([known, source.values]))
        picked = spread_out(source.values / width, quota, known / width)
        if len(picked) < quota:
            rest = torch.ones(len(source.x), dtype=torch.bool)
            rest[picked] = False
            others = rest.nonzero()[:, 0]
            order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
            picked = torch.cat([picked, others[order][: quota - len(picked)]])
        parts.append(source.but(picked))
        left -= len(picked)
    if not parts:
        return rows.but(torch.zeros(0, dtype=torch.long))
    return Found(*(torch.cat([getattr(p, name) for p in parts]) for name in ("x", "y", "values")))


def _candidates(goal: Goal, found: Found, forward: Any, n: int) -> Candidates:
    """Candidates (1, n) with what the model claims of the designs as they are returned."""
    missing = n - len(found.x)
    x = goal.hold(goal.x_space.project(found.x))
    y, spread = found.y, None
    predicts = isinstance(forward, ForwardModel)
    if predicts and len(x):
        with torch.no_grad():
            y = forward.predict_y(x).to(torch.float64)
            if getattr(forward, "has_spread", False):
                spread = forward.spread_y(x).to(torch.float64)

    def filled(value: Tensor) -> Tensor:
        nothing = value.new_full((missing, *value.shape[1:]), torch.nan)
        return torch.cat([value, nothing])[None]

    extra = {} if spread is None else {"y_spread": filled(spread)}
    return Candidates.from_claims(goal, filled(x), filled(y), **extra)


def _joined(goal: Goal, fronts: list[Candidates]) -> Candidates:
    """The fronts of all goals as one (B, n)."""
    spreads = [front.y_spread for front in fronts if front.y_spread is not None]
    extra = {"y_spread": torch.cat(spreads)} if len(spreads) == len(fronts) else {}
    x, y = torch.cat([f.x for f in fronts]), torch.cat([f.y_predicted for f in fronts])
    return Candidates.from_claims(goal, x, y, **extra)


def _scored(
    candidates: Candidates,
    goal: Goal,
    table: Table,
    problem: Problem | None,
    simulate: Simulator | None,
    reference: Mapping[str, float] | None,
    method: str,
) -> Candidates:
    """The candidates with the simulator's word, and their front in numbers and words."""
    numbers: dict[str, float] = {}
    if simulate is not None:
        x = candidates.x.clone()
        if simulate.budget is not None:
            there = torch.isfinite(x).all(-1).flatten().nonzero()[:, 0]
            x.reshape(-1, x.shape[-1])[there[simulate.budget :]] = torch.nan
        candidates = candidates.verified_by(simulate(x))
        numbers["calls"] = simulate.calls
    said = candidates.y_verified if simulate is not None else candidates.y_predicted
    one = some_goals(goal, [0]) if goal.batched else goal
    measured = table.y[_held(one, table.x)].to(torch.float64)
    objectives = Objectives.of(one)
    truth = true_front(problem, one)
    point = None
    if reference is not None:
        raw = torch.tensor([float(reference[c]) for c in objectives.columns], dtype=torch.float64)
        point = raw * raw.new_tensor(objectives.signs)
    elif truth is None:
        point = score_front(one, torch.cat([measured, said[0]])).reference
    score = score_front(one, said[0], reference=point, truth=truth)
    before = score_front(one, measured, reference=score.reference, truth=truth)
    numbers |= {"front_designs": len(score.values), "hypervolume": score.hypervolume}
    numbers["rows_hypervolume"] = before.hypervolume
    words = f"{'front' if simulate is not None else 'claimed front'} of {len(score.values)} designs"
    if score.share is not None:
        numbers["hypervolume_share"] = score.share
        words += f", hypervolume {100.0 * score.share:.1f} % of the true front's"
        words += f" (the measured rows' {100.0 * (before.share or 0.0):.1f} %)"
    else:
        words += f", hypervolume {score.hypervolume:.4g} (the measured rows' "
        words += f"{before.hypervolume:.4g})"
    some = None
    if truth is not None:
        some = truth[torch.linspace(0, len(truth) - 1, min(_SHOWN, len(truth))).round().long()]
    front = {
        "columns": list(objectives.columns),
        "reference": objectives.raw(score.reference).tolist(),
        "rows": objectives.raw(before.values).tolist(),
        "true": None if some is None else objectives.raw(some).tolist(),
    }
    header = {"routine": "pareto", "method": method, "front": front}
    return replace(
        candidates, header={**header, "distance": _EVEN, "numbers": numbers, "says": [words]}
    )
