"""Where a search for stationary points starts: designs conditioned on a slope of zero.

A model learns the joint law of designs and slopes; asked for the slope zero it draws designs near
all stationary points at once, in proportion to how flat the function is there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genopt.data.sampling import unit_samples
from genopt.errors import GenoptError, UnknownNameError
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.mixture.engine import Mixture
from genopt.protocols import ConditionalModel
from genopt.routines.stationary_system import Conditions
from genopt.space import Space, Variable

ENGINES = ("auto", "mixture", "flow", "none")
_TRIES = 64
# this share of the starts is spread over the box, for what the model does not see
_SPREAD = 0.25
# number of starts and seed to points (n, P) of the unit box
Sampler = Callable[[int, int], Tensor]


def check_engine(engine: str) -> None:
    """Refuse an unknown engine.

    Args:
        engine: what was asked for.

    Raises:
        UnknownNameError: if it is none of ``ENGINES``.
    """
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)


def spread_points(dim: int) -> Sampler:
    """Starts without a model: points spread over the box.

    Args:
        dim: number of columns.

    Returns:
        The sampler.
    """
    return lambda n, seed: torch.from_numpy(unit_samples(n, dim, "sobol", seed))


def conditioned(
    conditions: Conditions, barrier: float, engine: str, rows: int, seed: int = 0
) -> Sampler:
    """Starts drawn from a model of designs given the slope of the Lagrangian.

    Args:
        conditions: the objective and its constraints.
        barrier: strength of the log barrier of the inequalities, in units of the objective.
        engine: ``mixture``, ``flow`` or ``none``.
        rows: designs that the model learns from.
        seed: seed of the designs and of the model.

    Returns:
        The sampler.
    """
    dim = len(conditions.coordinates.moving)
    if engine == "none":
        return spread_points(dim)
    z = inside(conditions, rows, seed)
    found = conditions.derivatives(z)
    multipliers = conditions.multipliers(found, barrier)
    slope = found.slope[:, 0] + (multipliers.unsqueeze(-1) * found.slope[:, 1:]).sum(1)
    y = torch.cat([slope, found.value[:, 1:][:, conditions.equality]], 1)
    whole = torch.isfinite(y).all(1)
    z, y = z[whole], y[whole]
    if not bool(conditions.equality.all()):
        # the slope of a barrier grows without bound: a scale that keeps zero and tames the rest
        size = y.abs().median(0).values
        y = torch.asinh(y / torch.where(size > 0.0, size, 1.0))
    model = fitted(engine, z, y, seed)
    zero = torch.zeros(1, y.shape[1], dtype=torch.float64)

    def draw(n: int, turn: int) -> Tensor:
        return model.sample(zero, n, torch.Generator().manual_seed(turn))[0]

    return with_spread(draw, dim)


def with_spread(draw: Sampler, dim: int) -> Sampler:
    """Starts of a model, a quarter of them replaced by points spread over the box.

    Args:
        draw: the model's starts.
        dim: number of columns.

    Returns:
        The sampler.
    """

    def both(n: int, seed: int) -> Tensor:
        few = int(_SPREAD * n)
        return torch.cat([draw(n - few, seed).to(torch.float64), spread_points(dim)(few, seed)])

    return both


def fitted(engine: str, z: Tensor, y: Tensor, seed: int) -> ConditionalModel:
    """A model of points given slopes, for rows without noise.

    Args:
        engine: ``mixture`` or ``flow``.
        z: points (N, P) of the unit box.
        y: slopes and residuals (N, K).
        seed: seed of the fit.

    Returns:
        The fitted model.
    """
    x_space = Space.from_bounds([(0.0, 1.0)] * z.shape[1], prefix="z")
    y_space = Space(
        tuple(
            Variable(f"slope{i}", float(column.min()), float(column.max()))
            for i, column in enumerate(y.T, 1)
        )
    )
    if engine == "flow":
        flow = ConditionalFlow(x_space, y_space, seed=seed)
        flow.fit(z, y)
        return flow
    mixture = Mixture(
        x_space, y_space, max_components=60, criterion="bic", regularization=1e-8, seed=seed
    )
    return mixture.fit(z, y)


def inside(conditions: Conditions, rows: int, seed: int) -> Tensor:
    """Points of the box that keep the inequalities, where a barrier is defined.

    Args:
        conditions: the objective and its constraints.
        rows: how many.
        seed: seed of the draw.

    Returns:
        Points (rows, P); fewer where the region is small.

    Raises:
        GenoptError: if hardly any point keeps them; the least met one is named.
    """
    dim = len(conditions.coordinates.moving)
    if bool(conditions.equality.all()):
        return spread_points(dim)(rows, seed)
    kept: list[Tensor] = []
    met = torch.zeros(len(conditions.names), dtype=torch.float64)
    for turn in range(_TRIES):
        z = spread_points(dim)(rows, seed + turn)
        with torch.no_grad():
            value = conditions.values(z)[:, 1:]
        below = (value < 0.0) | conditions.equality
        met += below.double().mean(0)
        kept.append(z[below.all(1)])
        if sum(map(len, kept)) >= rows:
            break
    found = torch.cat(kept)[:rows]
    if len(found) < 10 * (dim + 1):
        worst = int(met.argmin())
        raise GenoptError(
            f"{len(found)} of {rows * _TRIES} designs inside the bounds keep all inequalities, "
            f"{conditions.names[worst]!r} least often: widen the bounds or the constraint"
        )
    return found
