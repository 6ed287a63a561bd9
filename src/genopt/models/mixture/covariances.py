"""Kinds of covariances that the components of a mixture may have: ``full``, ``tied``, ``diag``."""

from __future__ import annotations

import numpy as np

from genopt.models.mixture.conditioning import Array

KINDS = ("full", "tied", "diag")


def shaped(covariances: Array, counts: Array, kind: str) -> Array:
    """The likeliest covariances of a kind.

    Args:
        covariances: of the components (k, d, d).
        counts: rows of each component (k,).
        kind: ``full`` for any, ``tied`` for one that all components share, ``diag`` for columns
            that are independent within a component.

    Returns:
        (k, d, d).
    """
    if kind == "tied":
        pooled = np.einsum("k,kij->ij", counts / counts.sum(), covariances)
        return np.repeat(pooled[None], len(covariances), axis=0)
    if kind == "diag":
        return covariances * np.eye(covariances.shape[-1])
    return covariances


def n_parameters(k: int, d: int, kind: str) -> int:
    """Number of free parameters of a mixture.

    Args:
        k: number of components.
        d: number of columns.
        kind: of the covariances.

    Returns:
        Those of covariances, means and weights.
    """
    full = d * (d + 1) // 2
    covariances = {"full": k * full, "tied": full, "diag": k * d}[kind]
    return covariances + k * d + k - 1
