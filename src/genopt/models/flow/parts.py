"""Parts of a flow by short name: each one a class that a config file or a dictionary can name."""

from __future__ import annotations

from genopt.build import Spec, build, normalise
from genopt.models.flow.samplers import Sampler

_HERE = "genopt.models.flow"
PARTS: dict[str, dict[str, str]] = {
    "network": {"adaln": "genopt.nn.velocity.AdaLNVelocity"},
    "path": {
        "linear": f"{_HERE}.paths.LinearPath",
        "cosine": f"{_HERE}.paths.CosinePath",
    },
    "coupling": {"independent": f"{_HERE}.couplings.IndependentCoupling"},
    "time_sampling": {
        "power": f"{_HERE}.times.PowerTimes",
        "uniform": f"{_HERE}.times.UniformTimes",
    },
    "sampler": {
        "euler": f"{_HERE}.samplers.Euler",
        "midpoint": f"{_HERE}.samplers.Midpoint",
        "heun": f"{_HERE}.samplers.Heun",
        "rk4": f"{_HERE}.samplers.RK4",
        "dopri5": f"{_HERE}.samplers.Dopri5",
    },
}


def choose_sampler(spec: Spec | None, default: Sampler) -> Sampler:
    """The sampler that a call names, or the model's own.

    Args:
        spec: a short name, a mapping with ``_target_`` and options, or None.
        default: the model's own.

    Returns:
        The sampler.

    Raises:
        UnknownNameError: if a short name is not known.
    """
    if spec is None:
        return default
    chosen: Sampler = build(normalise(spec, PARTS["sampler"], "sampler"), "sampler")
    return chosen
