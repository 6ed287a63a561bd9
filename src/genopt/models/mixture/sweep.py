"""One covariance factored for every pattern of missing entries at once, by the sweep operator.

Patterns that agree in their first columns share the work on those columns, so the 2^d patterns of d
columns cost little more than twice as many sweeps instead of a factorisation each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genopt.models.mixture.conditioning import Array

Mask = NDArray[np.bool_]
Index = NDArray[np.intp]
_SMALLEST_PIVOT = 1e-14


@dataclass(frozen=True, eq=False)
class Swept:
    """k covariances seen through U patterns.

    Args:
        transform: (U, k, d, d), acts on a row's deviations from the mean. Where column i is
            observed, row i gives its residual on the observed columns before it in units of the
            residual's standard deviation, so these rows whiten; where it is missing, row i is its
            regression on all observed columns.
        residual: covariance of the missing columns given the observed ones (U, k, d, d), zero in
            rows and columns of observed ones.
        log_determinant: of the observed block (U, k).
    """

    transform: Array
    residual: Array
    log_determinant: Array


@dataclass(frozen=True, eq=False)
class _Level:
    """What one column adds to the tree of patterns: which nodes are made, which are swept."""

    parent: Index
    swept: Index
    seen: Mask
    leaves: Index
    position: Index


class PatternTree:
    """U distinct patterns as the leaves of a tree that decides one column at each level.

    Args:
        known: whether an entry is observed (U, d), rows distinct.
    """

    def __init__(self, known: Mask) -> None:
        self.known = known
        node = np.zeros(len(known), dtype=np.intp)
        seen = np.zeros((1, known.shape[1]), dtype=bool)
        self._levels: list[_Level] = []
        for j in range(known.shape[1]):
            branch, node = np.unique(2 * node + known[:, j], return_inverse=True)
            parent, swept = branch // 2, np.flatnonzero(branch % 2)
            seen = seen[parent]
            before = seen[swept]
            seen[swept, j] = True
            leaves = np.flatnonzero(known[:, j])
            position = np.searchsorted(swept, node[leaves])
            self._levels.append(_Level(parent, swept, before, leaves, position))
        self._node = node

    def sweep(self, covariances: Array) -> Swept:
        """Factor covariances for all patterns.

        Sweeping column j replaces A by A - a a^T / p with a = A[:, j], p = a_j, and its own row and
        column by a / p and -1 / p. Once the observed columns o are swept, A[m, o] is the regression
        of the missing ones m on them and A[m, m] their conditional covariance; the pivots are the
        conditional variances, and their product is the determinant (Little and Rubin, Statistical
        Analysis with Missing Data, chapter 7).

        Args:
            covariances: (k, d, d), positive definite.

        Returns:
            The factored patterns.
        """
        k, d, _ = covariances.shape
        smallest = _SMALLEST_PIVOT * np.diagonal(covariances, axis1=1, axis2=2)
        transform = np.zeros((len(self.known), k, d, d))
        state, log_determinant = covariances[None], np.zeros((1, k))
        for j, level in enumerate(self._levels):
            state, log_determinant = state[level.parent], log_determinant[level.parent]
            if not level.swept.size:
                continue
            before = state[level.swept]
            column = before[..., j].copy()
            pivot = np.maximum(column[..., j], smallest[:, j])[..., None]
            scaled = column / pivot
            whiten = np.where(level.seen[:, None], -column, 0.0)
            whiten[..., j] = 1.0
            whiten /= np.sqrt(pivot)
            transform[level.leaves, :, j] = whiten[level.position]
            before -= column[..., :, None] * scaled[..., None, :]
            before[..., j, :] = before[..., :, j] = scaled
            before[..., j, j] = -1.0 / pivot[..., 0]
            state[level.swept] = before
            log_determinant[level.swept] += np.log(pivot[..., 0])
        state, log_determinant = state[self._node], log_determinant[self._node]
        gap = ~self.known
        regression = gap[:, None, :, None] & self.known[:, None, None, :]
        np.copyto(transform, state, where=regression)
        residual = np.where(gap[:, None, :, None] & gap[:, None, None, :], state, 0.0)
        return Swept(transform, residual, log_determinant)
