"""Columns of a design transform: how one variable, class or stick fraction becomes latent columns.

Each kind of column answers the same questions: which fraction v of its range a design has, how wide
that range is, and which design a v stands for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from genopt.space import Space

ONE_HOT_UP_TO = 10
_NO_ROOM = 1e-9


class Column(Protocol):
    """One variable or stick fraction as ``width`` latent columns."""

    @property
    def index(self) -> int:
        """Its column in x."""
        ...

    @property
    def width(self) -> int:
        """Number of latent columns."""
        ...

    @property
    def probit(self) -> bool:
        """Whether v is a fraction in [0, 1] rather than a free number."""
        ...

    @property
    def tails(self) -> bool:
        """Whether rows may pile up on the bounds."""
        ...

    @property
    def labels(self) -> bool:
        """Whether v is one-hot."""
        ...

    def fraction(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """v, the width of the cell around it and whether v is defined, from x (N, P)."""
        ...

    def log_range(self, x: Tensor) -> Tensor:
        """Log of dx/dv at x (N, P)."""
        ...

    def place(self, v: Tensor, parts: dict[int, Tensor]) -> None:
        """Add this variable's columns to those that were decoded before it."""
        ...


@dataclass(frozen=True)
class FreeColumn:
    """A variable without two finite bounds: standardised, an integer spread over one unit.

    Args:
        index: its column in x.
        lower: lower bound, which may be infinite.
        upper: upper bound, which may be infinite.
        integer: whether it is an integer.
    """

    index: int
    lower: float
    upper: float
    integer: bool = False
    width: ClassVar[int] = 1
    probit: ClassVar[bool] = False
    tails: ClassVar[bool] = False
    labels: ClassVar[bool] = False

    def fraction(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The fraction is x itself."""
        v = x[..., self.index, None]
        cell = torch.full_like(v, 1.0 if self.integer else 0.0)
        return v, cell, torch.ones_like(v, dtype=torch.bool)

    def log_range(self, x: Tensor) -> Tensor:
        """The slope is one."""
        return torch.zeros_like(x[..., 0])

    def place(self, v: Tensor, parts: dict[int, Tensor]) -> None:
        """The value is v itself, clipped to a bound if there is one."""
        x = v[..., 0]
        if self.integer:
            parts[self.index] = x.round().clamp(_up(self.lower), _down(self.upper))
        else:
            parts[self.index] = x.clamp(self.lower, self.upper)


@dataclass(frozen=True)
class BoxColumn:
    """A continuous variable between two bounds.

    Args:
        index: its column in x.
        lower: lower bound.
        upper: upper bound.
    """

    index: int
    lower: float
    upper: float
    width: ClassVar[int] = 1
    probit: ClassVar[bool] = True
    tails: ClassVar[bool] = True
    labels: ClassVar[bool] = False

    @property
    def room(self) -> float:
        """Width of the interval; a column of no width gets one, so that it stays finite."""
        return (self.upper - self.lower) or 1.0

    def fraction(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The fraction is (x - lower) / (upper - lower)."""
        v = ((x[..., self.index, None] - self.lower) / self.room).clamp(0.0, 1.0)
        return v, torch.zeros_like(v), torch.ones_like(v, dtype=torch.bool)

    def log_range(self, x: Tensor) -> Tensor:
        """Log of the interval's width."""
        return torch.full_like(x[..., 0], math.log(self.room))

    def place(self, v: Tensor, parts: dict[int, Tensor]) -> None:
        """The value is lower + v (upper - lower)."""
        parts[self.index] = self.lower + v[..., 0] * (self.upper - self.lower)


@dataclass(frozen=True)
class IntegerColumn:
    """An integer between two bounds: each value owns a cell of equal width.

    Args:
        index: its column in x.
        low: smallest value.
        high: largest value.
    """

    index: int
    low: int
    high: int
    width: ClassVar[int] = 1
    probit: ClassVar[bool] = True
    tails: ClassVar[bool] = False
    labels: ClassVar[bool] = False

    @property
    def count(self) -> int:
        """Number of values."""
        return self.high - self.low + 1

    def fraction(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The middle of the value's cell, and the cell's width."""
        v = (x[..., self.index, None] - self.low + 0.5) / self.count
        return v, torch.full_like(v, 1.0 / self.count), torch.ones_like(v, dtype=torch.bool)

    def log_range(self, x: Tensor) -> Tensor:
        """Log of the number of values: the density is the probability of a value."""
        return torch.full_like(x[..., 0], math.log(self.count))

    def place(self, v: Tensor, parts: dict[int, Tensor]) -> None:
        """The value whose cell v falls into."""
        cell = torch.floor(v[..., 0] * self.count).clamp(0, self.count - 1)
        parts[self.index] = self.low + cell


@dataclass(frozen=True)
class ClassColumn:
    """A class, or an integer of few values, as a one-hot vector.

    Steps of a single number are smoothed away by a network: the shares of five integers were off by
    a fifth in total when they were spread over cells of a line, by a twentieth as corners.

    Args:
        index: its column in x.
        width: number of classes or values.
        first: the smallest value.
    """

    index: int
    width: int
    first: int = 0
    probit: ClassVar[bool] = False
    tails: ClassVar[bool] = False
    labels: ClassVar[bool] = True

    def fraction(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The one-hot vector."""
        codes = x[..., self.index].round().long() - self.first
        v = torch.nn.functional.one_hot(codes, self.width).to(x)
        return v, torch.zeros_like(v), torch.ones_like(v, dtype=torch.bool)

    def log_range(self, x: Tensor) -> Tensor:
        """A class has no density; nothing is added."""
        return torch.zeros_like(x[..., 0])

    def place(self, v: Tensor, parts: dict[int, Tensor]) -> None:
        """The class or value of the largest entry."""
        parts[self.index] = self.first + v.argmax(-1).to(v)


@dataclass(frozen=True)
class StickColumn:
    """One fraction of a simplex, as a share of the stick that the fractions before it leave.

    Its range is what its own bounds and the bounds of the fractions after it allow, so every v in
    [0, 1] gives a valid point. The last fraction takes the rest and has no latent column.

    Args:
        index: its column in x.
        before: columns of the fractions broken off before it.
        lower: its lower bound.
        upper: its upper bound.
        rest_lower: sum of the lower bounds of the fractions after it.
        rest_upper: sum of the upper bounds of the fractions after it.
        last: the column that takes the rest, given to the last but one fraction; -1 otherwise.
    """

    index: int
    before: tuple[int, ...]
    lower: float
    upper: float
    rest_lower: float
    rest_upper: float
    last: int = -1
    width: ClassVar[int] = 1
    probit: ClassVar[bool] = True
    tails: ClassVar[bool] = True
    labels: ClassVar[bool] = False

    def _range(self, used: Tensor | float) -> tuple[Tensor, Tensor]:
        stick = 1.0 - torch.as_tensor(used)
        low = (stick - self.rest_upper).clamp_min(self.lower)
        high = (stick - self.rest_lower).clamp_max(self.upper)
        return low, (high - low).clamp_min(0.0)

    def _used(self, x: Tensor) -> Tensor:
        return x[..., list(self.before)].sum(-1)

    def fraction(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The share of the allowed range; undefined where the range has no width."""
        low, room = self._range(self._used(x))
        known = room > _NO_ROOM
        v = torch.where(known, (x[..., self.index] - low) / torch.where(known, room, 1.0), 0.5)
        v = v.clamp(0.0, 1.0).unsqueeze(-1)
        return v, torch.zeros_like(v), known.unsqueeze(-1)

    def log_range(self, x: Tensor) -> Tensor:
        """Log of the allowed range's width; zero where it has none."""
        _, room = self._range(self._used(x))
        return torch.log(torch.where(room > _NO_ROOM, room, 1.0))

    def place(self, v: Tensor, parts: dict[int, Tensor]) -> None:
        """The fraction, and the rest if it is the last but one."""
        used = sum((parts[i] for i in self.before), torch.zeros_like(v[..., 0]))
        low, room = self._range(used)
        parts[self.index] = low + v[..., 0] * room
        if self.last >= 0:
            rest = 1.0 - used - parts[self.index]
            parts[self.last] = rest.clamp(self.rest_lower, self.rest_upper)


def _up(bound: float) -> float:
    return float(math.ceil(bound)) if math.isfinite(bound) else bound


def _down(bound: float) -> float:
    return float(math.floor(bound)) if math.isfinite(bound) else bound


def columns_of(space: Space) -> tuple[Column, ...]:
    """The latent columns of a Space: its free-standing variables in order, then its simplexes.

    Args:
        space: the Space.

    Returns:
        The columns.
    """
    grouped = {i for group in space.simplex_indices for i in group}
    columns: list[Column] = []
    for i, v in enumerate(space):
        if i in grouped:
            continue
        if v.kind == "categorical":
            columns.append(ClassColumn(i, len(v.labels)))
        elif not v.bounded:
            columns.append(FreeColumn(i, v.lower, v.upper, v.kind == "integer"))
        elif v.kind == "integer":
            low, high = math.ceil(v.lower), math.floor(v.upper)
            few = high - low < ONE_HOT_UP_TO
            columns.append(
                ClassColumn(i, high - low + 1, low) if few else IntegerColumn(i, low, high)
            )
        else:
            columns.append(BoxColumn(i, v.lower, v.upper))
    for group in space.simplex_indices:
        variables = [space.variables[i] for i in group]
        for j, v in enumerate(variables[:-1]):
            after = variables[j + 1 :]
            columns.append(
                StickColumn(
                    group[j],
                    group[:j],
                    v.lower,
                    v.upper,
                    sum(w.lower for w in after),
                    sum(w.upper for w in after),
                    group[-1] if j == len(variables) - 2 else -1,
                )
            )
    return tuple(columns)
