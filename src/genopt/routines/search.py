"""The descent of `optimize_latent`: one tensor of rows that never influence one another.

Rows that have come to rest are not worked out again. The first-order method is here, the
quasi-Newton one in `genopt.routines.lbfgs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError

OPTIMIZERS = ("adam", "lbfgs", "adam_lbfgs")
# below this share of moving rows, only those are worked out
_FEW = 0.75


@dataclass(frozen=True)
class Evaluation:
    """What a point of the search is worth.

    Args:
        coordinates: the design in search coordinates (B, R, E).
        target: the wanted heads' outputs (B, R, T), raw units.
        total: objective and penalties (B, R), which is minimised.
        penalty: the penalties alone (B, R).
    """

    coordinates: Tensor
    target: Tensor
    total: Tensor
    penalty: Tensor


Evaluate = Callable[[Tensor, Tensor | None], Evaluation]


class Domain(Protocol):
    """Where a variable may be, and how it may move."""

    def project(self, u: Tensor) -> Tensor:
        """The nearest valid variable."""
        ...

    def tangent(self, u: Tensor, gradient: Tensor) -> Tensor:
        """The part of a gradient that a projected step can follow."""
        ...

    def free(self, u: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Which coordinates may move freely, and the change of a short step."""
        ...

    def flat(self, v: Tensor, free: Tensor) -> Tensor:
        """The part of a vector along the free coordinates."""
        ...


