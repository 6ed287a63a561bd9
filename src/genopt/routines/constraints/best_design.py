"""The best design under constraints: a descent through the sampler, an augmented Lagrangian.

The noise that is carried to a design is what is searched, so every design on the way is one of the
model's own (D-Flow; Ben-Hamu et al., arXiv 2402.14017); multipliers and penalties bring it to the
constraints (Nocedal and Wright, Numerical Optimization, algorithm 17.4). It finds good designs, not
a distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.routines.constraints.shell import Shell
from genopt.routines.constraints.source import Draws, Source

_ROUNDS = 4
_STEPS = 40
_RATE = 0.3
_PENALTY = 4.0
_GROWTH = 2.0


@dataclass(frozen=True)
class Descended:
    """Designs after the descent.

    Args:
        draws: one for each start.
        tries: how many designs were looked at in all.
    """

    draws: Draws
    tries: int


def gradient_search(
    source: Source,
    shell: Shell,
    rows: Tensor,
    start: Draws,
    objective: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Descended:
    """Designs with a small objective near the constraints, one from each start.

    Args:
        source: a source with differentiable transport.
        shell: units of the constraints for these conditions.
        rows: the conditions' numbers (C',).
        start: starts, with their noise (C', n, U).
        objective: from designs (C', n, P) and ``rows`` to losses (C', n); None for half the mean
            square of the noise, whose smallest value is the most usual design.

    Returns:
        The designs, not yet projected.

    Raises:
        GenoptError: if a constraint has no gradient or the source no noise.
    """
    rules = shell.rules
    for constraint in rules.constraints:
        if not constraint.differentiable:
            raise GenoptError(
                f"constraint {constraint.name} has no gradient: use constraint_method=smc"
            )
    transport = source.transport
    if start.noise is None or transport is None:
        raise GenoptError("constraint_method=gradient needs a flow")
    noise = start.noise.detach().clone().requires_grad_()
    scale = shell.spread[:, None]
    multiplier = torch.zeros(*noise.shape[:2], len(rules.names), dtype=torch.float64)
    penalty = _PENALTY
    for _ in range(_ROUNDS):
        search = torch.optim.Adam([noise], lr=_RATE)
        for step in range(_STEPS):
            # steps that shrink to nothing end each round where the penalties balance
            search.param_groups[0]["lr"] = _RATE * (1.0 - step / _STEPS) ** 2
            search.zero_grad()
            x = transport(noise, rows).to(torch.float64)
            residual = torch.nan_to_num(rules.residual(x)) / scale
            wish = noise.square().mean(-1) / 2.0 if objective is None else objective(x, rows)
            loss = wish + _lagrangian(residual, multiplier, penalty, rules.equality).sum(-1)
            (gradient,) = torch.autograd.grad(loss.sum(), noise)
            noise.grad = torch.nan_to_num(gradient)
            search.step()
        with torch.no_grad():
            residual = rules.residual(transport(noise, rows).to(torch.float64)) / scale
            multiplier = multiplier + penalty * torch.nan_to_num(residual)
            multiplier = torch.where(rules.equality, multiplier, multiplier.clamp_min(0.0))
        penalty *= _GROWTH
    looked = noise.shape[0] * noise.shape[1] * _ROUNDS * (_STEPS + 1)
    return Descended(source.carried(noise.detach(), rows), looked)


def _lagrangian(residual: Tensor, multiplier: Tensor, penalty: float, equality: Tensor) -> Tensor:
    """Terms of the augmented Lagrangian (..., M); an inequality counts where it presses."""
    both = multiplier * residual + 0.5 * penalty * residual.square()
    pressed = (multiplier + penalty * residual).clamp_min(0.0)
    one = (pressed.square() - multiplier.square()) / (2.0 * penalty)
    return torch.where(equality, both, one)
