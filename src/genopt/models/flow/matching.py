"""Flow matching: how a conditional flow learns its velocity from pairs of designs and properties.

Path, coupling, time sampling, network and sampler are parts of their own, each named in plain data.
`genopt.models.flow.ConditionalFlow` adds what is done with a flow once it has learned.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genopt.build import Spec, build, normalise
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.flow.conditions import ConditionEncoder, Familiarity, drop_conditions
from genopt.models.flow.couplings import Coupling
from genopt.models.flow.files import check_same_spaces
from genopt.models.flow.parts import PARTS
from genopt.models.flow.paths import Path, point_on_path
from genopt.models.flow.samplers import Sampler
from genopt.models.flow.times import TimeSampling, stratified_times, time_grid
from genopt.models.flow.transforms import DesignTransform, check_designs
from genopt.models.flow.velocity import LatentVelocity
from genopt.models.options import FitOptions
from genopt.models.training import TabularModule, check_counts, fit, seeded, split_rows
from genopt.space import Space

LEAST_ROWS = 4
_VALIDATION_TIMES = 16
_VALIDATION_ROWS = 1024
_STEPS = 4000
_VALIDATIONS = 60
_EPOCH_STEPS = 32
_PAIRS = 256
_LEAST_EPOCHS = 10


class FlowMatching(TabularModule):
    """Conditional flow matching (Lipman et al., arXiv 2210.02747) as a LightningModule.

    Training regresses the velocity of random paths from noise to data on where they are, with fresh
    times, noise and dropped conditions in every step; an average of the weights is what is used.

    Args:
        x_space: Space of the designs, or its `Space.to_dict`.
        y_space: Space of the properties, or its `Space.to_dict`.
        network: velocity network: ``adaln``, or a mapping with ``_target_`` and options.
        path: ``linear`` or ``cosine``.
        coupling: ``independent``.
        time_sampling: ``power`` or ``uniform``.
        sampler: ``euler``, ``midpoint``, ``heun``, ``rk4`` or ``dopri5``.
        condition_dropout: share of training rows that lose some or all of their known properties,
            so that goals may leave properties free.
        draws: how many times and noises a row gets in a mini-batch; None for as many as make 256
            pairs.
        ema: decay of the averaged weights, which sampling and validation use.
        epochs: passes over the rows; None for about 4,000 optimiser steps, in epochs that pass a
            small table several times.
        batch_size: rows of a mini-batch; None to choose by the number of rows.
        patience: epochs without a better validation loss after which training stops; None for
            never.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay.
        clip: largest norm of the gradient; 0 for no clipping.
        schedule: ``cosine``, ``one_cycle``, ``plateau`` or ``constant``.
        warmup: share of the steps in which the rate rises.
        seed: seed of the weights, the training and of samples drawn without a generator.

    Raises:
        GenoptError: if an option is out of range or a part cannot be built.
    """

    def __init__(
        self,
        x_space: Space | Mapping[str, Any],
        y_space: Space | Mapping[str, Any],
        network: Spec = "adaln",
        path: Spec = "linear",
        coupling: Spec = "independent",
        time_sampling: Spec = "power",
        sampler: Spec = "midpoint",
        condition_dropout: float = 0.2,
        draws: int | None = None,
        ema: float = 0.999,
        epochs: int | None = None,
        batch_size: int | None = None,
        patience: int | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        clip: float = 1.0,
        schedule: str = "cosine",
        warmup: float = 0.03,
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip, schedule, warmup)
        if not 0 <= condition_dropout <= 1 or not 0 <= ema < 1:
            raise GenoptError(
                f"condition_dropout={condition_dropout} must be in [0, 1] and ema={ema} in [0, 1)"
            )
        check_counts(draws=draws, epochs=epochs, batch_size=batch_size, patience=patience)
        self.x_space = x_space if isinstance(x_space, Space) else Space.from_dict(x_space)
        self.y_space = y_space if isinstance(y_space, Space) else Space.from_dict(y_space)
        given = {
            "network": network,
            "path": path,
            "coupling": coupling,
            "time_sampling": time_sampling,
            "sampler": sampler,
        }
        parts = {what: normalise(spec, PARTS[what], what) for what, spec in given.items()}
        # plain data only, because checkpoints are read with weights_only=True
        self.save_hyperparameters(
            {
                "x_space": self.x_space.to_dict(),
                "y_space": self.y_space.to_dict(),
                **parts,
                "condition_dropout": condition_dropout,
                "draws": draws,
                "ema": ema,
                "epochs": epochs,
                "batch_size": batch_size,
                "patience": patience,
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "clip": clip,
                "schedule": schedule,
                "warmup": warmup,
                "seed": seed,
            }
        )
        self.condition_dropout = condition_dropout
        self.draws = draws
        self.ema = ema
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.seed = seed
        self.path: Path = build(parts["path"], "path")
        self.coupling: Coupling = build(parts["coupling"], "coupling")
        self.time_sampling: TimeSampling = build(parts["time_sampling"], "time_sampling")
        self.sampler: Sampler = build(parts["sampler"], "sampler")
        self.transform = DesignTransform(self.x_space)
        self.conditions = ConditionEncoder(self.y_space)
        self.familiarity = Familiarity(self.y_space)
        sizes = {"x_dim": self.transform.dim, "condition_dim": self.conditions.dim}
        with seeded(seed):
            built = build(parts["network"], "network", **sizes)
        self.network = LatentVelocity(built, self.path)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self._redraw = False
        self._copies = draws or 1

    fitted: Tensor
    sampler: Sampler

    # -- training ----------------------------------------------------------------------------------
    def batch_loss(self, *batch: Tensor) -> Tensor:
        """The flow matching loss, with fresh times, noise and dropped conditions.

        Args:
            *batch: latent centres, lower and upper ends (N, U), encoded properties (N, E) and
                their mask (N, K).

        Returns:
            Scalar loss.
        """
        x_1, low, high, values, mask = (part.repeat(self._copies, 1) for part in batch)
        if self._redraw:
            x_1 = torch.where(high > low, self.transform.draw(low, high), x_1)
        condition = self.conditions.join(values, drop_conditions(mask, self.condition_dropout))
        t = stratified_times(self.time_sampling, len(x_1), x_1)
        x_0 = self.coupling.noise(x_1, condition)
        return self._matching(self.network, x_0, x_1, t, condition)

    def held_out_loss(self, *batch: Tensor) -> Tensor:
        """The loss of the averaged weights at fixed times with fixed noise.

        Args:
            *batch: as for `batch_loss`.

        Returns:
            Scalar loss.
        """
        center, low, high, values, mask = batch
        times = time_grid(self.time_sampling, _VALIDATION_TIMES, center)
        repeats = max(1, _VALIDATION_ROWS // (len(center) * len(times)))
        copies = len(times) * repeats
        generator = torch.Generator(center.device).manual_seed(0)
        x_1, low, high, values, mask = (part.repeat(copies, 1) for part in batch)
        x_1 = torch.where(high > low, self.transform.draw(low, high, generator), x_1)
        condition = self.conditions.join(values, mask)
        x_0 = self.coupling.noise(x_1, condition, generator)
        t = times.repeat(repeats).repeat_interleave(len(center))
        return self._matching(self.average, x_0, x_1, t, condition)

    def _matching(
        self, velocity: LatentVelocity, x_0: Tensor, x_1: Tensor, t: Tensor, condition: Tensor
    ) -> Tensor:
        point = point_on_path(self.path, x_0, x_1, t)
        guess = velocity(point.x_t, t, velocity.embed(condition))
        return torch.nn.functional.mse_loss(guess, point.dx_t)

    def after_step(self) -> None:
        """Move the averaged weights, fast at first."""
        step = self.global_step
        decay = min(self.ema, (1.0 + step) / (10.0 + step))
        move = get_ema_multi_avg_fn(decay)
        move(list(self.average.parameters()), list(self.network.parameters()), step)

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
            x: designs (N, P) in raw units, complete.
            y: properties (N, K); NaN where an entry is missing.
            epochs: passes over the rows; None for the model's own.
            batch_size: rows of a mini-batch; None for the model's own.
            verbose: whether to show a progress bar.
            validation: share of rows that watch the training.
            seed: seed of the split and the training; None for the model's own.

        Returns:
            The flow itself.

        Raises:
            GenoptError: if shapes or values cannot be used; nothing has been trained then.
        """
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        self._check_pairs(x, y)
        seed = self.seed if seed is None else seed
        train, held = split_rows(len(x), validation, seed)
        options = FitOptions(seed=seed, progress=verbose)
        self._fit_rows((x[train], y[train]), (x[held], y[held]), options, epochs, batch_size)
        return self

    def fit_table(self, table: Table, options: FitOptions | None = None) -> None:
        """Learn from the rows ``train`` of a Table, watched by its rows ``validation``.

        Args:
            table: the Table.
            options: seed, folder, trainer keywords, loggers, callbacks, progress.

        Raises:
            GenoptError: if the Table cannot be used; nothing has been trained then.
        """
        self.check_spaces(table.x_space, table.y_space)
        train, held = table.part("train"), table.part("validation")
        self._fit_rows((train.x, train.y), (held.x, held.y), options or FitOptions(seed=self.seed))

    def _check_pairs(self, x: Tensor, y: Tensor) -> None:
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise GenoptError(
                f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected "
                f"(N, {self.x_space.dim}) and (N, {self.y_space.dim})"
            )
        self.x_space.check(x, "x")
        self.y_space.check(y, "y")

    def _fit_rows(
        self,
        train: tuple[Tensor, Tensor],
        held: tuple[Tensor, Tensor],
        options: FitOptions,
        epochs: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.cpu()  # the trainer chooses the device
        n = len(train[0])
        if n < LEAST_ROWS:
            raise GenoptError(f"a flow needs at least {LEAST_ROWS} training rows, got {n}")
        x, y = check_designs(self.x_space, train[0]), self.conditions.check(train[1].detach())
        x_held = check_designs(self.x_space, held[0])
        y_held = self.conditions.check(held[1].detach())
        generator = torch.Generator().manual_seed(options.seed)
        self.conditions.fit(y)
        self.transform.fit(x, generator)
        self.familiarity.fit(*self.conditions.encode(y), generator)
        self.fitted.fill_(True)
        rows = self._tensors(x, y)
        self._redraw = bool((rows[2] > rows[1]).any())
        check_counts(epochs=epochs, batch_size=batch_size)
        size = min(batch_size or self.batch_size or _batch_size(n), n)
        self._copies = self.draws or max(1, _PAIRS // size)
        passes = epochs or self.epochs
        if passes is None:
            # short epochs cost more than their steps, so an epoch may pass a small table many times
            copies = max(1, _EPOCH_STEPS * size // n)
            rows = tuple(row.repeat(copies, 1) for row in rows)
            passes = max(_LEAST_EPOCHS, _STEPS * size // (n * copies))
        every = 1 if self.schedule == "plateau" else max(1, passes // _VALIDATIONS)
        settings: dict[str, Any] = {"check_val_every_n_epoch": every, **options.trainer}
        fit(
            self,
            rows,
            self._tensors(x_held, y_held) if len(x_held) else None,
            epochs=passes,
            batch_size=size,
            patience=None if self.patience is None else -(-self.patience // every),
            options=replace(options, trainer=settings),
        )

    def _tensors(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        spread = self.transform.spread(x)
        latent, _ = self.transform.encode(x)
        values, mask = self.conditions.encode(y)
        return latent.float(), spread.low.float(), spread.high.float(), values, mask

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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another problem."""
        saved = checkpoint["hyper_parameters"]
        self.check_spaces(Space.from_dict(saved["x_space"]), Space.from_dict(saved["y_space"]))
        super().on_load_checkpoint(checkpoint)


def _batch_size(rows: int) -> int:
    """Mini-batches that are small for small tables, so that an epoch has several steps."""
    return min(512, max(64, 2 ** round(math.log2(max(rows, 1) / 16))))
