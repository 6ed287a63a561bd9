"""What the factors of a mixture keep of each column, and what they lose.

A row is reduced to its factors and rebuilt from them, as with principal components. Entries that
miss are left out of the reduction and of the error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from genopt.errors import GenoptError
from genopt.models.mixture.columns import JointColumns
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.conditions import as_numbers
from genopt.models.mixture.em import Components
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.observed import ObservedRows

logger = logging.getLogger(__name__)
_NAMED = 3


class HasFactors(Protocol):
    """A fitted mixture, perhaps with factors."""

    @property
    def gmm(self) -> GaussianMixture:
        """The mixture."""

    @property
    def loadings(self) -> Array | None:
        """Of its components (k, p, r); None without factors."""

    @property
    def reconstruction_error(self) -> Array | None:
        """Shares of the columns' variances that are lost (p,); None without factors."""


def reconstructed(gmm: GaussianMixture, loadings: Array, rows: ArrayLike) -> Array:
    """Rows rebuilt from what their observed entries say of the factors.

    Args:
        gmm: the mixture.
        loadings: of its components (k, p, r).
        rows: (N, p), NaN where an entry is missing.

    Returns:
        The expected rows without the columns' own noise (N, p).

    Raises:
        GenoptError: if the rows have other columns.
    """
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != gmm.dim:
        raise GenoptError(f"rows has shape {values.shape}; expected (N, {gmm.dim})")
    center, scale = _moments(gmm)
    covariances = gmm.covariances / (scale[:, None] * scale)
    means, scaled = (gmm.means - center) / scale, (values - center) / scale
    weights = loadings / scale[:, None]
    shared = weights @ weights.transpose(0, 2, 1)
    # the rebuilt columns are further columns, none of whose entries is known
    joint = Components(
        gmm.priors,
        np.concatenate([means, means], 1),
        np.block([[covariances, shared], [shared, shared]]),
    )
    seen = ObservedRows(
        np.concatenate([scaled, np.full_like(scaled, np.nan)], 1),
        n_components=gmm.n_components,
        smallest_variance=float(np.linalg.eigvalsh(covariances).min()),
    )
    return np.asarray(seen.expected(joint)[0][:, gmm.dim :] * scale + center)


def reconstruction_error(
    gmm: GaussianMixture, loadings: Array, rows: ArrayLike, counts: ArrayLike | None = None
) -> Array:
    """The share of each column's variance that is lost when rows are rebuilt from their factors.

    Args:
        gmm: the mixture.
        loadings: of its components (k, p, r).
        rows: (N, p), NaN where an entry is missing.
        counts: how many rows each row counts for (N,); None for one.

    Returns:
        Mean squared errors over the columns' variances under the mixture (p,); NaN for a column
        without an entry.
    """
    values = np.asarray(rows, dtype=np.float64)
    known = np.isfinite(values)
    weights = np.ones(len(values)) if counts is None else np.asarray(counts, dtype=np.float64)
    away = np.where(known, values - reconstructed(gmm, loadings, values), 0.0)
    with np.errstate(invalid="ignore"):
        lost = weights @ away**2 / (weights @ known)
    return np.asarray(lost / _moments(gmm)[1] ** 2)


def lost_by_column(fit: HasFactors, columns: JointColumns, x: Any, y: Any) -> dict[str, float]:
    """The share of each column's variance that is lost, by name.

    Args:
        fit: the fitted mixture.
        columns: its columns.
        x: designs (N, P); None for the rows of the fit.
        y: their properties (N, K); NaN where an entry is missing.

    Returns:
        Shares by name of the fitted columns; empty where the covariances have no factors.
    """
    if fit.loadings is None or fit.reconstruction_error is None:
        return {}
    lost = fit.reconstruction_error
    if x is not None:
        properties = as_numbers(y, "y")[:, list(columns.y_columns)]
        rows = columns.fit_rows(as_numbers(x, "x"), properties)
        lost = reconstruction_error(fit.gmm, fit.loadings, rows)
    return dict(zip(columns.fitted_names, lost.tolist(), strict=True))


def log_lost(lost: Mapping[str, float], n_factors: int | None) -> None:
    """Say in one line how much of the columns their factors lose.

    Args:
        lost: shares of the columns' variances; nothing is said of none.
        n_factors: number of factors.
    """
    if not lost:
        return
    worst = sorted(lost, key=lambda name: -lost[name])[:_NAMED]
    logger.info(
        "%d factor(s) lose %.0f %% of the columns' variance, most of %s",
        n_factors,
        100.0 * np.mean(list(lost.values())),
        ", ".join(f"{name} ({100.0 * lost[name]:.0f} %)" for name in worst),
    )


def _moments(gmm: GaussianMixture) -> tuple[Array, Array]:
    """Mean and standard deviation of each column under the mixture."""
    center = gmm.priors @ gmm.means
    variances = np.diagonal(gmm.covariances, axis1=1, axis2=2) + (gmm.means - center) ** 2
    return center, np.sqrt(gmm.priors @ variances)
