"""Scalarisation: all trade-offs of a model at once, one direction of the objectives a row.

Each row minimises the augmented Chebyshev distance to the best values (Steuer and Choo 1983, doi
10.1007/BF02591870), with its own weights, so that also hollow and broken fronts are found. Whatever
a search passes by may lie on the front: an archive keeps what no other claim beats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.data.sampling import sample_space, unit_samples
from genopt.goal import Goal
from genopt.routines.nondominated import Objectives, nondominated, spread_out
from genopt.space import Space

_AUGMENT = 0.02
_PENALTY = 20.0
_LOOK = 5
_CALM = 0.9, 0.99
_COOL = 0.2, 0.005
_SLOWEST = 0.0005
# when searches that lag behind go on from the archive, and how far beside its designs
_AGAIN, _BESIDE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), 0.005


@dataclass(frozen=True)
class Limits:
    """The terms of a goal that are no wishes, as intervals.

    Args:
        index: their r positions in the y Space.
        lower: lower ends (r,), -inf for none.
        upper: upper ends (r,), inf for none.
        unit: width of their columns (r,).
    """

    index: list[int]
    lower: Tensor
    upper: Tensor
    unit: Tensor

    @classmethod
    def of(cls, goal: Goal) -> Limits:
        """Read the constraints of a single goal; a class is held by `Goal.satisfied` alone.

        Args:
            goal: what is wanted.

        Returns:
            The limits.
        """
        rows: list[tuple[int, float, float]] = []
        for term in goal.terms:
            if term.value is None or term.kind == "label":
                continue
            value, slack = float(term.value), term.tolerance
            if slack is None:
                slack = 0.02 * float(goal.scale[term.index]) if term.kind == "equals" else 0.0
            low = value - slack if term.kind != "at_most" else -math.inf
            end = value if term.upper is None else float(term.upper)
            high = end + slack if term.kind != "at_least" else math.inf
            rows.append((term.index, low, high))
        ends = torch.tensor([row[1:] for row in rows], dtype=torch.float64).reshape(-1, 2)
        index = [row[0] for row in rows]
        return cls(index, ends[:, 0], ends[:, 1], goal.scale[index].to(torch.float64))

    def violation(self, y: Tensor, doubt: Tensor | None = None) -> Tensor:
        """How far claims lie outside, in widths of the columns.

        Args:
            y: properties (..., K).
            doubt: how far the truth may lie from them (..., r), in raw units; None for not at all.

        Returns:
            Sums over the columns (...).
        """
        column = y[..., self.index].to(torch.float64)
        if not self.index:
            return column.sum(-1)
        lower, upper = self.lower, self.upper
        if doubt is not None:
            # an interval must not close
            room = torch.minimum(doubt, 0.25 * (upper - lower))
            lower, upper = lower + room, upper - room
        out = (lower - column).clamp_min(0.0) + (column - upper).clamp_min(0.0)
        return (out / self.unit).sum(-1)


def directions(n: int, objectives: int, seed: int = 0) -> Tensor:
    """Weights that spread over all trade-offs.

    Args:
        n: how many.
        objectives: number of objectives M.
        seed: seed of the draw for three and more.

    Returns:
        Weights (n, M), each row's largest is 1.
    """
    if objectives == 2:
        angle = torch.linspace(0.0, 0.5 * math.pi, n, dtype=torch.float64)
        ways = torch.stack([angle.cos(), angle.sin()], -1)
    else:
        draws = torch.from_numpy(unit_samples(n, objectives, seed=seed)).clamp(1e-6, 1 - 1e-6)
        ways = -draws.log()
        ends = torch.eye(objectives, dtype=torch.float64)[: min(n, objectives)]
        ways = torch.cat([ends, ways[len(ends) :]])
    ways = ways / ways.sum(-1, keepdim=True)
    weights = 1.0 / ways.clamp_min(0.01)
    return weights / weights.amax(-1, keepdim=True)


@dataclass(frozen=True)
class Found:
    """What the searches passed by that no other claim beats.

    Args:
        x: designs (N, P).
        y: what the model claims of them (N, K).
        values: the claimed objectives (N, M), to be made small.
    """

    x: Tensor
    y: Tensor
    values: Tensor

    def but(self, rows: Tensor) -> Found:
        """Some of them.

        Args:
            rows: positions (n,), or a mask (N,).

        Returns:
            Those.
        """
        return Found(self.x[rows], self.y[rows], self.values[rows])

    def joined(self, other: Found, most: int) -> Found:
        """Both together, without what is beaten.

        Args:
            other: more.
            most: how many to keep, far apart, once there are three times as many.

        Returns:
            The front of both.
        """
        x, y = torch.cat([self.x, other.x]), torch.cat([self.y, other.y])
        both = Found(x, y, torch.cat([self.values, other.values]))
        front = both.but(nondominated(both.values))
        if len(front.x) <= 3 * most:
            return front
        _, width = span(front.values)
        return front.but(spread_out(front.values / width, most))


def span(values: Tensor) -> tuple[Tensor, Tensor]:
    """The best value of each objective and the width of the front.

    Args:
        values: points of a front (N, M).

    Returns:
        Best (M,) and width (M,), the latter positive.
    """
    best = values.amin(0)
    width = values.amax(0) - best
    return best, torch.where(width > 0, width, values.abs().amax(0).clamp_min(1e-12))


def scalarise(
    predict: Callable[[Tensor], Tensor],
    goal: Goal,
    rows: Found,
    *,
    doubts: list[Callable[[Tensor], Tensor] | None],
    n_directions: int,
    starts: int,
    steps: int,
    lr: float,
    keep: int,
    seed: int,
) -> list[Found]:
    """The model's own front, for each degree of caution.

    Args:
        predict: properties of designs (N, P) -> (N, K), differentiable.
        goal: what is wanted, one goal; its fixed columns are held.
        rows: measured rows that satisfy the constraints best, the searches start there.
        doubts: for each degree of caution, how far constraints may lie from what is claimed,
            (N, P) -> (N, r); None for claims as they are.
        n_directions: directions T of the objectives.
        starts: searches R of each direction.
        steps: steps of Adam.
        lr: its first step, in widths of a column.
        keep: about how many points of a front are kept.
        seed: seed of the directions and starts.

    Returns:
        A front of claims for each degree of caution.
    """
    objectives, limits = Objectives.of(goal), Limits.of(goal)
    space = goal.x_space
    lower, width = _box(space, rows.x)
    weights = directions(n_directions, len(objectives.index), seed)
    begun = _starts(goal, rows, weights, starts, seed)
    groups = len(doubts)
    weight = weights.repeat_interleave(starts, 0).repeat(groups, 1)
    unit = ((begun - lower) / width).repeat(groups, 1).requires_grad_()
    size = len(begun)
    nothing = rows.but(torch.zeros(0, dtype=torch.long))
    archives = [nothing] * groups
    best, extent = span(rows.values)
    moved = _movable(space, goal)
    optimizer = torch.optim.Adam([unit], lr=lr, betas=_CALM)
    doubt = torch.zeros(len(unit), len(limits.index), dtype=torch.float64)
    pace, warm = lr, _COOL[0]
    again = {round(steps * share) for share in _AGAIN} - {0, steps}
    again = {step - step % _LOOK for step in again}
    generator = torch.Generator().manual_seed(seed + 1)
    for step in range(steps + 1):
        x = lower + unit * width
        y = predict(x)
        values = objectives.values(y)
        if step % _LOOK == 0 or step == steps:
            with torch.no_grad():
                parts = list(zip(x.detach().split(size), doubts, strict=True))
                each = [_doubt(ask, part, limits) for part, ask in parts]
                doubt = torch.cat(each)
                inside = (limits.violation(y.detach(), doubt) <= 0) & goal.satisfied(y.detach())
                for g in range(groups):
                    here = torch.arange(g * size, (g + 1) * size)
                    here = here[inside[here]]
                    seen = Found(x.detach()[here], y.detach()[here].double(), values.detach()[here])
                    archives[g] = archives[g].joined(seen, keep)
                known = torch.cat([a.values for a in archives])
                if len(known) > 1:
                    best, extent = span(known[nondominated(known)])
                if step in again:
                    loss = _distance(values.detach(), weight, best, extent, warm, limits, y, doubt)
                    fresh = [
                        _inherited(a, part, weights, best, extent)
                        for a, part in zip(archives, loss.split(size), strict=True)
                    ]
                    _restart(unit, optimizer, fresh, (lower, width), moved, generator)
        if step == steps:
            break
        share = step / max(steps, 1)
        warm = _COOL[0] * (_COOL[1] / _COOL[0]) ** share
        for group in optimizer.param_groups:
            group["lr"] = pace = lr * _SLOWEST**share
        # steps sway about the edge of a constraint: their middle lies inside by their own length
        away = doubt + pace * limits.unit
        loss = _distance(values, weight, best, extent, warm, limits, y, away)
        (slope,) = torch.autograd.grad(loss.sum(), unit)
        unit.grad = torch.nan_to_num(slope * moved)
        optimizer.step()
        with torch.no_grad():
            unit.copy_((goal.hold(_project(space, lower + unit * width)) - lower) / width)
    return archives


def _distance(
    values: Tensor,
    weight: Tensor,
    best: Tensor,
    extent: Tensor,
    warm: float,
    limits: Limits,
    y: Tensor,
    away: Tensor,
) -> Tensor:
    """What a search makes small (N,): a smooth largest weighted objective, and the violations."""
    scaled = weight * (values - best) / extent
    largest = warm * torch.logsumexp(scaled / warm, -1)
    return largest + _AUGMENT * scaled.sum(-1) + _PENALTY * limits.violation(y, away)


def _inherited(
    archive: Found, loss: Tensor, weights: Tensor, best: Tensor, extent: Tensor
) -> tuple[Tensor, Tensor]:
    """Which searches (T * R,) of a group give up, and the archive's best for their directions."""
    count = len(weights)
    each = len(loss) // count
    many = min(each // 2, len(archive.x))
    worst = loss.reshape(count, each).argsort(dim=1, descending=True)[:, :many]
    rows = (worst + each * torch.arange(count)[:, None]).reshape(-1)
    scaled = (weights[:, None] * ((archive.values - best) / extent)[None]).amax(-1)
    return rows, archive.x[scaled.argsort(dim=1)[:, :many].reshape(-1)]


def _restart(
    unit: Tensor,
    optimizer: torch.optim.Optimizer,
    fresh: list[tuple[Tensor, Tensor]],
    box: tuple[Tensor, Tensor],
    moved: Tensor,
    generator: torch.Generator,
) -> None:
    """Set searches to other designs, a little beside them, and forget their momentum."""
    lower, width = box
    offset = 0
    for rows, x in fresh:
        noise = _BESIDE * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        at = rows + offset
        # inside the unit box, where the next step projects onto the rest of the Space
        unit[at] = ((x - lower) / width + noise * moved).clamp(0.0, 1.0)
        for name in ("exp_avg", "exp_avg_sq"):
            if name in optimizer.state[unit]:
                optimizer.state[unit][name][at] = 0.0
        offset += len(unit) // len(fresh)


def _doubt(ask: Callable[[Tensor], Tensor] | None, x: Tensor, limits: Limits) -> Tensor:
    if ask is None or not limits.index:
        return torch.zeros(len(x), len(limits.index), dtype=torch.float64)
    return ask(x).to(torch.float64)


def _project(space: Space, x: Tensor) -> Tensor:
    """Designs in the Space, integers left between their steps until the end."""
    inside = torch.minimum(torch.maximum(x, space.lower), space.upper)
    if not space.simplexes:
        return inside
    exact = space.project(x)
    groups = [i for group in space.simplex_indices for i in group]
    inside[:, groups] = exact[:, groups]
    return inside


def _box(space: Space, x: Tensor) -> tuple[Tensor, Tensor]:
    """Lower ends and widths by which steps are measured; of the rows where there are no bounds."""
    lower = torch.where(torch.isfinite(space.lower), space.lower, x.amin(0))
    upper = torch.where(torch.isfinite(space.upper), space.upper, x.amax(0))
    width = upper - lower
    return lower, torch.where(width > 0, width, 1.0)


def _movable(space: Space, goal: Goal) -> Tensor:
    """1 for columns that are searched: classes stay what they are at the start (P,)."""
    moved = torch.ones(space.dim, dtype=torch.float64)
    moved[list(space.categorical)] = 0.0
    moved[list(goal.fixed)] = 0.0
    return moved


def _starts(goal: Goal, rows: Found, weights: Tensor, starts: int, seed: int) -> Tensor:
    """Starts (T * R, P): half the best rows of each direction, some moved; half anywhere."""
    space = goal.x_space
    generator = torch.Generator().manual_seed(seed)
    best, width = span(rows.values)
    rank = (weights[:, None] * ((rows.values - best) / width)[None]).amax(-1)
    near = min(max(1, starts // 2), len(rows.x))
    own = rows.x[rank.argsort(dim=1)[:, :near]]
    _, extent = _box(space, rows.x)
    noise = torch.randn(own.shape, generator=generator, dtype=torch.float64)
    noise[:, 0] = 0.0
    noise[..., list(space.categorical)] = 0.0
    own = own + 0.05 * extent * noise
    rest = len(weights) * (starts - near)
    if space.bounded:
        free = sample_space(space, rest, seed=seed)
    else:
        free = rows.x[torch.randint(len(rows.x), (rest,), generator=generator)]
    x = torch.cat([own, free.reshape(len(weights), -1, space.dim)], 1).reshape(-1, space.dim)
    return goal.hold(_project(space, x))
