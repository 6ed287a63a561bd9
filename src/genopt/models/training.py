"""Training that the multi-task model and the flow share: the Lightning base class and one `fit`.

A small network spends as long in a trainer's bookkeeping as in mathematics. Here a batch of the
trainer is a block of mini-batches and the optimiser steps inside it, so the bookkeeping is paid
once a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from genopt.data.module import TensorDataModule
from genopt.data.stream_loader import EncodedStream
from genopt.errors import GenoptError, UnknownNameError
from genopt.models.job import FitJob
from genopt.models.options import FitOptions
from genopt.models.schedule import SCHEDULES, new_schedule
from genopt.models.share import ALONE
from genopt.models.team import run_job

MONITOR = "validation/loss"


class TabularModule(pl.LightningModule):
    """A LightningModule over in-memory tables with AdamW, a schedule, clipping and validation.

    A child gives `batch_loss` and, where validation differs from training, `held_out_loss`. A child
    with ``takes_share = True`` says that in a fit by several processes both return the part of the
    loss that this process's rows make (`own_rows`), and that the parts sum to the whole. Of other
    children every process works out all rows, which is right but no faster.

    Args:
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay.
        clip: largest norm of the gradient; 0 for no clipping.
        schedule: ``cosine`` (warm-up, then to zero), ``one_cycle`` (Smith and Topin, arXiv
            1708.07120), ``plateau`` (halves when the validation loss has not improved for ten
            epochs; stepped once an epoch) or ``constant``.
        warmup: share of the steps in which the rate rises.

    Raises:
        GenoptError: if a number is out of range.
        UnknownNameError: if the schedule is unknown.
    """

    takes_share: ClassVar[bool] = False

    def __init__(
        self,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        clip: float = 1.0,
        schedule: str = "cosine",
        warmup: float = 0.03,
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise UnknownNameError("schedule", schedule, SCHEDULES)
        if learning_rate <= 0 or weight_decay < 0 or clip < 0 or not 0 <= warmup < 1:
            raise GenoptError(
                f"learning_rate={learning_rate} must be positive, weight_decay={weight_decay} and "
                f"clip={clip} not "
                f"negative, warmup={warmup} in [0, 1)"
            )
        self.automatic_optimization = False
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clip = clip
        self.schedule = schedule
        self.warmup = warmup
        self.share = ALONE
        self._seeds: torch.Generator | None = None
        self._losses: list[Tensor] = []
        self._noted: dict[str, float] = {}
        self._trained: list[Tensor] = []
        self._history: list[dict[str, float]] = []

    # -- what a child gives ------------------------------------------------------------------------
    def batch_loss(self, *batch: Tensor) -> Tensor:
        """Training loss of a mini-batch.

        Args:
            *batch: the tensors of the mini-batch, in the order given to `fit`.

        Returns:
            Scalar loss.
        """
        raise TypeError(f"{type(self).__name__} must define batch_loss")

    def held_out_loss(self, *batch: Tensor) -> Tensor:
        """Validation loss of a batch; the training loss unless a child says otherwise.

        Args:
            *batch: the tensors of the batch.

        Returns:
            Scalar loss.
        """
        return self.batch_loss(*batch)

    def backward_step(self, *batch: Tensor) -> Tensor:
        """Work out the gradients of a mini-batch, and clip them.

        Args:
            *batch: the tensors of the mini-batch.

        Returns:
            The loss, detached.
        """
        loss = self.batch_loss(*batch)
        self.manual_backward(loss)
        self.clip_gradients_of(self.trained_parameters)
        return loss.detach()

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Work out the gradients of a loss, and add those of the other processes of the fit.

        Args:
            loss: scalar; this process's part, where the module takes its share.
            *args: further arguments of torch's ``backward``.
            **kwargs: further keyword arguments of it.
        """
        super().manual_backward(loss, *args, **kwargs)
        self.share.add_gradients(self.trained_parameters, mean=not self.takes_share)

    def own_rows(self, n: int) -> tuple[slice, float]:
        """The rows of a mini-batch that this process works out; what all share is drawn before.

        Args:
            n: rows of the mini-batch.

        Returns:
            Its rows, and the factor that makes their mean loss a part of that of all rows.
        """
        if self._seeds is not None:
            # other rows, other units that are dropped: each process draws from another place on
            torch.rand(self.share.rank, device=self.device)
        return self.share.rows(n), self.share.weight(n)

    def clip_gradients_of(self, parameters: Iterable[Tensor]) -> None:
        """Scale gradients down, all by one factor, where their norm is larger than ``clip``.

        Args:
            parameters: what the gradients belong to; those without one are skipped.
        """
        with_gradient = [p for p in parameters if p.grad is not None]
        if not self.clip or not with_gradient:
            return
        # one long vector: dozens of small norms cost more than the copy
        norm = torch.cat([p.grad.flatten() for p in with_gradient if p.grad is not None]).norm()
        if norm.device.type == "cpu" and float(norm) <= self.clip:
            return
        torch.nn.utils.clip_grads_with_norm_(with_gradient, self.clip, norm)

    @property
    def trained_parameters(self) -> list[Tensor]:
        """The parameters that a fit changes; looked up once, because that takes time."""
        if not self._trained:
            self._trained = [p for p in self.parameters() if p.requires_grad]
        return self._trained

    def forget_parameters(self) -> None:
        """Look the trained parameters up again when they are next asked for."""
        self._trained = []

    def note(self, numbers: Mapping[str, float]) -> None:
        """Give numbers of this epoch to callbacks and, at its end, to loggers and the history.

        Lightning's own ``log`` takes a millisecond for each number, which many numbers are not
        worth. Callbacks that monitor one of them see its last value.

        Args:
            numbers: by name.
        """
        self._noted.update(numbers)
        self.trainer.callback_metrics.update({k: torch.tensor(v) for k, v in numbers.items()})

    def after_step(self) -> None:
        """Called after each optimiser step, for weight averages."""

    @property
    def history(self) -> list[dict[str, float]]:
        """Numbers of each epoch: ``train/loss``, ``validation/loss``, and what a child notes."""
        return self._history

    # -- Lightning's hooks -------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        """AdamW and the schedule."""
        self.forget_parameters()
        self._seeds = self._seeds_of_steps()
        optimizer = torch.optim.AdamW(
            self.trained_parameters,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            fused=True,
        )
        scheduler = new_schedule(self.schedule, optimizer, self._total_steps(), self.warmup)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _seeds_of_steps(self) -> torch.Generator | None:
        """Where processes that drop units take the seeds that keep them together."""
        drops = any(isinstance(part, nn.Dropout) and part.p > 0 for part in self.modules())
        if self.share.count == 1 or not drops:
            return None
        return torch.Generator().manual_seed(self._data().seed)

    def _own_draws(self) -> AbstractContextManager[None]:
        """After the block all processes draw alike again: unequal shares drop unequal numbers."""
        if self._seeds is None:
            return nullcontext()
        return seeded(int(torch.randint(2**48, (), generator=self._seeds)))

    def _data(self) -> TensorDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, TensorDataModule):
            raise GenoptError(
                "fit this model with genopt.models.training.fit or the model's own fit method"
            )
        return data

    def _total_steps(self) -> int:
        return self._data().train_loader().steps * int(self.trainer.max_epochs or 0)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """The optimiser steps of one block of mini-batches."""
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        loader: Any = self.trainer.train_dataloader
        size = loader.batch_size
        for part in zip(*(t.split(size) for t in batch), strict=True):
            optimizer.zero_grad(set_to_none=True)
            with self._own_draws():
                loss = self.backward_step(*part)
            optimizer.step()
            if self.schedule != "plateau":
                scheduler.step()
            self.after_step()
            self._losses.append(loss)

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """The validation loss, averaged over rows."""
        loss = self.held_out_loss(*batch)
        if self.takes_share:
            loss = self.share.total(loss)
        self.log(MONITOR, loss, on_epoch=True, batch_size=len(batch[0]))

    def on_train_epoch_end(self) -> None:
        """Log the epoch's losses, stop a fit that diverged and let the plateau schedule look."""
        loss = torch.stack(self._losses).mean()
        if self.takes_share:
            loss = self.share.total(loss)
        self._losses.clear()
        optimizer: Any = self.optimizers()
        rate = float(optimizer.param_groups[0]["lr"])
        self.log_dict({"train/loss": loss, "learning_rate": rate})
        entry = {
            "epoch": float(self.current_epoch),
            "train/loss": float(loss),
            "learning_rate": rate,
        }
        held_out = self.trainer.callback_metrics.get(MONITOR)
        if held_out is not None:
            entry[MONITOR] = float(held_out)
        self._history.append(entry | self._noted)
        if self._noted:
            step = self.trainer.fit_loop.epoch_loop.total_batch_idx
            for logger in self.trainer.loggers:
                logger.log_metrics({**self._noted, "epoch": self.current_epoch}, step)
        self._noted = {}
        if not math.isfinite(entry["train/loss"]):
            raise GenoptError(
                f"training diverged in epoch {self.current_epoch}: the loss is "
                f"{entry['train/loss']}; lower "
                "model.learning_rate or look for extreme values in the table"
            )
        if self.schedule == "plateau":
            scheduler: Any = self.lr_schedulers()
            scheduler.step(held_out if held_out is not None else loss)

    def on_train_end(self) -> None:
        """What comes after the last epoch is each process's own."""
        self.share = ALONE
        self._seeds = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history, so that a resumed fit shows all of it."""
        checkpoint["history"] = self._history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history back."""
        self._history = list(checkpoint.get("history", []))


