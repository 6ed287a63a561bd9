"""Conditional flow: designs x drawn from p(x | y) by carrying noise along a learned velocity.

Designs obey their Space by construction, any subset of y may be given, and all conditions of a call
are one solve. How the velocity is learned is in `genopt.models.flow.matching`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from genopt.build import Spec
from genopt.errors import GenoptError
from genopt.models.flow.files import read_checkpoint, write_checkpoint
from genopt.models.flow.matching import FlowMatching
from genopt.models.flow.parts import choose_sampler
from genopt.models.flow.velocity import velocity_and_divergence


class ConditionalFlow(FlowMatching):
    """The density of designs given properties, p(x | y), as a continuous flow from noise.

    Options are those of `FlowMatching`; `fit` and `fit_table` learn, `sample`, `log_prob` and
    `ood_score` use what was learned.

    Example:
        >>> from genopt.space import Space
        >>> flow = ConditionalFlow(Space.of(x=(-1.0, 1.0)), Space.of(y=(0.0, 1.0)), epochs=2)
        >>> x = torch.linspace(-1, 1, 64).unsqueeze(-1)
        >>> flow.fit(x, x.abs()).sample(torch.tensor([[0.75]]), 5).shape
        torch.Size([1, 5, 1])
    """

    # -- draws and densities -----------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self,
        y: Tensor,
        n: int,
        generator: torch.Generator | None = None,
        sampler: Spec | None = None,
        n_steps: int | None = None,
        return_trajectory: bool = False,
    ) -> Tensor:
        """Designs drawn from p(x | y), all conditions in one solve.

        Args:
            y: conditions (C, K); NaN for a free entry.
            n: draws a condition.
            generator: source of randomness; without one the model's seed is used anew in each call.
            sampler: a sampler instead of the model's own.
            n_steps: its number of steps; None for its own.
            return_trajectory: whether to return the way from noise to the draws.

        Returns:
            Designs (C, n, P) in raw units, inside the x Space, float64; the trajectory (C, n, S, P)
            if it was asked for, whose last entry is the draw.

        Raises:
            GenoptError: if the flow is not fitted or a condition cannot be used.
        """
        y = self._query(y)
        if n < 1:
            raise GenoptError(f"n must be positive, got {n}")
        if generator is None:
            generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(
            (len(y), n, self.transform.dim), generator=generator, device=generator.device
        )
        return self.transport(noise, y, sampler, n_steps, return_trajectory)

    def transport(
        self,
        noise: Tensor,
        y: Tensor,
        sampler: Spec | None = None,
        n_steps: int | None = None,
        return_trajectory: bool = False,
    ) -> Tensor:
        """Designs that given noise is carried to; differentiable in the noise.

        Args:
            noise: standard normal vectors (C, n, U); U is ``transform.dim``.
            y: conditions (C, K); NaN for a free entry.
            sampler: a sampler instead of the model's own.
            n_steps: its number of steps; None for its own.
            return_trajectory: whether to return all states.

        Returns:
            Designs (C, n, P) or their trajectory (C, n, S, P), float64.

        Raises:
            GenoptError: if the flow is not fitted or a shape does not fit.
        """
        home = torch.as_tensor(y).device
        y = self._query(y)
        if noise.ndim != 3 or len(noise) != len(y) or noise.shape[-1] != self.transform.dim:
            raise GenoptError(
                f"noise has shape {tuple(noise.shape)}; expected ({len(y)}, n, "
                f"{self.transform.dim})"
            )
        solver = choose_sampler(sampler, self.sampler)
        embedded = self.average.embed(self.conditions.join(*self.conditions.encode(y)))
        at_once = self._rows_at_once()
        many = max(1, at_once // max(noise.shape[1], 1))
        parts = []
        for states, drive in zip(
            noise.to(embedded).split(many), embedded.unsqueeze(1).split(many), strict=True
        ):

            def field(t: float, x: Tensor, drive: Tensor = drive) -> Tensor:
                velocity: Tensor = self.average(x, x.new_full((), t), drive)
                return velocity

            pieces = []
            for piece in states.split(at_once, 1):
                solution = solver.solve(field, piece, n_steps, keep=return_trajectory)
                if solution.trajectory is None:
                    pieces.append(self.transform.decode(solution.end))
                else:
                    pieces.append(self.transform.decode(solution.trajectory.movedim(0, 2)))
            parts.append(torch.cat(pieces, 1))
        return torch.cat(parts).to(home)

    @torch.no_grad()
    def log_prob(
        self, x: Tensor, y: Tensor, sampler: Spec | None = None, n_steps: int | None = None
    ) -> Tensor:
        """Log density of designs given properties, with the exact divergence.

        The density is per raw unit of each continuous column; a simplex counts with all its columns
        but the last, an integer with its probability.

        Args:
            x: designs (N, P).
            y: properties (N, K) or (1, K); NaN for a free entry.
            sampler: a sampler instead of the model's own.
            n_steps: its number of steps; None for twice its own.

        Returns:
            Log densities (N,), float64; -inf outside the x Space.

        Raises:
            GenoptError: if the flow is not fitted, a shape does not fit or x has class columns.
        """
        if self.x_space.categorical:
            names = ", ".join(self.x_space.names[i] for i in self.x_space.categorical)
            raise GenoptError(
                f"log_prob has no meaning for the class columns {names} of x: use sample instead"
            )
        home = torch.as_tensor(y).device
        y = self._query(y)
        x = torch.as_tensor(x).to("cpu", torch.float64)
        if x.ndim != 2 or x.shape[-1] != self.x_space.dim or len(y) not in (1, len(x)):
            raise GenoptError(
                f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected "
                f"(N, {self.x_space.dim}) and (N, {self.y_space.dim})"
            )
        if not bool(torch.isfinite(x).all()):
            raise GenoptError("x holds entries that are not finite: give complete designs")
        inside = self.x_space.contains(x).to(y.device)
        latent, log_det = self.transform.encode(self.x_space.project(x).to(y.device))
        solver = choose_sampler(sampler, self.sampler)
        steps = 2 * solver.steps if n_steps is None else n_steps
        embedded = self.average.embed(self.conditions.join(*self.conditions.encode(y)))
        at_once = self._rows_at_once()
        parts = []
        for z, drive in zip(
            latent.float().split(at_once),
            embedded.expand(len(x), -1).split(at_once),
            strict=True,
        ):

            def field(t: float, state: Tensor, drive: Tensor = drive) -> Tensor:
                v, divergence = velocity_and_divergence(
                    self.average, state[:, :-1], state.new_full((), t), drive
                )
                return torch.cat([v, divergence.unsqueeze(-1)], -1)

            start = torch.cat([z, torch.zeros_like(z[:, :1])], -1)
            end = solver.solve(field, start, steps, backward=True).end.double()
            normal = -0.5 * (end[:, :-1] ** 2 + math.log(2.0 * math.pi)).sum(-1)
            parts.append(normal + end[:, -1])
        return torch.where(inside, torch.cat(parts) + log_det, -math.inf).to(home)

    @torch.no_grad()
    def ood_score(self, y: Tensor) -> Tensor:
        """How far conditions are from the training properties.

        Args:
            y: conditions (C, K); NaN for a free entry.

        Returns:
            Scores (C,), float64: at most 1 for what is typical of training, larger the farther.

        Raises:
            GenoptError: if the flow is not fitted or a condition cannot be used.
        """
        values, mask = self.conditions.encode(self._query(y))
        scores = self.familiarity.score(values, mask, self.conditions.source)
        return scores.to(torch.as_tensor(y).device, torch.float64)

    def _rows_at_once(self) -> int:
        """Rows of one solve: on a processor as many as its cache likes."""
        return 4096 if self.device.type == "cpu" else 2**18

    def _query(self, y: Tensor) -> Tensor:
        if not bool(self.fitted):
            raise GenoptError("this flow is not fitted yet: call fit or fit_table first")
        y = torch.as_tensor(y)
        if y.ndim != 2:
            raise GenoptError(f"y has shape {tuple(y.shape)}; expected (C, {self.y_space.dim})")
        return self.conditions.check(y)

    # -- files -------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> Path:
        """Write a checkpoint that `load` and Lightning read.

        Args:
            path: the file.

        Returns:
            Its path.
        """
        return write_checkpoint(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """A flow from a checkpoint of `save` or of its training.

        Args:
            path: the file.

        Returns:
            The flow, on the CPU, in eval mode.

        Raises:
            GenoptError: if the file is not a checkpoint of a flow.
        """
        checkpoint = read_checkpoint(path, cls.__name__)
        flow = cls(**checkpoint["hyper_parameters"])
        flow.load_state_dict(checkpoint["state_dict"])
        flow.on_load_checkpoint(checkpoint)
        return flow.eval()
