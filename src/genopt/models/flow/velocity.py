"""Latent velocity: a network on top of what a Gaussian would do, and its divergence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genopt.models.flow.paths import Path, gaussian_guess

_LOOP_UP_TO = 4


class LatentVelocity(nn.Module):
    """v(x, t | condition) = gain x + spread network(x / size, t, condition).

    Gain, spread and size are those of a path between two standard normals
    (`genopt.models.flow.paths.gaussian_guess`), so the network's inputs and targets have unit scale
    at all times and an untrained network maps noise to the Gaussian of the data.

    Args:
        network: a module with ``embed(condition)`` and ``forward(x, t, embedded)``.
        path: the probability path.
    """

    def __init__(self, network: nn.Module, path: Path) -> None:
        super().__init__()
        self.network = network
        self.path = path

    def embed(self, condition: Tensor) -> Tensor:
        """What the network makes of conditions.

        Args:
            condition: condition vectors (..., D).

        Returns:
            Embeddings (..., E).
        """
        network: Any = self.network
        embedded: Tensor = network.embed(condition)
        return embedded

    def forward(self, x: Tensor, t: Tensor, embedded: Tensor) -> Tensor:
        """Velocities of latent points.

        Args:
            x: latent points (..., U).
            t: times that broadcast with ``x.shape[:-1]``.
            embedded: embeddings (..., E) that broadcast in the same way.

        Returns:
            Velocities (..., U).
        """
        guess = gaussian_guess(self.path, t.unsqueeze(-1))
        learned = self.network(x / guess.size, t, embedded).to(x.dtype)
        return torch.addcmul(guess.gain * x, guess.spread, learned)


def velocity_and_divergence(
    velocity: LatentVelocity,
    x: Tensor,
    t: Tensor,
    embedded: Tensor,
    probes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Velocities and their divergence, the trace of dv/dx.

    Exact without probes: up to four dimensions a loop of vector-Jacobian products is fastest, above
    one batched product. With probes it is Hutchinson's estimate, the mean of ``e dv/dx e`` over
    random signs e: without bias, and the same function all along a solve that keeps its probes
    (Grathwohl et al., arXiv 1810.01367).

    Args:
        velocity: the velocity.
        x: latent points (N, U).
        t: time ().
        embedded: embeddings (N, E).
        probes: random signs (V, N, U) for an estimate; None for the exact divergence.

    Returns:
        Velocities (N, U) and divergences (N,).
    """
    dim = x.shape[-1]
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        v = velocity(x, t, embedded.detach())
        # rows do not influence one another, so a sum over rows gives every row its own gradient
        if probes is not None:
            (slopes,) = torch.autograd.grad(v, x, probes, is_grads_batched=True)
            divergence = (slopes * probes).sum(-1).mean(0)
        elif dim <= _LOOP_UP_TO:
            totals = [v[:, i].sum() for i in range(dim)]
            parts = [
                torch.autograd.grad(total, x, retain_graph=i < dim - 1)[0][:, i]
                for i, total in enumerate(totals)
            ]
            divergence = torch.stack(parts).sum(0)
        else:
            basis = torch.eye(dim, dtype=x.dtype, device=x.device)
            (jacobian,) = torch.autograd.grad(
                v, x, basis.unsqueeze(1).expand(dim, *x.shape), is_grads_batched=True
            )
            divergence = jacobian.diagonal(dim1=0, dim2=2).sum(-1)
    return v.detach(), divergence
