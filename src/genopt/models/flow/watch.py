"""Which weights a training keeps: those under which held-out designs are likeliest.

The flow matching loss ranks weights badly where rows are few. It can rise, because some times are
learned by heart, while the density that the flow draws from goes on to sharpen. The density itself
takes a solve, so it is asked for a few times in a training, more often at its beginning, where
noisy rows are learned by heart.
"""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor

from genopt.models.flow.density import draw_probes, latent_log_density, normal_log_density
from genopt.models.flow.drive import FreeVelocity
from genopt.models.flow.multistep import AdamsBashforth
from genopt.models.flow.velocity import LatentVelocity

HELD_OUT_NLL = "validation/nll"
KEPT = "validation/kept_epoch"
# falls whenever better weights come, as callbacks want it
RANK = "validation/rank"
ROWS = 256
_RATIO = 1.25
_STEPS = 24
_EXACT_UP_TO = 4
_PROBES = 4
# one row far out must not outweigh all others: it costs at most log 100 more than under a Gaussian
_GAUSSIAN_SHARE = 0.01


def is_due(number: int, last: int) -> bool:
    """Whether a validation is one that measures the density.

    Args:
        number: the number of the validation, from 1.
        last: the number of the last one.

    Returns:
        True for the last one and for some that lie ever farther apart: 1, 2, 3, 4, 5, 6, 8, 10, 12,
        15, 19, ...
    """
    power = _RATIO ** math.floor(math.log(number) / math.log(_RATIO) + 1e-9)
    return number == last or math.ceil(power - 1e-9) == number


def row_densities(velocity: LatentVelocity, z: Tensor, embedded: Tensor) -> Tensor:
    """Log densities of latent points, with a share of a standard normal.

    Args:
        velocity: the velocity.
        z: latent points (N, U).
        embedded: embedded conditions (N, E).

    Returns:
        Nats (N,), float64; those of raw units differ by the same numbers for all velocities.
    """
    exact = z.shape[-1] <= _EXACT_UP_TO
    probes = None if exact else draw_probes(z, "hutchinson", 0, _PROBES)
    density = latent_log_density(
        FreeVelocity(velocity), z, embedded, AdamsBashforth(), _STEPS, probes
    )
    return torch.logaddexp(
        density + math.log1p(-_GAUSSIAN_SHARE),
        normal_log_density(z.double()) + math.log(_GAUSSIAN_SHARE),
    )


class Watch:
    """Decides which weights are kept, from what was measured of them.

    New weights are better where they raise the density of the rows by more than a standard error of
    the difference. Where they raise it by less, many more rows and times speak through the flow
    matching loss, so that must be lower, too: of weights that the rows cannot tell apart the
    earlier ones are the less narrow.
    """

    def __init__(self) -> None:
        self.density: Tensor | None = None
        self.loss = math.inf
        self.epoch = 0

    def sees(self, density: Tensor, loss: float, epoch: int, weight: Tensor | None = None) -> float:
        """Take note of weights.

        Args:
            density: log densities of the validation rows (N,).
            loss: the flow matching loss of all of them.
            epoch: the epoch, from 1.
            weight: how much each row counts (N, 1); None for all alike.

        Returns:
            Minus the mean log density.
        """
        density = density.cpu()
        share = torch.full_like(density, 1.0 / len(density))
        if weight is not None:
            share = weight[:, 0].to(density) / weight.sum().to(density)
        if self.density is None or self._better(density - self.density, share, loss):
            self.density, self.loss, self.epoch = density, loss, epoch
        return -float((share * density).sum())

    def _better(self, gain: Tensor, share: Tensor, loss: float) -> bool:
        mean = float((share * gain).sum())
        error = float((share * (gain - mean)).square().sum().sqrt())
        return mean > error or (mean > 0.0 and loss < self.loss)

    def state(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        return {"density": self.density, "loss": self.loss, "epoch": self.epoch}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Self:
        """The inverse of `state`.

        Args:
            state: plain data.

        Returns:
            The watch.
        """
        watch = cls()
        watch.density, watch.loss, watch.epoch = state["density"], state["loss"], state["epoch"]
        return watch
