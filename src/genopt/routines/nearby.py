"""A gradient search that keeps each design near its own start.

So a set of draws stays the set that it was: what is moved is moved onto the goal, not to wherever
the search likes best.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.goal import Goal
from genopt.routines.coordinates import Coordinates
from genopt.routines.objective import Objective
from genopt.routines.penalties import Penalties
from genopt.routines.restarts import Multistart
from genopt.routines.search import SearchOptions
from genopt.routines.surrogate import Surrogate, frozen
from genopt.routines.wants import wants_of


def near(coordinates: Coordinates, x: Tensor, radius: float) -> Coordinates:
    """The same search coordinates with limits around designs, one set of them for each.

    Args:
        coordinates: the coordinates with the limits of the x Space.
        x: valid designs (N, P).
        radius: how far a coordinate may lie from its design, in widths of a column; integers and
            classes may not move.

    Returns:
        Coordinates whose limits are (N, 1, E).
    """
    out = coordinates.holding(x[:, None])
    u = coordinates.from_raw(x)[:, None]
    out.u_lower = torch.minimum(torch.maximum(out.u_lower, u - radius), out.u_upper)
    out.u_upper = torch.maximum(torch.minimum(out.u_upper, u + radius), out.u_lower)
    out.lower, out.upper = out.wide(out.u_lower), out.wide(out.u_upper)
    return out


def improve(
    model: Surrogate,
    goal: Goal,
    x: Tensor,
    radius: float = 0.1,
    steps: int = 40,
    optimizer: str = "lbfgs",
    lr: float = 0.05,
    progress: bool = False,
) -> Tensor:
    """Designs moved to where a model meets a goal, each near where it was.

    Args:
        model: the fitted multi-task model or ensemble.
        goal: what is wanted, B goals.
        x: valid designs (B, R, P).
        radius: how far a column may move, in widths of the column.
        steps: steps of the search.
        optimizer: ``lbfgs``, ``adam`` or ``adam_lbfgs``.
        lr: peak step size, in widths of a column.
        progress: whether to show a progress bar.

    Returns:
        Designs (B, R, P), float64; a design that got no better stays where it was.
    """
    options = SearchOptions(steps, lr, optimizer=optimizer, progress=progress)
    model.check_spaces(goal.x_space, goal.y_space)
    goals, count = x.shape[:2]
    x = goal.hold(x.to(torch.float64))
    starts = x.reshape(-1, x.shape[-1])
    if not len(starts):
        return x
    fixed = {i: v if v.numel() == 1 else v.repeat_interleave(count) for i, v in goal.fixed.items()}
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.no_grad(), model.evaluating(), frozen(model):
        wants = wants_of(model, len(starts), {}, None, "max", None, None, None, goal)
        model.require_heads(*(want.head for want in wants))
        objective = Objective(model, wants)
        whole = Coordinates(model.x_space, model.scaler, goal.x_space, fixed)
        limits = near(whole, starts, radius).to(model.home)
        search = Multistart(
            model,
            objective,
            limits,
            Penalties(model, objective, None, 0.0, None, 0.0, None, generator),
            None,
            options,
        )
        found, _ = search.run(starts.to(model.home), torch.float64, 1, 0.0, generator)
        end = goal.x_space.project(found.x[:, 0].to(x).reshape(x.shape))
        before, after = (model.predict_y(part).to(torch.float64) for part in (x, end))
    shape = (goals, count)
    losses = [goal.loss(y if goal.batched else y[0]).reshape(shape) for y in (before, after)]
    better = (losses[1] < losses[0]) | torch.isnan(losses[0])
    return torch.where(better[..., None], end, x)
