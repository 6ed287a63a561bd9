"""Drives: what a solve keeps fixed, the embedded conditions, the held columns and the guidance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genopt.models.flow.given import Given
from genopt.models.flow.velocity import LatentVelocity


@dataclass(frozen=True)
class Drive:
    """What a solve for C conditions keeps fixed.

    Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) moves along v(x) + w (v(x given y)
    - v(x)): with w = 1 that is the conditional velocity, above it the draws are sharper than p(x
    given y) and no longer follow it.

    Args:
        embedded: embedded conditions (C, E); with guidance (C, 2, E), with and without properties.
        given: held columns of x, or None.
        guidance: weight w of the properties.
    """

    embedded: Tensor
    given: Given | None = None
    guidance: float = 1.0

    def split(self, many: int) -> Iterator[Drive]:
        """The same in pieces.

        Args:
            many: conditions of a piece.

        Yields:
            The pieces in order.
        """
        for start in range(0, len(self.embedded), many):
            part = slice(start, start + many)
            given = self.given
            if given is not None:
                given = replace(
                    given, x=given.x[part], latent=given.latent[part], mask=given.mask[part]
                )
            yield replace(self, embedded=self.embedded[part], given=given)

    def free(self, latent: Tensor) -> Tensor:
        """The columns that a solve moves.

        Args:
            latent: latent points (..., U).

        Returns:
            Their free columns (..., F).
        """
        return latent if self.given is None else latent[..., ~self.given.held]

    def fill(self, moved: Tensor) -> Tensor:
        """Latent points with the held columns put in.

        Args:
            moved: free columns (C, ..., F).

        Returns:
            Latent points (C, ..., U).
        """
        if self.given is None:
            return moved
        return filled(moved, self.given.latent, self.given.held)

    def repeat(self, n: int) -> Drive:
        """The same with every condition n times in a row, for solves of rows.

        Args:
            n: number of copies.

        Returns:
            The longer drive.
        """
        given = self.given
        if given is not None:
            x, latent, mask = (
                part.repeat_interleave(n, 0) for part in (given.x, given.latent, given.mask)
            )
            given = replace(given, x=x, latent=latent, mask=mask)
        return replace(self, embedded=self.embedded.repeat_interleave(n, 0), given=given)

    def rows(self, velocity: LatentVelocity) -> FreeVelocity:
        """The velocity of rows, one condition each, for derivatives; without guidance.

        Args:
            velocity: the velocity of all columns.

        Returns:
            The velocity of their free columns.
        """
        if self.given is None:
            return FreeVelocity(velocity)
        return FreeVelocity(velocity, self.given.latent, self.given.held)

    def field(
        self, velocity: LatentVelocity, volatile: bool = False
    ) -> Callable[[float, Tensor], Tensor]:
        """The velocity of the free columns.

        Args:
            velocity: the velocity of all columns.
            volatile: whether its next call overwrites what it returned, as CUDA graphs do.

        Returns:
            A function of a time and a state (C, n, F).
        """

        def field(t: float, moved: Tensor) -> Tensor:
            x, time = self.fill(moved), moved.new_full((), t)
            if self.guidance == 1.0:
                v: Tensor = velocity(x, time, self.embedded.unsqueeze(1))
            else:
                pair = x.unsqueeze(1).expand(-1, 2, -1, -1)
                both: Tensor = velocity(pair, time, self.embedded.unsqueeze(2))
                v = torch.lerp(both[:, 1], both[:, 0], self.guidance)
            return self.free(v).clone() if volatile else self.free(v)

        return field


class FreeVelocity(LatentVelocity):
    """The velocity of the free columns of each row, the others resting at their values.

    It calls the wrapped velocity's parts directly, never a compiled form of it, because higher
    derivatives are asked of it.

    Args:
        velocity: the velocity of all columns.
        latent: held values (N, U), or None for none.
        held: which columns are held (U,).
    """

    def __init__(
        self, velocity: LatentVelocity, latent: Tensor | None = None, held: Tensor | None = None
    ) -> None:
        super().__init__(velocity.network, velocity.path)
        self.latent = latent
        self.held = held

    def forward(self, x: Tensor, t: Tensor, embedded: Tensor) -> Tensor:
        """Velocities of the free columns.

        Args:
            x: free latent columns (N, F).
            t: time ().
            embedded: embeddings (N, E).

        Returns:
            Velocities (N, F).
        """
        if self.latent is None or self.held is None:
            return super().forward(x, t, embedded)
        v = super().forward(filled(x, self.latent, self.held), t, embedded)
        return v[..., ~self.held]


def filled(moved: Tensor, latent: Tensor, held: Tensor) -> Tensor:
    """Latent points of free columns and held values.

    Args:
        moved: free columns (C, ..., F).
        latent: held values (C, U).
        held: which columns are held (U,).

    Returns:
        Latent points (C, ..., U).
    """
    width = latent.shape[-1]
    values = latent.to(moved).reshape(len(latent), *(1,) * (moved.ndim - 2), width)
    whole = values.expand(*moved.shape[:-1], width).clone()
    whole[..., ~held] = moved
    return whole
