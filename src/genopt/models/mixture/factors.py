"""Covariances of low rank plus a variance for each column: factor analysis within a component.

A component of a wide table needs far fewer numbers this way: r directions in which its columns move
together, and what each column does alone (Ghahramani and Hinton, The EM algorithm for mixtures of
factor analyzers, 1996).
"""

from __future__ import annotations

import numpy as np

from genopt.models.mixture.conditioning import Array

_FIRST_STEPS = 20
_RIDGE = 1e-3


def largest_rank(d: int) -> int:
    """The largest rank with which factors need no more numbers than a full covariance.

    Args:
        d: number of columns.

    Returns:
        Ledermann's bound, the largest r with (d - r)^2 >= d + r; at least one.
    """
    bound = (2.0 * d + 1.0 - np.sqrt(8.0 * d + 1.0)) / 2.0
    return max(1, int(np.floor(bound + 1e-9)))


def n_factor_parameters(d: int, rank: int) -> int:
    """Free parameters of one covariance with factors.

    Args:
        d: number of columns.
        rank: number of factors.

    Returns:
        Loadings up to a rotation and variances, at most those of a full covariance.
    """
    rank = min(rank, d)
    return min(d * rank - rank * (rank - 1) // 2 + d, d * (d + 1) // 2)


def factored(
    moments: Array, rank: int, noise: Array | None, smallest: float
) -> tuple[Array, Array]:
    """Raise the likelihood of covariances W W^T + diag(noise) for given moments.

    Given the noise, the likeliest loadings W are the leading eigenvectors of the moments in units
    of the noise; given the loadings, each column's noise is what they leave of its variance. Each
    step raises the likelihood (Liu and Rubin, Maximum likelihood estimation of factor analysis
    using the ECME algorithm, 1998).

    Args:
        moments: covariances of the rows of each component (k, d, d).
        rank: number of factors r.
        noise: variances of the columns to go on from, by one step (k, d); None to begin.
        smallest: least of these.

    Returns:
        The loadings W (k, d, r) and the noise (k, d).
    """
    rank = min(rank, moments.shape[-1])
    variances = np.maximum(np.diagonal(moments, axis1=1, axis2=2), smallest)
    steps = _FIRST_STEPS if noise is None else 1
    psi = _first_noise(moments, rank, variances, smallest) if noise is None else noise
    loadings = _loadings(moments, rank, psi)
    for _ in range(steps):
        psi = np.maximum(variances - (loadings**2).sum(-1), smallest)
        loadings = _loadings(moments, rank, psi)
    return loadings, psi


def _first_noise(moments: Array, rank: int, variances: Array, smallest: float) -> Array:
    """What a column adds to all others, as Joereskog begins, and half of its variance at most."""
    d = moments.shape[-1]
    ridge = _RIDGE * variances[:, :, None] * np.eye(d)
    alone = 1.0 / np.diagonal(np.linalg.inv(moments + ridge), axis1=1, axis2=2)
    return np.clip((1.0 - 0.5 * rank / d) * alone, smallest, np.maximum(0.5 * variances, smallest))


def _loadings(moments: Array, rank: int, noise: Array) -> Array:
    root = np.sqrt(noise)
    values, vectors = np.linalg.eigh(moments / (root[:, :, None] * root[:, None, :]))
    strength = np.sqrt(np.maximum(values[:, -rank:] - 1.0, 0.0))
    return np.asarray(root[:, :, None] * vectors[:, :, -rank:] * strength[:, None, :])
