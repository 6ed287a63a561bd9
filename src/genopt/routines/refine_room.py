"""Where designs that are refined may go: their own bounds and simplexes, all columns in widths."""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.nn.scalers import InputScaler
from genopt.routines.coordinates import Coordinates
from genopt.space import Space


class Room:
    """Search coordinates of N designs; classes, integers and held columns stay as they are.

    Args:
        space: the x Space.
        x: valid designs (N, P).
        held: columns that stay.
        measured: designs (M, P) that give columns without bounds a width.
    """

    def __init__(
        self,
        space: Space,
        x: Tensor,
        held: tuple[int, ...] = (),
        measured: Tensor | None = None,
    ) -> None:
        scaler = InputScaler([len(v.labels) for v in space])
        if measured is not None and not space.bounded:
            scaler.learn(scaler.wide(measured))
        still = {*space.discrete, *held}
        fixed = {i: x[:, i] for i in held}
        self.coordinates = Coordinates(space, scaler, None, fixed).holding(x[:, None])
        self.start = x
        self.movable = torch.tensor([i not in still for i in range(space.dim)])
        self.columns = [part.start for part in scaler.slices]

    def take(self, rows: Tensor) -> Room:
        """The room of some designs.

        Args:
            rows: their numbers (M,).

        Returns:
            The same for M designs.
        """
        out = object.__new__(Room)
        out.coordinates = self.coordinates.of_rows(rows)
        out.start = self.start[rows]
        out.movable, out.columns = self.movable, self.columns
        return out

    def first(self) -> Tensor:
        """The coordinates of the designs themselves (N, E), made valid."""
        return self.project(self.coordinates.from_raw(self.start))

    def project(self, u: Tensor) -> Tensor:
        """The nearest valid coordinates.

        Args:
            u: (N, E).

        Returns:
            (N, E).
        """
        return self.coordinates.project(u[:, None])[:, 0]

    def x(self, u: Tensor) -> Tensor:
        """Designs of coordinates, differentiable.

        Args:
            u: valid coordinates (N, E).

        Returns:
            Designs (N, P) inside the bounds.
        """
        wide = self.coordinates.wide(u)[:, self.columns]
        x = torch.where(self.movable, wide, self.start)
        low, high = (
            ends[:, 0, self.columns] for ends in (self.coordinates.lower, self.coordinates.upper)
        )
        inside = torch.where(self.movable, torch.minimum(torch.maximum(x, low), high), x)
        return x + (inside - x).detach()

    def slope(self, slopes: Tensor) -> Tensor:
        """Derivatives by columns as derivatives by coordinates.

        Args:
            slopes: (N, T, P), zero by columns that do not move.

        Returns:
            (N, T, E).
        """
        out = slopes.new_zeros(*slopes.shape[:2], len(self.coordinates.width))
        moving = self.movable.nonzero()[:, 0]
        places = torch.tensor(self.columns)[moving]
        out[..., places] = slopes[..., moving] * self.coordinates.width[places]
        return out

    def limits(self) -> tuple[Tensor, Tensor]:
        """Lower and upper coordinates (N, E)."""
        shape = (len(self.start), -1)
        lower, upper = self.coordinates.u_lower, self.coordinates.u_upper
        return lower.reshape(shape), upper.reshape(shape)

    def flat(self, vectors: Tensor, free: Tensor) -> Tensor:
        """The part of vectors along which free coordinates move and simplexes keep their sums.

        Args:
            vectors: (N, T, E).
            free: which coordinates are free (N, E).

        Returns:
            (N, T, E).
        """
        found = self.coordinates.flat(vectors.transpose(0, 1)[:, :, None], free[:, None])
        return found[:, :, 0].transpose(0, 1)

    def balanced(self, stopped: Tensor, free: Tensor) -> Tensor:
        """Moves of stopped coordinates, with those of free ones that keep the sums of simplexes.

        Args:
            stopped: moves (N, E), zero for coordinates that are free.
            free: which coordinates are free (N, E).

        Returns:
            Moves (N, E).
        """
        out = stopped.clone()
        for members in self.coordinates.groups:
            some = free[:, members].to(stopped)
            owed = stopped[:, members].sum(-1, keepdim=True)
            out[:, members] -= some * (owed / some.sum(-1, keepdim=True).clamp_min(1.0))
        return out

    def free(self, u: Tensor, gradient: Tensor) -> Tensor:
        """Which coordinates a descent may move: all but those it would press against a bound.

        Args:
            u: valid coordinates (N, E).
            gradient: of what is minimised (N, E).

        Returns:
            bool (N, E).
        """
        lower, upper = self.limits()
        inside = (u > lower) & (u < upper)
        reduced = gradient.clone()
        for members in self.coordinates.groups:
            # the multiplier of a sum is what its inner members agree on
            some = inside[:, members].to(gradient)
            some = torch.where(some.any(-1, keepdim=True), some, 1.0)
            mean = (some * gradient[:, members]).sum(-1, keepdim=True) / some.sum(-1, keepdim=True)
            reduced[:, members] -= mean
        pressed = ((u <= lower) & (reduced > 0)) | ((u >= upper) & (reduced < 0))
        return (upper > lower) & ~pressed
