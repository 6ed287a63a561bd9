"""Space: ordered, named variables with bounds, units and kinds, for designs x and for properties y.

Every other part of genopt speaks of columns through a Space: goals name its columns, tables are
checked against it and routines return points that lie in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.simplex import project_simplex
from genopt.variable import Kind, Variable

__all__ = ["Kind", "Space", "Variable", "project_simplex"]


@dataclass(frozen=True)
class Space:
    """Ordered, named variables; groups of them may be simplexes (they sum to one).

    Args:
        variables: the columns in order.
        simplexes: groups of column names whose values are non-negative and sum to one.

    Raises:
        GenoptError: if names repeat or a simplex is not made of continuous columns.

    Example:
        >>> space = Space.of(a=(0.0, 1.0), b=(0.0, 10.0))
        >>> space.names, space.dim
        (('a', 'b'), 2)
    """

    variables: tuple[Variable, ...]
    simplexes: tuple[tuple[str, ...], ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", tuple(self.variables))
        object.__setattr__(self, "simplexes", tuple(tuple(group) for group in self.simplexes))
        if len(set(self.names)) != len(self.names):
            twice = sorted({n for n in self.names if self.names.count(n) > 1})
            raise GenoptError(f"column names must be unique, these repeat: {', '.join(twice)}")
        seen: set[str] = set()
        for group in self.simplexes:
            if len(group) < 2:
                raise GenoptError(f"a simplex needs at least two columns, got {list(group)}")
            for name in group:
                variable = self[name]
                if variable.kind != "continuous":
                    raise GenoptError(
                        f"simplex column {name!r} must be continuous, it is {variable.kind}"
                    )
                if name in seen:
                    raise GenoptError(f"column {name!r} belongs to two simplexes")
                seen.add(name)
            lower = sum(max(self[name].lower, 0.0) for name in group)
            upper = sum(min(self[name].upper, 1.0) for name in group)
            if lower > 1.0 or upper < 1.0:
                raise GenoptError(
                    f"the bounds of simplex {list(group)} leave no point that sums to one"
                )
        if self.simplexes:
            variables = tuple(
                replace(v, lower=max(v.lower, 0.0), upper=min(v.upper, 1.0))
                if v.name in seen
                else v
                for v in self.variables
            )
            object.__setattr__(self, "variables", variables)

    @classmethod
    def of(cls, **bounds: tuple[float, float]) -> Space:
        """A Space of continuous variables from ``name=(lower, upper)``.

        Args:
            **bounds: the pair of bounds of each column.

        Returns:
            The Space.
        """
        return cls(tuple(Variable(name, float(lo), float(hi)) for name, (lo, hi) in bounds.items()))

    @classmethod
    def from_bounds(cls, bounds: Sequence[tuple[float, float]], prefix: str = "x") -> Space:
        """A Space of continuous variables named ``x1, x2, ...``.

        Args:
            bounds: a pair (lower, upper) for each column.
            prefix: beginning of each name.

        Returns:
            The Space.
        """
        return cls(
            tuple(
                Variable(f"{prefix}{i}", float(lo), float(hi))
                for i, (lo, hi) in enumerate(bounds, 1)
            )
        )

    # -- names -----------------------------------------------------------------------------------
    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(v.name for v in self.variables)

    @property
    def dim(self) -> int:
        """Number of columns."""
        return len(self.variables)

    def __len__(self) -> int:
        return len(self.variables)

    def __iter__(self) -> Iterator[Variable]:
        return iter(self.variables)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Variable:
        return self.variables[self.index(name)]

    def index(self, name: str) -> int:
        """Position of a column.

        Args:
            name: the column's name.

        Returns:
            Its index.

        Raises:
            UnknownNameError: if there is no such column.
        """
        if name not in self.names:
            raise UnknownNameError("column", name, self.names)
        return self.names.index(name)

    def select(self, names: Sequence[str]) -> Space:
        """The Space of some columns, in the given order; simplexes that stay whole are kept.

        Args:
            names: the columns to keep.

        Returns:
            The smaller Space.
        """
        kept = tuple(group for group in self.simplexes if set(group) <= set(names))
        return Space(tuple(self[name] for name in names), kept)

    # -- bounds ----------------------------------------------------------------------------------
    @cached_property
    def lower(self) -> Tensor:
        """Lower bounds (P,), float64."""
        return torch.tensor([v.lower for v in self.variables], dtype=torch.float64)

    @cached_property
    def upper(self) -> Tensor:
        """Upper bounds (P,), float64."""
        return torch.tensor([v.upper for v in self.variables], dtype=torch.float64)

    @property
    def bounded(self) -> bool:
        """Whether every column has two finite bounds."""
        return all(v.bounded for v in self.variables)

    @cached_property
    def categorical(self) -> tuple[int, ...]:
        """Indices of the categorical columns."""
        return tuple(i for i, v in enumerate(self.variables) if v.kind == "categorical")

    @cached_property
    def discrete(self) -> tuple[int, ...]:
        """Indices of the integer and categorical columns."""
        return tuple(i for i, v in enumerate(self.variables) if v.kind != "continuous")

    @cached_property
    def simplex_indices(self) -> tuple[tuple[int, ...], ...]:
        """Column indices of each simplex."""
        return tuple(tuple(self.index(name) for name in group) for group in self.simplexes)

    def check(self, x: Tensor, argument: str = "x") -> Tensor:
        """The tensor itself, after a check of its last dimension.

        Args:
            x: points (..., P).
            argument: the caller's name for it, for the message.

        Returns:
            ``x``.

        Raises:
            GenoptError: if the last dimension is not P.
        """
        if x.ndim == 0 or x.shape[-1] != self.dim:
            raise GenoptError(
                f"{argument} has shape {tuple(x.shape)}; expected (..., {self.dim}) for columns "
                f"{', '.join(self.names)}"
            )
        return x

    def contains(self, x: Tensor, tolerance: float = 1e-6) -> Tensor:
        """Whether points lie inside the bounds, on the simplexes and on valid discrete values.

        Args:
            x: points (..., P) in raw units.
            tolerance: slack relative to each column's width.

        Returns:
            bool (...).
        """
        self.check(x)
        x = x.to(torch.float64)
        width = torch.where(torch.isfinite(self.upper - self.lower), self.upper - self.lower, 1.0)
        slack = tolerance * width.clamp_min(1e-300)
        inside = ((x >= self.lower - slack) & (x <= self.upper + slack)).all(-1)
        for group in self.simplex_indices:
            inside &= (x[..., list(group)].sum(-1) - 1.0).abs() <= tolerance * len(group)
        for i in self.discrete:
            inside &= (x[..., i] - x[..., i].round()).abs() <= tolerance
        return inside

    def project(self, x: Tensor) -> Tensor:
        """The nearest valid point: inside the bounds, on the simplexes, discrete values exact.

        Args:
            x: points (..., P) in raw units.

        Returns:
            Points (..., P) of the same dtype.
        """
        self.check(x)
        lower, upper = self.lower.to(x), self.upper.to(x)
        out = torch.minimum(torch.maximum(x, lower), upper)
        for i in self.discrete:
            # the bounds of an integer column need not be integers themselves
            low, high = torch.ceil(lower[i]), torch.floor(upper[i])
            out = _set_column(out, i, torch.minimum(torch.maximum(out[..., i].round(), low), high))
        for group in self.simplex_indices:
            index = list(group)
            part = project_simplex(x[..., index], lower[index], upper[index])
            out = out.clone()
            out[..., index] = part
        return out

    # -- the relaxed unit box ----------------------------------------------------------------------
    @cached_property
    def encoded_dim(self) -> int:
        """Width E of the relaxed unit box: one column each, C columns for a class of C labels."""
        return sum(len(v.labels) if v.kind == "categorical" else 1 for v in self.variables)

    @cached_property
    def encoded_slices(self) -> tuple[slice, ...]:
        """Where each column lies in the encoded vector."""
        slices, start = [], 0
        for v in self.variables:
            width = len(v.labels) if v.kind == "categorical" else 1
            slices.append(slice(start, start + width))
            start += width
        return tuple(slices)

    def encode(self, x: Tensor) -> Tensor:
        """Raw points to the relaxed unit box: bounded columns to [0, 1], classes to one-hot blocks.

        A column without finite bounds keeps its own units.

        Args:
            x: points (..., P).

        Returns:
            Encoded points (..., E).
        """
        self.check(x)
        parts = []
        for i, v in enumerate(self.variables):
            column = x[..., i : i + 1]
            if v.kind == "categorical":
                codes = column.squeeze(-1).round().long().clamp(0, len(v.labels) - 1)
                parts.append(torch.nn.functional.one_hot(codes, len(v.labels)).to(x))
            elif v.bounded:
                parts.append((column - v.lower) / max(v.upper - v.lower, 1e-300))
            else:
                parts.append(column)
        return torch.cat(parts, -1)

    def decode(self, z: Tensor) -> Tensor:
        """The valid raw point that an encoded (relaxed) point stands for.

        Args:
            z: encoded points (..., E).

        Returns:
            Valid points (..., P): inside the bounds, simplexes summing to one, discrete values
            exact.

        Raises:
            GenoptError: if the last dimension is not E.
        """
        if z.shape[-1] != self.encoded_dim:
            raise GenoptError(f"z has shape {tuple(z.shape)}; expected (..., {self.encoded_dim})")
        columns = []
        for v, part in zip(self.variables, self.encoded_slices, strict=True):
            block = z[..., part]
            if v.kind == "categorical":
                columns.append(block.argmax(-1).to(z))
            elif v.bounded:
                columns.append(v.lower + block.squeeze(-1) * (v.upper - v.lower))
            else:
                columns.append(block.squeeze(-1))
        return self.project(torch.stack(columns, -1))

    # -- saved form --------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary that `from_dict` reads back; safe for checkpoints and JSON."""
        variables = []
        for v in self.variables:
            entry = asdict(v)
            entry["labels"] = list(v.labels)
            entry["lower"] = v.lower if math.isfinite(v.lower) else None
            entry["upper"] = v.upper if math.isfinite(v.upper) else None
            variables.append(entry)
        return {"variables": variables, "simplexes": [list(group) for group in self.simplexes]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Space:
        """The inverse of `to_dict`.

        Args:
            data: what `to_dict` returned.

        Returns:
            The Space.
        """
        variables = []
        for entry in data["variables"]:
            values = dict(entry)
            values["lower"] = -math.inf if values.get("lower") is None else values["lower"]
            values["upper"] = math.inf if values.get("upper") is None else values["upper"]
            values["labels"] = tuple(values.get("labels", ()))
            variables.append(Variable(**values))
        return cls(tuple(variables), tuple(tuple(g) for g in data.get("simplexes", ())))


def _set_column(x: Tensor, index: int, values: Tensor) -> Tensor:
    return torch.cat([x[..., :index], values.unsqueeze(-1), x[..., index + 1 :]], -1)
