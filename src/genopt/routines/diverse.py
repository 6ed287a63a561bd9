"""Several good designs that differ, chosen from all that a search has seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.goal import Goal
from genopt.routines.restarts import Found
from genopt.routines.surrogate import Surrogate

_DISTINCT = 16
_CHUNK = 65_536


@dataclass(frozen=True)
class Seen:
    """Designs that a search has seen, with the model's claims ranked by a goal.

    Args:
        x: designs (B, M, P).
        rank: the goal's loss with the penalties (B, M), lower is better; designs that miss the goal
            come after all that reach it.
        reached: which designs reach the goal (B, M).
    """

    x: Tensor
    rank: Tensor
    reached: Tensor

    @classmethod
    def of(cls, goal: Goal, x: Tensor, y: Tensor, penalty: Tensor) -> Seen:
        """Rank designs.

        Args:
            goal: what is wanted, B goals.
            x: designs (B, M, P).
            y: what the model claims of them (B, M, K).
            penalty: what the search adds to the loss (B, M).

        Returns:
            The ranked designs.
        """
        y = y.to(torch.float64)
        claims = y if goal.batched else y[0]
        loss = goal.loss(claims).reshape(x.shape[:2]) + penalty
        reached = goal.satisfied(claims).reshape(x.shape[:2]) & goal.x_space.contains(x)
        loss = torch.where(torch.isnan(loss), torch.inf, loss)
        finite = torch.where(torch.isinf(loss), 0.0, loss)
        span = finite.amax(1, keepdim=True) - finite.amin(1, keepdim=True) + 1.0
        return cls(x, torch.where(reached, loss, loss + span), reached)


@dataclass(frozen=True)
class Chosen:
    """Chosen points of a search.

    Args:
        found: where the search ended and which way it went.
        goals: number of goals B.
        place: which of the restarts of all starts of a goal (B, n).
        step: after how many of its steps (B, n).
    """

    found: Found
    goals: int
    place: Tensor
    step: Tensor

    def designs(self) -> Tensor:
        """The chosen designs (B, n, P), float64."""
        shape = (self.goals, -1, self.found.x.shape[-1])
        x = _gathered(self.found.x.reshape(shape), self.place)
        for step, way in zip(self.found.kept, self.found.ways, strict=True):
            here = self.step == step
            if step < self.found.steps and bool(here.any()):
                x = torch.where(here[..., None], _gathered(way.reshape(shape), self.place), x)
        return x.to(torch.float64)

    def ways(self, starts: Tensor) -> Tensor:
        """The way to each design, its start first; it stays where the design is.

        Args:
            starts: the starts (B, n', P) of each goal.

        Returns:
            (B, n, S + 1, P).
        """
        found, dim = self.found, self.found.x.shape[-1]
        walked = found.way(found.ways, found.x).reshape(self.goals, -1, found.steps, dim)
        first = starts.to(walked.device).repeat_interleave(found.x.shape[1], 1)[:, :, None]
        walked = _gathered(torch.cat([first, walked], 2), self.place)
        until = torch.arange(found.steps + 1, device=walked.device)
        until = torch.minimum(until, self.step[..., None])
        return walked.gather(2, until[..., None].expand(*until.shape, dim))


def select(
    model: Surrogate, goal: Goal, found: Found, n: int, distance: float | None, stride: int
) -> Chosen:
    """The best designs of a search, each at a distance from every better one.

    Where few ends of searches differ, points of their ways join them; the best restarts of single
    starts fill up the number.

    Args:
        model: the model that was searched.
        goal: what is wanted, B goals.
        found: where the search ended, from n starts of each goal.
        n: how many designs.
        distance: least root mean square distance in the unit box; None for the best restart of each
            start.
        stride: every how many steps the ways may be used; 0 for not at all.

    Returns:
        What is chosen.
    """
    goals, restarts = goal.batch_size, found.x.shape[1]
    ends = _seen(model, goal, [found.x], [found.penalty])
    own = ends.rank.reshape(goals, n, restarts).argmin(2)
    own = own + restarts * torch.arange(n, device=own.device)
    if distance is None:
        return Chosen(found, goals, own, torch.full_like(own, found.steps))
    space = goal.x_space
    unit = space.encode(ends.x)
    # what misses the goal is no design, unless nothing reaches it
    reach = ends.reached.any(1, keepdim=True)
    rank = torch.where(reach & ~ends.reached, torch.inf, ends.rank)
    place = choose(unit, rank, n, distance)
    step = torch.full_like(place, found.steps)
    few = min(_DISTINCT, n)
    kept = [k for k, s in enumerate(found.kept) if stride and s % stride == 0]
    if kept and bool((place[:, :few] < 0).any()):
        ways = _seen(
            model, goal, [found.ways[k] for k in kept], [found.way_penalties[k] for k in kept]
        )
        rank = torch.where(reach & ~ways.reached, torch.inf, ways.rank)
        better = torch.where((place < 0)[..., None], torch.nan, _gathered(unit, place.clamp_min(0)))
        more = choose(space.encode(ways.x), rank, few, distance, better)
        steps = torch.tensor([found.kept[k] for k in kept], device=place.device)
        size = n * restarts
        for point in more.unbind(1):
            count = (place >= 0).sum(1)
            rows = torch.nonzero((count < few) & (point >= 0))[:, 0]
            place[rows, count[rows]] = point[rows] % size
            step[rows, count[rows]] = steps[point[rows] // size]
    for b in range(goals):
        free = int((place[b] < 0).sum())
        if free:
            taken = place[b][(place[b] >= 0) & (step[b] == found.steps)]
            order = own[b][ends.rank[b, own[b]].argsort(stable=True)]
            rest = torch.cat([order[~torch.isin(order, taken)], order])
            place[b, n - free :] = rest[:free]
    return Chosen(found, goals, place, step)


def choose(
    unit: Tensor, rank: Tensor, n: int, distance: float, kept: Tensor | None = None
) -> Tensor:
    """The best designs of which each differs from every better one, for all goals at once.

    Args:
        unit: designs in the relaxed unit box (B, M, E).
        rank: what they are worth (B, M), lower is better; infinite: never.
        n: how many.
        distance: least root mean square distance.
        kept: designs from which they must differ as well (B, m, E); NaN for none.

    Returns:
        Positions along M (B, n), the best first; -1 where there are no more.
    """

    def away(rank: Tensor, other: Tensor) -> Tensor:
        near = (unit - other).square().mean(-1).sqrt() < distance
        return torch.where(near, torch.inf, rank)

    if kept is not None:
        for other in kept.unbind(1):
            rank = away(rank, other[:, None])
    picks = torch.full((len(unit), n), -1, dtype=torch.long, device=unit.device)
    for i in range(n):
        best, index = rank.min(1)
        if bool(torch.isinf(best).all()):
            break
        picks[:, i] = torch.where(torch.isinf(best), -1, index)
        rank = away(rank, unit.gather(1, index[:, None, None].expand(-1, 1, unit.shape[-1])))
    return picks


def _seen(model: Surrogate, goal: Goal, x: list[Tensor], penalty: list[Tensor]) -> Seen:
    """Ranked designs (B, M, P) of blocks (B * n, R, P)."""
    dim, goals = goal.x_space.dim, goal.batch_size
    designs = torch.cat([part.reshape(goals, -1, dim) for part in x], 1)
    flat = designs.reshape(-1, dim)
    with torch.no_grad():
        y = torch.cat([model.predict_y(part) for part in flat.split(_CHUNK)])
    added = torch.cat([part.reshape(goals, -1) for part in penalty], 1)
    return Seen.of(goal, designs, y.reshape(*designs.shape[:2], -1), added)


def _gathered(values: Tensor, index: Tensor) -> Tensor:
    """Entries (B, n, ...) of (B, M, ...) at positions (B, n)."""
    rows = torch.arange(len(values), device=values.device)[:, None]
    return values[rows, index]