def check_counts(**counts: int | None) -> None:
    """Refuse counts below one; zero is not "the default", which is None.

    Args:
        **counts: name to number, or to None where it is left to the model.

    Raises:
        GenoptError: if a number is below one.
    """
    for name, number in counts.items():
        if number is not None and number < 1:
            raise GenoptError(
                f"{name} must be at least 1, or null for the model's own choice, got {number}"
            )


def split_rows(n: int, share: float, seed: int, least: int = 40) -> tuple[Tensor, Tensor]:
    """Row numbers for training and validation.

    Args:
        n: number of rows.
        share: share of validation rows.
        seed: seed of the draw.
        least: below so many rows all are used for training.

    Returns:
        Training (n_train,) and validation (n_validation,) row numbers.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held = int(n * share) if n >= least else 0
    return order[held:], order[:held]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's global generators seeded, and put them back afterwards.

    Args:
        seed: the seed.

    Yields:
        Nothing.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def fit(
    module: TabularModule,
    train: tuple[Tensor, ...] | EncodedStream,
    validation: tuple[Tensor, ...] | None,
    *,
    epochs: int,
    batch_size: int,
    patience: int | None = None,
    keep: str = MONITOR,
    options: FitOptions | None = None,
) -> pl.Trainer:
    """Train a module on tensors; the weights of the best validation stay in it.

    Args:
        module: what is trained, in place; it comes back in eval mode.
        train: tensors (N, ...) that `TabularModule.batch_loss` takes, or a stream of such rows.
        validation: the same for the rows that watch the training, or None.
        epochs: passes over the rows.
        batch_size: rows of a mini-batch.
        patience: epochs without a better validation loss after which training stops; None for
            never.
        keep: the metric of the validation that is lowest for the best weights.
        options: seed, folder, trainer keywords, loggers, callbacks, progress.

    Returns:
        The Lightning trainer, after the fit.

    Raises:
        GenoptError: if the numbers are not positive or the loss diverges.
    """
    options = options or FitOptions()
    if epochs < 1 or batch_size < 1:
        raise GenoptError(f"epochs and batch_size must be positive, got {epochs} and {batch_size}")
    last = None if options.folder is None else Path(options.folder) / "checkpoints" / "last.ckpt"
    return run_job(
        FitJob(
            module,
            train,
            validation,
            epochs,
            batch_size,
            patience,
            MONITOR,
            options,
            keep=keep,
            resume=None if last is None or not last.exists() else str(last),
        )
    )
