"""The flow matching loss: the parts of a flow, and the regression that they make.

Path, coupling, time sampling, network and sampler are parts of their own, each named in plain data.
`genopt.models.flow.matching` adds how it is fitted to rows.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genopt.build import Spec, build, normalise
from genopt.errors import GenoptError
from genopt.models.flow.compiling import check_compile
from genopt.models.flow.conditions import ConditionEncoder, drop_conditions
from genopt.models.flow.couplings import Coupling, check_coupling
from genopt.models.flow.familiarity import Familiarity
from genopt.models.flow.given import GivenColumns
from genopt.models.flow.parts import PARTS
from genopt.models.flow.paths import Path, point_on_path
from genopt.models.flow.reflow import check_reflow
from genopt.models.flow.samplers import Sampler
from genopt.models.flow.stochastic import check_sampler
from genopt.models.flow.times import TimeSampling, stratified_times, time_grid
from genopt.models.flow.transforms import DesignTransform
from genopt.models.flow.velocity import LatentVelocity
from genopt.models.flow.watch import HELD_OUT_NLL, KEPT, RANK, ROWS, Watch, is_due, row_densities
from genopt.models.flow.weighted import copies_of
from genopt.models.training import MONITOR, TabularModule, check_counts, seeded
from genopt.space import Space

_VALIDATION_TIMES = 16
_VALIDATION_ROWS = 1024


class FlowObjective(TabularModule):
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
        sampler: ``euler``, ``few``, ``midpoint``, ``heun``, ``rk4``, ``adams_bashforth``,
            ``dopri5``, or ``sde``, which only draws.
        condition_dropout: share of training rows that lose some or all of their known properties,
            so that goals may leave properties free and samples may be guided.
        given_x: share of training rows that are told some of their columns of x, so that samples
            may hold columns of x fixed; 0 for a flow that cannot.
        x_pca: whether the flow moves principal directions of x instead of its columns, for many
            columns (above 20) that move together.
        reflow: whether a fit ends with `ConditionalFlow.straighten`, for draws by two to four calls
            of the network.
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
        reflow: bool = False,
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
                "reflow": reflow,
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
        self.reflow = reflow
        self.straight = False
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
        check_sampler(self.sampler, self.coupling, reflow)
        if reflow:
            check_reflow(self.path)
        if x_pca and given_x:
            raise GenoptError(
                "x_pca mixes the columns of x, so none can be given: set x_pca=false or given_x=0"
            )
        self.transform = DesignTransform(self.x_space, x_pca)
        self.conditions = ConditionEncoder(self.y_space)
        self.given = GivenColumns(self.transform)
        self.familiarity = Familiarity(self.y_space, self.given if given_x else None)
        self.marks_gaps = False
        self._build_networks()
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self._redraw = False
        self._weighted = False
        self._has_gaps = False
        self.watch = Watch()
        self._compiled = False
        self._copies = draws or 1

    takes_share = True
    fitted: Tensor
    sampler: Sampler

    def _build_networks(self) -> None:
        """A fresh network and the average of its weights, for conditions as they are now."""
        width = self.conditions.dim + (self.given.dim if self.given_x else 0)
        width += len(self.given.units) if self.marks_gaps else 0
        sizes = {"x_dim": self.transform.dim, "condition_dim": width}
        with seeded(self.seed):
            built = build(self.hparams["network"], "network", **sizes)
        self.network = LatentVelocity(built, self.path)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self._compiled = False

    def mark_gaps(self) -> None:
        """Give the condition room to say which units of x a training row lacks.

        The network is a fresh one after this.
        """
        self.marks_gaps = True
        self._build_networks()

    def marked(self, condition: Tensor, absent: Tensor | None = None) -> Tensor:
        """Condition vectors that say which units of x are not there, where some ever are not.

        Args:
            condition: condition vectors (N, D).
            absent: which units of x are not there (N, G); None for complete designs.

        Returns:
            Condition vectors (N, D + G), or as they were.
        """
        if not self.marks_gaps:
            return condition
        if absent is None:
            absent = condition.new_zeros(len(condition), len(self.given.units))
        return torch.cat([condition, absent], -1)

    # -- training ----------------------------------------------------------------------------------
    def batch_loss(self, *batch: Tensor) -> Tensor:
        """The flow matching loss, with fresh times, noise, dropped conditions and given columns.

        Args:
            *batch: latent centres, lower and upper ends (N, U), encoded properties (N, E) and
                their mask (N, K); with ``given_x`` also the latents that name designs (N, U); where
                designs have gaps also which units of x are not there (N, G); of rows with weights
                also these (N, 1).

        Returns:
            Scalar loss.
        """
        parts, weight = copies_of(batch, self._copies, self._weighted)
        absent = parts.pop() if self._has_gaps else None
        x_1, low, high, values, mask, *known = parts
        if self._redraw:
            x_1 = torch.where(high > low, self.transform.draw(low, high), x_1)
        condition, held = self.told(values, mask, *known, absent=absent)
        if held is not None:
            x_1 = torch.lerp(x_1, known[0], held)
        x_1 = self.transform.turn(x_1)
        gaps = None if absent is None else self.given.widen(absent)
        if gaps is not None:
            # any noise is as good for a gap, so a coupling must not prefer some
            x_1 = torch.lerp(x_1, torch.randn_like(x_1), gaps)
        t = stratified_times(self.time_sampling, len(x_1), x_1)
        x_0 = self.coupling.noise(x_1, condition)
        if gaps is not None:
            # a gap rests at zero, as a held column rests at its value
            x_1 = x_1 * (1.0 - gaps)
            held = gaps if held is None else held + gaps
        return self._matching(self.network, x_0, x_1, t, condition, held, weight)

    def told(
        self, values: Tensor, mask: Tensor, *known: Tensor, absent: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What the network is told of training rows: some of what is known of them, by chance.

        Args:
            values: encoded properties (N, E).
            mask: which properties are known (N, K).
            *known: with ``given_x`` the latents that name designs (N, U).
            absent: which units of x are not there (N, G); None for complete designs.

        Returns:
            Condition vectors (N, D), and which latent columns are held (N, U); None for none.
        """
        if not known:
            dropped = drop_conditions(mask, self.condition_dropout)
            return self.marked(self.conditions.join(values, dropped), absent), None
        units = self.given.draw(known[0], self.given_x)
        units = units if absent is None else units * (1.0 - absent)
        share = self.given.dropout(units, self.condition_dropout)
        condition = self.conditions.join(values, drop_conditions(mask, share))
        condition = self.given.join(condition, known[0], units)
        return self.marked(condition, absent), self.given.widen(units)

    def held_out_loss(self, *batch: Tensor) -> Tensor:
        """The loss of the averaged weights at fixed times with fixed noise.

        Args:
            *batch: as for `batch_loss`, without gaps.

        Returns:
            Scalar loss.
        """
        center = batch[0]
        times = time_grid(self.time_sampling, _VALIDATION_TIMES, center)
        repeats = max(1, _VALIDATION_ROWS // (len(center) * len(times)))
        copies = len(times) * repeats
        generator = torch.Generator(center.device).manual_seed(0)
        parts, weight = copies_of(batch, copies, self._weighted)
        x_1, low, high, values, mask, *known = parts
        x_1 = torch.where(high > low, self.transform.draw(low, high, generator), x_1)
        x_1 = self.transform.turn(x_1)
        condition = self.conditions.join(values, mask)
        if known:
            condition = self.given.nothing(condition)
        condition = self.marked(condition)
        x_0 = self.coupling.noise(x_1, condition, generator)
        t = times.repeat(repeats).repeat_interleave(len(center))
        return self._matching(self.average, x_0, x_1, t, condition, weight=weight)

    def on_validation_epoch_end(self) -> None:
        """Measure now and then how likely held-out designs are: it decides which weights stay."""
        metrics, epoch = self.trainer.callback_metrics, self.current_epoch + 1
        every = self.trainer.check_val_every_n_epoch or 1
        last = max(1, int(self.trainer.max_epochs or 1) // every)
        rows = self._data().validation_tensors
        if rows is not None and is_due(max(1, epoch // every), last):
            # derivatives are part of it, and Lightning forbids them here
            with torch.inference_mode(False), torch.no_grad():
                density, weight = self._held_out_densities(rows)
            nll = self.watch.sees(density, float(metrics[MONITOR]), epoch, weight)
            self.note({HELD_OUT_NLL: nll, KEPT: float(self.watch.epoch)})
        # each time: a fit that goes on after a stop has not said it yet
        metrics[RANK] = torch.tensor(-float(self.watch.epoch))

    def _held_out_densities(self, rows: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
        parts, weight = copies_of((row[:ROWS].to(self.device) for row in rows), 1, self._weighted)
        z, low, high, values, mask, *known = parts
        generator = torch.Generator(z.device).manual_seed(0)
        z = torch.where(high > low, self.transform.draw(low, high, generator), z)
        condition = self.conditions.join(values, mask)
        if known:
            condition = self.given.nothing(condition)
        embedded = self.average.embed(self.marked(condition))
        return row_densities(self.average, self.transform.turn(z), embedded), weight

    def _matching(
        self,
        velocity: LatentVelocity,
        x_0: Tensor,
        x_1: Tensor,
        t: Tensor,
        condition: Tensor,
        held: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        # all processes of a fit draw the whole mini-batch; each works out the loss of its own rows
        free_of_all = None if held is None else (1.0 - held).sum().clamp_min(1.0)
        mine, share = self.own_rows(len(x_1))
        x_0, x_1, t, condition = x_0[mine], x_1[mine], t[mine], condition[mine]
        held = None if held is None else held[mine]
        weight = None if weight is None else weight[mine]
        embedded = velocity.embed(condition)
        point = point_on_path(self.path, x_0, x_1, t)
        if held is None:
            guess = velocity(point.x_t, t, embedded)
            if weight is None:
                return torch.nn.functional.mse_loss(guess, point.dx_t) * share
            return (weight * (guess - point.dx_t).square()).mean() * share
        # held columns rest at their values, and nothing is to be learned there
        guess = velocity(torch.lerp(point.x_t, x_1, held), t, embedded)
        square = ((guess - point.dx_t) * (1.0 - held)).square()
        square = square if weight is None else weight * square
        return square.sum() / free_of_all if share else 0.0 * square.sum()

    def after_step(self) -> None:
        """Move the averaged weights, fast at first."""
        step = self.global_step
        decay = min(self.ema, (1.0 + step) / (10.0 + step))
        move = get_ema_multi_avg_fn(decay)
        move(list(self.average.parameters()), list(self.network.parameters()), step)
