"""More rows of an exact simulator: designs that lie like the old ones, outputs interpolated.

Components that follow a bent surface closely have to be many, and each needs rows. Where rows have
no noise, what lies between them is known far better than a mixture of few components shows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike

from genopt.data.sampling import sample_space
from genopt.errors import GenoptError
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.interpolation import SPLINES, interpolated, left_out_errors
from genopt.models.mixture.rows import UsableRows
from genopt.models.mixture.selection import best_gmm
from genopt.space import Space

logger = logging.getLogger(__name__)
# a share of a column's deviation; rows with noise are missed by more
_LARGEST_ERROR = 0.02
_LARGEST_LAW = 20
_REACH = 2.0
_ROUNDS = 50


def denser_rows(
    rows: UsableRows,
    x_space: Space,
    y_space: Space,
    n: int,
    *,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> UsableRows:
    """New rows of the same function.

    Designs are spread over the box evenly where that explains the old ones as well as a mixture of
    Gaussians does, and drawn from that mixture otherwise, near old ones only.

    Args:
        rows: designs (N, P) and properties (N, K), without gaps and noise.
        x_space: the columns of x.
        y_space: the columns of y.
        n: number of new rows.
        weights: how many rows each row counts for (N,); None for one.
        seed: seed of the designs.

    Returns:
        The new rows.

    Raises:
        GenoptError: if a column is no number, has gaps, or cannot be interpolated.
    """
    outputs = y_space.select([y_space.names[i] for i in rows.y_columns])
    _check_columns(rows, x_space, outputs)
    names = outputs.names
    raw, y = rows.x.numpy(), rows.y.numpy()
    distinct, owner, count = np.unique(raw, axis=0, return_inverse=True, return_counts=True)
    owner = owner.reshape(-1)
    y = np.stack([np.bincount(owner, column) / count for column in y.T], 1)
    x_scale, y_scale = _deviations(distinct), _deviations(y)
    x, y = distinct / x_scale, y / y_scale
    errors = [np.median(left_out_errors(x, y, spline, seed), 0) for spline in SPLINES]
    best = min(range(len(SPLINES)), key=lambda i: float(errors[i].max()))
    worst = int(errors[best].argmax())
    if not errors[best][worst] <= _LARGEST_ERROR:
        raise GenoptError(
            f"interpolated_rows={n}: y column {names[worst]!r} cannot be interpolated between its "
            f"{len(x)} rows: one that is left out is missed by {errors[best][worst]:.2g} of the "
            "column's deviation in the median. Leave interpolated_rows=0 where rows are noisy or "
            "few"
        )
    logger.info("%d rows interpolated; rows left out are missed by %s", n, errors[best])
    draw = _law(raw, x_space, weights, seed)
    new = _near(draw, x, x_scale, n)
    values = interpolated(x, y, new / x_scale, SPLINES[best]) * y_scale
    return UsableRows(torch.from_numpy(new), torch.from_numpy(values), rows.y_columns)


def _check_columns(rows: UsableRows, x_space: Space, y_space: Space) -> None:
    discrete = [space.names[i] for space in (x_space, y_space) for i in space.discrete]
    sums = [x_space.names[i] for group in x_space.simplex_indices for i in group]
    if discrete or sums:
        raise GenoptError(
            "interpolated_rows needs continuous columns without sums to one, unlike "
            f"{', '.join(map(repr, discrete + sums))}"
        )
    names = (*x_space.names, *y_space.names)
    gaps = torch.isnan(torch.cat([rows.x, rows.y], 1)).any(0).tolist()
    if any(gaps):
        told = ", ".join(repr(name) for name, gap in zip(names, gaps, strict=True) if gap)
        raise GenoptError(f"interpolated_rows needs all entries; some are missing in {told}")


def _deviations(values: Array) -> Array:
    deviations = values.std(0)
    return np.where(deviations > 0.0, deviations, 1.0)


def _law(
    raw: Array, x_space: Space, weights: ArrayLike | None, seed: int
) -> Callable[[int, int], Array]:
    """Draws of designs: their number and the round to an array."""
    law = best_gmm(raw, _LARGEST_LAW, criterion="heldout", weights=weights, seed=seed)
    volume = float((x_space.upper - x_space.lower).log().sum())
    if volume <= min(law.scores.values()):
        return lambda count, turn: sample_space(x_space, count, seed=seed + turn).numpy()

    def draw(count: int, turn: int) -> Array:
        designs: Array = law.gmm.sample(count, np.random.RandomState(seed + turn))
        return designs[x_space.contains(torch.from_numpy(designs)).numpy()]

    return draw


def _near(draw: Callable[[int, int], Array], x: Array, x_scale: Array, n: int) -> Array:
    """Designs no farther from the rows than these are from one another."""
    from scipy.spatial import KDTree

    tree = KDTree(x)
    apart, _ = tree.query(x, k=[2])
    reach = _REACH * float(np.quantile(np.asarray(apart), 0.99))
    kept, found = list[Array](), 0
    for turn in range(_ROUNDS):
        designs = draw(n, turn)
        designs = designs[tree.query(designs / x_scale)[0] <= reach]
        kept.append(designs[: n - found])
        found += len(kept[-1])
        if found == n:
            break
    return np.concatenate(kept)
