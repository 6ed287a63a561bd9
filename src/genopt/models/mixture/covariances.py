"""Kinds of covariances that the components of a mixture may have.

``full``; ``tied``, one for all components; ``diag``, columns independent within a component;
``factors``, low rank plus a variance for each column.
"""

from __future__ import annotations

import numpy as np

from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.factors import factored, n_factor_parameters

KINDS = ("full", "tied", "diag", "factors")


def constrained(
    covariances: Array,
    counts: Array,
    kind: str,
    rank: int | None = None,
    noise: Array | None = None,
    smallest: float = 0.0,
) -> tuple[Array, Array | None]:
    """The likeliest covariances of a kind; with factors, likelier ones than the last.

    Args:
        covariances: of the rows of each component, the regularisation included (k, d, d).
        counts: rows of each component (k,).
        kind: one of `KINDS`.
        rank: number of factors r; of ``factors`` alone.
        noise: what each column had beside its factors in the last covariances (k, d); None to
            begin.
        smallest: least of these variances.

    Returns:
        The covariances (k, d, d) and, for ``factors``, their loadings (k, d, r).
    """
    if kind == "tied":
        pooled = np.einsum("k,kij->ij", counts / counts.sum(), covariances)
        return np.repeat(pooled[None], len(covariances), axis=0), None
    d = covariances.shape[-1]
    if kind == "diag":
        return covariances * np.eye(d), None
    if kind == "factors" and rank is not None:
        loadings, own = factored(covariances, rank, noise, smallest)
        return loadings @ loadings.transpose(0, 2, 1) + own[:, :, None] * np.eye(d), loadings
    return covariances, None


def n_parameters(k: int, d: int, kind: str, rank: int | None = None) -> int:
    """Number of free parameters of a mixture.

    Args:
        k: number of components.
        d: number of columns.
        kind: of the covariances.
        rank: number of factors; of ``factors`` alone.

    Returns:
        Those of covariances, means and weights.
    """
    full = d * (d + 1) // 2
    each = full if rank is None else n_factor_parameters(d, rank)
    covariances = {"full": k * full, "tied": full, "diag": k * d, "factors": k * each}[kind]
    return covariances + k * d + k - 1
