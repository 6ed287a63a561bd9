"""Gaussians as linear functions of features: ones, entries and products of entries."""

from __future__ import annotations

import math

import numpy as np

from genopt.models.mixture.conditioning import Array

_LOG_2PI = math.log(2.0 * math.pi)
_NEVER = -1e300


def n_features(d: int, *, diagonal: bool = False) -> int:
    """Number of features of d columns.

    Args:
        d: number of columns.
        diagonal: whether only squares are there, no products of different columns.

    Returns:
        F.
    """
    return 1 + 2 * d if diagonal else 1 + d + d * (d + 1) // 2


def features(columns: Array, *, diagonal: bool = False) -> Array:
    """Features of rows.

    Args:
        columns: the rows as columns (d, n).
        diagonal: whether only squares are wanted.

    Returns:
        Ones, entries, products in the order of the upper triangle (F, n).
    """
    d, n = columns.shape
    out = np.empty((n_features(d, diagonal=diagonal), n))
    out[0] = 1.0
    out[1 : 1 + d] = columns
    if diagonal:
        np.square(columns, out=out[1 + d :])
        return out
    start = 1 + d
    for i in range(d):
        np.multiply(columns[i], columns[i:], out=out[start : start + d - i])
        start += d - i
    return out


def symmetric(products: Array, d: int, *, diagonal: bool = False) -> Array:
    """Matrices from what belongs to the products among the features.

    Args:
        products: (k, F - 1 - d).
        d: number of columns.
        diagonal: whether they belong to squares only.

    Returns:
        (k, d, d).
    """
    out = np.zeros((len(products), d, d))
    pairs = (np.arange(d), np.arange(d)) if diagonal else np.triu_indices(d)
    out[:, pairs[0], pairs[1]] = products
    out[:, pairs[1], pairs[0]] = products
    return out


def coefficients(
    weights: Array, means: Array, covariances: Array, *, diagonal: bool = False
) -> Array:
    """What the features are multiplied by to give log densities times weights.

    Args:
        weights: (k,).
        means: (k, d).
        covariances: (k, d, d), positive definite.
        diagonal: whether the covariances are diagonal.

    Returns:
        (k, F).
    """
    d = means.shape[1]
    alive = weights > 0.0
    roots = np.linalg.cholesky(covariances)
    precisions = np.linalg.inv(covariances)
    linear = np.einsum("kij,kj->ki", precisions, means)
    log_determinant = 2.0 * np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(1)
    constant = -0.5 * (log_determinant + d * _LOG_2PI + np.einsum("ki,ki->k", linear, means))
    # an infinite coefficient would turn products into NaN
    constant += np.where(alive, np.log(np.where(alive, weights, 1.0)), _NEVER)
    # products of different columns are there once for both of their orders
    precisions[:, np.arange(d), np.arange(d)] *= 0.5
    pairs = (np.arange(d), np.arange(d)) if diagonal else np.triu_indices(d)
    return np.concatenate([constant[:, None], linear, -precisions[:, pairs[0], pairs[1]]], 1)
