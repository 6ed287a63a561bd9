"""Reflow: a second, short training that makes the ways from noise to designs straight.

The velocity that flow matching learns bends where ways of different designs would cross, so few
calls of the network miss. Here a copy of it learns the straight lines between noise and the point
that the trained flow carries it to (rectified flow; Liu et al., arXiv 2209.03003). These lines
hardly cross, so the new velocity is nearly constant along a way, and a few steps of Euler's rule
follow it. It is a velocity like any other: all solvers, densities, missing properties and held
columns work as before. It cannot be better than the flow that it repeats.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genopt.errors import GenoptError
from genopt.models.flow.multistep import AdamsBashforth
from genopt.models.flow.paths import LinearPath, Path
from genopt.models.flow.times import UniformTimes, stratified_times, time_grid
from genopt.models.flow.velocity import LatentVelocity
from genopt.models.options import FitOptions
from genopt.models.training import TabularModule, fit, seeded

# condition vectors of training rows and the latent columns that are held, as `FlowObjective.told`
Tell = Callable[..., tuple[Tensor, Tensor | None]]
PAIRS = 100_000
_BATCH = 512
_HELD_OUT = 0.05
_AT_ONCE = 4096
_CAREFUL = AdamsBashforth(steps=63)
_VALIDATION_TIMES = 8


class Straight(TabularModule):
    """A velocity that learns straight lines between given ends, with no chance in its targets.

    Args:
        velocity: the velocity that it starts from, which stays as it is.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay.
        clip: largest norm of the gradient; 0 for no clipping.
        ema: decay of the averaged weights.
    """

    takes_share = True

    def __init__(
        self,
        velocity: LatentVelocity,
        learning_rate: float,
        weight_decay: float,
        clip: float,
        ema: float,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip)
        self.network = copy.deepcopy(velocity).requires_grad_(True)
        self.average = copy.deepcopy(velocity).requires_grad_(False).eval()
        self.ema = ema

    def batch_loss(self, *batch: Tensor) -> Tensor:
        """The error of the velocity at fresh times along straight lines.

        Args:
            *batch: starts and ends (N, U), condition vectors (N, D) and the share of each latent
                column that moves (N, U).

        Returns:
            Scalar loss.
        """
        t = stratified_times(UniformTimes(), len(batch[0]), batch[0])
        return self._error(self.network, t, *batch)

    def held_out_loss(self, *batch: Tensor) -> Tensor:
        """The same for the averaged weights at fixed times.

        Args:
            *batch: as for `batch_loss`.

        Returns:
            Scalar loss.
        """
        times = time_grid(UniformTimes(), _VALIDATION_TIMES, batch[0])
        losses = [self._error(self.average, t.expand(len(batch[0])), *batch) for t in times]
        return torch.stack(losses).mean()

    def _error(
        self,
        velocity: LatentVelocity,
        t: Tensor,
        start: Tensor,
        end: Tensor,
        condition: Tensor,
        moves: Tensor,
    ) -> Tensor:
        """The part of the error that this process's rows make."""
        moving = moves.sum().clamp_min(1.0)
        mine, share = self.own_rows(len(start))
        start, end, t = start[mine], end[mine], t[mine]
        x = torch.lerp(start, end, t.unsqueeze(-1))
        error = (velocity(x, t, velocity.embed(condition[mine])) - (end - start)) * moves[mine]
        return error.square().sum() / moving if share else 0.0 * error.square().sum()

    def after_step(self) -> None:
        """Move the averaged weights, fast at first."""
        step = self.global_step
        move = get_ema_multi_avg_fn(min(self.ema, (1.0 + step) / (10.0 + step)))
        move(list(self.average.parameters()), list(self.network.parameters()), step)


def check_reflow(path: Path) -> None:
    """Refuse what cannot be made straight.

    Args:
        path: the path that the flow is trained on.

    Raises:
        GenoptError: if its ways are bent by construction.
    """
    if not isinstance(path, LinearPath):
        raise GenoptError(
            f"reflow=true makes straight lines, and {type(path).__name__} has none: use path=linear"
        )


@dataclass(frozen=True)
class Ways:
    """A trained flow, whose ways from noise to designs are to be made straight.

    Args:
        velocity: its velocity.
        tell: what the network is told of training rows.
        width: number of latent columns U.
    """

    velocity: LatentVelocity
    tell: Tell
    width: int

    @torch.no_grad()
    def ends(self, rows: tuple[Tensor, ...], pairs: int) -> tuple[Tensor, ...]:
        """Noise and the latent points that it is carried to, for conditions of training rows.

        Args:
            rows: encoded properties (N, E), their mask (N, K) and, where columns of x can be given,
                the latents that name designs (N, U).
            pairs: how many of them, M.

        Returns:
            Starts and ends (M, U), condition vectors (M, D) and which columns move (M, U).
        """
        count = len(rows[0])
        order = torch.cat([torch.randperm(count) for _ in range(-(-pairs // count))])[:pairs]
        parts = []
        for index in order.split(_AT_ONCE):
            known = [row[index] for row in rows]
            condition, held = self.tell(*known)
            embedded = self.velocity.embed(condition)
            noise = torch.randn(len(index), self.width)
            moves = torch.ones_like(noise)
            if held is not None:
                noise, moves = torch.lerp(noise, known[2], held), 1.0 - held

            def field(t: float, x: Tensor, told: Tensor = embedded, free: Tensor = moves) -> Tensor:
                v: Tensor = self.velocity(x, x.new_full((), t), told)
                return v * free

            parts.append((noise, _CAREFUL.solve(field, noise).end, condition, moves))
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def straightened(
    module: Straight,
    ways: Ways,
    rows: tuple[Tensor, ...],
    options: FitOptions,
    steps: int,
    batch_size: int | None = None,
) -> None:
    """Train a velocity on the straight lines between the ends of another's ways.

    Args:
        module: what is trained.
        ways: the flow whose ways they are.
        rows: as for `Ways.ends`.
        options: seed, folder, trainer keywords, progress; loggers and callbacks are those of the
            first training and see nothing of this one.
        steps: about how many optimiser steps.
        batch_size: pairs of a mini-batch, at least 512.

    Raises:
        GenoptError: if the loss diverges.
    """
    size = max(_BATCH, batch_size or 0)
    # a short training does not need all pairs
    count = min(PAIRS, steps * size)
    held = max(1, int(_HELD_OUT * count))
    with seeded(options.seed + 1):
        ends = ways.ends(rows, count + held)
    fit(
        module,
        tuple(part[held:] for part in ends),
        tuple(part[:held] for part in ends),
        epochs=max(1, round(steps * size / count)),
        batch_size=size,
        options=FitOptions(
            options.seed,
            None if options.folder is None else options.folder / "reflow",
            options.trainer,
            progress=options.progress,
        ),
    )
