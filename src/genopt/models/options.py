"""How a fit is run: what every model takes, without the weight of a training framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FitOptions:
    """How a fit is run, apart from what the model is.

    Args:
        seed: seed of initialisation, shuffling and noise.
        folder: where checkpoints go; a fit that was cut off goes on from
            ``folder/checkpoints/last.ckpt``.
        trainer: keyword arguments of `pytorch_lightning.Trainer` (accelerator, devices, precision,
            ...).
        loggers: Lightning loggers.
        callbacks: further Lightning callbacks.
        progress: whether to show a progress bar.
    """

    seed: int = 0
    folder: Path | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    loggers: Sequence[Any] = ()
    callbacks: Sequence[Any] = ()
    progress: bool = False
