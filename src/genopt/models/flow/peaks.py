"""Peaks: the most probable designs, by ascent on the log density from draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.models.flow.density import carried, draw_probes
from genopt.models.flow.drive import Drive
from genopt.models.flow.samplers import Midpoint, Sampler
from genopt.models.flow.transforms import DesignTransform
from genopt.models.flow.velocity import LatentVelocity

# the way up is steered by a coarser solve than the one that judges its ends
_CLIMBER = Midpoint(12)
_TRACED = 8
_RATE = 0.15
_LAST_RATE = 0.05


@dataclass(frozen=True)
class Peaks:
    """The most probable designs of each condition, the best one first.

    Args:
        x: designs (C, R, P), float64.
        log_density: their log densities (C, R), float64, descending.
    """

    x: Tensor
    log_density: Tensor

    @classmethod
    def of(cls, x: Tensor, log_density: Tensor, device: torch.device) -> Peaks:
        """The better end of each way, in order.

        Args:
            x: starts and ends of the ways (C, R, 2, P).
            log_density: their log densities (C, R, 2).
            device: where the result shall lie.

        Returns:
            The peaks.
        """
        density, which = log_density.max(-1)
        density, order = density.sort(descending=True)
        better = x.gather(2, which[..., None, None].expand(*x.shape[:2], 1, x.shape[-1]))[:, :, 0]
        x = better.gather(1, order.unsqueeze(-1).expand_as(better))
        return cls(x.to(device), density.to(device))

    @property
    def best(self) -> Tensor:
        """The most probable design of each condition (C, P)."""
        return self.x[:, 0]


def ends_of_ascent(
    velocity: LatentVelocity,
    transform: DesignTransform,
    sampler: Sampler,
    drive: Drive,
    noise: Tensor,
    steps: int,
) -> Tensor:
    """Draws, and what they become on the way up the density of designs in raw units.

    Args:
        velocity: the flow's velocity.
        transform: the map between designs and latent points.
        sampler: carries noise to designs.
        drive: what the solves keep fixed, C conditions.
        noise: standard normal vectors (C, R, U).
        steps: steps of the ascent.

    Returns:
        Designs (C, R, 2, P): starts and ends.
    """
    rows = drive.repeat(noise.shape[1])
    start = rows.free(noise.flatten(0, 1))
    free = rows.rows(velocity)
    probes = draw_probes(start, "auto" if start.shape[-1] <= _TRACED else "hutchinson", 0)

    def height(where: Tensor) -> Tensor:
        z, density = carried(free, where, rows.embedded, _CLIMBER, probes)
        return density + rows.free(transform.log_det(rows.fill(z))).sum(-1)

    ends = []
    for some in (start, climb(height, start, steps)):
        z = sampler.solve(rows.field(velocity), some.unsqueeze(1)).end
        x = transform.decode(rows.fill(z))
        ends.append(x if rows.given is None else rows.given.put(x))
    return torch.cat(ends, 1).unflatten(0, noise.shape[:2])


def climb(height: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Tensor:
    """Ascent in the noise, where narrow and wide peaks are about as wide; each row by itself.

    Args:
        height: differentiable log density (N,) of noise (N, F).
        start: noise (N, F).
        steps: number of steps of Adam, its rate falling along a cosine.

    Returns:
        The highest noise of each row's way (N, F).
    """
    noise = start.clone().requires_grad_(True)
    best, top = start.clone(), torch.full((len(start),), -math.inf, dtype=torch.float64)
    optimizer = torch.optim.Adam([noise], lr=_RATE)
    for step in range(steps + 1):
        with torch.enable_grad():
            heights = height(noise)
            (slope,) = torch.autograd.grad(heights.sum(), noise)
        higher = heights.detach().double().cpu() > top
        top = torch.where(higher, heights.detach().double().cpu(), top)
        best[higher] = noise.detach()[higher]
        share = 0.5 * (1.0 + math.cos(math.pi * step / max(steps, 1)))
        optimizer.param_groups[0]["lr"] = _RATE * (_LAST_RATE + (1.0 - _LAST_RATE) * share)
        noise.grad = -torch.nan_to_num(slope)
        optimizer.step()
    return best
