"""The conditions of a stationary point: an objective, its constraints, and their derivatives.

With multipliers l of the equalities h = 0 and v of the inequalities g <= 0, a point is stationary
where f' + l h' + v g' = 0, h = 0, and each inequality has zero slack or zero multiplier. All is
worked out in the unit box and in units of each function's own size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.routines.stationary_newton import Linear
from genopt.space import Space

Functions = Callable[[Tensor], Tensor]
_REFERENCE = 2048
_BLACK_BOX = (
    "stationary points need derivatives, and torch cannot differentiate this simulator: write it "
    "with torch operations"
)


@dataclass(frozen=True)
class Coordinates:
    """The columns that may move, each from 0 to 1: x = origin + z @ directions.

    Args:
        space: all columns of x.
        held: values of columns that do not move, by number.

    Raises:
        GenoptError: if a moving column is not continuous or has no finite bounds, or none moves.
    """

    space: Space
    held: dict[int, float]

    def __post_init__(self) -> None:
        for i in self.moving:
            variable = self.space.variables[i]
            if variable.kind != "continuous" or not variable.bounded:
                what = "finite bounds" if variable.kind == "continuous" else "a slope"
                raise GenoptError(
                    f"routine=stationary: design column {variable.name!r} has no {what}; hold it "
                    f"at a value with goal='{{..., {variable.name}: ...}}', or give it bounds"
                )
        if not self.moving:
            raise GenoptError("routine=stationary: every design column is held, none may move")

    @cached_property
    def moving(self) -> tuple[int, ...]:
        """Numbers of the columns that move."""
        return tuple(i for i in range(self.space.dim) if i not in self.held)

    @cached_property
    def width(self) -> Tensor:
        """Width of the moving columns (P,)."""
        index = list(self.moving)
        return (self.space.upper - self.space.lower)[index].clamp_min(1e-300)

    @cached_property
    def directions(self) -> Tensor:
        """One row for each moving column (P, all columns)."""
        rows = torch.zeros(len(self.moving), self.space.dim, dtype=torch.float64)
        rows[range(len(self.moving)), list(self.moving)] = self.width
        return rows

    @cached_property
    def origin(self) -> Tensor:
        """The design at zero (all columns,)."""
        start = self.space.lower.clone()
        for i, value in self.held.items():
            start[i] = value
        return start

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the moving columns."""
        return tuple(self.space.names[i] for i in self.moving)

    def raw(self, z: Tensor) -> Tensor:
        """Designs (..., all columns) of points z (..., P)."""
        return self.origin + z @ self.directions

    def unit(self, x: Tensor) -> Tensor:
        """Points z (..., P) of designs x (..., all columns)."""
        index = list(self.moving)
        return (x[..., index].to(torch.float64) - self.space.lower[index]) / self.width


@dataclass(frozen=True)
class Derivatives:
    """All functions at points, in units of their sizes; f first, then the M conditions.

    Args:
        value: (N, 1 + M).
        slope: (N, 1 + M, P).
        curvature: second derivatives of f + multipliers @ conditions (N, P, P); empty if not asked.
    """

    value: Tensor
    slope: Tensor
    curvature: Tensor


