"""Source: where draws come from, for some of the conditions of a call at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.space import Space


@dataclass(frozen=True)
class Draws:
    """Designs and, where the model carries noise to designs, the noise they come from.

    Args:
        x: designs (C, n, P), float64.
        noise: standard normal vectors (C, n, U), float64, or None.
    """

    x: Tensor
    noise: Tensor | None = None

    def take(self, index: Tensor) -> Draws:
        """Some draws of each condition.

        Args:
            index: their numbers (C, m).

        Returns:
            Draws with n = m.
        """
        rows = torch.arange(len(index))[:, None]
        noise = None if self.noise is None else self.noise[rows, index]
        return Draws(self.x[rows, index], noise)

    def of(self, rows: Tensor) -> Draws:
        """The draws of some conditions.

        Args:
            rows: their numbers.

        Returns:
            The fewer draws.
        """
        return Draws(self.x[rows], None if self.noise is None else self.noise[rows])

    def join(self, other: Draws) -> Draws:
        """These and other draws of the same conditions.

        Args:
            other: further draws.

        Returns:
            All of them.
        """
        noise = self.noise
        if noise is not None and other.noise is not None:
            noise = torch.cat([noise, other.noise], 1)
        return Draws(torch.cat([self.x, other.x], 1), noise)


@dataclass(frozen=True)
class Source:
    """A model of designs given C conditions.

    Args:
        count: number of conditions C.
        space: the columns of x.
        generator: source of randomness.
        draw: designs (C', n, P) for the conditions of some numbers (C',), n each; not needed with
            ``transport``.
        transport: designs (C', n, P) that noise (C', n, U) is carried to, for the conditions of
            some numbers (C',).
        width: width U of the noise.
        exact: whether the draws keep the linear equalities by themselves.
    """

    count: int
    space: Space
    generator: torch.Generator
    draw: Callable[[Tensor, int], Tensor] | None = None
    transport: Callable[[Tensor, Tensor], Tensor] | None = None
    width: int = 0
    exact: bool = False

    @torch.no_grad()
    def draws(self, rows: Tensor, n: int) -> Draws:
        """Fresh draws.

        Args:
            rows: numbers of conditions (C',).
            n: draws of each.

        Returns:
            The draws.
        """
        if self.transport is None:
            if self.draw is None:
                raise TypeError("a source needs draw or transport")
            return Draws(self.draw(rows, n).to(torch.float64))
        return self.carried(self.normal(len(rows), n), rows)

    @torch.no_grad()
    def carried(self, noise: Tensor, rows: Tensor) -> Draws:
        """What noise is carried to.

        Args:
            noise: standard normal vectors (C', n, U).
            rows: numbers of conditions (C',).

        Returns:
            The draws.
        """
        if self.transport is None:
            raise TypeError("this source has no noise")
        return Draws(self.transport(noise, rows).to(torch.float64), noise)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal vectors.

        Args:
            *shape: leading dimensions.

        Returns:
            (*shape, U), float64.
        """
        size = (*shape, self.width)
        return torch.randn(
            size, generator=self.generator, dtype=torch.float64, device=self.generator.device
        )
