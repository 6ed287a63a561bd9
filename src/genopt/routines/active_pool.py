"""Designs that promise most: an evolution of designs on the acquisition, all aims side by side.

Crossover recombines columns of good designs, mutation moves a few of them by steps of all sizes, so
classes, integers and simplexes need no gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from genopt.data.sampling import sample_space
from genopt.goal import Goal
from genopt.routines.coordinates import project_sum

_GENERATIONS = 12
_SPREAD = 128
_MUTATED = 2.0
_SMALLEST, _LARGEST = -2.5, -0.5
# a centre (A, P) and the widths of a box around it (P), as shares of the columns' widths
Region: TypeAlias = tuple[Tensor, Tensor]


class Room:
    """Where the designs of each aim may lie: the Space with the goal's columns held.

    Args:
        goal: what is wanted, B goals.
        each: aims W of each goal; A = B * W.
    """

    def __init__(self, goal: Goal, each: int = 1) -> None:
        self.space = goal.x_space
        self.lower = self.space.lower.expand(goal.batch_size, 1, -1).clone()
        self.upper = self.space.upper.expand(goal.batch_size, 1, -1).clone()
        for i, value in goal.fixed.items():
            self.lower[..., 0, i] = self.upper[..., 0, i] = value
        self.lower = self.lower.repeat_interleave(each, 0)
        self.upper = self.upper.repeat_interleave(each, 0)
        self.width = torch.where(
            torch.isfinite(self.upper - self.lower), self.upper - self.lower, 1.0
        )

    def inside(self, x: Tensor, around: Region | None = None) -> Tensor:
        """The nearest valid designs.

        Args:
            x: designs (A, M, P).
            around: a centre (A, P) and widths (P), as shares of the columns': the trust region.

        Returns:
            Designs (A, M, P).
        """
        if around is not None:
            centre, share = around
            reach = 0.5 * share * self.width
            free = torch.ones(self.space.dim, dtype=torch.bool)
            free[list(self.space.categorical)] = False
            low, high = centre[:, None] - reach, centre[:, None] + reach
            x = torch.where(free, torch.minimum(torch.maximum(x, low), high), x)
        x = self.space.project(torch.minimum(torch.maximum(x, self.lower), self.upper))
        for group in self.space.simplex_indices:
            index = list(group)
            x[..., index] = project_sum(
                x[..., index], self.lower[..., index], self.upper[..., index]
            )
        return x

    def anywhere(self, count: int, seed: int) -> Tensor:
        """Designs spread over the room.

        Args:
            count: how many for each aim.
            seed: seed of the draw.

        Returns:
            Designs (A, count, P).
        """
        x = sample_space(self.space, count, seed=seed)
        return self.inside(x.expand(len(self.lower), -1, -1).clone())


def evolve(
    promise: Callable[[Tensor], Tensor],
    room: Room,
    parents: Tensor,
    size: int,
    generator: torch.Generator,
    around: Region | None = None,
) -> Tensor:
    """The designs of the smallest values that an evolution finds, different from one another.

    Args:
        promise: designs (A, M, P) to values (A, M), lower is better.
        room: where designs may lie.
        parents: designs to begin with (A, M', P).
        size: children of each generation.
        generator: source of randomness.
        around: the trust region.

    Returns:
        Designs (A, at most size, P), the best first.
    """
    pool = room.inside(parents, around)
    value = promise(pool)
    width = room.space.dim
    share = torch.ones(width, dtype=torch.float64) if around is None else around[1]
    for _ in range(_GENERATIONS):
        pool, value = _best(pool, value, min(_SPREAD, size))
        aims, count = value.shape
        pair = torch.randint(count, (2, aims, size), generator=generator)
        one, other = (_rows(pool, index) for index in pair)
        cross = torch.rand(aims, size, width, generator=generator) < 0.5
        child = torch.where(cross, one, other)
        scale = torch.rand(aims, size, 1, generator=generator, dtype=torch.float64)
        scale = 10.0 ** (_SMALLEST + (_LARGEST - _SMALLEST) * scale)
        moved = torch.rand(aims, size, width, generator=generator) < _MUTATED / width
        step = torch.randn(aims, size, width, generator=generator, dtype=torch.float64)
        child = child + moved * scale * step * share * room.width
        child = _relabelled(child, moved, room, generator)
        child = room.inside(child, around)
        pool = torch.cat([pool, child], 1)
        value = torch.cat([value, promise(child)], 1)
    return _best(pool, value, size)[0]


def _relabelled(x: Tensor, moved: Tensor, room: Room, generator: torch.Generator) -> Tensor:
    """A class that mutates becomes any class."""
    for i in room.space.categorical:
        labels = len(room.space.variables[i].labels)
        drawn = torch.randint(labels, moved.shape[:2], generator=generator).to(x)
        x[..., i] = torch.where(moved[..., i], drawn, x[..., i].round())
    return x


def _best(pool: Tensor, value: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best different designs of each aim; copies come last."""
    order = value.argsort(dim=1, stable=True)
    pool, value = _rows(pool, order), value.gather(1, order)
    copy = torch.zeros_like(value, dtype=torch.bool)
    copy[:, 1:] = (pool[:, 1:] == pool[:, :-1]).all(-1)
    order = copy.to(torch.int8).argsort(dim=1, stable=True)[:, :count]
    return _rows(pool, order), value.gather(1, order)


def _rows(pool: Tensor, index: Tensor) -> Tensor:
    return pool.gather(1, index[..., None].expand(*index.shape, pool.shape[-1]))
