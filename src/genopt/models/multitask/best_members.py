"""Each member of an ensemble keeps the weights of its own best epoch, as it would alone."""

from __future__ import annotations

from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor


class _Ensemble(Protocol):
    def epoch_losses(self) -> Tensor | None:
        """Validation losses (M,) of the epoch that ends; None without validation rows."""
        ...

    def stacked_parameters(self) -> dict[str, Tensor]:
        """Parameters with a leading dimension M."""
        ...


class BestMembers(Callback):
    """Puts each member's best weights back when the fit ends.

    It stands after `genopt.models.callbacks.BestWeights`, which knows one best epoch for all
    members, and like that travels in checkpoints.

    Args:
        ensemble: what is trained.
    """

    def __init__(self, ensemble: _Ensemble) -> None:
        self.ensemble = ensemble
        self.losses: Tensor | None = None
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep copies of the members whose loss is lower than ever."""
        losses = self.ensemble.epoch_losses()
        if losses is None:
            return
        now = self.ensemble.stacked_parameters()
        if self.losses is None:
            self.losses = losses.clone()
            self.weights = {name: value.detach().clone() for name, value in now.items()}
            return
        better = losses < self.losses.to(losses)
        if bool(better.any()):
            self.losses = torch.where(better, losses, self.losses.to(losses))
            for name, value in now.items():
                kept = self.weights[name].to(value)
                kept[better] = value.detach()[better]
                self.weights[name] = kept

    @torch.no_grad()
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        now = self.ensemble.stacked_parameters()
        for name, value in self.weights.items():
            now[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"losses": self.losses, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what a checkpoint kept."""
        self.losses = state_dict["losses"]
        self.weights = state_dict["weights"]
