"""Parts of a flow by short name: each one a class that a config file or a dictionary can name."""

from __future__ import annotations

from genopt.build import Spec, build, normalise
from genopt.models.flow.samplers import Dopri5, FixedStep, Sampler

_HERE = "genopt.models.flow"
_NN = "genopt.nn"
PARTS: dict[str, dict[str, str]] = {
    "network": {
        "adaln": f"{_NN}.velocity.AdaLNVelocity",
        "concat": f"{_NN}.velocity_concat.ConcatVelocity",
        "transformer": f"{_NN}.velocity_transformer.TransformerVelocity",
        "small": f"{_NN}.velocity_sizes.small",
        "medium": f"{_NN}.velocity_sizes.medium",
        "large": f"{_NN}.velocity_sizes.large",
        "auto": f"{_NN}.velocity_sizes.auto",
    },
    "path": {
        "linear": f"{_HERE}.paths.LinearPath",
        "cosine": f"{_HERE}.paths.CosinePath",
        "vp": f"{_HERE}.paths.VPPath",
        "scheduled": f"{_HERE}.scheduled.ScheduledPath",
    },
    "coupling": {
        "independent": f"{_HERE}.couplings.IndependentCoupling",
        "conditional_ot": f"{_HERE}.couplings.ConditionalOTCoupling",
        "ot": f"{_HERE}.couplings.OTCoupling",
    },
    "time_sampling": {
        "power": f"{_HERE}.times.PowerTimes",
        "uniform": f"{_HERE}.times.UniformTimes",
        "logit_normal": f"{_HERE}.times.LogitNormalTimes",
    },
    "sampler": {
        "euler": f"{_HERE}.samplers.Euler",
        "midpoint": f"{_HERE}.samplers.Midpoint",
        "heun": f"{_HERE}.samplers.Heun",
        "rk4": f"{_HERE}.samplers.RK4",
        "adams_bashforth": f"{_HERE}.multistep.AdamsBashforth",
        "dopri5": f"{_HERE}.samplers.Dopri5",
        "sde": f"{_HERE}.stochastic.SDE",
    },
}


def choose_sampler(spec: Spec | Sampler | None, default: Sampler) -> Sampler:
    """The sampler that a call names, or the model's own.

    Args:
        spec: a short name, a mapping with ``_target_`` and options, a sampler, or None.
        default: the model's own.

    Returns:
        The sampler.

    Raises:
        UnknownNameError: if a short name is not known.
    """
    if spec is None:
        return default
    if isinstance(spec, FixedStep | Dopri5):
        return spec
    chosen: Sampler = build(normalise(spec, PARTS["sampler"], "sampler"), "sampler")
    return chosen
