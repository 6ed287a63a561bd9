"""Trade-offs by drawing: a conditional model is asked for a little more than was ever measured."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.goal import Goal
from genopt.routines.nondominated import Objectives, nondominated, spread_out
from genopt.routines.pareto_search import Found, span
from genopt.routines.propose import propose

_SHARES = (0.0, 0.5, 1.0)
_OVER = 4


def conditioned(
    model: Any,
    goal: Goal,
    rows: Found,
    n: int,
    count: int,
    stretch: float,
    claims: Callable[[Tensor], Tensor] | None,
    table: Table,
    guidance: float | None,
    seed: int,
) -> Found:
    """Draws for reachable targets: the front's own rows, and the same moved outwards.

    Constraints keep the values that the row has: those are known to go together.

    Args:
        model: the mixture or flow.
        goal: what is wanted, one goal.
        rows: the measured front.
        n: how many designs are wanted.
        count: most targets of each stretch.
        stretch: how far the farthest go, in widths of the front.
        claims: predicts y of designs; None to claim the target of each.
        table: measured rows.
        guidance: weight of the properties for a flow; None for draws from p(x | y).
        seed: seed of the draws.

    Returns:
        The draws that no other one beats by its claim, or one of each target where nothing
        predicts y.
    """
    objectives = Objectives.of(goal)
    _, width = span(rows.values)
    known = rows.but(spread_out(rows.values / width, count))
    targets = torch.cat([_moved(known, goal, objectives, stretch * s * width) for s in _SHARES])
    spec = {
        term.column: {"equals": targets[:, term.index].tolist(), "weight": term.weight}
        for term in goal.terms
        if term.kind != "label"
    }
    spec |= {term.column: goal.spec[term.column] for term in goal.terms if term.kind == "label"}
    spec |= {goal.x_space.names[i]: goal.spec[goal.x_space.names[i]] for i in goal.fixed}
    each = max(1, -(-_OVER * n // len(targets)))
    options: dict[str, Any] = {} if guidance is None else {"guidance": guidance}
    with warnings.catch_warnings():
        # targets beyond the data are the purpose here
        warnings.filterwarnings("ignore", message=".*outside the data.*")
        asked = Goal(spec, goal.x_space, goal.y_space)
        drawn = propose(model, asked, each, table=table, seed=seed, **options)
    x = drawn.x.reshape(-1, goal.x_space.dim)
    if claims is None:
        y = targets.repeat_interleave(drawn.x.shape[1], 0)
        return Found(x, y, objectives.values(y))
    with torch.no_grad():
        y = claims(x).to(torch.float64)
    values = objectives.values(y)
    found = Found(x, y, values)
    good = goal.satisfied(y)
    return found.but(nondominated(values, good if bool(good.any()) else None))


def _moved(rows: Found, goal: Goal, objectives: Objectives, by: Tensor) -> Tensor:
    """Properties (T, K) with better objectives, inside the y Space."""
    y = rows.y.clone()
    y[:, list(objectives.index)] = objectives.raw(rows.values - by)
    return torch.minimum(torch.maximum(y, goal.y_space.lower), goal.y_space.upper)
