"""Given columns of x: what is known of a design beside its properties, as part of the condition.

A flow that was trained with ``given_x`` draws the rest of a design from p(x_rest | x_given, y).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.models.flow.columns import ONE_HOT_UP_TO
from genopt.models.flow.conditions import drop_conditions
from genopt.models.flow.transforms import DesignTransform
from genopt.space import Space

# a column's name or index to its value, a class label or one value a condition
Fixed = Mapping[Any, Any]
_SUM = 1e-6


@dataclass(frozen=True)
class Given:
    """Columns of x that are held, the same ones for all C conditions.

    Args:
        x: their values in raw units (C, P); NaN where a column is free.
        latent: their latent values (C, U); zero where free.
        mask: which units are held (C, G): free-standing columns and simplexes.
        held: which latent columns are held (U,), bool.
    """

    x: Tensor
    latent: Tensor
    mask: Tensor
    held: Tensor

    @property
    def columns(self) -> list[int]:
        """The held columns of x, by index."""
        return [int(i) for i in (~torch.isnan(self.x[0])).nonzero().flatten()]

    def put(self, x: Tensor) -> Tensor:
        """Designs with the held columns at their exact values.

        Args:
            x: designs (C, ..., P).

        Returns:
            Designs of the same shape.
        """
        values = self.x.to(x).reshape(len(self.x), *(1,) * (x.ndim - 2), x.shape[-1])
        return torch.where(torch.isnan(values), x, values)


class GivenColumns(nn.Module):
    """Latent columns by the unit of x that they stand for, and conditions made of some of them.

    A column outside simplexes is a unit of its own. A simplex is one unit: its latent columns are
    shares of what is left of a stick and cannot be held one by one.

    Args:
        transform: the map between designs and latent columns.
    """

    source: Tensor

    def __init__(self, transform: DesignTransform) -> None:
        super().__init__()
        space = transform.space
        self.space = space
        grouped = {i for group in space.simplex_indices for i in group}
        units = [(i,) for i in range(space.dim) if i not in grouped] + list(space.simplex_indices)
        self.units: tuple[tuple[int, ...], ...] = tuple(units)
        unit_of = {i: number for number, unit in enumerate(units) for i in unit}
        source = [unit_of[c.index] for c in transform.columns for _ in range(c.width)]
        self.register_buffer("source", torch.tensor(source), persistent=False)

    @property
    def dim(self) -> int:
        """Width that given columns add to the condition: latent values and a mask of units."""
        return len(self.source) + len(self.units)

    def draw(self, latent: Tensor, share: float) -> Tensor:
        """Units that training rows are given.

        Args:
            latent: latent values (N, U).
            share: share of rows that get some; each with a rate of its own, uniform in [0, 1].

        Returns:
            Mask of units (N, G).
        """
        some = drop_conditions(latent.new_ones(len(latent), len(self.units)), 1.0)
        return some * (torch.rand(len(latent), 1, device=latent.device) < share)

    def dropout(self, mask: Tensor, share: float) -> Tensor:
        """How likely rows lose properties: at least half of those that are given columns.

        Otherwise hardly a row would be told some columns of x and few properties.

        Args:
            mask: which units are given (N, G).
            share: share of rows that lose properties; 0 keeps them all.

        Returns:
            Shares (N, 1).
        """
        often = max(share, 0.5) if share else 0.0
        return torch.where(mask.any(-1, keepdim=True), often, share)

    def widen(self, mask: Tensor) -> Tensor:
        """A mask of units as a mask of latent columns.

        Args:
            mask: (..., G).

        Returns:
            (..., U).
        """
        return mask[..., self.source]

    def join(self, condition: Tensor, latent: Tensor, mask: Tensor) -> Tensor:
        """The network's condition with the given columns added.

        Args:
            condition: condition vectors of the properties (N, D).
            latent: latent values (N, U).
            mask: which units are given (N, G).

        Returns:
            Condition vectors (N, D + U + G).
        """
        return torch.cat([condition, latent * self.widen(mask), mask], -1)

    def nothing(self, condition: Tensor) -> Tensor:
        """The network's condition where no column of x is given.

        Args:
            condition: condition vectors of the properties (N, D).

        Returns:
            Condition vectors (N, D + U + G).
        """
        return torch.cat([condition, condition.new_zeros(len(condition), self.dim)], -1)

    def read(self, fixed: Fixed, count: int, transform: DesignTransform) -> Given:
        """What a caller holds fixed, checked.

        Args:
            fixed: column (name or index) to a value, a class label, or one value a condition.
            count: number of conditions C.
            transform: the fitted map to latent columns.

        Returns:
            The held columns.

        Raises:
            GenoptError: if a column or value cannot be held.
        """
        x = torch.full((count, self.space.dim), torch.nan, dtype=torch.float64)
        for column, value in fixed.items():
            i = _column(column, self.space)
            x[:, i] = _values(value, i, count, self.space)
        for group in self.space.simplex_indices:
            _complete(x, group, self.space)
        known = ~torch.isnan(x[0])
        mask = torch.tensor([bool(known[list(unit)].all()) for unit in self.units])
        held = mask[self.source.cpu()]
        device = self.source.device
        # free columns only need values that the map takes; their latent values are not used
        filled = torch.where(torch.isnan(x), self.space.project(torch.zeros_like(x)), x)
        latent = transform.given(filled.to(device)).float() * held.to(device)
        wide = mask.to(latent).expand(count, -1)
        return Given(x.to(device), latent, wide, held.to(device))


def _column(column: int | str, space: Space) -> int:
    if isinstance(column, str):
        return space.index(column)
    if not 0 <= column < space.dim:
        raise GenoptError(f"fixed names column {column}; x has columns 0 to {space.dim - 1}")
    return column


def _values(value: Any, i: int, count: int, space: Space) -> Tensor:
    """One checked value for each condition."""
    variable = space.variables[i]
    what = f"fixed value of {variable.name!r}"
    if isinstance(value, str):
        if value not in variable.labels:
            labels = f" (labels {', '.join(variable.labels)})" if variable.labels else ""
            raise GenoptError(f"{what} is {value!r}; it is {variable.kind}{labels}")
        value = variable.labels.index(value)
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64).detach().cpu().reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenoptError(f"{what} must be a number, a label or one of them a condition") from error
    if len(numbers) not in (1, count):
        raise GenoptError(f"{what} has {len(numbers)} entries; expected 1 or {count}")
    last = len(variable.labels) - 1 if variable.labels else variable.upper
    first = 0 if variable.labels else variable.lower
    valid = (numbers >= first) & (numbers <= last) & torch.isfinite(numbers)
    if i in space.discrete:
        valid &= numbers == numbers.round()
    if not bool(valid.all()):
        raise GenoptError(
            f"{what} is {float(numbers[~valid][0]):g}: not valid, it is {variable.kind} in "
            f"[{first:g}, {last:g}]"
        )
    return numbers.expand(count)


def _complete(x: Tensor, group: tuple[int, ...], space: Space) -> None:
    """A simplex that is given but for one column gets that one; a partly given one is refused."""
    index = list(group)
    known = ~torch.isnan(x[0, index])
    names = ", ".join(space.names[i] for i in group)
    if not bool(known.any()):
        return
    missing = [i for i, there in zip(index, known.tolist(), strict=True) if not there]
    if len(missing) > 1:
        raise GenoptError(
            f"fixed holds a part of the simplex {names}: hold all of its columns but one, or none"
        )
    for i in missing:
        rest = 1.0 - x[:, [j for j in index if j != i]].sum(-1)
        low, high = float(space.lower[i]), float(space.upper[i])
        if bool(((rest < low - _SUM) | (rest > high + _SUM)).any()):
            raise GenoptError(f"fixed values of the simplex {names} do not leave a sum of one")
        x[:, i] = rest.clamp(low, high)
    if bool(((x[:, index].sum(-1) - 1.0).abs() > _SUM).any()):
        raise GenoptError(f"fixed values of the simplex {names} do not sum to one")


def refuse_classes(
    transform: DesignTransform,
    space: Space,
    what: str,
    given: Sequence[int],
    instead: str = "use sample instead",
) -> None:
    """Refuse what needs a density of columns that have none.

    Args:
        transform: that of the flow.
        space: the Space of the designs.
        what: what was asked for.
        given: columns of x that are known.
        instead: what to do.

    Raises:
        GenoptError: if x has class columns that are not given.
    """
    corners = [c.index for c in transform.columns if c.labels and c.index not in given]
    if corners:
        names = ", ".join(space.names[i] for i in corners)
        raise GenoptError(
            f"{what} has no meaning for the class columns {names} of x (classes, and integers of "
            f"at most {ONE_HOT_UP_TO} values): {instead}"
        )
