"""Stops a fit early whose validation loss lags behind those of the search's other fits."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from genopt.app.parts import make
from genopt.app.search.state import PrunedError, Watch
from genopt.app.search.storage import comparable, handle
from genopt.models.training import MONITOR

# losses are compared at every twentieth of a training, so that lengths may differ
_SHARE = 5


class Pruning(Callback):
    """Reports the lowest validation loss so far to the search and asks whether to go on.

    Args:
        watch: the search's database and the fit's place in it.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.trial: Any = None
        self.best = math.inf
        self.reported = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the search's database; a fit that goes on knows what it has reported."""
        if not trainer.is_global_zero:
            return
        pruner = make(self.watch.pruner, "hydra.sweeper.pruning")
        study = comparable(self.watch.database, self.watch.curves, pruner)
        self.trial = handle(study, self.watch.trial)
        past = study.trials[self.watch.trial].intermediate_values
        self.reported = max(past, default=0)
        self.best = min(past.values(), default=math.inf)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, where a further share is done, and leave a fit that is not worth it."""
        value = trainer.callback_metrics.get(MONITOR)
        if value is None or trainer.max_epochs is None:
            return
        self.best = min(self.best, float(value))
        share = 100 * (trainer.current_epoch + 1) / trainer.max_epochs
        step = int(share // _SHARE) * _SHARE
        stop = False
        if self.trial is not None and self.reported < step < 100 and math.isfinite(self.best):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.trial.report(self.best, step)
                stop = bool(self.trial.should_prune())
            self.reported = step
        # every process of a distributed fit has to leave together
        if trainer.strategy.broadcast(stop):
            raise PrunedError(
                f"pruned after {share:.0f} % of the training: a validation loss of "
                f"{self.best:.4g} lags behind those of other trials"
            )
