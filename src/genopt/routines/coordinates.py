"""Search coordinates: designs in units of their columns' widths, with the set they must stay in.

A step size then means the same on every problem. Class columns are relaxed one-hot blocks, each a
simplex; a fixed column is one whose two bounds meet.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.nn.scalers import InputScaler
from genopt.space import Space

Bounds = Space | Sequence[tuple[float, float]] | bool | None
Fixed = Mapping[str | int, object] | Sequence[str | int] | None
_SHORT = 1e-3


def project_sum(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Euclidean projection onto {lower <= x <= upper, sum x = 1}, with bounds for every row.

    The sum of clip(x - m, lower, upper) falls piecewise linearly in the multiplier m; it is worked
    out at all 2n breakpoints and solved in the piece that crosses one, so the result is exact.

    Args:
        x: points (..., n).
        lower: lower bounds, broadcast to x; their sum is at most one.
        upper: upper bounds, broadcast to x; their sum is at least one.

    Returns:
        Projected points (..., n).
    """
    lower, upper = lower.expand_as(x), upper.expand_as(x)
    breaks = torch.cat([x - upper, x - lower], -1).sort(-1).values
    pieces = x.unsqueeze(-2) - breaks.unsqueeze(-1)
    sums = torch.clamp(pieces, lower.unsqueeze(-2), upper.unsqueeze(-2)).sum(-1)
    last = breaks.shape[-1] - 2
    left = ((sums >= 1.0).sum(-1, keepdim=True) - 1).clamp(0, last)
    m_0, m_1 = breaks.gather(-1, left), breaks.gather(-1, left + 1)
    s_0, s_1 = sums.gather(-1, left), sums.gather(-1, left + 1)
    share = ((s_0 - 1.0) / (s_0 - s_1).clamp_min(1e-300)).clamp(0.0, 1.0)
    return torch.clamp(x - (m_0 + share * (m_1 - m_0)), lower, upper)