@dataclass(frozen=True)
class Conditions:
    """An objective and the conditions on it.

    Args:
        functions: from designs (N, all columns) to f and the M conditions, one after the other in
            tensors (N, some); to be differentiated by torch, each tensor by itself, so that what is
            cheap does not cost a way through what is not.
        names: names of the M conditions.
        equality: which of them are to be zero, bool (M,); the others are to be at most zero.
        coordinates: what may move.
    """

    functions: Callable[[Tensor], Sequence[Tensor]]
    names: tuple[str, ...]
    equality: Tensor
    coordinates: Coordinates

    @cached_property
    def size(self) -> Tensor:
        """The unit of f and of each condition: spread of f, median size of the rest.

        Returns:
            Units (1 + M,).

        Raises:
            GenoptError: if a function has no finite value anywhere in the box.
        """
        z = torch.rand(
            _REFERENCE,
            len(self.coordinates.moving),
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(0),
        )
        with torch.no_grad():
            value = torch.cat(list(self.functions(self.coordinates.raw(z))), 1)
        value = torch.where(torch.isfinite(value), value, torch.nan)
        for name, column in zip(("objective", *self.names), value.T, strict=True):
            if bool(torch.isnan(column).all()):
                raise GenoptError(f"{name} has no finite value inside the bounds")
        low, high = torch.nanquantile(value[:, 0], torch.tensor([0.1, 0.9], dtype=torch.float64))
        size = torch.cat([(high - low).reshape(1), value[:, 1:].abs().nanmedian(0).values])
        return torch.where(size > 0.0, size, 1.0)

    def values(self, z: Tensor) -> Tensor:
        """The objective and the conditions (N, 1 + M) at points (N, P), in units of their sizes."""
        return torch.cat(self._columns(z), 1) / self.size

    def _columns(self, z: Tensor) -> list[Tensor]:
        return list(self.functions(self.coordinates.raw(z)))

    def derivatives(self, z: Tensor, multipliers: Tensor | None = None) -> Derivatives:
        """Values, slopes and, with multipliers, the curvature of the Lagrangian.

        Args:
            z: points (N, P).
            multipliers: of all conditions (N, M); None without second derivatives.

        Returns:
            The derivatives.

        Raises:
            GenoptError: if torch cannot differentiate f.
        """
        with torch.enable_grad():
            leaf = z.detach().clone().requires_grad_()
            try:
                parts = self._columns(leaf)
            except RuntimeError as error:
                raise GenoptError(f"{_BLACK_BOX} ({error})") from error
            if not parts[0].requires_grad:
                raise GenoptError(_BLACK_BOX)
            second = multipliers is not None
            columns = [column for part in parts for column in part.unbind(-1)]
            rows = [_slope(column, leaf, second) for column in columns]
            slope = torch.stack(rows, 1) / self.size.unsqueeze(-1)
            value = torch.cat(parts, 1) / self.size
            if multipliers is None:
                return Derivatives(value.detach(), slope.detach(), slope.new_empty(0))
            total = slope[:, 0] + (multipliers.unsqueeze(-1) * slope[:, 1:]).sum(1)
            curvature = torch.stack([_slope(column, leaf, False) for column in total.unbind(-1)], 1)
        return Derivatives(value.detach(), slope.detach(), curvature.detach())

    def system(self, w: Tensor, barrier: float) -> Linear:
        """The conditions of a stationary point of the barrier problem.

        The rule "slack s and multiplier v are not negative, and s v = barrier" is one smooth
        equation, s + v = sqrt(s^2 + v^2 + 2 barrier), whose roots are those of f - barrier sum ln
        s. Fischer, Optimization 24 (1992); Kanzow, SIAM Journal on Matrix Analysis 17 (1996).

        Args:
            w: points and multipliers side by side (N, P + M).
            barrier: strength of the log barrier, in units of f; 0 for the problem itself.

        Returns:
            Residuals (N, P + M) and their slopes.
        """
        dim = w.shape[1] - len(self.names)
        z, multipliers = w[:, :dim], w[:, dim:]
        found = self.derivatives(z, multipliers)
        conditions, across = found.value[:, 1:], found.slope[:, 1:]
        total = found.slope[:, 0] + (multipliers.unsqueeze(-1) * across).sum(1)
        slack = -conditions
        length = (slack.square() + multipliers.square() + 2.0 * barrier + 1e-300).sqrt()
        rest = torch.where(self.equality, conditions, slack + multipliers - length)
        by_value = torch.where(self.equality, 1.0, -(1.0 - slack / length))
        by_multiplier = torch.where(self.equality, 0.0, 1.0 - multipliers / length)
        above = torch.cat([found.curvature, across.transpose(1, 2)], 2)
        below = torch.cat([by_value.unsqueeze(-1) * across, torch.diag_embed(by_multiplier)], 2)
        return Linear(torch.cat([total, rest], 1), torch.cat([above, below], 1))

    def multipliers(self, found: Derivatives, barrier: float) -> Tensor:
        """Multipliers of points that are not yet stationary.

        Those of the equalities leave the least slope of the Lagrangian; the slope of a barrier
        gives those of the inequalities. Fletcher, in Integer and Nonlinear Programming (1970).

        Args:
            found: derivatives at the points.
            barrier: strength of the barrier.

        Returns:
            Multipliers (N, M).
        """
        slack = (-found.value[:, 1:]).clamp_min(1e-3)
        given = torch.where(self.equality, 0.0, barrier / slack)
        slope = found.slope[:, 0] + (given.unsqueeze(-1) * found.slope[:, 1:]).sum(1)
        if not bool(self.equality.any()):
            return given
        normals = found.slope[:, 1:][:, self.equality]
        best = -(torch.linalg.pinv(normals.transpose(1, 2)) @ slope.unsqueeze(-1)).squeeze(-1)
        given[:, self.equality] = best
        return given


def _slope(column: Tensor, leaf: Tensor, keep: bool) -> Tensor:
    """Derivatives (N, P) of one number a row; zero for a constant."""
    if not column.requires_grad:
        return torch.zeros_like(leaf)
    (slope,) = torch.autograd.grad(
        column.sum(), leaf, create_graph=keep, retain_graph=True, allow_unused=True
    )
    return torch.zeros_like(leaf) if slope is None else slope
