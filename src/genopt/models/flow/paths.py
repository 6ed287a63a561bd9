"""Probability paths: how noise at t = 0 becomes data at t = 1.

A path is x_t = alpha(t) x_1 + sigma(t) x_0; a flow learns the mean of its time derivative (Lipman
et al., arXiv 2210.02747).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from genopt.errors import GenoptError


@dataclass(frozen=True)
class ScheduleValue:
    """A schedule and its time derivative at some times; all of the times' shape.

    Args:
        alpha: weight of the data.
        sigma: weight of the noise.
        d_alpha: d alpha / dt.
        d_sigma: d sigma / dt.
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


@dataclass(frozen=True)
class PathSample:
    """Points of a path and their velocity, each (..., U).

    Args:
        x_t: the points.
        dx_t: their time derivative at fixed ends.
    """

    x_t: Tensor
    dx_t: Tensor


@dataclass(frozen=True)
class GaussianGuess:
    """What the velocity is when data and noise are both standard normal.

    Args:
        gain: the mean velocity is ``gain * x_t``.
        spread: standard deviation of the velocity around that mean.
        size: standard deviation of x_t.
    """

    gain: Tensor
    spread: Tensor
    size: Tensor


class Path(Protocol):
    """A path is what gives alpha, sigma and their derivatives."""

    def schedule(self, t: Tensor) -> ScheduleValue:
        """The schedule at times of any shape."""
        ...


@dataclass(frozen=True)
class LinearPath:
    """Straight lines at constant speed: alpha = t, sigma = 1 - t (Liu et al., arXiv 2209.03003)."""

    def schedule(self, t: Tensor) -> ScheduleValue:
        """The schedule.

        Args:
            t: times (...).

        Returns:
            alpha, sigma and their derivatives (...).
        """
        one = torch.ones_like(t)
        return ScheduleValue(alpha=t, sigma=1.0 - t, d_alpha=one, d_sigma=-one)


@dataclass(frozen=True)
class CosinePath:
    """Arcs that keep the variance: alpha = sin(pi t / 2), sigma = cos(pi t / 2).

    See Albergo and Vanden-Eijnden, arXiv 2209.15571.
    """

    def schedule(self, t: Tensor) -> ScheduleValue:
        """The schedule.

        Args:
            t: times (...).

        Returns:
            alpha, sigma and their derivatives (...).
        """
        angle = 0.5 * math.pi
        sine, cosine = torch.sin(angle * t), torch.cos(angle * t)
        return ScheduleValue(
            alpha=sine, sigma=cosine, d_alpha=angle * cosine, d_sigma=-angle * sine
        )


@dataclass(frozen=True)
class VPPath:
    """The variance-preserving diffusion with its linear schedule of noise rates, as a flow.

    In diffusion time s, noise enters at the rate beta(s) = beta_min + s (beta_max - beta_min), so
    the data's weight is exp(-int beta / 2) and the variances add to one (Song et al., arXiv
    2011.13456). Two changes keep both ends exact: s = (1 - t)^2, without which the velocity is
    infinite at the data, and the weight is shifted to be zero at t = 0 (Lin et al., arXiv
    2305.08891), where the plain schedule keeps .7 % of the data. The first only changes how fast
    the same distributions are passed.

    Args:
        beta_min: rate of noise at the data.
        beta_max: rate of noise at the other end.

    Raises:
        GenoptError: unless 0 < beta_min <= beta_max.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise GenoptError(
                f"path: beta_min={self.beta_min} and beta_max={self.beta_max} must be positive, "
                "beta_min not above beta_max"
            )

    def schedule(self, t: Tensor) -> ScheduleValue:
        """The schedule.

        Args:
            t: times (...).

        Returns:
            alpha, sigma and their derivatives (...).
        """
        rise = self.beta_max - self.beta_min
        u = 1.0 - t
        # everything is divided by the power of u that it vanishes with: finite at the data
        decay = 0.5 * self.beta_min + 0.25 * rise * u**2
        exponent = (u**2 * decay).clamp_min(1e-30)
        lost = -math.expm1(-0.5 * self.beta_min - 0.25 * rise)
        share = -torch.expm1(-exponent) / exponent * decay / lost
        alpha = 1.0 - u**2 * share
        width = torch.sqrt(share * (1.0 + alpha))
        speed = torch.exp(-exponent) * (self.beta_min + rise * u**2) / lost
        return ScheduleValue(
            alpha=alpha, sigma=u * width, d_alpha=u * speed, d_sigma=-alpha * speed / width
        )


def point_on_path(path: Path, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
    """Where a path between two ends is at given times, and how fast it moves.

    Args:
        path: the path.
        x_0: noise (..., U).
        x_1: data (..., U).
        t: times (...), one for each point.

    Returns:
        The points and their velocity.
    """
    s = path.schedule(t.unsqueeze(-1))
    return PathSample(x_t=s.alpha * x_1 + s.sigma * x_0, dx_t=s.d_alpha * x_1 + s.d_sigma * x_0)


def gaussian_guess(path: Path, t: Tensor) -> GaussianGuess:
    """The regression of dx_t on x_t for independent standard normal ends.

    With s^2 = alpha^2 + sigma^2 the gain is (alpha alpha' + sigma sigma') / s^2 and the residual
    standard deviation abs(alpha' sigma - alpha sigma') / s. A network that learns only what is left
    over starts from a map that is right in mean and scale.

    Args:
        path: the path.
        t: times (...).

    Returns:
        Gain, spread and size (...).
    """
    s = path.schedule(t)
    size = torch.sqrt(s.alpha**2 + s.sigma**2)
    gain = (s.alpha * s.d_alpha + s.sigma * s.d_sigma) / size**2
    return GaussianGuess(gain, (s.d_alpha * s.sigma - s.alpha * s.d_sigma).abs() / size, size)