class Everywhere:
    """A domain without limits: the latent space."""

    def project(self, u: Tensor) -> Tensor:
        """The variable itself.

        Args:
            u: variables (B, R, V).

        Returns:
            The same.
        """
        return u

    def tangent(self, u: Tensor, gradient: Tensor) -> Tensor:
        """The gradient itself.

        Args:
            u: variables (B, R, V).
            gradient: the gradient there (B, R, V).

        Returns:
            The gradient.
        """
        del u
        return gradient

    def free(self, u: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Everything is free.

        Args:
            u: variables (B, R, V).
            gradient: the gradient there (B, R, V).

        Returns:
            True (B, R, V), and minus the gradient.
        """
        return torch.ones_like(u, dtype=torch.bool), -gradient

    def flat(self, v: Tensor, free: Tensor) -> Tensor:
        """The vector itself.

        Args:
            v: vectors (..., V).
            free: which coordinates are free.

        Returns:
            The same.
        """
        del free
        return v


@dataclass(frozen=True)
class SearchOptions:
    """How a search descends.

    Args:
        steps: number of steps S.
        lr: peak step size of Adam, which falls to zero along half a cosine; first step of L-BFGS.
        tolerance: a change of the minimised loss that counts as none.
        patience: a row stops after so many steps without a change; None for never.
        record: every how many steps the rows are kept; 0 for never.
        progress: whether to show a progress bar.
        optimizer: ``adam``, ``lbfgs``, or ``adam_lbfgs``: half of the steps each.

    Raises:
        GenoptError: if a number is out of range.
    """

    steps: int = 200
    lr: float = 0.05
    tolerance: float = 1e-12
    patience: int | None = 10
    record: int = 0
    progress: bool = False
    optimizer: str = "adam"

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
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", str(self.optimizer), OPTIMIZERS)


@dataclass
class Log:
    """Recorded points of a search, the last step not among them, and its progress bar.

    Args:
        every: how many steps lie between two records; 0 keeps nothing.
        tick: is called after each step.
        first: how many steps were taken before the descent at hand.
        steps: after which step each record was taken.
        coordinates: designs then, (B, R, E) each.
        targets: outputs then, (B, R, T) each.
        penalties: penalties then, (B, R) each.
    """

    every: int = 0
    tick: Callable[[], None] = lambda: None
    first: int = 0
    steps: list[int] = field(default_factory=list)
    coordinates: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    penalties: list[Tensor] = field(default_factory=list)

    def keep(self, step: int, rows: Rows) -> None:
        """Record the rows.

        Args:
            step: how many steps of this descent they have taken.
            rows: the rows.
        """
        step += self.first
        if self.every and step and step % self.every == 0:
            self.steps.append(step)
            self.coordinates.append(rows.coordinates)
            self.targets.append(rows.target)
            self.penalties.append(rows.penalty)


class Rows:
    """Worth and gradient of every row, brought up to date for the rows that still move.

    Args:
        evaluate: the worth of variables (B, R, V), differentiable; given the numbers of the starts
            (M,), that of single rows (M, 1, V) of these starts.
        start: the first variables (B, R, V).

    Raises:
        GenoptError: if the loss does not depend on the variable.
    """

    def __init__(self, evaluate: Evaluate, start: Tensor) -> None:
        self.evaluate = evaluate
        state, self.gradient = self._value(start, None)
        self.total = state.total
        self.target = state.target
        self.coordinates = state.coordinates
        self.penalty = state.penalty

    def _value(self, variable: Tensor, rows: Tensor | None) -> tuple[Evaluation, Tensor]:
        with torch.enable_grad():
            point = variable.detach().clone().requires_grad_(True)
            state = self.evaluate(point, rows)
            whole = state.total.sum()
        if not whole.requires_grad:
            raise GenoptError(
                "the objective is not differentiable in the design: its heads (and penalties) must "
                "be torch functions of their input"
            )
        (gradient,) = torch.autograd.grad(whole, point)
        parts = (state.coordinates, state.target, state.total, state.penalty)
        return Evaluation(*(part.detach() for part in parts)), gradient

    def look(self, variable: Tensor, moving: Tensor) -> tuple[Evaluation, Tensor, Tensor | None]:
        """The worth of new variables.

        Args:
            variable: variables (B, R, V).
            moving: which rows are of interest (B, R).

        Returns:
            Their worth and gradients: of all rows, or, where few move, of those alone (M, 1, ...)
            with their places (M, 2).
        """
        if float(moving.sum()) >= _FEW * moving.numel():
            return *self._value(variable, None), None
        places = moving.nonzero()
        return *self._value(variable[moving][:, None], places[:, 0]), places

    def take(self, seen: tuple[Evaluation, Tensor, Tensor | None], taken: Tensor) -> None:
        """Make what was looked at the present state of some rows.

        Args:
            seen: what `look` gave.
            taken: the rows (B, R), all of them looked at.
        """
        state, gradient, places = seen
        names = ("total", "target", "coordinates", "penalty")
        values = [*(getattr(state, name) for name in names), gradient]
        everything = places is None and bool(taken.all())
        for name, value in zip((*names, "gradient"), values, strict=True):
            old = getattr(self, name)
            if everything:
                setattr(self, name, value)
            elif places is None:
                mask = taken.reshape(*taken.shape, *[1] * (old.ndim - 2))
                setattr(self, name, torch.where(mask, value, old))
            else:
                chosen = taken[places[:, 0], places[:, 1]]
                new = old.clone()
                new[places[chosen, 0], places[chosen, 1]] = value[chosen, 0]
                setattr(self, name, new)


class Rest:
    """Which rows still move: those whose loss has changed lately and whose gradient is finite.

    Args:
        rows: the rows.
        options: tolerance and patience.
        relative: a change that counts as none, relative to the loss.
    """

    def __init__(self, rows: Rows, options: SearchOptions, relative: float = 0.0) -> None:
        self.options = options
        self.relative = relative
        self.moving = torch.isfinite(rows.gradient).all(-1)
        self.quiet = torch.zeros_like(self.moving, dtype=torch.long)

    def count(self, before: Tensor, after: Tensor, which: Tensor) -> None:
        """Count the steps without a change.

        Args:
            before: losses before a step (B, R).
            after: losses after it (B, R).
            which: the rows that took it (B, R).
        """
        if self.options.patience is None:
            return
        change, least = (after - before).abs(), self.options.tolerance
        still = change <= least + self.relative * after.abs()
        self.quiet = torch.where(which, torch.where(still, self.quiet + 1, 0), self.quiet)
        self.moving &= self.quiet < self.options.patience


def adam(
    start: Tensor, evaluate: Evaluate, domain: Domain, options: SearchOptions, log: Log
) -> Tensor:
    """Minimise every row's loss by Adam with a cosine rate, projected after each step.

    The losses are summed, so each row's gradient is its own. A row whose loss no longer changes, or
    whose gradient is not finite, stays where it is.

    Args:
        start: where to start (B, R, V), float64, valid.
        evaluate: the worth of variables.
        domain: where they may be.
        options: steps, rate, early stop.
        log: what is recorded goes here.

    Returns:
        The last variable.
    """
    variable = start.clone()
    rows = Rows(evaluate, variable)
    log.keep(0, rows)
    rest = Rest(rows, options)
    optimizer = torch.optim.Adam([variable], lr=options.lr)
    for step in range(options.steps):
        if step:
            before = rows.total
            rows.take(rows.look(variable, rest.moving), rest.moving)
            log.keep(step, rows)
            rest.count(before, rows.total, rest.moving)
            rest.moving &= torch.isfinite(rows.gradient).all(-1)
        if not bool(rest.moving.any()):
            break
        moving = rest.moving.unsqueeze(-1)
        variable.grad = torch.where(moving, domain.tangent(variable, rows.gradient), 0.0)
        kept = variable.clone()
        optimizer.param_groups[0]["lr"] = (
            options.lr * 0.5 * (1.0 + math.cos(math.pi * step / options.steps))
        )
        optimizer.step()
        variable.grad = None
        variable.copy_(torch.where(moving, domain.project(variable), kept))
        log.tick()
    return variable


@contextmanager
def progress_bar(steps: int, shown: bool) -> Iterator[Callable[[], None]]:
    """A progress bar of a search.

    Args:
        steps: number of steps.
        shown: whether there is one.

    Yields:
        What is called after each step.
    """
    if not shown or not steps:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress() as bar:
        task = bar.add_task("search", total=steps)
        yield lambda: bar.advance(task)
        bar.update(task, completed=steps)
