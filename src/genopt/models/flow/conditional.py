"""Conditional flow: designs x drawn from p(x | y) by carrying noise along a learned velocity.

Designs obey their Space by construction, any subset of y may be given, and all conditions of a call
are one solve. How the velocity is learned is in `genopt.models.flow.matching`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from genopt.build import Spec
from genopt.errors import GenoptError
from genopt.models.flow.compiling import CUDA_GRAPHS
from genopt.models.flow.density import draw_probes, latent_log_density
from genopt.models.flow.drive import Drive
from genopt.models.flow.files import read_checkpoint, write_checkpoint
from genopt.models.flow.given import Fixed, Given, refuse_classes
from genopt.models.flow.matching import FlowMatching
from genopt.models.flow.parts import choose_sampler, for_density
from genopt.models.flow.peaks import Peaks, ends_of_ascent
from genopt.models.flow.samplers import Sampler
from genopt.models.flow.stochastic import check_sampler, drawing


class ConditionalFlow(FlowMatching):
    """The density of designs given properties, p(x | y), as a continuous flow from noise.

    Options are those of `FlowObjective`; `fit` and `fit_table` learn, `sample`, `log_prob` and
    `ood_score` use what was learned.

    Example:
        >>> from genopt.space import Space
        >>> flow = ConditionalFlow(Space.of(x=(-1.0, 1.0)), Space.of(y=(0.0, 1.0)), epochs=2)
        >>> x = torch.linspace(-1, 1, 64).unsqueeze(-1)
        >>> flow.fit(x, x.abs()).sample(torch.tensor([[0.75]]), 5).shape
        torch.Size([1, 5, 1])
    """

    # -- draws -------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self,
        y: Tensor,
        n: int,
        generator: torch.Generator | None = None,
        sampler: Spec | Sampler | None = None,
        n_steps: int | None = None,
        return_trajectory: bool = False,
        fixed: Fixed | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Designs drawn from p(x | y), all conditions in one solve.

        Args:
            y: conditions (C, K); NaN for a free entry.
            n: draws a condition.
            generator: source of randomness; without one the model's seed is used anew in each call.
            sampler: a sampler instead of the model's own; ``{"calls": 4}`` for so many calls of the
                network, by Euler's rule where they are few and the flow is straight.
            n_steps: its number of steps; None for its own.
            return_trajectory: whether to return the way from noise to the draws.
            fixed: columns of x that are held, by name or index: a value, a class label, or one
                value a condition. The others are drawn from p(x_rest | x_held, y), which takes a
                flow that was trained with ``given_x`` above 0.
            guidance: weight of the properties; 1 draws from p(x | y). Larger weights draw
                what the properties ask for more narrowly, and that is p(x | y) no longer.

        Returns:
            Designs (C, n, P) in raw units, inside the x Space, float64; the trajectory (C, n, S, P)
            if it was asked for, whose last entry is the draw.

        Raises:
            GenoptError: if the flow is not fitted, or cannot do what is asked.
        """
        y = self._query(y)
        if n < 1:
            raise GenoptError(f"n must be positive, got {n}")
        if generator is None:
            generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(
            (len(y), n, self.transform.dim), generator=generator, device=generator.device
        )
        solver = self._solver(sampler)
        check_sampler(solver, self.coupling, self.straight)
        solver = drawing(solver, self.path, generator)
        return self.transport(noise, y, solver, n_steps, return_trajectory, fixed, guidance)

    def transport(
        self,
        noise: Tensor,
        y: Tensor,
        sampler: Spec | Sampler | None = None,
        n_steps: int | None = None,
        return_trajectory: bool = False,
        fixed: Fixed | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Designs that given noise is carried to; differentiable in the noise.

        Args:
            noise: standard normal vectors (C, n, U); U is ``transform.dim``.
            y: conditions (C, K); NaN for a free entry.
            sampler: a sampler instead of the model's own.
            n_steps: its number of steps; None for its own.
            return_trajectory: whether to return all states.
            fixed: columns of x that are held, as for `sample`; the noise there counts for nothing.
            guidance: weight of the properties, as for `sample`.

        Returns:
            Designs (C, n, P) or their trajectory (C, n, S, P), float64.

        Raises:
            GenoptError: if the flow is not fitted, a shape does not fit, or the flow cannot do what
                is asked.
        """
        home = torch.as_tensor(y).device
        y = self._query(y)
        if noise.ndim != 3 or len(noise) != len(y) or noise.shape[-1] != self.transform.dim:
            raise GenoptError(
                f"noise has shape {tuple(noise.shape)}; expected ({len(y)}, n, "
                f"{self.transform.dim})"
            )
        solver = self._solver(sampler)
        drive = self._drive(y, fixed, guidance)
        self._compile()
        at_once = self._rows_at_once()
        many = max(1, at_once // max(noise.shape[1], 1))
        parts = []
        for states, piece in zip(
            drive.free(noise.to(drive.embedded)).split(many), drive.split(many), strict=True
        ):
            field = piece.field(self.average, self.compile_mode == CUDA_GRAPHS)
            pieces = []
            for some in states.split(at_once, 1):
                solution = solver.solve(field, some, n_steps, keep=return_trajectory)
                if solution.trajectory is None:
                    x = self.transform.decode(piece.fill(solution.end))
                else:
                    way = solution.trajectory.movedim(0, 2)
                    x = self.transform.decode(piece.fill(way))
                pieces.append(x if piece.given is None else piece.given.put(x))
            parts.append(torch.cat(pieces, 1))
        return torch.cat(parts).to(home)

    # -- densities ---------------------------------------------------------------------------------
    @torch.no_grad()
    def log_prob(
        self,
        x: Tensor,
        y: Tensor,
        sampler: Spec | Sampler | None = None,
        n_steps: int | None = None,
        given: Sequence[int | str] = (),
        divergence: str = "auto",
    ) -> Tensor:
        """Log density of designs given properties.

        The density is per raw unit of each continuous column; a simplex counts with all its columns
        but the last, an integer (of more than ten values) with its probability.

        Args:
            x: designs (N, P).
            y: properties (N, K) or (1, K); NaN for a free entry.
            sampler: a sampler instead of the model's own; ``few`` is too coarse for a density and
                gives way to ``adams_bashforth``.
            n_steps: its number of steps; None for twice its own.
            given: columns of x, by name or index, that are known as well: the density of the other
                columns given these, of a flow that was trained with ``given_x`` above 0.
            divergence: ``exact``, ``hutchinson`` (estimated by random signs that the seed decides),
                or ``auto`` for the exact one up to 50 columns.

        Returns:
            Log densities (N,), float64; -inf outside the x Space.

        Raises:
            GenoptError: if the flow is not fitted, a shape does not fit or x has class columns that
                are not given.
        """
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
        valid = self.x_space.project(x)
        columns = [self.x_space.index(c) if isinstance(c, str) else c for c in given]
        refuse_classes(self.transform, self.x_space, "log_prob", columns)
        fixed = {i: valid[:, i] for i in columns} if columns else None
        drive = self._drive(y.expand(len(x), -1), fixed)
        latent, slopes = self.transform.encode_columns(valid.to(y.device))
        solver = for_density(self._solver(sampler))
        steps = 2 * solver.steps if n_steps is None else n_steps
        at_once = self._rows_at_once()
        parts = []
        for z, piece in zip(
            drive.free(latent.float()).split(at_once), drive.split(at_once), strict=True
        ):
            velocity = piece.rows(self.average)
            probes = draw_probes(z, divergence, self.seed)
            parts.append(latent_log_density(velocity, z, piece.embedded, solver, steps, probes))
        density = torch.cat(parts) + drive.free(slopes).sum(-1)
        return torch.where(inside, density, -math.inf).to(home)

    @torch.no_grad()
    def map(
        self,
        y: Tensor,
        starts: int = 16,
        steps: int = 60,
        generator: torch.Generator | None = None,
        fixed: Fixed | None = None,
        sampler: Spec | None = None,
    ) -> Peaks:
        """The most probable designs (maximum a posteriori), by ascent from draws.

        The log density is that of `log_prob`, in raw units: other units of x would make another
        design the most probable one. Where the density grows towards a bound, the answer lies on
        the bound.

        Args:
            y: conditions (C, K); NaN for a free entry.
            starts: draws R from which the ascent starts, all conditions and starts at once.
            steps: steps of the ascent; 0 for the best draws.
            generator: source of randomness; without one the model's seed is used anew.
            fixed: columns of x that are held, as for `sample`.
            sampler: a sampler instead of the model's own.

        Returns:
            Designs (C, R, P) with their log densities (C, R), the best first.

        Raises:
            GenoptError: if the flow is not fitted, x has class columns that are not held, or a
                number does not fit.
        """
        home = torch.as_tensor(y).device
        y = self._query(y)
        if starts < 1 or steps < 0:
            raise GenoptError(f"starts={starts} must be positive and steps={steps} not negative")
        drive = self._drive(y, fixed)
        columns = [] if drive.given is None else drive.given.columns
        refuse_classes(self.transform, self.x_space, "map", columns)
        if generator is None:
            generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(
            (len(y), starts, self.transform.dim), generator=generator, device=generator.device
        ).to(drive.embedded)
        x = ends_of_ascent(
            self.average, self.transform, for_density(self._solver(sampler)), drive, noise, steps
        )
        pairs = y.repeat_interleave(2 * starts, 0)
        density = self.log_prob(x.flatten(0, 1).flatten(0, 1), pairs, sampler, given=columns)
        return Peaks.of(x, density.reshape(x.shape[:3]).to(x.device), home)

    @torch.no_grad()
    def ood_score(self, y: Tensor, fixed: Fixed | None = None) -> Tensor:
        """How far conditions are from those of training.

        A score of 1 is calibrated: about one fresh condition in a hundred exceeds it.

        Args:
            y: conditions (C, K); NaN for a free entry.
            fixed: columns of x that are held, as for `sample`: they are part of the condition, so
                a property that is usual but not with these columns is far, too.

        Returns:
            Scores (C,), float64: at most 1 for what is typical of training, larger the farther.

        Raises:
            GenoptError: if the flow is not fitted or a condition cannot be used.
        """
        query = self._query(y)
        given = self.check_request(fixed, count=len(query))
        scores = self.familiarity.score(*self.conditions.encode(query), given)
        return scores.to(torch.as_tensor(y).device, torch.float64)

    def _solver(self, sampler: Spec | Sampler | None) -> Sampler:
        """The sampler of a call."""
        return choose_sampler(sampler, self.sampler, self.straight)

    def _rows_at_once(self) -> int:
        """Rows of one solve: on a processor as many as its cache likes."""
        return 4096 if self.device.type == "cpu" else 2**18

    def check_request(
        self, fixed: Fixed | None = None, guidance: float = 1.0, count: int = 1
    ) -> Given | None:
        """Refuse what this flow is not trained for; before or after its training.

        Args:
            fixed: columns of x that are to be held, as for `sample`.
            guidance: weight of the properties, as for `sample`.
            count: number of conditions C.

        Returns:
            The held columns as the network is told of them, or None.

        Raises:
            GenoptError: if a column cannot be held or samples cannot be guided.
        """
        if not math.isfinite(guidance):
            raise GenoptError(f"guidance must be a finite number, got {guidance}")
        if guidance != 1.0 and not self.condition_dropout:
            raise GenoptError(
                f"guidance={guidance} needs a flow that also learns p(x) without properties: train "
                "it with condition_dropout above 0, or set guidance to 1"
            )
        if not fixed:
            return None
        if not self.given_x:
            names = ", ".join(c if isinstance(c, str) else self.x_space.names[c] for c in fixed)
            raise GenoptError(
                f"a flow with given_x=0 cannot hold design columns fixed ({names}): train one with "
                "model.given_x=0.3, use model=mixture or model=multitask, or drop them"
            )
        return self.given.read(fixed, count, self.transform)

    def _drive(self, y: Tensor, fixed: Fixed | None = None, guidance: float = 1.0) -> Drive:
        """What a solve for checked conditions keeps fixed."""
        given = self.check_request(fixed, guidance, len(y))
        values, mask = self.conditions.encode(y)
        conditions = [self.conditions.join(values, mask)]
        if guidance != 1.0:
            conditions.append(self.conditions.join(values, torch.zeros_like(mask)))
        if self.given_x and given is None:
            conditions = [self.given.nothing(condition) for condition in conditions]
        elif given is not None:
            conditions = [self.given.join(c, given.latent, given.mask) for c in conditions]
        embedded = [self.average.embed(self.marked(condition)) for condition in conditions]
        return Drive(
            embedded[0] if guidance == 1.0 else torch.stack(embedded, 1), given, float(guidance)
        )

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
        if checkpoint.get("marks_gaps", False):
            flow.mark_gaps()
        flow.load_state_dict(checkpoint["state_dict"])
        flow.on_load_checkpoint(checkpoint)
        return flow.eval()
