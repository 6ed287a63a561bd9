"""Designs given that properties lie in regions: a fitted `Mixture` asked exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.conditions import conditions, held_values, known_values, patterns
from genopt.models.mixture.draws import draw_inside, generator_of
from genopt.models.mixture.regions import RegionBatch, log_box

if TYPE_CHECKING:
    from genopt.models.mixture.engine import Mixture

_SCORED = 64


@dataclass(frozen=True)
class Region:
    """Intervals of some columns of y, for C conditions.

    Args:
        columns: the columns of y.
        lower: lower ends (C, r); -inf for none.
        upper: upper ends (C, r); inf for none.
    """

    columns: tuple[int, ...]
    lower: Tensor
    upper: Tensor

    def take(self, rows: Tensor) -> Region:
        """The intervals of some of the conditions.

        Args:
            rows: their numbers (C',).

        Returns:
            The smaller region.
        """
        return Region(self.columns, self.lower[rows], self.upper[rows])


@dataclass(frozen=True)
class RegionDraws:
    """Designs drawn given a region.

    Args:
        x: designs (C, n, P).
        log_density: log density of each design given known values and region (C, n).
        ood: score of the most usual properties of the region (C,).
    """

    x: Tensor
    log_density: Tensor
    ood: Tensor


def sample_region(
    model: Mixture,
    y: Tensor,
    region: Region,
    n: int,
    generator: torch.Generator | None = None,
    *,
    fixed: Mapping[int, Tensor | float] | None = None,
) -> RegionDraws:
    """Draw designs from p(x | known y, other y in their intervals), inside the x Space.

    Args:
        model: the fitted mixture.
        y: known values (C, K); NaN for a column that is free or confined.
        region: the confined columns of y.
        n: draws for each condition.
        generator: source of randomness; the model's seed if None.
        fixed: values of x columns that are held, one number or (C,) for each column number.

    Returns:
        The draws with their density, before they are kept inside the Space, and score.

    Raises:
        GenoptError: if a condition cannot be used or a confined column is known or not modelled.
    """
    columns, density = model.columns, model.density
    y = conditions(y, model.y_space, columns)
    confined = _confined(model, y, region)
    held = held_values(fixed or {}, len(y), model.x_space)
    rng = generator_of(generator, model.seed)
    free = tuple(i for i in columns.x_variables if i not in held)
    x = y.new_empty(len(y), n, model.x_space.dim)
    log_density, ood = y.new_empty(len(y), n), y.new_empty(len(y))
    for rows, known in patterns(y, columns):
        part, values = region.take(rows), known_values(y[rows], known, columns)
        given = torch.cat([*(held[i][rows, None] for i in held), values], 1)
        fixed_here = {i: value[rows] for i, value in held.items()}
        x[rows] = _draw(model, given, (*held, *known), (*free, *confined), part, n, fixed_here, rng)

        batch, _, _ = density.conditional(values, known, confined)
        before = RegionBatch.of(batch, range(len(confined)), part.lower.numpy(), part.upper.numpy())
        ood[rows] = _score(model, y[rows], before, part, rng)
        pairs = y[rows].repeat_interleave(n, 0)
        designs = x[rows].flatten(0, 1)
        everything = torch.cat([designs, known_values(pairs, known, columns)], 1)
        after, _, _ = density.conditional(everything, (*columns.x_variables, *known), confined)
        ends = (part.lower.numpy().repeat(n, 0), part.upper.numpy().repeat(n, 0))
        gain = log_box(after, *ends) - before.log_probability.repeat(n)
        logs = density.log_prob(designs, pairs) + torch.from_numpy(gain)
        log_density[rows] = logs.reshape(len(rows), n)
    return RegionDraws(x, log_density, ood)


def _confined(model: Mixture, y: Tensor, region: Region) -> tuple[int, ...]:
    """The confined columns as variables of the joint."""
    names = model.y_space.names
    for column in region.columns:
        if column not in model.columns.y_columns:
            raise GenoptError(
                f"y column {names[column]!r} had too few labels and is not modelled: leave it free"
            )
        if not bool(torch.isnan(y[:, column]).all()):
            raise GenoptError(f"y column {names[column]!r} is both known and in a region")
    first = model.columns.x_dim
    return tuple(first + model.columns.y_columns.index(column) for column in region.columns)


def _draw(
    model: Mixture,
    values: Tensor,
    given: tuple[int, ...],
    wanted: tuple[int, ...],
    region: Region,
    n: int,
    fixed: Mapping[int, Tensor],
    rng: np.random.Generator,
) -> Tensor:
    """Designs (C, n, P) of one pattern of conditions; the confined variables are wanted last."""
    columns = model.columns
    batch, selection, known = model.density.conditional(values, given, wanted)
    full = columns.columns(wanted[-len(region.columns) :])
    if not set(full) <= set(selection.wanted):
        raise GenoptError(
            "the goal confines the last open fraction of properties that sum to one: the others "
            "imply it, so drop it from the goal"
        )
    confined = [selection.wanted.index(column) for column in full]
    boxes = RegionBatch.of(batch, confined, region.lower.numpy(), region.upper.numpy())

    def draw(rows: Tensor) -> Tensor:
        index = rows.numpy()
        drawn: Array = boxes.take(index).sample(n, rng)
        points = columns.raw(
            columns.restore(selection, known[index, None], drawn), columns.x_variables
        )
        for i, value in fixed.items():
            points[..., i] = value[rows, None]
        return points

    return draw_inside(draw, len(values), model.x_space, fixed)[0]


def _score(
    model: Mixture, y: Tensor, boxes: RegionBatch, region: Region, rng: np.random.Generator
) -> Tensor:
    """The least score (C,) of properties drawn in the region."""
    filled = y.repeat_interleave(_SCORED, 0)
    filled[:, list(region.columns)] = torch.from_numpy(boxes.sample(_SCORED, rng)).flatten(0, 1)
    return model.ood_score(filled).reshape(len(y), _SCORED).amin(1)
