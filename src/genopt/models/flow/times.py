"""Time sampling: at which times a flow is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from genopt.errors import GenoptError


class TimeSampling(Protocol):
    """A distribution of times, given by its quantile function."""

    def quantile(self, level: Tensor) -> Tensor:
        """Times of levels in [0, 1], of any shape."""
        ...


@dataclass(frozen=True)
class PowerTimes:
    """Density (a + 1) t^a: more training near the data, where fine structure appears.

    Args:
        exponent: a; 0 is uniform.

    Raises:
        GenoptError: if the exponent is not above -1.
    """

    exponent: float = 0.5

    def __post_init__(self) -> None:
        if self.exponent <= -1:
            raise GenoptError(f"time_sampling.exponent must be above -1, got {self.exponent}")

    def quantile(self, level: Tensor) -> Tensor:
        """Times of levels.

        Args:
            level: levels (...) in [0, 1].

        Returns:
            Times (...).
        """
        return level ** (1.0 / (self.exponent + 1.0))


@dataclass(frozen=True)
class UniformTimes:
    """All times alike."""

    def quantile(self, level: Tensor) -> Tensor:
        """Times of levels.

        Args:
            level: levels (...) in [0, 1].

        Returns:
            The same numbers.
        """
        return level


@dataclass(frozen=True)
class LogitNormalTimes:
    """Times whose logit is normal: most training in the middle (Esser et al., arXiv 2403.03206).

    It served images; on small posteriors it was worse than times near the data.

    Args:
        mean: mean of the logit; above 0 is nearer to the data.
        std: its standard deviation; larger for more training near both ends.

    Raises:
        GenoptError: if the standard deviation is not positive.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.std <= 0:
            raise GenoptError(f"time_sampling.std must be positive, got {self.std}")

    def quantile(self, level: Tensor) -> Tensor:
        """Times of levels.

        Args:
            level: levels (...) in [0, 1].

        Returns:
            Times (...).
        """
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(level))


def stratified_times(
    sampling: TimeSampling,
    n: int,
    like: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One time from each of n equally likely strata, in ascending order.

    Args:
        sampling: the distribution.
        n: number of times.
        like: a tensor of the wanted dtype and device.
        generator: source of randomness, on that device.

    Returns:
        Times (n,).
    """
    jitter = torch.rand(n, generator=generator, dtype=like.dtype, device=like.device)
    return sampling.quantile((torch.arange(n, device=like.device) + jitter) / n)


def time_grid(sampling: TimeSampling, n: int, like: Tensor) -> Tensor:
    """The middles of n equally likely strata, for a loss that does not jitter.

    Args:
        sampling: the distribution.
        n: number of times.
        like: a tensor of the wanted dtype and device.

    Returns:
        Times (n,), ascending.
    """
    levels = (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) / n
    return sampling.quantile(levels)
