"""Densities of a flow: the log density of latent points, and points carried forward with theirs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.errors import UnknownNameError
from genopt.models.flow.drive import FreeVelocity
from genopt.models.flow.samplers import FixedStep, Sampler
from genopt.models.flow.velocity import velocity_and_divergence

EXACT_UP_TO = 50
DIVERGENCES = ("auto", "exact", "hutchinson")
PROBES = 16
_LOG_2PI = math.log(2.0 * math.pi)


def draw_probes(like: Tensor, divergence: str, seed: int, count: int = PROBES) -> Tensor | None:
    """Random signs for Hutchinson's estimate of a trace, or None for the exact one.

    Args:
        like: the states (N, F).
        divergence: ``exact``, ``hutchinson``, or ``auto`` for the exact one up to 50 columns.
        seed: seed of the signs; they stay the same during a solve.
        count: how many of them, V.

    Returns:
        Signs (V, N, F), or None.

    Raises:
        UnknownNameError: if the word is unknown.
    """
    if divergence not in DIVERGENCES:
        raise UnknownNameError("divergence", divergence, DIVERGENCES)
    if divergence == "exact" or (divergence == "auto" and like.shape[-1] <= EXACT_UP_TO):
        return None
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (count, *like.shape), generator=generator)
    return (2 * signs - 1).to(like)


def latent_log_density(
    velocity: FreeVelocity,
    points: Tensor,
    embedded: Tensor,
    solver: Sampler,
    steps: int,
    probes: Tensor | None = None,
) -> Tensor:
    """Log density of latent points: they are carried back to the noise.

    Args:
        velocity: the velocity of the free columns.
        points: free latent columns (N, F).
        embedded: embedded conditions (N, E).
        solver: the sampler.
        steps: its number of steps.
        probes: random signs (V, N, F) for an estimated divergence; None for the exact one.

    Returns:
        Log densities (N,), float64.
    """

    def field(t: float, state: Tensor) -> Tensor:
        v, divergence = velocity_and_divergence(
            velocity, state[:, :-1], state.new_full((), t), embedded, probes=probes
        )
        return torch.cat([v, divergence.unsqueeze(-1)], -1)

    start = torch.cat([points, torch.zeros_like(points[:, :1])], -1)
    end = solver.solve(field, start, steps, backward=True).end.double()
    return normal_log_density(end[:, :-1]) + end[:, -1]


def carried(
    velocity: FreeVelocity,
    noise: Tensor,
    embedded: Tensor,
    solver: FixedStep,
    probes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Latent points of noise and their log density, both differentiable in the noise.

    Args:
        velocity: the velocity of the free columns.
        noise: standard normal vectors (N, F).
        embedded: embedded conditions (N, E).
        solver: the sampler.
        probes: random signs (V, N, F) for an estimated divergence; None for the exact one.

    Returns:
        Latent points (N, F) and log densities (N,).
    """
    directions = probes
    if directions is None:
        width = noise.shape[-1]
        basis = torch.eye(width, dtype=noise.dtype, device=noise.device)
        directions = basis.unsqueeze(1).expand(width, *noise.shape)
    shared = 1.0 if probes is None else 1.0 / len(probes)

    def field(t: float, state: Tensor) -> Tensor:
        x = state[:, :-1]
        v = velocity(x, x.new_full((), t), embedded)
        trace = x.new_zeros(len(x))
        for direction in directions:
            (slope,) = torch.autograd.grad(v, x, direction, create_graph=True)
            trace = trace + (slope * direction).sum(-1)
        return torch.cat([v, -shared * trace.unsqueeze(-1)], -1)

    with torch.enable_grad():
        start = torch.cat([noise, torch.zeros_like(noise[:, :1])], -1)
        end = solver.solve(field, start).end
    return end[:, :-1], normal_log_density(noise) + end[:, -1]


def normal_log_density(x: Tensor) -> Tensor:
    """Log density of the noise.

    Args:
        x: points (N, F).

    Returns:
        (N,).
    """
    return -0.5 * (x**2 + _LOG_2PI).sum(-1)
