"""Fitting a flow: rows of designs and properties become what its loss is trained on.

`genopt.models.flow.objective` has the loss and its parts; `genopt.models.flow.ConditionalFlow` adds
what is done with a flow once it has learned.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from genopt.data.streaming import RowStream
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.flow.compiling import compile_velocity, require_compiler
from genopt.models.flow.files import check_pairs, check_same_spaces
from genopt.models.flow.gaps import filled
from genopt.models.flow.objective import FlowObjective
from genopt.models.flow.plan import TrainingPlan
from genopt.models.flow.reflow import Straight, Ways, check_reflow, straightened
from genopt.models.flow.transforms import check_designs
from genopt.models.flow.watch import RANK, Watch
from genopt.models.flow.weighted import with_weights
from genopt.models.options import FitOptions
from genopt.models.training import check_counts, fit, split_rows
from genopt.space import Space

LEAST_ROWS = 4
_REFLOW_SHARE = 2.0 / 3.0


class FlowMatching(FlowObjective):
    """A flow that can be fitted, by arrays or by a Table.

    Options are those of `FlowObjective`.
    """

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int | None = None,
        batch_size: int | None = None,
        verbose: bool = False,
        validation: float = 0.1,
        seed: int | None = None,
    ) -> Self:
        """Learn from pairs.

        Args:
            x: designs (N, P) in raw units; NaN where an entry is missing.
            y: properties (N, K); NaN where an entry is missing.
            epochs: passes over the rows; None for the model's own.
            batch_size: rows of a mini-batch; None for the model's own.
            verbose: whether to show a progress bar.
            validation: share of complete rows that watch the training.
            seed: seed of the split and the training; None for the model's own.

        Returns:
            The flow itself.

        Raises:
            GenoptError: if shapes or values cannot be used; nothing has been trained then.
        """
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        check_pairs(x, y, self.x_space, self.y_space)
        seed = self.seed if seed is None else seed
        gaps = torch.isnan(x).any(1)
        whole = (~gaps).nonzero().flatten()
        train, held = (whole[part] for part in split_rows(len(whole), validation, seed))
        train = torch.cat([train, gaps.nonzero().flatten()])
        options = FitOptions(seed=seed, progress=verbose)
        self._fit_rows((x[train], y[train]), (x[held], y[held]), options, epochs, batch_size)
        return self

    def straighten(
        self,
        x: Any,
        y: Any,
        steps: int = 4000,
        seed: int | None = None,
        verbose: bool = False,
    ) -> Self:
        """Make a fitted flow straight, so that two to four calls of the network draw a design.

        A second, shorter training on the flow's own ways, see `genopt.models.flow.reflow`; with
        ``reflow=true`` each fit ends with it. Draw then with few calls:
        ``flow.sample(y, n, sampler={"calls": 2})``. `log_prob` is the density of the straight flow.

        Args:
            x: designs (N, P) as for `fit`; they only count where columns of x can be given.
            y: properties (N, K) whose distribution the flow is made straight for.
            steps: optimiser steps; with ``reflow=true`` two thirds of those of the first training.
            seed: seed of the training; None for the model's own.
            verbose: whether to show a progress bar.

        Returns:
            The flow itself.

        Raises:
            GenoptError: if the flow is not fitted, its path is not linear or a shape does not fit.
        """
        if not bool(self.fitted):
            raise GenoptError("this flow is not fitted yet: call fit or fit_table first")
        check_reflow(self.path)
        check_counts(steps=steps)
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        check_pairs(x, y, self.x_space, self.y_space)
        x, y = check_designs(self.x_space, x), self.conditions.check(y.detach())
        if not len(x):
            raise GenoptError("x has no rows: give the designs and properties of the training")
        self.cpu()
        options = FitOptions(seed=self.seed if seed is None else seed, progress=verbose)
        self._straighten(self._tensors(x, y)[3:], options, steps)
        return self

    def fit_table(self, table: Table, options: FitOptions | None = None) -> None:
        """Learn from the rows ``train`` of a Table, watched by its rows ``validation``.

        Args:
            table: the Table; of an `ArrowTable` all training rows of its file are read.
            options: seed, folder, trainer keywords, loggers, callbacks, progress.

        Raises:
            GenoptError: if the Table cannot be used; nothing has been trained then.
        """
        self.check_spaces(table.x_space, table.y_space)
        held = table.part("validation")
        x, y, weight = table.part("train").with_incomplete()
        self._fit_rows(
            (x, y),
            (held.x, held.y),
            options or FitOptions(seed=self.seed),
            stream=getattr(table, "stream", None),
            weights=(weight, held.weight),
        )

    def _fit_rows(
        self,
        train: tuple[Tensor, Tensor],
        held: tuple[Tensor, Tensor],
        options: FitOptions,
        epochs: int | None = None,
        batch_size: int | None = None,
        stream: RowStream | None = None,
        weights: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        self.cpu()  # the trainer chooses the device
        generator = torch.Generator().manual_seed(options.seed)
        rows_x, absent = self._without_gaps(train[0], generator)
        n = len(rows_x)
        x, y = check_designs(self.x_space, rows_x), self.conditions.check(train[1].detach())
        x_held = check_designs(self.x_space, held[0])
        y_held = self.conditions.check(held[1].detach())
        check_counts(epochs=epochs, batch_size=batch_size)
        require_compiler(self.compile_mode, options)
        self.conditions.fit(y)
        self.transform.fit(x, generator)
        rows, watched = self._tensors(x, y), self._tensors(x_held, y_held)
        told = rows[3:]
        if absent is not None:
            told = tuple(part[~absent.any(1)] for part in told) if self.given_x else told
            rows = (*rows, absent.float())
        self.familiarity.fit(told, watched[3:], generator)
        self.fitted.fill_(True)
        self.straight = False
        self.watch = Watch()
        self._weighted = weights[0] is not None
        self._has_gaps = absent is not None
        self._redraw = stream is not None or bool((rows[2] > rows[1]).any())
        epochs, size = epochs or self.epochs, batch_size or self.batch_size
        n = n if stream is None else stream.rows_of_epoch(epochs)
        plan = TrainingPlan.of(n, epochs, size, self.draws, self.transform.dim)
        self._copies = plan.draws
        every = plan.validate_every(self.schedule)
        settings: dict[str, Any] = {"check_val_every_n_epoch": every, **options.trainer}
        fit(
            self,
            plan.feed(with_weights(rows, weights[0]), stream, self._tensors),
            with_weights(watched, weights[1]) if len(x_held) else None,
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            patience=None if self.patience is None else -(-self.patience // every),
            keep=RANK,
            options=replace(options, trainer=settings),
        )
        if self.reflow:
            self._straighten(told, options, max(1, round(_REFLOW_SHARE * plan.steps)), size)

    def _without_gaps(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Training designs without gaps, and which units of x rows lack, if any does."""
        x = x.detach().to(torch.float64)
        gaps = torch.isnan(x)
        count = int((~gaps.any(1)).sum())
        if count < LEAST_ROWS:
            without = ", and more with gaps in x" if count < len(x) else ""
            raise GenoptError(
                f"a flow needs at least {LEAST_ROWS} training rows, got {count}{without}"
            )
        if count == len(x):
            return x, None
        if self.transform.pca:
            raise GenoptError(
                f"{len(x) - count} rows have gaps in x, and x_pca mixes its columns: set "
                "x_pca=false or drop these rows"
            )
        x, absent = filled(x, self.given, generator)
        if not self.marks_gaps:
            self.mark_gaps()
        return x, absent

    def _straighten(
        self,
        told: tuple[Tensor, ...],
        options: FitOptions,
        steps: int,
        batch_size: int | None = None,
    ) -> None:
        learning = self.learning_rate, self.weight_decay, self.clip, self.ema
        module = Straight(self.average, *learning)
        ways = Ways(self.average, self.told, self.transform.dim)
        straightened(module, ways, told, options, steps, batch_size)
        self.network.load_state_dict(module.network.state_dict())
        self.average.load_state_dict(module.average.state_dict())
        self.straight = True
        start = self.history[-1]["epoch"] + 1.0 if self.history else 0.0
        for entry in module.history:
            named = {f"reflow/{key}": value for key, value in entry.items() if key != "epoch"}
            self.history.append({"epoch": start + entry["epoch"], **named})

    def on_fit_start(self) -> None:
        """Compile, on the device that the trainer chose."""
        self._compile()

    def _compile(self) -> None:
        if self.compile_mode and not self._compiled:
            for velocity in (self.network, self.average):
                compile_velocity(velocity, self.compile_mode, self.device)
            self._compiled = True

    def _tensors(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        spread = self.transform.spread(x)
        latent = self.transform.centers(x)
        values, mask = self.conditions.encode(y)
        rows = latent.float(), spread.low.float(), spread.high.float(), values, mask
        return (*rows, self.transform.given(x).float()) if self.given_x else rows

    # -- checks ------------------------------------------------------------------------------------
    def check_spaces(self, x_space: Space, y_space: Space) -> None:
        """Refuse to be used for another problem.

        Args:
            x_space: the Space of the designs that are asked for.
            y_space: the Space of the properties.

        Raises:
            GenoptError: if columns differ; it names them.
        """
        check_same_spaces((self.x_space, x_space), (self.y_space, y_space))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which model this is."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["model"] = type(self).__name__
        checkpoint["straight"] = self.straight
        checkpoint["marks_gaps"] = self.marks_gaps
        checkpoint["watch"] = self.watch.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another problem."""
        saved = checkpoint["hyper_parameters"]
        self.check_spaces(Space.from_dict(saved["x_space"]), Space.from_dict(saved["y_space"]))
        super().on_load_checkpoint(checkpoint)
        self.straight = bool(checkpoint.get("straight", False))
        self.watch = Watch.of(checkpoint["watch"]) if "watch" in checkpoint else Watch()
