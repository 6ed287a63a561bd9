"""Which weights a training keeps: those under which held-out designs are likeliest.

The flow matching loss ranks weights badly where rows are few. It can rise, because some times are
learned by heart, while the density that the flow draws from goes on to sharpen: of 500 rows of
`arm_kinematics` the lowest loss costs .9 nats. The density itself takes a solve, so it is asked for
a few times in a training, more often at its beginning, where noisy rows are learned by heart.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.models.flow.density import draw_probes, latent_log_density, normal_log_density
from genopt.models.flow.drive import FreeVelocity
from genopt.models.flow.multistep import AdamsBashforth
from genopt.models.flow.velocity import LatentVelocity

HELD_OUT_NLL = "validation/nll"
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


def held_out_nll(
    velocity: LatentVelocity, z: Tensor, embedded: Tensor, weight: Tensor | None = None
) -> float:
    """Minus the mean log density of latent points, with a share of a standard normal.

    Args:
        velocity: the velocity.
        z: latent points (N, U).
        embedded: embedded conditions (N, E).
        weight: how much each point counts (N, 1); None for all alike.

    Returns:
        Nats for each point; those of raw units differ by the same number for all velocities.
    """
    exact = z.shape[-1] <= _EXACT_UP_TO
    probes = None if exact else draw_probes(z, "hutchinson", 0, _PROBES)
    density = latent_log_density(
        FreeVelocity(velocity), z, embedded, AdamsBashforth(), _STEPS, probes
    )
    density = torch.logaddexp(
        density + math.log1p(-_GAUSSIAN_SHARE),
        normal_log_density(z.double()) + math.log(_GAUSSIAN_SHARE),
    )
    if weight is None:
        return -float(density.mean())
    share = weight[:, 0].double() / weight.double().sum()
    return -float((share * density).sum())
