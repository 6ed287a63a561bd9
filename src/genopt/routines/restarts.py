"""One search: all starts and restarts as one tensor, where they end and what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from genopt.nn.heads import AutoencoderHead
from genopt.routines.coordinates import Coordinates
from genopt.routines.lbfgs import lbfgs
from genopt.routines.objective import Objective
from genopt.routines.penalties import Penalties
from genopt.routines.search import (
    Domain,
    Evaluate,
    Evaluation,
    Everywhere,
    Log,
    SearchOptions,
    adam,
    progress_bar,
)
from genopt.routines.surrogate import Surrogate

_POLISHING = 0.25


@dataclass(frozen=True)
class Found:
    """Where a search ended.

    Args:
        x: valid designs (B, R, P).
        target: the wanted heads' outputs for them (B, R, T), named by ``heads``.
        loss: the objective without penalties (B, R).
        penalty: the penalties there (B, R).
        start: the valid starts (B, P), float64.
        heads: the wanted heads.
        steps: number of steps S.
        latent: the latent vectors (B, R, H) of a latent search, else None.
        latent_target: the outputs there (B, R, T).
        kept: after which steps ``ways`` and ``way_targets`` were taken.
        ways: designs on the way, (B, R, P) each.
        way_targets: outputs on the way, (B, R, T) each.
        way_penalties: penalties on the way, (B, R) each.
    """

    x: Tensor
    target: Tensor
    loss: Tensor
    penalty: Tensor
    start: Tensor
    heads: list[str]
    steps: int
    latent: Tensor | None = None
    latent_target: Tensor | None = None
    kept: list[int] = field(default_factory=list)
    ways: list[Tensor] = field(default_factory=list)
    way_targets: list[Tensor] = field(default_factory=list)
    way_penalties: list[Tensor] = field(default_factory=list)

    @property
    def best(self) -> Tensor:
        """The best restart of each start (B,); NaN loses."""
        return torch.where(torch.isnan(self.loss), torch.inf, self.loss).argmin(1)

    def way(self, values: Sequence[Tensor], end: Tensor) -> Tensor:
        """What was recorded as one tensor; a row that stood still keeps its last value.

        Args:
            values: ``ways`` or ``way_targets``, recorded at every step.
            end: the result (B, R, ...), which is the last entry.

        Returns:
            (B, R, S, ...).
        """
        every: list[Tensor] = []
        position = 0
        for step in range(1, self.steps):
            while position < len(self.kept) and self.kept[position] <= step:
                position += 1
            every.append(values[position - 1].to(end.dtype) if position else end)
        every += [end] * (self.steps - len(every))
        return torch.stack(every, 2) if every else end[:, :, None][:, :, :0]


class Multistart:
    """A search from many starts at once.

    Args:
        model: the model.
        objective: what is minimised.
        coordinates: the search coordinates with their limits.
        penalties: what is added to the objective.
        decoder: the reconstruction head of a latent search; None in input space.
        options: how to descend.
    """

    def __init__(
        self,
        model: Surrogate,
        objective: Objective,
        coordinates: Coordinates,
        penalties: Penalties,
        decoder: str | None,
        options: SearchOptions,
    ) -> None:
        self.model = model
        self.objective = objective
        self.coordinates = coordinates
        self.penalties = penalties
        self.decoder = decoder
        self.options = options

    # -- worth -------------------------------------------------------------------------------------
    def evaluate(self, u: Tensor, rows: Tensor | None = None) -> Evaluation:
        """The worth of coordinates.

        Args:
            u: coordinates (B, R, E).
            rows: to which start each of the B rows belongs; None for all starts in order.

        Returns:
            Their worth.
        """
        wide = self.coordinates.wide(u)
        latent = self.model.latent_of_wide(wide)
        outputs = self.objective.outputs(latent)
        loss = self.objective.loss(latent, outputs, rows)
        penalty = torch.zeros_like(loss)
        if self.penalties.active:
            penalty = self.penalties(wide, latent, outputs)
        return Evaluation(u, torch.cat(list(outputs.values()), -1), loss + penalty, penalty)

    def claims(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the model says of designs.

        Args:
            x: raw designs (B, R, P) of all B starts.

        Returns:
            Outputs (B, R, T) in the dtype of x, and losses (B, R).
        """
        with torch.no_grad():
            latent = self.model.latent_of_wide(self.model.scaler.wide(x))
            outputs = self.objective.outputs(latent, x.dtype)
            return torch.cat(list(outputs.values()), -1), self.objective.loss(latent, outputs)

    def decode(self, latent: Tensor, name: str, rows: Tensor | None = None) -> Tensor:
        """Valid coordinates (B, R, E) of latent vectors; gradients pass the projection."""
        head = self.model.task_heads[name]
        if isinstance(head, AutoencoderHead):
            wide = head.wide(latent, torch.float64)
        else:
            wide = self.coordinates.scaler.wide(head(latent).to(torch.float64))
        u = self.coordinates.from_wide(wide)
        inside = self.coordinates if rows is None else self.coordinates.of_rows(rows)
        return u + (inside.project(u.detach()) - u.detach())

    # -- descent -----------------------------------------------------------------------------------
    def _descend(
        self, u: Tensor, evaluate: Evaluate, domain: Domain, steps: int, log: Log
    ) -> Tensor:
        """The variable after some steps by the chosen optimiser."""
        first = steps // 2 if self.options.optimizer == "adam_lbfgs" else steps
        parts = [
            (lbfgs if self.options.optimizer == "lbfgs" else adam, first),
            (lbfgs, steps - first),
        ]
        for method, count in parts:
            if count:
                u = method(u, evaluate, domain, replace(self.options, steps=count), log)
                log.first += count
        return u

    def _in_input_space(self, u: Tensor, log: Log) -> tuple[Tensor, Coordinates]:
        """The end of the search and the coordinates that it lies in.

        Integers and classes are relaxed at first; the last steps hold them at exact values, so that
        the other columns make up for the rounding.
        """
        polishing = int(_POLISHING * self.options.steps) if self.coordinates.has_discrete else 0
        u = self._descend(u, self.evaluate, self.coordinates, self.options.steps - polishing, log)
        if not polishing:
            return u, self.coordinates
        held = self.coordinates.holding(self.coordinates.raw(u))
        return self._descend(held.project(u), self.evaluate, held, polishing, log), held

    def _in_latent_space(self, u: Tensor, decoder: str, log: Log) -> tuple[Tensor, Tensor]:
        """The decoded end of the search and its latent vectors."""
        model: Any = self.model
        unit = model.latent_scale.to(torch.float64)
        with torch.no_grad():
            start = self.model.latent_of_wide(self.coordinates.wide(u))
        dtype = start.dtype

        def worth(z: Tensor, rows: Tensor | None) -> Evaluation:
            return self.evaluate(self.decode((z * unit).to(dtype), decoder, rows), rows)

        start = start.to(torch.float64) / unit
        found = self._descend(start, worth, Everywhere(), self.options.steps, log)
        latent = (found * unit).to(dtype)
        with torch.no_grad():
            return self.coordinates.project(self.decode(latent, decoder)), latent

    def run(
        self,
        starts: Tensor,
        dtype: torch.dtype,
        restarts: int,
        perturbation_std: float,
        generator: torch.Generator,
    ) -> tuple[Found, int]:
        """Search from all starts.

        Args:
            starts: starts (B, P), float64, on the model's device.
            dtype: dtype of the result.
            restarts: restarts R of each start.
            perturbation_std: standard deviation of all but the first, in widths of a column.
            generator: source of the perturbations.

        Returns:
            What was found, and how many starts had to be moved into the bounds.
        """
        space = self.coordinates
        given = space.from_raw(starts)[:, None]
        first = space.project(given)
        noise = torch.randn(
            (restarts, first.shape[-1]), dtype=torch.float64, generator=generator,
            device=generator.device,
        ).to(starts.device)  # fmt: skip
        noise[0] = 0.0
        u = space.project(first + perturbation_std * noise)
        u[:, :1] = first
        # a start that was valid is returned as it came, without a round trip through coordinates
        untouched = (first == given).all(-1)
        start = torch.where(untouched[..., None], starts[:, None], space.raw(first))
        latent = None
        with progress_bar(self.options.steps, self.options.progress) as tick:
            log = Log(self.options.record, tick)
            if self.decoder is not None:
                end, latent = self._in_latent_space(u, self.decoder, log)
            elif self.options.steps:
                end, space = self._in_input_space(u, log)
            else:
                end = u
        x = space.raw(end).to(dtype)
        if self.options.steps == 0 and latent is None:
            x[:, :1] = start.to(dtype)
        target, loss = self.claims(x)
        penalty = torch.zeros_like(loss)
        if self.penalties.active:
            with torch.enable_grad():
                penalty = self.evaluate(space.from_raw(x).requires_grad_(True)).penalty.detach()
        latent_target = None
        if latent is not None:
            with torch.no_grad():
                outputs = self.objective.outputs(latent, dtype)
            latent_target = torch.cat(list(outputs.values()), -1)
        found = Found(
            x=x,
            target=target,
            loss=loss,
            penalty=penalty,
            start=start[:, 0],
            heads=self.objective.heads,
            steps=self.options.steps,
            latent=None if latent is None else latent.to(dtype),
            latent_target=latent_target,
            kept=log.steps,
            ways=[self.coordinates.raw(point).to(dtype) for point in log.coordinates],
            way_targets=log.targets,
            way_penalties=log.penalties,
        )
        return found, self._moved(given, first)

    def _moved(self, given: Tensor, first: Tensor) -> int:
        """How many starts lay outside the bounds, unless a column is held."""
        if self.coordinates.fixed:
            return 0
        return int(((given - first).abs() > 1e-6).any(-1).sum())
