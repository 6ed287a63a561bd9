"""Functions through scattered rows: around each row a polyharmonic spline of its neighbours.

A spline is a sum of powers of the distances to the rows and a polynomial (G. E. Fasshauer, Meshfree
approximation methods with MATLAB, 2007, chapters 6 to 8). Local ones cost the same for each row and
stay well conditioned, and all of them are solved at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from genopt.models.mixture.conditioning import Array

Index = NDArray[np.intp]
_FEWEST_NEIGHBOURS = 12
_BLOCK = 1 << 22
_MOST_LEFT_OUT = 500


@dataclass(frozen=True)
class Spline:
    """A kind of spline.

    Args:
        power: of the distances, an odd number.
        degree: of the polynomial.
    """

    power: int
    degree: int

    def terms(self, dim: int) -> list[list[int]]:
        """The monomials of the polynomial.

        Args:
            dim: number of variables.

        Returns:
            For each the numbers of its factors.
        """
        every = range(self.degree + 1)
        return [list(t) for k in every for t in combinations_with_replacement(range(dim), k)]

    def neighbours(self, dim: int) -> int:
        """How many rows it needs.

        Args:
            dim: number of variables.

        Returns:
            The number.
        """
        return max(_FEWEST_NEIGHBOURS, 2 * len(self.terms(dim)) + 6)


SPLINES = (Spline(3, 1), Spline(5, 2), Spline(5, 3), Spline(7, 3))


def left_out_errors(x: Array, y: Array, spline: Spline, seed: int = 0) -> Array:
    """How far a row that is left out lies from what its neighbours say.

    Args:
        x: distinct rows (N, P) of about unit scale.
        y: values (N, K).
        spline: kind of spline.
        seed: which rows are left out, at most 500.

    Returns:
        Sizes of the errors (n, K); infinite where the neighbours do not determine a spline.
    """
    out = np.random.default_rng(seed).permutation(len(x))[:_MOST_LEFT_OUT]
    near = _nearest(x, x[out], spline.neighbours(x.shape[1]) + 1)[:, 1:]
    if near.shape[1] < spline.neighbours(x.shape[1]):
        return np.full((len(out), y.shape[1]), np.inf)
    try:
        found = _values(x, y, near, np.arange(len(out)), x[out], spline)
    except np.linalg.LinAlgError:
        return np.full((len(out), y.shape[1]), np.inf)
    return np.asarray(np.abs(found - y[out]))


def interpolated(x: Array, y: Array, new: Array, spline: Spline) -> Array:
    """Values between rows.

    Args:
        x: distinct rows (N, P) of about unit scale.
        y: values (N, K).
        new: where they are asked for (n, P).
        spline: kind of spline.

    Returns:
        Values (n, K), each by the spline around the nearest row.
    """
    owner = _nearest(x, new, 1)[:, 0]
    used, owner = np.unique(owner, return_inverse=True)
    near = _nearest(x, x[used], spline.neighbours(x.shape[1]))
    return _values(x, y, near, owner, new, spline)


def _nearest(x: Array, points: Array, n: int) -> Index:
    from scipy.spatial import KDTree

    found = KDTree(x).query(points, k=np.arange(1, min(n, len(x)) + 1))[1]
    return np.asarray(found)


def _values(x: Array, y: Array, near: Index, owner: Index, new: Array, spline: Spline) -> Array:
    """The splines of some neighbourhoods (M, m) at points (n, P) that belong to them (n,)."""
    out = np.empty((len(new), y.shape[1]))
    order = np.argsort(owner, kind="stable")
    m = near.shape[1]
    step = max(1, _BLOCK // (m + len(spline.terms(x.shape[1]))) ** 2)
    ends = np.searchsorted(owner[order], np.arange(0, len(near) + step, step))
    for first, rows in zip(
        range(0, len(near), step), np.split(order, ends[1:-1].tolist()), strict=False
    ):
        part = near[first : first + step]
        away = x[part] - x[part].mean(1, keepdims=True)
        size = np.sqrt((away**2).sum(-1).max(-1))[:, None, None]
        center = x[part].mean(1)
        coefficients = _solved(away / size, y[part], spline)
        mine = owner[rows] - first
        there = (new[rows] - center[mine]) / size[mine, :, 0]
        basis = np.concatenate(
            [
                _powers(there[:, None], (away / size)[mine], spline)[:, 0],
                _monomials(there, spline),
            ],
            -1,
        )
        out[rows] = np.einsum("nm,nmk->nk", basis, coefficients[mine])
    return out


def _solved(x: Array, y: Array, spline: Spline) -> Array:
    """Coefficients of splines through rows (M, m, P) with values (M, m, K)."""
    tail = _monomials(x, spline)
    q = tail.shape[-1]
    m = x.shape[1]
    system = np.zeros((len(x), m + q, m + q))
    system[:, :m, :m] = _powers(x, x, spline)
    system[:, :m, m:] = tail
    system[:, m:, :m] = tail.transpose(0, 2, 1)
    values = np.concatenate([y, np.zeros((len(x), q, y.shape[-1]))], 1)
    return np.linalg.solve(system, values)


def _powers(a: Array, b: Array, spline: Spline) -> Array:
    square = ((a[:, :, None] - b[:, None]) ** 2).sum(-1)
    powers: Array = square ** (spline.power / 2.0)
    return powers


def _monomials(x: Array, spline: Spline) -> Array:
    """(..., P) to (..., q)."""
    return np.stack([x[..., term].prod(-1) for term in spline.terms(x.shape[-1])], -1)
