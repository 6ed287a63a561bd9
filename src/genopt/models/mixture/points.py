"""What a caller of a mixture gives, checked: its parameters and points."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from genopt.errors import GenoptError
from genopt.models.mixture.conditioning import Array


def as_matrix(values: ArrayLike, width: int, name: str) -> Array:
    """A finite matrix; a vector counts as rows of one column or as one row.

    Args:
        values: what was given.
        width: number of columns.
        name: the caller's name for it.

    Returns:
        (N, width).

    Raises:
        GenoptError: if the shape does not fit or a number is not finite.
    """
    matrix: Array = np.asarray(values, dtype=np.float64)
    if matrix.ndim == 1:
        matrix = matrix.reshape(-1, 1) if width == 1 else matrix.reshape(1, -1)
    if matrix.ndim != 2 or matrix.shape[1] != width:
        raise GenoptError(f"{name} has shape {np.shape(values)}; expected (N, {width})")
    finite = np.isfinite(matrix).all(1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise GenoptError(f"{name} must hold finite numbers, row {row} does not")
    return matrix


def as_query(x: ArrayLike, width: int) -> Array:
    """One query as a row.

    Args:
        x: its values, (q,) or (1, q).
        width: number of columns q.

    Returns:
        (1, q).

    Raises:
        GenoptError: if it has another number of values.
    """
    query = np.asarray(x, dtype=np.float64)
    if query.size != width:
        raise GenoptError(
            f"x has shape {query.shape}; expected ({width},) or (1, {width}): condition_batch "
            "takes many queries"
        )
    return query.reshape(1, width)


def check_parameters(
    k: int, priors: Array | None, means: Array | None, covariances: Array | None
) -> None:
    """Refuse parameters that are no mixture; what is None is set later.

    Args:
        k: number of components.
        priors: (k,).
        means: (k, p).
        covariances: (k, p, p).

    Raises:
        GenoptError: if shapes do not fit, a number is not finite or priors do not sum to one.
    """
    if priors is not None:
        if priors.shape != (k,):
            raise GenoptError(f"priors has shape {priors.shape}; expected ({k},)")
        if not np.isfinite(priors).all() or (priors < 0).any():
            raise GenoptError("priors must be finite and not negative")
        if abs(priors.sum() - 1.0) > 1e-6:
            raise GenoptError(f"priors must sum to one, their sum is {priors.sum():.6g}")
    if means is not None:
        if means.ndim != 2 or len(means) != k:
            raise GenoptError(f"means has shape {means.shape}; expected ({k}, p)")
        if not np.isfinite(means).all():
            raise GenoptError("means must be finite numbers")
    if means is not None and covariances is not None:
        p = means.shape[1]
        if covariances.shape != (k, p, p):
            raise GenoptError(
                f"covariances has shape {covariances.shape}; expected ({k}, {p}, {p})"
            )
