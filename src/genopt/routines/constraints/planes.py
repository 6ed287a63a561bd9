"""Planes: draws of a mixture on linear equalities, exactly, without a single rejected draw.

A linear combination of a mixture's columns is one more Gaussian column of each component, so the
mixture can be conditioned on it: components are weighed by their density there, and a draw of one
is moved along its regression on the combination (Matheron's rule), which makes it a conditional
draw.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from genopt.models.mixture.conditions import known_values, patterns
from genopt.models.mixture.draws import generator_of
from genopt.models.mixture.engine import Mixture
from genopt.routines.constraints.rules import Rules
from genopt.routines.constraints.source import Source

_ROUNDS = 20
_RIDGE = 1e-12


def plane_source(
    model: Mixture,
    conditions: Tensor,
    fixed: Mapping[int, Tensor],
    rules: Rules,
    generator: torch.Generator,
) -> Source | None:
    """A source whose draws keep the linear equalities.

    Args:
        model: the fitted mixture.
        conditions: what is asked for (C, K).
        fixed: values (C,) of columns of x that are held.
        rules: the constraints.
        generator: source of randomness.

    Returns:
        The source; None where no linear equality is over movable continuous columns.
    """
    a, b = _planes(rules)
    if not len(a):
        return None
    rng = generator_of(generator, model.seed)
    space = model.x_space

    def draw(rows: Tensor, n: int) -> Tensor:
        held = {i: value[rows] for i, value in fixed.items()}
        out = torch.empty(len(rows), n, space.dim, dtype=torch.float64)
        asked = conditions[rows].to(torch.float64)
        for some, known in patterns(asked, model.columns):
            values = torch.cat(
                [
                    *(held[i][some, None] for i in held),
                    known_values(asked[some], known, model.columns),
                ],
                1,
            )
            out[some] = _drawn(model, values, (*held, *known), a, b, n, rng)
        for i, value in held.items():
            out[..., i] = value[:, None]
        return out

    return Source(len(conditions), space, generator, draw, exact=True)


def _planes(rules: Rules) -> tuple[Tensor, Tensor]:
    """Independent linear equalities a @ x = b that movable columns alone can keep."""
    a = torch.empty(0, rules.space.dim, dtype=torch.float64)
    b = torch.empty(0, dtype=torch.float64)
    discrete = list(rules.space.discrete)
    for constraint in rules.constraints:
        rows, constants = constraint.coefficients, constraint.constants
        if not constraint.equality or rows is None or constants is None:
            continue
        for row, constant in zip(rows, constants, strict=True):
            more = torch.cat([a, row[None]])
            scaled = more * rules.width * rules.movable
            apart = int(torch.linalg.matrix_rank(scaled)) == len(more)
            if apart and not bool(row[discrete].any()):
                a, b = more, torch.cat([b, -constant[None]])
    return a, b


def _drawn(
    model: Mixture,
    values: Tensor,
    given: tuple[int, ...],
    a: Tensor,
    b: Tensor,
    n: int,
    rng: np.random.Generator,
) -> Tensor:
    """Draws (C, n, P) of conditions that know the same variables."""
    columns = model.columns
    wanted = tuple(i for i in columns.x_variables if i not in given)
    batch, selection, known = model.density.conditional(values, given, wanted)

    def designs(drawn: np.ndarray, rows: np.ndarray) -> Tensor:
        full = columns.restore(selection, known[rows], drawn)
        return columns.raw(full, columns.x_variables)

    # designs are linear in the drawn columns: combinations of them are read off unit vectors
    size = batch.means.shape[-1]
    everyone = np.arange(len(values))
    origin = designs(np.zeros((len(values), size)), everyone)
    units = designs(np.eye(size), np.zeros(size, dtype=int)) - origin[0]
    combine = torch.nan_to_num(units @ a.T).T.numpy()
    goal = (b - torch.nan_to_num(origin) @ a.T).numpy()
    across = combine @ batch.covariances
    square = across @ combine.T
    scale = np.einsum("kii->ki", square).max(initial=1e-300)
    inverse = np.linalg.inv(square + _RIDGE * scale * np.eye(len(combine)))
    gap = goal[:, None] - batch.means @ combine.T
    log = batch.log_weights - 0.5 * (
        np.einsum("cki,kij,ckj->ck", gap, inverse, gap) - np.linalg.slogdet(inverse)[1]
    )
    weight = np.exp(log - log.max(1, keepdims=True))
    share = (weight / weight.sum(1, keepdims=True)).cumsum(1)

    def draw(rows: np.ndarray) -> Tensor:
        which = (rng.random((len(rows), n, 1)) > share[rows, None]).sum(-1)
        which = which.clip(max=share.shape[1] - 1)
        z = rng.standard_normal((len(rows), n, size))
        z = batch.means[rows[:, None], which] + np.einsum("cnij,cnj->cni", batch.lower[which], z)
        off = goal[rows, None] - z @ combine.T
        z = z + np.einsum("cnmi,cnml,cnl->cni", across[which], inverse[which], off)
        return designs(z, rows[:, None])

    out = draw(everyone)
    for _ in range(_ROUNDS):
        outside = ~model.x_space.contains(out)
        rows = outside.any(1).nonzero()[:, 0].numpy()
        if not len(rows):
            break
        out[rows] = torch.where(outside[rows][..., None], draw(rows), out[rows])
    return out
