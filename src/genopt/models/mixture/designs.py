"""Draws of some variables of a joint density given others, kept inside a Space."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.mixture.conditions import known_values, patterns
from genopt.models.mixture.density import JointDensity
from genopt.models.mixture.draws import draw_inside
from genopt.space import Space


def draw_designs(
    density: JointDensity,
    x_space: Space,
    y: Tensor,
    held: Mapping[int, Tensor],
    n: int,
    rng: np.random.Generator,
) -> tuple[Tensor, float]:
    """Draws of designs, all conditions of one pattern in one pass.

    Args:
        density: the joint density.
        x_space: the columns of x, where the draws must lie.
        y: conditions (C, K); NaN for a free entry.
        held: values (C,) of the columns of x that are held.
        n: draws for each condition.
        rng: source of randomness.

    Returns:
        Designs (C, n, P) and the share of them that had to be projected into the Space.

    Raises:
        GenoptError: if n is not positive.
    """
    if n < 1:
        raise GenoptError(f"n must be at least 1, it is {n}")
    columns = density.columns
    out = y.new_empty(len(y), n, x_space.dim)
    outside = 0.0
    for rows, known in patterns(y, columns):
        own = (held[i][rows, None] for i in held)
        values = torch.cat([*own, known_values(y[rows], known, columns)], 1)
        given = (*held, *known)
        out[rows], share = draw_variables(
            density, values, given, columns.x_variables, x_space, n, rng
        )
        outside += share * len(rows) / len(y)
    return out, outside


def draw_variables(
    density: JointDensity,
    values: Tensor,
    given: tuple[int, ...],
    variables: tuple[int, ...],
    space: Space,
    n: int,
    rng: np.random.Generator,
) -> tuple[Tensor, float]:
    """Draws for queries that know the same variables.

    Args:
        density: the joint density.
        values: values of the given variables (C, V).
        given: the given variables.
        variables: the U variables that are returned; a given one has its value in every draw.
        space: where the draws must lie, its columns are ``variables``.
        n: draws for each query.
        rng: source of randomness.

    Returns:
        Draws (C, n, U) in raw units and the share of them that had to be projected into the Space.
    """
    wanted = tuple(i for i in variables if i not in given)
    batch, selection, known = density.conditional(values, given, wanted)
    held = {
        variables.index(i): values[:, position]
        for position, i in enumerate(given)
        if i in variables
    }

    def draw(rows: Tensor) -> Tensor:
        index = rows.numpy()
        full = density.columns.restore(
            selection, known[index, None], batch.take(index).sample(n, rng)
        )
        points = torch.empty(len(rows), n, len(variables), dtype=torch.float64)
        free = [position for position in range(len(variables)) if position not in held]
        if free:
            points[..., free] = density.columns.raw(full, wanted)
        for position, value in held.items():
            points[..., position] = value[rows, None]
        return points

    return draw_inside(draw, len(values), space, held)
