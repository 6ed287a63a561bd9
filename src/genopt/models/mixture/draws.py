"""Draws kept inside a Space: what lies outside is drawn again, a few times, then projected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genopt.space import Space

_ROUNDS = 25
_PATIENCE = 5
_LEAST_GAIN = 1e-3


def draw_inside(
    draw: Callable[[Tensor], Tensor], count: int, space: Space, held: Mapping[int, Tensor]
) -> tuple[Tensor, float]:
    """Draw until the points are valid or hardly any more become so.

    Args:
        draw: fresh draws (C', n, P) of the conditions whose numbers it is given.
        count: number of conditions C.
        space: where the points must lie.
        held: columns that are held, with their values (C,).

    Returns:
        Valid points (C, n, P) and the share of them that had to be projected.
    """
    points = _rounded(draw(torch.arange(count)), space)
    inside = space.contains(points)
    for attempt in range(_ROUNDS):
        rows = (~inside).any(1).nonzero().flatten()
        if not len(rows):
            break
        again = _rounded(draw(rows), space)
        missing = ~inside[rows]
        better = missing & space.contains(again)
        points[rows] = torch.where(better.unsqueeze(-1), again, points[rows])
        inside[rows] |= better
        if attempt >= _PATIENCE and int(better.sum()) < _LEAST_GAIN * int(missing.sum()):
            break
    outside = 1.0 - float(inside.to(torch.float64).mean())
    return _project(points, space, held), outside


def _rounded(points: Tensor, space: Space) -> Tensor:
    discrete = list(space.discrete)
    points[..., discrete] = points[..., discrete].round()
    return points


def _project(points: Tensor, space: Space, held: Mapping[int, Tensor]) -> Tensor:
    """The nearest valid points with the held columns untouched."""
    width = torch.where(torch.isfinite(space.upper - space.lower), space.upper - space.lower, 0.0)
    # far draws first come near the box: a projection onto a simplex cannot resolve one beside 1e100
    points = torch.minimum(torch.maximum(points, space.lower - 9 * width), space.upper + 9 * width)
    if not held:
        return space.project(points)
    order = sorted(held)
    values = torch.stack([held[i] for i in order], 1)
    out = torch.empty_like(points)
    for value in torch.unique(values, dim=0):
        rows = (values == value).all(1)
        variables = list(space.variables)
        for i, number in zip(order, value.tolist(), strict=True):
            if not variables[i].labels:
                variables[i] = replace(variables[i], lower=number, upper=number)
        out[rows] = Space(tuple(variables), space.simplexes).project(points[rows])
        out[rows][..., order] = value
    return out


def generator_of(generator: torch.Generator | None, seed: int) -> np.random.Generator:
    """A numpy generator that follows a torch one, or a seed where there is none.

    Args:
        generator: source of randomness.
        seed: seed without a source.

    Returns:
        The generator.
    """
    source = torch.Generator().manual_seed(seed) if generator is None else generator
    return np.random.default_rng(
        int(torch.randint(0, 2**62, (1,), generator=source, device=source.device))
    )
