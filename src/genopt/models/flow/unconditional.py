"""A flow between two sets of points: no condition, no Space, and noise is only one choice of a set.

Between Gaussians, or whatever else two samples show, it learns the map of least squared distance,
so points move on almost straight lines and few calls of the network are enough.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from genopt.build import Spec, build, normalise
from genopt.errors import GenoptError, UnknownNameError
from genopt.models.flow.couplings import deal
from genopt.models.flow.files import read_checkpoint, write_checkpoint
from genopt.models.flow.parts import PARTS, choose_sampler
from genopt.models.flow.plan import TrainingPlan
from genopt.models.flow.samplers import Midpoint, Sampler
from genopt.models.flow.stochastic import SDE
from genopt.models.flow.times import UniformTimes, stratified_times, time_grid
from genopt.models.options import FitOptions
from genopt.models.training import TabularModule, check_counts, fit, seeded, split_rows

COUPLINGS = ("ot", "independent")
_VALIDATION_TIMES = 8
_LEAST_ROWS = 4
_LEAST_STD = 1e-12
_AT_ONCE = 16_384


class SampleFlow(TabularModule):
    """A continuous flow that carries one set of points to another, and back.

    It regresses the velocity of straight lines between pairs of points. With ``coupling="ot"`` the
    pairs of a group have the least sum of squared distances, so that the flow comes near the map of
    optimal transport (Tong et al., arXiv 2302.00482; Pooladian et al., arXiv 2304.14772). Distances
    are measured in standard deviations within the sets.

    Args:
        dim: number of columns D.
        network: a velocity network, as for `genopt.ConditionalFlow`.
        coupling: ``ot``, or ``independent`` for pairs at random.
        sampler: a solver, as for `genopt.ConditionalFlow`; ``sde`` has no meaning here.
        group: points that are paired at once by ``ot``; larger ones come nearer the optimal map and
            cost more.
        ema: decay of the averaged weights, which transport and validation use.
        epochs: passes over the larger set; None for about 4,000 optimiser steps.
        batch_size: pairs of a mini-batch; None to choose by the number of points.
        patience: epochs without a better validation loss after which training stops; None for
            never.
        learning_rate: peak learning rate of AdamW.
        schedule: ``cosine``, ``one_cycle``, ``plateau`` or ``constant``.
        seed: seed of the weights and the training.

    Raises:
        GenoptError: if an option is out of range or a part cannot be built.

    Example:
        >>> noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> flow = SampleFlow(dim=2, epochs=2).fit(noise, 3.0 + noise)
        >>> flow.transport(noise[:5]).shape
        torch.Size([5, 2])
    """

    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(
        self,
        dim: int,
        network: Spec = "adaln",
        coupling: str = "ot",
        sampler: Spec = "midpoint",
        group: int = 256,
        ema: float = 0.999,
        epochs: int | None = None,
        batch_size: int | None = None,
        patience: int | None = None,
        learning_rate: float = 2e-3,
        schedule: str = "cosine",
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate, schedule=schedule)
        if dim < 1 or group < 2 or not 0 <= ema < 1:
            raise GenoptError(
                f"dim={dim} must be positive, group={group} at least 2 and ema={ema} in [0, 1)"
            )
        if coupling not in COUPLINGS:
            raise UnknownNameError("coupling", coupling, COUPLINGS)
        check_counts(epochs=epochs, batch_size=batch_size, patience=patience)
        parts = {
            name: normalise(spec, PARTS[name], name)
            for name, spec in (("network", network), ("sampler", sampler))
        }
        options = {
            "dim": dim,
            **parts,
            "coupling": coupling,
            "group": group,
            "ema": ema,
            "epochs": epochs,
            "batch_size": batch_size,
            "patience": patience,
            "learning_rate": learning_rate,
            "schedule": schedule,
            "seed": seed,
        }
        self.save_hyperparameters(options)
        self.dim = dim
        self.coupling = coupling
        self.group = group
        self.ema = ema
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.seed = seed
        self.sampler: Sampler = _solver(parts["sampler"], Midpoint())
        with seeded(seed):
            # networks are driven by a condition; here it always says the same
            self.network: nn.Module = build(parts["network"], "network", x_dim=dim, condition_dim=1)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.register_buffer("mean", torch.zeros(2, dim, dtype=torch.float64))
        self.register_buffer("std", torch.ones(dim, dtype=torch.float64))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self._sources = torch.zeros(0, dim)

    # -- training ----------------------------------------------------------------------------------
    def fit(
        self,
        x0: Any,
        x1: Any,
        epochs: int | None = None,
        batch_size: int | None = None,
        verbose: bool = False,
        validation: float = 0.1,
        options: FitOptions | None = None,
    ) -> Self:
        """Learn to carry the first set to the second; rows of the two have no common order.

        Args:
            x0: points at t = 0 (N, D).
            x1: points at t = 1 (M, D); M may differ from N.
            epochs: passes over x1; None for the model's own.
            batch_size: pairs of a mini-batch; None for the model's own.
            verbose: whether to show a progress bar.
            validation: share of both sets that watches the training.
            options: seed, folder, trainer keywords, loggers, callbacks; None for the model's seed.

        Returns:
            The flow itself.

        Raises:
            GenoptError: if shapes or values cannot be used; nothing has been trained then.
        """
        check_counts(epochs=epochs, batch_size=batch_size)
        if not 0 <= validation < 1:
            raise GenoptError(f"validation={validation} must be a share in [0, 1)")
        options = options or FitOptions(seed=self.seed, progress=verbose)
        sets = self._checked(x0, "x0"), self._checked(x1, "x1")
        for name, points in zip(("x0", "x1"), sets, strict=True):
            if len(points) < _LEAST_ROWS:
                raise GenoptError(f"{name} has {len(points)} points; at least {_LEAST_ROWS} needed")
        self.cpu()  # the trainer chooses the device
        # a shift of a set shifts the optimal map and nothing else, so each set has its own mean
        self.mean.copy_(torch.stack([points.mean(0) for points in sets]))
        std = torch.stack([points.var(0, correction=0) for points in sets]).mean(0).sqrt()
        self.std.copy_(torch.where(std > _LEAST_STD * self.mean.abs().amax(0), std, 1.0))
        (train_0, held_0), (train_1, held_1) = (
            tuple(
                self._scaled(points, i)[rows]
                for rows in split_rows(len(points), validation, options.seed + i)
            )
            for i, points in enumerate(sets)
        )
        # both ends of the watched pairs are fixed, so that losses of epochs compare
        watched = min(len(held_0), len(held_1))
        pairs = self._paired(held_0[:watched], held_1[:watched]), held_1[:watched]
        self._sources = train_0
        self.fitted.fill_(True)
        plan = TrainingPlan.of(
            len(train_1), epochs or self.epochs, batch_size or self.batch_size, draws=1
        )
        fit(
            self,
            (train_1.repeat(plan.repeats, 1),),
            pairs if watched else None,
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            patience=self.patience,
            options=options,
        )
        self._sources = train_0[:0]
        return self

    def batch_loss(self, *batch: Tensor) -> Tensor:
        """The flow matching loss of fresh pairs at fresh times.

        Args:
            *batch: scaled points of the second set (N, D).

        Returns:
            Scalar loss.
        """
        (x_1,) = batch
        sources = self._sources.to(x_1)
        x_0 = self._paired(sources[torch.randint(len(sources), (len(x_1),))], x_1)
        t = stratified_times(UniformTimes(), len(x_1), x_1)
        return _matching(self.network, x_0, x_1, t)

    def held_out_loss(self, *batch: Tensor) -> Tensor:
        """The loss of the averaged weights for fixed pairs at fixed times.

        Args:
            *batch: scaled points of both sets, as they are paired, each (N, D).

        Returns:
            Scalar loss.
        """
        x_0, x_1 = (part.repeat(_VALIDATION_TIMES, 1) for part in batch)
        times = time_grid(UniformTimes(), _VALIDATION_TIMES, x_1)
        return _matching(self.average, x_0, x_1, times.repeat_interleave(len(batch[0])))

    def after_step(self) -> None:
        """Move the averaged weights, fast at first."""
        step = self.global_step
        move = get_ema_multi_avg_fn(min(self.ema, (1.0 + step) / (10.0 + step)))
        move(list(self.average.parameters()), list(self.network.parameters()), step)

    def _paired(self, x_0: Tensor, x_1: Tensor) -> Tensor:
        if self.coupling == "independent":
            return x_0
        return deal(x_0, x_1, x_1[:, :0], self.group)

    # -- what was learned --------------------------------------------------------------------------
    @property
    def times(self) -> list[float]:
        """Times of the states of a trajectory with the flow's own number of steps."""
        return self.sampler.grid()

    def transport(
        self,
        points: Any,
        n_steps: int | None = None,
        return_trajectory: bool = False,
        sampler: Spec | Sampler | None = None,
    ) -> Tensor:
        """Carry points from the first set's place to the second's; differentiable in the points.

        Args:
            points: points (N, D) in raw units.
            n_steps: steps of the solver; None for its own.
            return_trajectory: whether to return the whole way.
            sampler: a solver instead of the flow's own.

        Returns:
            Points (N, D) in raw units, float64; the trajectory (N, S, D) if it was asked for, whose
            last entry is the point's destination.

        Raises:
            GenoptError: if the flow is not fitted or the points cannot be used.
        """
        return self._carried(points, n_steps, return_trajectory, sampler, backward=False)

    def inverse(
        self,
        points: Any,
        n_steps: int | None = None,
        return_trajectory: bool = False,
        sampler: Spec | Sampler | None = None,
    ) -> Tensor:
        """Carry points from the second set's place to the first's: the inverse of `transport`.

        Args:
            points: points (N, D) in raw units.
            n_steps: steps of the solver; None for its own.
            return_trajectory: whether to return the whole way.
            sampler: a solver instead of the flow's own.

        Returns:
            As for `transport`, in the other direction.

        Raises:
            GenoptError: if the flow is not fitted or the points cannot be used.
        """
        return self._carried(points, n_steps, return_trajectory, sampler, backward=True)

    def _carried(
        self,
        points: Any,
        n_steps: int | None,
        keep: bool,
        sampler: Spec | Sampler | None,
        backward: bool,
    ) -> Tensor:
        if not bool(self.fitted):
            raise GenoptError("the flow is not fitted: call fit first")
        solver = _solver(sampler, self.sampler)
        checked = self._checked(points, "points")
        embedded = self._embedded(1)
        parts = []
        times = self.mean.new_tensor(solver.grid(n_steps))
        if backward:
            times = times.flip(0)
        for some in self._scaled(checked, int(backward)).to(embedded).split(_AT_ONCE):

            def field(t: float, x: Tensor) -> Tensor:
                velocity: Tensor = self.average(x, x.new_full((1,), t), embedded)
                return velocity

            solution = solver.solve(field, some, n_steps, backward=backward, keep=keep)
            if solution.trajectory is None:
                parts.append(solution.end.to(self.mean) * self.std + self.mean[int(not backward)])
                continue
            middle = torch.lerp(self.mean[0], self.mean[1], times.unsqueeze(-1))
            parts.append(solution.trajectory.movedim(0, 1).to(self.mean) * self.std + middle)
        return torch.cat(parts) if parts else checked

    def _embedded(self, rows: int) -> Tensor:
        network: Any = self.average
        embedded: Tensor = network.embed(torch.ones(rows, 1, device=self.device))
        return embedded

    def _scaled(self, points: Tensor, which: int) -> Tensor:
        return ((points.to(self.mean) - self.mean[which]) / self.std).float()

    def _checked(self, points: Any, argument: str) -> Tensor:
        try:
            tensor = torch.as_tensor(points).to(torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise GenoptError(f"{argument} must be an array of numbers: {error}") from error
        if tensor.ndim != 2 or tensor.shape[1] != self.dim:
            raise GenoptError(
                f"{argument} has shape {tuple(tensor.shape)}; expected (N, {self.dim})"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise GenoptError(f"{argument} holds entries that are not finite: drop these points")
        return tensor

    # -- files -------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> Path:
        """Write the flow to a file.

        Args:
            path: the file.

        Returns:
            Its path.
        """
        return write_checkpoint(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a flow that `save`, or its training, wrote.

        Args:
            path: the file.

        Returns:
            The flow, ready for use.

        Raises:
            GenoptError: if the file is no checkpoint of such a flow.
        """
        checkpoint = read_checkpoint(path, cls.__name__)
        flow = cls(**checkpoint["hyper_parameters"])
        flow.load_state_dict(checkpoint["state_dict"])
        flow.on_load_checkpoint(checkpoint)
        return flow.eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which model this is."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["model"] = type(self).__name__


def _solver(spec: Spec | Sampler | None, default: Sampler) -> Sampler:
    solver = choose_sampler(spec, default)
    if isinstance(solver, SDE):
        raise GenoptError(
            "sampler=sde needs noise at t = 0, and here any points may lie there: use a solver of "
            "the ODE, such as midpoint"
        )
    return solver


def _matching(network: nn.Module, x_0: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
    """The regression of the pairs' velocities on straight lines."""
    model: Any = network
    embedded = model.embed(x_1.new_ones(len(x_1), 1))
    guess = model(torch.lerp(x_0, x_1, t.unsqueeze(-1)), t, embedded)
    return nn.functional.mse_loss(guess, x_1 - x_0)
