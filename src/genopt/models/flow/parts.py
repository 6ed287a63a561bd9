"""Parts of a flow by short name: each one a class that a config file or a dictionary can name."""

from __future__ import annotations

from genopt.build import Spec, build, normalise
from genopt.errors import GenoptError
from genopt.models.flow.multistep import AdamsBashforth
from genopt.models.flow.samplers import Dopri5, Few, FixedStep, Sampler

_HERE = "genopt.models.flow"
_NN = "genopt.nn"
FEW_CALLS = 4
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
        "few": f"{_HERE}.samplers.Few",
        "midpoint": f"{_HERE}.samplers.Midpoint",
        "heun": f"{_HERE}.samplers.Heun",
        "rk4": f"{_HERE}.samplers.RK4",
        "adams_bashforth": f"{_HERE}.multistep.AdamsBashforth",
        "dopri5": f"{_HERE}.samplers.Dopri5",
        "sde": f"{_HERE}.stochastic.SDE",
    },
}


def choose_sampler(
    spec: Spec | Sampler | None, default: Sampler, straight: bool = False
) -> Sampler:
    """The sampler that a call names, or the model's own.

    Args:
        spec: a short name, a mapping with ``kind`` or ``_target_`` and options, a sampler, or None.
            A mapping may have ``calls``, a number of network calls, instead of ``steps``; alone it
            asks that of the model's own sampler.
        default: the model's own.
        straight: whether the flow was made straight: up to four calls are then steps of Euler's
            rule, unless the mapping names another.

    Returns:
        The sampler.

    Raises:
        UnknownNameError: if a short name is not known.
        GenoptError: if a sampler cannot be asked for a number of calls.
    """
    if spec is None:
        return default
    if isinstance(spec, FixedStep | Dopri5):
        return spec
    if isinstance(spec, str) or "calls" not in spec:
        chosen: Sampler = build(normalise(spec, PARTS["sampler"], "sampler"), "sampler")
        return chosen
    rest = {key: value for key, value in spec.items() if key != "calls"}
    calls = spec["calls"]
    if isinstance(calls, bool) or not isinstance(calls, int) or calls < 1 or "steps" in rest:
        raise GenoptError(f"sampler: calls={calls!r} must be a positive number, without steps")
    if not rest and straight and calls <= FEW_CALLS:
        return Few(calls)
    chosen = choose_sampler(rest or None, default)
    if not isinstance(chosen, FixedStep):
        raise GenoptError(
            f"sampler: {type(chosen).__name__} chooses its own number of calls: leave calls out, "
            "or name a sampler of fixed steps such as kind=midpoint"
        )
    return chosen.with_calls(calls)


def for_density(sampler: Sampler) -> Sampler:
    """A sampler that is fine enough for densities.

    Where the ways of a straight flow part, its slopes are steep: a few steps of Euler's rule carry
    a point well and its density badly.

    Args:
        sampler: the sampler.

    Returns:
        The sampler itself, or one that remembers velocities in the place of `Few`.
    """
    return AdamsBashforth() if isinstance(sampler, Few) else sampler
