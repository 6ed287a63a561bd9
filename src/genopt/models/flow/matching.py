"""Flow matching: how a conditional flow learns its velocity from pairs of designs and properties.

Path, coupling, time sampling, network and sampler are parts of their own, each named in plain data.
`genopt.models.flow.ConditionalFlow` adds what is done with a flow once it has learned.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genopt.build import Spec, build, normalise
from genopt.data.streaming import RowStream
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.flow.compiling import check_compile, compile_velocity, require_compiler
from genopt.models.flow.conditions import ConditionEncoder, drop_conditions
from genopt.models.flow.couplings import Coupling, check_coupling
from genopt.models.flow.familiarity import Familiarity
from genopt.models.flow.files import check_pairs, check_same_spaces
from genopt.models.flow.given import GivenColumns
from genopt.models.flow.parts import PARTS
from genopt.models.flow.paths import Path, point_on_path
from genopt.models.flow.plan import TrainingPlan
from genopt.models.flow.samplers import Sampler
from genopt.models.flow.stochastic import check_sampler
from genopt.models.flow.times import TimeSampling, stratified_times, time_grid
from genopt.models.flow.transforms import DesignTransform, check_designs
from genopt.models.flow.velocity import LatentVelocity
from genopt.models.options import FitOptions
from genopt.models.training import TabularModule, check_counts, fit, seeded, split_rows
from genopt.space import Space

LEAST_ROWS = 4
_VALIDATION_TIMES = 16
_VALIDATION_ROWS = 1024


class FlowMatching(TabularModule):
    """Conditional flow matching (Lipman et al., arXiv 2210.02747) as a LightningModule.

    Training regresses the velocity of random paths from noise to data on where they are, with fresh
    times, noise and dropped conditions in every step; an average of the weights is what is used.

    Args:
        x_space: Space of the designs, or its `Space.to_dict`.
        y_space: Space of the properties, or its `Space.to_dict`.
        network: ``adaln``, ``concat``, ``transformer``, or ``adaln`` in the sizes ``small``,
            ``medium``, ``large`` and ``auto``; a mapping with ``kind`` or ``_target_`` has options.
        path: ``linear``, ``cosine``, ``vp``, or ``scheduled`` with a ``schedule`` of one's own.
        coupling: ``independent`` or ``conditional_ot``; ``ot`` is refused with a condition.
        time_sampling: ``power``, ``uniform`` or ``logit_normal``.
        sampler: ``euler``, ``midpoint``, ``heun``, ``rk4``, ``adams_bashforth``, ``dopri5``, or
            ``sde``, which only draws.
        condition_dropout: share of training rows that lose some or all of their known properties,
            so that goals may leave properties free and samples may be guided.
        given_x: share of training rows that are told some of their columns of x, so that samples
            may hold columns of x fixed; 0 for a flow that cannot.
        x_pca: whether the flow moves principal directions of x instead of its columns, for many
            columns (above 20) that move together.
        draws: how many times and noises a row gets in a mini-batch; None for as many as make 256
            pairs.
        ema: decay of the averaged weights, which sampling and validation use.
        epochs: passes over the rows; None for about 4,000 optimiser steps (more for few columns,
            fewer for many, see `TrainingPlan.of`), in epochs that pass a small table several times.
        batch_size: rows of a mini-batch; None to choose by the number of rows.
        patience: epochs without a better validation loss after which training stops; None for
            never.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay.
        clip: largest norm of the gradient; 0 for no clipping.
        schedule: ``cosine``, ``one_cycle``, ``plateau`` or ``constant``.
        warmup: share of the steps in which the rate rises.
        compile: whether `torch.compile` makes the velocity faster; ``cuda_graphs`` on a GPU.
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
        sampler: Spec = "adams_bashforth",
        condition_dropout: float = 0.2,
        given_x: float = 0.0,
        x_pca: bool = False,
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
        compile: bool | str = False,
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip, schedule, warmup)
        if not 0 <= condition_dropout <= 1 or not 0 <= ema < 1:
            raise GenoptError(
                f"condition_dropout={condition_dropout} must be in [0, 1] and ema={ema} in [0, 1)"
            )
        if not 0 <= given_x <= 1:
            raise GenoptError(f"given_x={given_x} must be in [0, 1]")
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
                "given_x": given_x,
                "x_pca": x_pca,
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
                "compile": check_compile(compile),
                "seed": seed,
            }
        )
        self.condition_dropout = condition_dropout
        self.given_x = given_x
        self.draws = draws
        self.ema = ema
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.compile_mode = compile
        self.seed = seed
        self.path: Path = build(parts["path"], "path")
        self.coupling: Coupling = build(parts["coupling"], "coupling")
        check_coupling(self.coupling, self.y_space.dim)
        self.time_sampling: TimeSampling = build(parts["time_sampling"], "time_sampling")
        self.sampler: Sampler = build(parts["sampler"], "sampler")
        check_sampler(self.sampler, self.coupling)
        if x_pca and given_x:
            raise GenoptError(
                "x_pca mixes the columns of x, so none can be given: set x_pca=false or given_x=0"
            )
        self.transform = DesignTransform(self.x_space, x_pca)
        self.conditions = ConditionEncoder(self.y_space)
        self.given = GivenColumns(self.transform)
        self.familiarity = Familiarity(self.y_space, self.given if given_x else None)
        width = self.conditions.dim + (self.given.dim if given_x else 0)
        sizes = {"x_dim": self.transform.dim, "condition_dim": width}
        with seeded(seed):
            built = build(parts["network"], "network", **sizes)
        self.network = LatentVelocity(built, self.path)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self._redraw = False
        self._compiled = False
        self._copies = draws or 1

    fitted: Tensor
    sampler: Sampler

    # -- training ----------------------------------------------------------------------------------
    def batch_loss(self, *batch: Tensor) -> Tensor:
        """The flow matching loss, with fresh times, noise, dropped conditions and given columns.

        Args:
            *batch: latent centres, lower and upper ends (N, U), encoded properties (N, E) and
                their mask (N, K); with ``given_x`` also the latents that name designs (N, U).

        Returns:
            Scalar loss.
        """
        x_1, low, high, values, mask, *known = (part.repeat(self._copies, 1) for part in batch)
        if self._redraw:
            x_1 = torch.where(high > low, self.transform.draw(low, high), x_1)
        if not known:
            condition = self.conditions.join(values, drop_conditions(mask, self.condition_dropout))
            held = None
        else:
            units = self.given.draw(known[0], self.given_x)
            share = self.given.dropout(units, self.condition_dropout)
            condition = self.conditions.join(values, drop_conditions(mask, share))
            condition = self.given.join(condition, known[0], units)
            held = self.given.widen(units)
            x_1 = torch.lerp(x_1, known[0], held)
        x_1 = self.transform.turn(x_1)
        t = stratified_times(self.time_sampling, len(x_1), x_1)
        x_0 = self.coupling.noise(x_1, condition)
        return self._matching(self.network, x_0, x_1, t, condition, held)

    def held_out_loss(self, *batch: Tensor) -> Tensor:
        """The loss of the averaged weights at fixed times with fixed noise.

        Args:
            *batch: as for `batch_loss`.

        Returns:
            Scalar loss.
        """
        center = batch[0]
        times = time_grid(self.time_sampling, _VALIDATION_TIMES, center)
        repeats = max(1, _VALIDATION_ROWS // (len(center) * len(times)))
        copies = len(times) * repeats
        generator = torch.Generator(center.device).manual_seed(0)
        x_1, low, high, values, mask, *known = (part.repeat(copies, 1) for part in batch)
        x_1 = torch.where(high > low, self.transform.draw(low, high, generator), x_1)
        x_1 = self.transform.turn(x_1)
        condition = self.conditions.join(values, mask)
        if known:
            condition = self.given.nothing(condition)
        x_0 = self.coupling.noise(x_1, condition, generator)
        t = times.repeat(repeats).repeat_interleave(len(center))
        return self._matching(self.average, x_0, x_1, t, condition)

    def _matching(
        self,
        velocity: LatentVelocity,
        x_0: Tensor,
        x_1: Tensor,
        t: Tensor,
        condition: Tensor,
        held: Tensor | None = None,
    ) -> Tensor:
        point = point_on_path(self.path, x_0, x_1, t)
        if held is None:
            guess = velocity(point.x_t, t, velocity.embed(condition))
            return torch.nn.functional.mse_loss(guess, point.dx_t)
        # held columns rest at their values, and nothing is to be learned there
        guess = velocity(torch.lerp(point.x_t, x_1, held), t, velocity.embed(condition))
        free = 1.0 - held
        error = (guess - point.dx_t) * free
        return error.square().sum() / free.sum().clamp_min(1.0)

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
        check_pairs(x, y, self.x_space, self.y_space)
        seed = self.seed if seed is None else seed
        train, held = split_rows(len(x), validation, seed)
        options = FitOptions(seed=seed, progress=verbose)
        self._fit_rows((x[train], y[train]), (x[held], y[held]), options, epochs, batch_size)
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
        train, held = table.part("train"), table.part("validation")
        pairs, stream = ((train.x, train.y), (held.x, held.y)), getattr(table, "stream", None)
        self._fit_rows(*pairs, options or FitOptions(seed=self.seed), stream=stream)

    def _fit_rows(
        self,
        train: tuple[Tensor, Tensor],
        held: tuple[Tensor, Tensor],
        options: FitOptions,
        epochs: int | None = None,
        batch_size: int | None = None,
        stream: RowStream | None = None,
    ) -> None:
        self.cpu()  # the trainer chooses the device
        n = len(train[0])
        if n < LEAST_ROWS:
            raise GenoptError(f"a flow needs at least {LEAST_ROWS} training rows, got {n}")
        x, y = check_designs(self.x_space, train[0]), self.conditions.check(train[1].detach())
        x_held = check_designs(self.x_space, held[0])
        y_held = self.conditions.check(held[1].detach())
        check_counts(epochs=epochs, batch_size=batch_size)
        require_compiler(self.compile_mode, options)
        generator = torch.Generator().manual_seed(options.seed)
        self.conditions.fit(y)
        self.transform.fit(x, generator)
        rows, watched = self._tensors(x, y), self._tensors(x_held, y_held)
        self.familiarity.fit(rows[3:], watched[3:], generator)
        self.fitted.fill_(True)
        self._redraw = stream is not None or bool((rows[2] > rows[1]).any())
        epochs, size = epochs or self.epochs, batch_size or self.batch_size
        n = n if stream is None else stream.rows_of_epoch(epochs)
        plan = TrainingPlan.of(n, epochs, size, self.draws, self.transform.dim)
        self._copies = plan.draws
        every = plan.validate_every(self.schedule)
        settings: dict[str, Any] = {"check_val_every_n_epoch": every, **options.trainer}
        fit(
            self,
            plan.feed(rows, stream, self._tensors),
            watched if len(x_held) else None,
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            patience=None if self.patience is None else -(-self.patience // every),
            options=replace(options, trainer=settings),
        )

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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another problem."""
        saved = checkpoint["hyper_parameters"]
        self.check_spaces(Space.from_dict(saved["x_space"]), Space.from_dict(saved["y_space"]))
        super().on_load_checkpoint(checkpoint)