class Coordinates:
    """The map between raw designs and search coordinates, and the projection onto valid ones.

    Columns with two finite bounds run from 0 to 1, others are standardised so that a uniform spread
    would have width one; columns of a simplex keep their own units.

    Args:
        space: the model's Space of x: kinds, classes.
        scaler: the model's input scaler, for columns without bounds.
        bounds: a Space or pairs to search in; None for the bounds of ``space``, False for none.
        fixed: column index to value (B or 1,).

    Raises:
        GenoptError: if the bounds do not fit the columns, or a fixed value lies outside them.
    """

    def __init__(
        self, space: Space, scaler: InputScaler, bounds: Bounds, fixed: Mapping[int, Tensor]
    ) -> None:
        self.space = space
        self.scaler = scaler
        self.fixed = dict(fixed)
        lower, upper, groups = _limits(space, bounds)
        rows = max((v.numel() for v in fixed.values()), default=1)
        wide_dim = scaler.wide_dim
        self.lower = torch.full((rows, 1, wide_dim), -math.inf, dtype=torch.float64)
        self.upper = torch.full((rows, 1, wide_dim), math.inf, dtype=torch.float64)
        self.origin = torch.zeros(wide_dim, dtype=torch.float64)
        self.width = torch.ones(wide_dim, dtype=torch.float64)
        self.groups: list[list[int]] = []
        in_simplex = {i for group in groups for i in group}
        for i, (v, part) in enumerate(zip(space, scaler.slices, strict=True)):
            if v.labels:
                self._class_block(part, fixed.get(i))
                continue
            k = part.start
            low, high = float(lower[i]), float(upper[i])
            if i in fixed:
                value = fixed[i].to(torch.float64)
                if bool(((value < low - 1e-9) | (value > high + 1e-9)).any()):
                    raise GenoptError(
                        f"fixed: column {v.name!r} is held at {value.tolist()}, outside its bounds "
                        f"[{low:g}, {high:g}]"
                    )
                self.lower[..., k] = self.upper[..., k] = value[:, None]
            else:
                self.lower[..., k], self.upper[..., k] = low, high
            if math.isfinite(low) and math.isfinite(high) and high > low:
                self.origin[k] = low
                self.width[k] = 1.0 if i in in_simplex else high - low
            else:
                self.origin[k] = float(scaler.mean[k])
                self.width[k] = float(scaler.scale[k]) * math.sqrt(12.0)
        for group in groups:
            self.groups.append([scaler.slices[i].start for i in group])
        self.u_lower = (self.lower - self.origin) / self.width
        self.u_upper = (self.upper - self.origin) / self.width
        for members in self.groups:
            least, most = self.lower[..., members].sum(-1), self.upper[..., members].sum(-1)
            if bool((least > 1.0 + 1e-9).any()) or bool((most < 1.0 - 1e-9).any()):
                names = [
                    space.names[i]
                    for i, part in enumerate(scaler.slices)
                    for k in members
                    if part.start == k
                ]
                raise GenoptError(
                    f"fixed and bounds leave no point of the simplex {', '.join(names)} that sums "
                    "to one"
                )

    def _class_block(self, part: slice, code: Tensor | None) -> None:
        self.lower[..., part], self.upper[..., part] = 0.0, 1.0
        if code is not None:
            one_hot = torch.nn.functional.one_hot(code.round().long(), part.stop - part.start)
            self.lower[..., part] = self.upper[..., part] = one_hot[:, None].to(torch.float64)
        self.groups.append(list(range(part.start, part.stop)))

    def to(self, device: torch.device) -> Coordinates:
        """Move the limits to a device.

        Args:
            device: where the search runs.

        Returns:
            The object itself.
        """
        for name in ("lower", "upper", "origin", "width", "u_lower", "u_upper"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def from_raw(self, x: Tensor) -> Tensor:
        """Raw designs to coordinates.

        Args:
            x: designs (..., P).

        Returns:
            Coordinates (..., E), float64.
        """
        return (self.scaler.wide(x.to(torch.float64)) - self.origin) / self.width

    def from_wide(self, wide: Tensor) -> Tensor:
        """Wide designs to coordinates.

        Args:
            wide: raw numbers and (relaxed) one-hot blocks (..., E).

        Returns:
            Coordinates (..., E), float64.
        """
        return (wide.to(torch.float64) - self.origin) / self.width

    def wide(self, u: Tensor) -> Tensor:
        """Coordinates to wide designs.

        Args:
            u: coordinates (..., E).

        Returns:
            Raw numbers and relaxed one-hot blocks (..., E).
        """
        return self.origin + self.width * u

    def project(self, u: Tensor) -> Tensor:
        """The nearest coordinates inside the box, on the simplexes and at the fixed values.

        Args:
            u: coordinates (B, R, E).

        Returns:
            Coordinates (B, R, E); classes and integers stay relaxed.
        """
        out = torch.minimum(torch.maximum(u, self.u_lower), self.u_upper)
        for members in self.groups:
            raw = u[..., members] * self.width[members] + self.origin[members]
            raw = project_sum(raw, self.lower[..., members], self.upper[..., members])
            out[..., members] = (raw - self.origin[members]) / self.width[members]
        return out

    def tangent(self, u: Tensor, gradient: Tensor) -> Tensor:
        """The part of a gradient that a projected step can follow.

        Adam rescales each coordinate, so with the plain gradient a projected search on a simplex
        would come to rest where no constrained optimum is. The gradient mapping of a short step
        vanishes exactly there (Nesterov, Introductory Lectures on Convex Optimization, 2.2.3).

        Args:
            u: valid coordinates (B, R, E).
            gradient: the gradient there (B, R, E).

        Returns:
            The gradient itself where no column is part of a simplex or class block, else the
            gradient mapping (B, R, E).
        """
        if not self.groups:
            return gradient
        short = _SHORT / gradient.abs().amax(-1, keepdim=True).clamp_min(1e-30)
        return (u - self.project(u - short * gradient)) / short

    def free(self, u: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Which coordinates a descent may move freely, and where a short step would lead.

        A coordinate is not free where a short step ends at a bound (Bertsekas 1982, Projected
        Newton methods): its curvature then says nothing.

        Args:
            u: valid coordinates (B, R, E).
            gradient: the gradient there (B, R, E).

        Returns:
            bool (B, R, E) and the short step's change of coordinates (B, R, E).
        """
        short = _SHORT / gradient.abs().amax(-1, keepdim=True).clamp_min(1e-300)
        ahead = self.project(u - short * gradient)
        tiny = 1e-14 * (1.0 + u.abs())
        at_bound = (ahead <= self.u_lower + tiny) | (ahead >= self.u_upper - tiny)
        return ~at_bound, ahead - u

    def flat(self, v: Tensor, free: Tensor) -> Tensor:
        """The part of a vector along which free coordinates move and sums of groups stay.

        Args:
            v: vectors (..., B, R, E).
            free: which coordinates are free (B, R, E).

        Returns:
            Vectors (..., B, R, E).
        """
        out = torch.where(free, v, 0.0)
        for members in self.groups:
            some = free[..., members].to(v)
            mean = out[..., members].sum(-1, keepdim=True)
            mean = mean / some.sum(-1, keepdim=True).clamp_min(1.0)
            out[..., members] = out[..., members] - some * mean
        return out

    @property
    def has_discrete(self) -> bool:
        """Whether an integer or class column is searched, beside columns that are numbers."""
        kinds = [v.kind == "continuous" for i, v in enumerate(self.space) if i not in self.fixed]
        return any(kinds) and not all(kinds)

    def holding(self, x: Tensor) -> Coordinates:
        """The same coordinates with integer and class columns held at the values of designs.

        Args:
            x: valid designs (B, R, P).

        Returns:
            Coordinates whose limits are those of each row.
        """
        out = copy.copy(self)
        wide = self.scaler.wide(x.to(torch.float64))
        out.lower, out.upper = (
            self.lower.expand_as(wide).clone(),
            self.upper.expand_as(wide).clone(),
        )
        for i in self.space.discrete:
            part = self.scaler.slices[i]
            out.lower[..., part] = out.upper[..., part] = wide[..., part]
        out.u_lower = (out.lower - out.origin) / out.width
        out.u_upper = (out.upper - out.origin) / out.width
        return out

    def of_rows(self, rows: Tensor) -> Coordinates:
        """The same coordinates for rows of some starts.

        Args:
            rows: the starts' numbers (M,).

        Returns:
            Coordinates with M rows.
        """
        out = copy.copy(self)
        if len(self.lower) > 1:
            for name in ("lower", "upper", "u_lower", "u_upper"):
                setattr(out, name, getattr(self, name)[rows])
        return out

    def raw(self, u: Tensor) -> Tensor:
        """The valid raw designs that coordinates stand for: classes and integers exact.

        Args:
            u: projected coordinates (B, R, E).

        Returns:
            Designs (B, R, P), float64.
        """
        wide = torch.minimum(torch.maximum(self.wide(u), self.lower), self.upper)
        x = self.scaler.raw(wide)
        for i, v in enumerate(self.space):
            if v.kind == "integer":
                k = self.scaler.slices[i].start
                low, high = self.lower[..., k].ceil(), self.upper[..., k].floor()
                x[..., i] = torch.minimum(torch.maximum(x[..., i].round(), low), high)
            if i in self.fixed:
                x[..., i] = self.fixed[i].to(x)[:, None]
        return x


def _limits(space: Space, bounds: Bounds) -> tuple[Tensor, Tensor, tuple[tuple[int, ...], ...]]:
    """Bounds (P,) and simplex groups to search in."""
    if bounds is None or bounds is True:
        return space.lower, space.upper, space.simplex_indices
    if bounds is False:
        free = torch.full((space.dim,), math.inf, dtype=torch.float64)
        return -free, free, ()
    if isinstance(bounds, Space):
        if [v.labels for v in bounds] != [v.labels for v in space]:
            raise GenoptError(
                f"bounds: the Space has columns {', '.join(bounds.names)}; expected {space.dim} "
                f"columns of the kinds of {', '.join(space.names)}"
            )
        return bounds.lower, bounds.upper, bounds.simplex_indices
    if len(bounds) != space.dim or any(len(pair) != 2 for pair in bounds):
        raise GenoptError(
            f"bounds has {len(bounds)} entries; expected {space.dim} pairs (lower, upper), one for "
            f"each of {', '.join(space.names)}"
        )
    pairs = torch.tensor([[float(lo), float(hi)] for lo, hi in bounds], dtype=torch.float64)
    lower, upper = pairs[:, 0], pairs[:, 1]
    if bool((~(lower <= upper)).any()):
        raise GenoptError(f"bounds must be pairs with lower <= upper, got {bounds}")
    for group in space.simplex_indices:
        lower[list(group)], upper[list(group)] = (
            lower[list(group)].clamp_min(0.0),
            upper[list(group)].clamp_max(1.0),
        )
    return lower, upper, space.simplex_indices


def read_fixed(fixed: Fixed, start: Tensor, space: Space) -> dict[int, Tensor]:
    """Which columns are held, at which values.

    Args:
        fixed: column (name or index) to a value, a class label or B values; or a list of columns
            that are held at the start.
        start: starts (B, P).
        space: the Space of x.

    Returns:
        Column index to values (B or 1,), float64.

    Raises:
        GenoptError: if a column is unknown or a value does not fit.
    """
    if fixed is None:
        return {}
    if isinstance(fixed, str):
        raise GenoptError(f"fixed={fixed!r}: give a list of columns or a mapping column: value")
    held: dict[int, Tensor] = {}
    for column in fixed:
        i = space.index(column) if isinstance(column, str) else int(column)
        if not -space.dim <= i < space.dim:
            raise GenoptError(f"fixed: column {i} does not exist; expected 0 to {space.dim - 1}")
        i %= space.dim
        if not isinstance(fixed, Mapping):
            held[i] = start[:, i].to(torch.float64)
            continue
        value = fixed[column]
        if isinstance(value, str):
            value = space.variables[i].code(value)
        numbers = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
        labels = space.variables[i].labels
        valid = torch.isfinite(numbers).all() and numbers.numel() in (1, len(start))
        if labels:
            valid = (
                valid
                & (numbers == numbers.round()).all()
                & ((numbers >= 0) & (numbers < len(labels))).all()
            )
        if not bool(valid):
            raise GenoptError(
                f"fixed: column {space.names[i]!r} is held at {numbers.tolist()}; expected one "
                f"finite value or {len(start)} of them"
                + (f", a class among {', '.join(labels)}" if labels else "")
            )
        held[i] = numbers
    return held
