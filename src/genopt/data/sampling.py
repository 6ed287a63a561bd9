"""Sampling designs: space-filling or random points of a box or of a Space.

Sobol points use scipy's scrambled generator, Latin hypercubes its stratified one; both fill a box
more evenly than independent draws, so a model needs fewer simulator calls.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.space import Space

_METHODS = ("sobol", "latin", "uniform")


def unit_samples(n: int, dim: int, method: str = "sobol", seed: int = 0) -> np.ndarray:
    """Points of the unit cube.

    Args:
        n: number of points; exactly so many are returned, also where n is no power of two.
        dim: dimension P.
        method: ``sobol`` (scrambled), ``latin`` (hypercube) or ``uniform`` (independent).
        seed: seed of the draw.

    Returns:
        Points (n, P) in [0, 1), float64.

    Raises:
        GenoptError: if n is negative or the method is unknown.
    """
    from scipy.stats import qmc

    if method not in _METHODS:
        raise UnknownNameError("sampling method", method, _METHODS)
    if n < 0:
        raise GenoptError(f"n_samples must not be negative, got {n}")
    rng = np.random.default_rng(seed)
    if n == 0 or dim == 0:
        return np.empty((n, dim))
    if method == "uniform":
        return rng.random((n, dim))
    if method == "latin":
        return qmc.LatinHypercube(dim, rng=rng).random(n)
    with warnings.catch_warnings():
        # the balance of a Sobol set that is cut short is the caller's choice of n
        warnings.filterwarnings("ignore", message="The balance properties")
        return qmc.Sobol(dim, scramble=True, rng=rng).random(n)


def generate_samples(
    bounds: Sequence[tuple[float, float]],
    n_samples: int = 1000,
    method: str = "sobol",
    seed: int = 0,
) -> np.ndarray:
    """Points of a box.

    Args:
        bounds: a pair (lower, upper) for each of the P columns.
        n_samples: number of points; exactly so many rows are returned.
        method: ``sobol``, ``latin`` or ``uniform``.
        seed: seed of the draw.

    Returns:
        Points (n_samples, P), float64.

    Raises:
        GenoptError: if a bound is infinite or a pair is out of order.

    Example:
        >>> generate_samples([(0.0, 1.0), (-5.0, 5.0)], n_samples=3).shape
        (3, 2)
    """
    box = np.asarray(bounds, dtype=float)
    if box.ndim != 2 or box.shape[1] != 2:
        raise GenoptError(
            f"bounds has shape {box.shape}; expected (P, 2): one pair (lower, upper) for each "
            "column"
        )
    if not np.isfinite(box).all() or (box[:, 0] > box[:, 1]).any():
        raise GenoptError(f"bounds must be finite pairs with lower <= upper, got {bounds}")
    unit = unit_samples(n_samples, len(box), method, seed)
    return box[:, 0] + unit * (box[:, 1] - box[:, 0])


def sample_space(space: Space, n: int, method: str = "sobol", seed: int = 0) -> Tensor:
    """Valid points of a Space: simplexes uniform, integers and classes equally likely.

    A simplex is filled by normalised exponentials of the unit samples, which is Dirichlet(1, ...,
    1); points outside narrower bounds are projected onto them.

    Args:
        space: where the points lie; every column needs finite bounds.
        n: number of points.
        method: ``sobol``, ``latin`` or ``uniform``.
        seed: seed of the draw.

    Returns:
        Points (n, P), float64.

    Raises:
        GenoptError: if a column has no finite bounds.
    """
    for v in space:
        if not v.bounded:
            raise GenoptError(f"column {v.name!r} has no finite bounds to sample from: give bounds")
    unit = torch.from_numpy(unit_samples(n, space.dim, method, seed))
    x = space.lower + unit * (space.upper - space.lower)
    for i in space.discrete:
        low, high = math.ceil(space.variables[i].lower), math.floor(space.variables[i].upper)
        x[:, i] = (low + torch.floor(unit[:, i] * (high - low + 1))).clamp(low, high)
    for group in space.simplex_indices:
        waiting = -torch.log1p(-unit[:, list(group)])
        x[:, list(group)] = waiting / waiting.sum(-1, keepdim=True).clamp_min(1e-300)
    return space.project(x)
