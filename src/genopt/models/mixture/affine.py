"""Columns that are exact linear functions of others, as where a simulator is affine.

EM would model such a column by the variance that is added to each component, which makes an exact
relation a thousandth of a standard deviation wide. Here EM sees the other columns only; the linear
map puts these columns back, exactly, into every component.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components

# a residual so much smaller than the regularisation is not worth a component
_SHARE_OF_REGULARIZATION = 0.01
_SMALLEST_VARIANCE = 4e-13
_ROWS_A_COLUMN = 3


@dataclass(frozen=True, eq=False)
class AffineColumns:
    """How all d columns follow from r of them.

    Args:
        basis: the r columns that EM sees.
        dependent: the other columns.
        slope: (d - r, r).
        intercept: (d - r,).
        variance: what the map leaves of each dependent column (d - r,).
    """

    basis: list[int]
    dependent: list[int]
    slope: Array
    intercept: Array
    variance: Array

    @property
    def n_parameters(self) -> int:
        """Number of coefficients and variances."""
        return self.slope.size + 2 * len(self.dependent)

    def reduced(self, components: Components) -> Components:
        """The mixture of the basis alone.

        Args:
            components: of all columns.

        Returns:
            Its marginal.
        """
        block = components.covariances[:, self.basis][:, :, self.basis]
        loadings = None if components.loadings is None else components.loadings[:, self.basis]
        return Components(components.weights, components.means[:, self.basis], block, loadings)

    def expanded(self, components: Components) -> Components:
        """The mixture of all columns.

        Args:
            components: of the basis.

        Returns:
            Means and covariances under the linear map, with its residual variances.
        """
        d = len(self.basis) + len(self.dependent)
        shift, every = np.zeros(d), np.zeros((d, len(self.basis)))
        every[self.basis] = np.eye(len(self.basis))
        every[self.dependent], shift[self.dependent] = self.slope, self.intercept
        covariances = every @ components.covariances @ every.T
        covariances = 0.5 * (covariances + covariances.transpose(0, 2, 1))
        covariances[:, self.dependent, self.dependent] += self.variance
        loadings = None if components.loadings is None else every @ components.loadings
        return Components(
            components.weights, components.means @ every.T + shift, covariances, loadings
        )

    def log_density(self, scaled: Array) -> Array:
        """Log density of the dependent columns given the basis.

        Args:
            scaled: rows (n, d).

        Returns:
            (n,).
        """
        explained = scaled[:, self.basis] @ self.slope.T + self.intercept
        terms = (scaled[:, self.dependent] - explained) ** 2 / self.variance
        total: Array = -0.5 * (terms + np.log(2.0 * np.pi * self.variance)).sum(1)
        return total


def affine_columns(scaled: Array, weights: Array, regularization: float) -> AffineColumns | None:
    """Find the columns that are linear in columns before them.

    Args:
        scaled: rows (N, d) with mean zero and variance one, NaN where an entry is missing.
        weights: of the rows (N,).
        regularization: variance that is added to each component.

    Returns:
        The columns; None where there are none, entries are missing or rows are too few to tell.
    """
    n, d = scaled.shape
    if n < _ROWS_A_COLUMN * (d + 1) or not np.isfinite(scaled).all():
        return None
    root = np.sqrt(weights / weights.sum())[:, None]
    center = (weights / weights.sum()) @ scaled
    away = (scaled - center) * root
    least = _SHARE_OF_REGULARIZATION * regularization * (n - d) / n
    # the diagonal of R is what each column adds to those before it
    added = np.diagonal(np.linalg.qr(away, mode="r")) ** 2
    # a constant column has no variance that others could explain
    dependent = np.flatnonzero((added < least) & (np.einsum("nd,nd->d", away, away) > 0.5))
    if not dependent.size:
        return None
    basis = np.setdiff1d(np.arange(d), dependent)
    slope = np.linalg.lstsq(away[:, basis], away[:, dependent], rcond=None)[0].T
    left = away[:, dependent] - away[:, basis] @ slope.T
    variance = np.einsum("nd,nd->d", left, left) * n / (n - d)
    return AffineColumns(
        basis.tolist(),
        dependent.tolist(),
        slope,
        center[dependent] - slope @ center[basis],
        np.maximum(variance, _SMALLEST_VARIANCE),
    )
