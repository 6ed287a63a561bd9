"""How the learning rate goes over the steps of a fit."""

from __future__ import annotations

import math
from typing import Any

import torch

SCHEDULES = ("cosine", "one_cycle", "plateau", "constant")


def new_schedule(name: str, optimizer: torch.optim.Optimizer, steps: int, warmup: float) -> Any:
    """A schedule of an optimiser, whose learning rate is the peak.

    Args:
        name: ``cosine``, ``one_cycle``, ``plateau`` or ``constant``.
        optimizer: the optimiser.
        steps: optimiser steps of the fit.
        warmup: share of the steps in which the rate rises, of ``cosine`` and ``constant``.

    Returns:
        torch's scheduler.
    """
    steps = max(steps, 1)
    if name == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=10, factor=0.5)
    if name == "one_cycle":
        peak = float(optimizer.param_groups[0]["lr"])
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peak, total_steps=steps + 1)
    rising = max(1, round(warmup * steps))
    falling = name == "cosine"

    def rate(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        progress = min(1.0, (step - rising) / max(1, steps - rising))
        return 0.5 * (1.0 + math.cos(math.pi * progress)) if falling else 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
