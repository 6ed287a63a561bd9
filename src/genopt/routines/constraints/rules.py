"""Rules: all constraints of a call side by side, with their scales, tolerances and slopes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genopt.constraint import Constraint
from genopt.errors import GenoptError
from genopt.space import Space

TOLERANCE = 1e-8
_RESOLUTION = 1e-13
_REFERENCE = 512
_STEP = 6e-6


@dataclass(frozen=True)
class Linearised:
    """Residuals and their slopes.

    Args:
        residual: (N, M).
        slope: derivative of each residual by each column (N, M, P).
    """

    residual: Tensor
    slope: Tensor


@dataclass(frozen=True)
class Rules:
    """M residuals of all constraints, float64: some are to be zero, the others at most zero.

    Args:
        constraints: the constraints.
        space: the columns of x.
        held: columns that may not be moved.
    """

    constraints: tuple[Constraint, ...]
    space: Space
    held: tuple[int, ...] = ()

    @cached_property
    def equality(self) -> Tensor:
        """Which residuals are to be zero, bool (M,)."""
        return torch.tensor([c.equality for c in self.constraints for _ in range(c.count)])

    @cached_property
    def names(self) -> list[str]:
        """The constraint that each residual belongs to."""
        return [c.name for c in self.constraints for _ in range(c.count)]

    @cached_property
    def scale(self) -> Tensor:
        """Median size of each residual over the box of the Space (M,); 1 where it has no bounds."""
        if not self.space.bounded:
            return torch.ones(len(self.names), dtype=torch.float64)
        size = self.residual(reference_points(self.space)).abs()
        size = torch.where(torch.isfinite(size), size, torch.nan).nanmedian(0).values
        return torch.where(torch.isfinite(size) & (size > 0), size, 1.0)

    @cached_property
    def tolerance(self) -> Tensor:
        """Largest violation of a returned design (M,).

        It is 1e-8 in the residual's own units, less where the residual itself is small, and not
        less than float64 resolves.
        """
        return torch.maximum(TOLERANCE * self.scale.clamp_max(1.0), _RESOLUTION * self.scale)

    def residual(self, x: Tensor) -> Tensor:
        """All residuals.

        Args:
            x: designs (..., P).

        Returns:
            (..., M), float64; NaN where a rule is not defined.
        """
        x = x.to(torch.float64)
        return torch.cat([c.residual(x) for c in self.constraints], -1)

    def excess(self, x: Tensor) -> Tensor:
        """How far each rule is violated, in its own units.

        Args:
            x: designs (..., P).

        Returns:
            (..., M), zero where kept, inf where not defined.
        """
        return self.misses(self.residual(x))

    def misses(self, residual: Tensor) -> Tensor:
        """What of residuals is violation.

        Args:
            residual: (..., M).

        Returns:
            (..., M), zero where kept, inf where not defined.
        """
        miss = torch.where(self.equality, residual.abs(), residual.clamp_min(0.0))
        return torch.where(torch.isnan(miss), torch.inf, miss)

    def kept(self, x: Tensor) -> Tensor:
        """Whether designs keep every rule within its tolerance.

        Args:
            x: designs (..., P).

        Returns:
            bool (...).
        """
        return (self.excess(x) <= self.tolerance).all(-1)

    @cached_property
    def movable(self) -> Tensor:
        """Which columns a projection may move: the continuous ones that are not held, bool (P,)."""
        free = torch.ones(self.space.dim, dtype=torch.bool)
        free[[*self.space.discrete, *self.held]] = False
        return free

    def linearised(self, x: Tensor) -> Linearised:
        """Residuals and slopes, by torch or by central differences where it cannot.

        Args:
            x: designs (N, P), float64.

        Returns:
            The linearisation; a slope that is not finite is zero.
        """
        found = [self.slope(c, x) for c in self.constraints]
        slope = torch.cat([part.slope for part in found], 1)
        return Linearised(
            torch.cat([part.residual for part in found], 1),
            torch.where(torch.isfinite(slope), slope, 0.0),
        )

    def slope(self, constraint: Constraint, x: Tensor) -> Linearised:
        """One constraint's residuals and slopes.

        Args:
            constraint: one of the constraints.
            x: designs (N, P), float64.

        Returns:
            Its linearisation; slopes may be NaN where it is not defined.

        Raises:
            GenoptError: if torch cannot differentiate what is said to be differentiable.
        """
        if constraint.coefficients is not None:
            slope = constraint.coefficients.expand(len(x), -1, -1)
            return Linearised(constraint.residual(x), slope)
        if constraint.differentiable:
            with torch.enable_grad():
                leaf = x.detach().clone().requires_grad_()
                residual = constraint.residual(leaf)
                if not residual.requires_grad:
                    raise GenoptError(
                        f"constraint {constraint.name} has no gradient: write it with torch, or "
                        "say differentiable=False"
                    )
                slopes = [
                    torch.autograd.grad(column.sum(), leaf, retain_graph=True, allow_unused=True)[0]
                    for column in residual.unbind(-1)
                ]
            filled = [torch.zeros_like(x) if s is None else s for s in slopes]
            return Linearised(residual.detach(), torch.stack(filled, 1))
        # both neighbours of every column in one call; inside the bounds, where a rule is defined
        step = _STEP * self.width
        offset = torch.diag(step)
        ahead = torch.minimum(x[:, None] + offset, self.space.upper)
        behind = torch.maximum(x[:, None] - offset, self.space.lower)
        ahead[..., ~self.movable], behind[..., ~self.movable] = (
            x[:, None, ~self.movable],
            x[:, None, ~self.movable],
        )
        gap = (ahead - behind).diagonal(dim1=1, dim2=2).clamp_min(1e-300)[..., None]
        rise = constraint.residual(ahead) - constraint.residual(behind)
        slope = torch.where(self.movable[:, None], rise / gap, 0.0)
        return Linearised(constraint.residual(x), slope.transpose(1, 2))

    @cached_property
    def width(self) -> Tensor:
        """Width of each column (P,); 1 where it has none."""
        width = self.space.upper - self.space.lower
        return torch.where(torch.isfinite(width) & (width > 0), width, 1.0)

    def least_met(self, x: Tensor) -> str:
        """The constraint that fewest designs keep, in words.

        Args:
            x: designs (..., P).

        Returns:
            Its name and the share of designs that keep it, or come near it.
        """
        flat = self.excess(x.reshape(-1, self.space.dim))
        near = torch.where(self.equality, 0.01 * self.scale, self.tolerance)
        share = (flat <= near).double().mean(0)
        worst = int(share.argmin())
        verb = "come near" if bool(self.equality[worst]) else "keep"
        smallest = float(flat[:, worst].min())
        size = "not defined" if math.isinf(smallest) else f"{smallest:.3g}"
        return (
            f"{100 * float(share[worst]):.3g} % of {len(flat)} draws {verb} "
            f"{self.names[worst]!r}, the smallest violation is {size}"
        )


def reference_points(space: Space, count: int = _REFERENCE) -> Tensor:
    """Points spread over a bounded Space.

    Args:
        space: the Space.
        count: how many.

    Returns:
        Valid designs (count, P), float64.
    """
    from genopt.data.sampling import sample_space

    return sample_space(space, count, seed=0)


def rules_of(
    constraints: Sequence[Constraint], space: Space, held: Sequence[int] = ()
) -> Rules | None:
    """Constraints side by side, after a check that each can be worked out.

    Args:
        constraints: the constraints.
        space: the columns of x.
        held: columns that may not be moved.

    Returns:
        The Rules; None without constraints.

    Raises:
        GenoptError: if a function fails, or a rule is not defined anywhere in the Space.
    """
    if not constraints:
        return None
    if space.bounded:
        points = reference_points(space)
        for constraint in constraints:
            try:
                undefined = torch.isnan(constraint.residual(points)).all()
            except GenoptError:
                raise
            except Exception as error:
                raise GenoptError(f"constraint {constraint.name} fails: {error}") from error
            if bool(undefined):
                raise GenoptError(
                    f"constraint {constraint.name} gives NaN for every design inside the bounds"
                )
    return Rules(tuple(constraints), space, tuple(held))
