"""Whether any design can keep the constraints: for linear ones that is known before training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genopt.constraint import Constraint
from genopt.errors import GenoptError
from genopt.space import Space

_SLACK = 1e-9
_MOST_GOALS = 256


def check_possible(
    constraints: Sequence[Constraint], space: Space, fixed: dict[int, Tensor] | None = None
) -> None:
    """Refuse linear constraints that contradict one another, the bounds or what is held fixed.

    Args:
        constraints: the constraints; those that are not linear are not looked at.
        space: the columns of x.
        fixed: column numbers and the values (B or 1,) they are held at.

    Raises:
        GenoptError: if no design keeps them; the message names a smallest set that contradicts.
    """
    linear = [c for c in constraints if c.coefficients is not None]
    if not linear:
        return
    held = fixed or {}
    values = torch.stack(torch.broadcast_tensors(*held.values()), -1) if held else None
    for value in [None] if values is None else torch.unique(values, dim=0)[:_MOST_GOALS]:
        lower, upper = space.lower.clone(), space.upper.clone()
        if value is not None:
            lower[list(held)] = upper[list(held)] = value
        if _feasible(linear, space, lower, upper):
            continue
        # what can be left out without making the rest possible is no part of the contradiction
        needed = list(linear)
        for constraint in linear:
            rest = [c for c in needed if c is not constraint]
            if not _feasible(rest, space, lower, upper):
                needed = rest
        names = " and ".join(repr(c.name) for c in needed)
        columns = sorted(
            {i for c in needed for i in _rows(c).any(0).nonzero()[:, 0].tolist()} - set(held)
        )
        bounds = ", ".join(
            f"{space.names[i]} in [{float(lower[i]):g}, {float(upper[i]):g}]" for i in columns
        )
        kept = ", ".join(f"{space.names[i]} fixed at {float(lower[i]):g}" for i in held)
        where = "; ".join(part for part in (bounds, kept) if part)
        raise GenoptError(
            f"no design keeps {names} ({where}): change a constraint"
            f"{' or the goal' if kept else ''}, or widen the bounds"
        )


def _rows(constraint: Constraint) -> Tensor:
    if constraint.coefficients is None:
        raise TypeError(f"{constraint.name} is not linear")
    return constraint.coefficients


def _feasible(linear: Sequence[Constraint], space: Space, lower: Tensor, upper: Tensor) -> bool:
    """Whether a point of the bounds, the simplexes and the integers keeps linear constraints."""
    from scipy.optimize import linprog

    a = {True: [np.empty((0, space.dim))], False: [np.empty((0, space.dim))]}
    b = {True: [np.empty(0)], False: [np.empty(0)]}
    for constraint in linear:
        rows, constants = _rows(constraint), constraint.constants
        if constants is None:
            continue
        # rows of like size, so that the solver's tolerance means the same for each
        size = rows.abs().amax(1).clamp_min(1e-300)
        a[constraint.equality].append((rows / size[:, None]).numpy())
        b[constraint.equality].append((-constants / size).numpy())
    for group in space.simplex_indices:
        row = np.zeros((1, space.dim))
        row[0, list(group)] = 1.0
        a[True].append(row)
        b[True].append(np.ones(1))
    found = linprog(
        np.zeros(space.dim),
        A_ub=np.concatenate(a[False]),
        b_ub=np.concatenate(b[False]) + _SLACK,
        A_eq=np.concatenate(a[True]),
        b_eq=np.concatenate(b[True]),
        bounds=list(zip(lower.tolist(), upper.tolist(), strict=True)),
        integrality=[0 if v.kind == "continuous" else 1 for v in space],
    )
    # 2: proved to be infeasible; whatever else the solver says is no proof
    return found.status != 2
