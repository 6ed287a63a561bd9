"""Lightning callbacks of every fit: keep the best weights, show one progress bar."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint


class BestWeights(Callback):
    """Puts the weights of the lowest monitored loss back into the module when the fit ends.

    They are kept in memory, so a fit without a folder has them too, and travel in the callback's
    checkpoint state.

    Args:
        monitor: the metric that must fall.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.best = math.inf
        self.weights: dict[str, torch.Tensor] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep a copy when the loss is lower than ever."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is not None and float(value) < self.best:
            self.best = float(value)
            self.weights = {k: v.detach().clone() for k, v in pl_module.state_dict().items()}

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        if self.weights is not None:
            pl_module.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what a checkpoint kept."""
        self.best = state_dict["best"]
        self.weights = state_dict["weights"]


class LastCheckpoint(Checkpoint):
    """Writes the state of the training every few seconds, so that a kill loses no more than that.

    The file is replaced in one step: a kill while it is written leaves the one before whole. It
    keeps the state of the random numbers and the place in the order of the rows too, so that a fit
    that goes on ends as if it had never stopped.

    Args:
        path: the checkpoint file.
        seconds: least time between two files; 0 for one each epoch. The last epoch is always kept,
            so that a longer fit in the same folder goes on from there.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.seconds = seconds
        self.written = time.monotonic()
        self.random: list[torch.Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the random numbers of processor and graphics cards."""
        cards = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"random": [torch.get_rng_state(), *cards]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what a checkpoint kept."""
        self.random = [state.cpu() for state in state_dict["random"]]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the random numbers and the order of rows of the epoch that comes next."""
        if not self.random:
            return
        torch.set_rng_state(self.random[0])
        if len(self.random) == torch.cuda.device_count() + 1 and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(self.random[1:])
        self.random = []
        loader: Any = trainer.train_dataloader
        if hasattr(loader, "epoch"):
            loader.epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, if it is time; the module's own end of the epoch has run before."""
        now = time.monotonic()
        final = trainer.current_epoch + 1 == trainer.max_epochs
        due = final or now - self.written >= self.seconds
        # every process takes part in saving, so the first one decides for all
        if not trainer.strategy.broadcast(due):
            return
        self.written = now
        part = self.path.with_suffix(".part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, self.path)


class EpochProgress(Callback):
    """One rich progress bar over the epochs, with the losses beside it.

    Only the first process of a distributed run shows it.

    Args:
        title: what is trained.
        monitor: the validation metric to show.
    """

    def __init__(self, title: str, monitor: str) -> None:
        self.title = title
        self.monitor = monitor
        self.bar: Any = None
        self.task: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar, at the epoch where a resumed fit begins."""
        if not trainer.is_global_zero:
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            refresh_per_second=4,
        )
        self.bar.start()
        self.task = self.bar.add_task(
            self.title, total=trainer.max_epochs, completed=trainer.current_epoch, losses=""
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the bar."""
        if self.bar is None:
            return
        metrics = trainer.callback_metrics
        shown = [
            f"{name.split('/')[0]} {float(metrics[name]):.4g}"
            for name in ("train/loss", self.monitor)
            if name in metrics
        ]
        self.bar.update(self.task, completed=trainer.current_epoch + 1, losses="  ".join(shown))

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the terminal stays usable."""
        self._close()
