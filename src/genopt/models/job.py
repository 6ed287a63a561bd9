"""One fit as one process runs it: the trainer, its callbacks, and where it goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor

from genopt.data.module import TensorDataModule
from genopt.data.stream_loader import EncodedStream
from genopt.errors import GenoptError
from genopt.models.callbacks import BestWeights, EpochProgress, LastCheckpoint
from genopt.models.lightning import interruptible, new_trainer, quiet
from genopt.models.options import FitOptions
from genopt.models.processes import usable_precision
from genopt.models.share import ALONE, Share

if TYPE_CHECKING:
    from genopt.models.training import TabularModule

_CHECKPOINT_SECONDS = 5.0


@dataclass(frozen=True)
class FitJob:
    """What a process needs to know to take part in a fit.

    Args:
        module: what is trained, in place.
        train: tensors (N, ...) to learn from, or a stream of such rows.
        validation: the same for the rows that watch the training, or None.
        epochs: passes over the rows.
        batch_size: rows of a mini-batch, those of all processes together.
        patience: epochs without a better validation loss after which training stops, or None.
        monitor: the metric that must fall, or patience ends.
        options: seed, folder, trainer keywords, loggers, callbacks, progress.
        keep: the metric that is lowest for the weights that are kept; None for ``monitor``.
        resume: the checkpoint from which the fit goes on, or None.
    """

    module: TabularModule
    train: tuple[Tensor, ...] | EncodedStream
    validation: tuple[Tensor, ...] | None
    epochs: int
    batch_size: int
    patience: int | None
    monitor: str
    options: FitOptions
    keep: str | None = None
    resume: str | None = None

    def for_others(self) -> FitJob:
        """The same for a process that only helps: it logs and shows nothing."""
        # callbacks may insist on a logger
        loggers = [DummyLogger() for _ in self.options.loggers[:1]]
        return replace(self, options=replace(self.options, loggers=loggers, progress=False))

    def run(self, share: Share = ALONE, **placed: Any) -> pl.Trainer:
        """Fit, or take part in the fit.

        Args:
            share: the rows that are this process's own.
            **placed: trainer keywords that say where this process works, instead of the options'.

        Returns:
            The trainer, after the fit.

        Raises:
            GenoptError: if the trainer cannot do what the options say, or the loss diverges.
        """
        module, options = self.module, self.options
        settings: dict[str, Any] = {
            "accelerator": "auto",
            "devices": 1,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            **options.trainer,
            "max_epochs": self.epochs,
            "logger": list(options.loggers) or False,
            "enable_checkpointing": options.folder is not None,
            "callbacks": self._callbacks(),
            "default_root_dir": str(options.folder or Path.cwd()),
            **placed,
        }
        settings["precision"] = usable_precision(settings)
        if self.validation is None:
            settings["limit_val_batches"] = 0
        data = TensorDataModule(self.train, self.validation, self.batch_size, seed=options.seed)
        # the random numbers of a fit are its own, and the same in all of its processes
        with quiet(), torch.random.fork_rng():
            torch.manual_seed(options.seed)
            trainer = new_trainer(settings)
            module.train()
            module.share = share
            try:
                with interruptible(trainer):
                    trainer.fit(module, datamodule=data, ckpt_path=self.resume)
            except MisconfigurationException as error:
                raise GenoptError(f"callbacks or trainer: {error}") from error
            finally:
                module.share = ALONE
                module.forget_parameters()
        module.eval()
        return trainer

    def _callbacks(self) -> list[Callback]:
        options = self.options
        best = self.keep or self.monitor
        callbacks: list[Callback] = [BestWeights(best), *options.callbacks]
        if self.validation is not None and self.patience is not None:
            callbacks.append(EarlyStopping(self.monitor, patience=self.patience))
        if options.folder is not None:
            folder = Path(options.folder) / "checkpoints"
            callbacks.append(
                ModelCheckpoint(
                    folder,
                    filename="best",
                    monitor=best if self.validation is not None else None,
                    enable_version_counter=False,
                )
            )
            callbacks.append(LastCheckpoint(folder / "last.ckpt", _CHECKPOINT_SECONDS))
        if options.progress:
            callbacks.append(EpochProgress(type(self.module).__name__, self.monitor))
        return callbacks
