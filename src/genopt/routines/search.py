"""The descent of `optimize_latent`: one tensor, one Adam, rows that never influence one another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genopt.errors import GenoptError


@dataclass(frozen=True)
class Evaluation:
    """What a point of the search is worth.

    Args:
        coordinates: the design in search coordinates (B, R, E).
        target: the wanted heads' outputs (B, R, T), raw units.
        total: objective and penalties (B, R), which is minimised.
    """

    coordinates: Tensor
    target: Tensor
    total: Tensor


@dataclass(frozen=True)
class SearchOptions:
    """How a search descends.

    Args:
        steps: number of steps S.
        lr: peak step size; it falls to zero along half a cosine.
        tolerance: a change of the minimised loss that counts as none.
        patience: a row stops after so many steps without a change; None for never.
        record: whether to keep every step.
        progress: whether to show a progress bar.

    Raises:
        GenoptError: if a number is out of range.
    """

    steps: int = 200
    lr: float = 0.05
    tolerance: float = 1e-12
    patience: int | None = 10
    record: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise GenoptError(f"steps must not be negative, got {self.steps}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise GenoptError(f"lr must be positive, got {self.lr}")
        if self.tolerance < 0 or (self.patience is not None and self.patience < 1):
            raise GenoptError(
                f"tolerance={self.tolerance} must not be negative and patience={self.patience} be "
                "positive or None"
            )


@dataclass
class Descent:
    """The end of a search and the way to it.

    Args:
        variable: the searched variable (B, R, V).
        coordinates: designs after each recorded step, (B, R, E) each; the last step is not in it.
        targets: outputs after each recorded step, (B, R, T) each; the last step is not in it.
    """

    variable: Tensor
    coordinates: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)


def descend(
    start: Tensor,
    evaluate: Callable[[Tensor], Evaluation],
    project: Callable[[Tensor], Tensor],
    tangent: Callable[[Tensor, Tensor], Tensor],
    options: SearchOptions,
) -> Descent:
    """Minimise every row's loss by Adam with a cosine rate, projected after each step.

    The losses are summed, so each row's gradient is its own. A row whose loss no longer changes, or
    whose gradient is not finite, stays where it is.

    Args:
        start: where to start (B, R, V), float64, valid.
        evaluate: the worth of a variable, differentiable.
        project: the nearest valid variable.
        tangent: the part of a gradient that a projected step from a variable can follow.
        options: steps, rate, early stop.

    Returns:
        The last variable and, if asked for, every step.

    Raises:
        GenoptError: if the loss does not depend on the variable.
    """
    variable = start.detach().clone().requires_grad_(True)
    descent = Descent(variable.detach())
    optimizer = torch.optim.Adam([variable], lr=options.lr)
    active = torch.ones(start.shape[:2], dtype=torch.bool, device=start.device)
    quiet = torch.zeros(start.shape[:2], dtype=torch.long, device=start.device)
    before: Tensor | None = None
    for step in _counted(options.steps, options.progress):
        state = evaluate(variable)
        if not state.total.requires_grad:
            raise GenoptError(
                "the objective is not differentiable in the design: its heads (and penalties) must "
                "be torch functions of their input"
            )
        (gradient,) = torch.autograd.grad(state.total.sum(), variable)
        if options.record and step:
            # a copy, because the variable is changed in place
            descent.coordinates.append(state.coordinates.detach().clone())
            descent.targets.append(state.target.detach())
        total = state.total.detach()
        if options.patience is not None and before is not None:
            still = (total - before).abs() <= options.tolerance
            quiet = torch.where(still, quiet + 1, 0)
            active &= quiet < options.patience
        before = total
        active &= torch.isfinite(gradient).all(-1)
        if not bool(active.any()):
            break
        moving = active.unsqueeze(-1)
        variable.grad = torch.where(moving, tangent(variable.detach(), gradient), 0.0)
        kept = variable.detach().clone()
        optimizer.param_groups[0]["lr"] = (
            options.lr * 0.5 * (1.0 + math.cos(math.pi * step / options.steps))
        )
        optimizer.step()
        with torch.no_grad():
            variable.copy_(torch.where(moving, project(variable.detach()), kept))
    descent.variable = variable.detach()
    return descent


def _counted(steps: int, progress: bool) -> Iterable[int]:
    if not progress or not steps:
        return range(steps)
    from rich.progress import track

    return track(range(steps), description="search")
