"""Draws of a conditional model for known pairs: what all calibration tools look at.

All conditions are one call of the model; only what would not fit into memory is split.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.space import Space, Variable

_NUMBERS, _ROWS = 2**22, 2**14


class Sampler(Protocol):
    """Whatever draws designs given conditions; every `ConditionalModel` does."""

    def sample(self, y: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Designs (C, n, P) for conditions (C, K)."""


class Density(Sampler, Protocol):
    """Whatever also knows the density of its draws."""

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Log densities (N,) of designs (N, P) given conditions (N, K)."""


def check_truth(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Known pairs, or the message that says what is wrong with them.

    Args:
        x: true designs (C, P).
        y: their properties (C, K); NaN for one that the model is not told.

    Returns:
        Both in float64.

    Raises:
        GenoptError: if a shape does not fit, a design is incomplete or there are fewer than two.
    """
    x, y = (torch.as_tensor(part).detach().to("cpu", torch.float64) for part in (x, y))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise GenoptError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected (C, P) and (C, K) with "
            "the same C, at least 2: one true design for each condition"
        )
    if not bool(torch.isfinite(x).all()):
        raise GenoptError("x holds entries that are not finite: true designs must be complete")
    return x, y


def conditional_draws(
    model: Sampler, y: Tensor, n: int, generator: torch.Generator, x_dim: int
) -> Tensor:
    """Designs drawn for each condition.

    Args:
        model: whatever samples.
        y: conditions (C, K).
        n: draws a condition.
        generator: source of randomness.
        x_dim: number of design columns P.

    Returns:
        Designs (C, n, P), float64.

    Raises:
        GenoptError: if the model returns another shape or draws that are not finite.
    """
    if n < 2:
        raise GenoptError(f"draws must be at least 2, got {n}")
    many = max(1, _NUMBERS // (n * x_dim))
    parts = []
    for part in y.split(many):
        draws = model.sample(part, n, generator=generator).detach().to("cpu", torch.float64)
        if tuple(draws.shape) != (len(part), n, x_dim):
            raise GenoptError(
                f"the model's sample returned shape {tuple(draws.shape)} for {len(part)} "
                f"conditions and n={n}; expected ({len(part)}, {n}, {x_dim})"
            )
        parts.append(draws)
    found = torch.cat(parts)
    if not bool(torch.isfinite(found).all()):
        raise GenoptError("the model drew designs that are not finite")
    return found


def log_densities(model: Density, x: Tensor, y: Tensor) -> Tensor:
    """Log density of several designs for each condition.

    Args:
        model: whatever knows its density.
        x: designs (C, n, P).
        y: conditions (C, K).

    Returns:
        Log densities (C, n), float64.

    Raises:
        GenoptError: if one is NaN.
    """
    count, n, _ = x.shape
    rows, told = x.reshape(count * n, -1), y.repeat_interleave(n, 0)
    parts = [
        model.log_prob(a, b).detach().to("cpu", torch.float64)
        for a, b in zip(rows.split(_ROWS), told.split(_ROWS), strict=True)
    ]
    found = torch.cat(parts).reshape(count, n)
    if bool(found.isnan().any()):
        condition = int(found.isnan().any(-1).nonzero()[0])
        raise GenoptError(f"the model's log_prob is NaN for a design of condition {condition}")
    return found


def space_of(model: object, x_dim: int) -> Space:
    """The Space of a model's designs; unbounded numbers x1, x2, ... where it has none.

    Args:
        model: any model.
        x_dim: number of design columns.

    Returns:
        The Space.
    """
    space = getattr(model, "x_space", None)
    if isinstance(space, Space):
        return space
    return Space(tuple(Variable(f"x{i}") for i in range(1, x_dim + 1)))
