"""EM for one number of components.

Scikit-learn's runs on complete rows that count alike, our own where entries miss or rows have
weights. Columns that are exact linear functions of others are left to `AffineColumns`.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genopt.models.mixture.affine import AffineColumns
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.covariances import n_parameters
from genopt.models.mixture.em import (
    Components,
    EmOptions,
    Fitted,
    GappyRows,
    expectation_maximization,
)

_SINGLE_THREAD_SIZE = 500_000
_SINGLE_TOLERANCE = 1e-4


class Fitter:
    """Fits mixtures to the same rows, again and again.

    Args:
        scaled: rows (N, d) of about unit scale, NaN where an entry is missing.
        weights: how many rows each row counts for (N,); None for one.
        affine: columns that are linear in others; None where none is.
    """

    def __init__(
        self, scaled: Array, weights: Array | None = None, affine: AffineColumns | None = None
    ) -> None:
        self._every = scaled
        scaled = scaled if affine is None else scaled[:, affine.basis]
        self.scaled = scaled
        self.weights = np.ones(len(scaled)) if weights is None else weights
        self.affine = affine
        self.complete = bool(np.isfinite(scaled).all())
        self._alike = bool((self.weights == self.weights[0]).all())
        # a value that no scaled row reaches stands for a gap
        distinct = np.unique(np.nan_to_num(scaled, nan=1e300), axis=0)
        self.most_components = len(distinct)
        self._single: Fitted | None = None
        self._filled: Array | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows N."""
        return len(self.scaled)

    def n_parameters(self, n: int, kind: str) -> int:
        """Number of free parameters.

        Args:
            n: number of components.
            kind: of their covariances.

        Returns:
            Those of the mixture and of the linear map.
        """
        own = n_parameters(n, self.scaled.shape[1], kind)
        return own if self.affine is None else own + self.affine.n_parameters

    def log_density(self, rows: NDArray[np.intp], components: Components) -> Array:
        """Log density of the observed entries of some of the rows.

        Args:
            rows: their numbers (n,).
            components: the mixture of all columns.

        Returns:
            (n,).
        """
        if self.affine is None:
            return GappyRows(self.scaled[rows], len(components.weights)).log_prob(components)
        reduced = self.affine.reduced(components)
        own = GappyRows(self.scaled[rows], len(components.weights)).log_prob(reduced)
        return own + self.affine.log_density(self._every[rows])

    def without(self, rows: NDArray[np.intp]) -> Fitter:
        """The same for the other rows.

        Args:
            rows: numbers of the rows to leave out.

        Returns:
            A new object.
        """
        kept = np.delete(np.arange(self.n_rows), rows)
        return Fitter(self._every[kept], self.weights[kept], self.affine)

    def fit(self, n: int, options: EmOptions, start: Components | None = None) -> Fitted:
        """EM for n components.

        The start is k-means: on the rows, or on rows whose gaps are filled by the conditional means
        of one Gaussian.

        Args:
            n: number of components.
            options: how to run it.
            start: parameters to start from, in one run.

        Returns:
            The parameters and their likelihood.
        """
        from threadpoolctl import threadpool_limits

        if start is not None and self.affine is not None:
            start = self.affine.reduced(start)
        # scikit-learn's would move a component without weight
        dead = start is not None and bool((start.weights == 0.0).any())
        with threadpool_limits(1 if self.scaled.size < _SINGLE_THREAD_SIZE else None):
            run = self._scikit if self.complete and self._alike and not dead else self._own
            fitted = run(n, options, start)
        if self.affine is None:
            return fitted
        explained = float(self.weights @ self.affine.log_density(self._every))
        return replace(
            fitted,
            components=self.affine.expanded(fitted.components),
            log_likelihood=fitted.log_likelihood + explained,
        )

    def _scikit(self, n: int, options: EmOptions, start: Components | None) -> Fitted:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as ScikitMixture

        kind = options.covariance
        model: Any = ScikitMixture(
            n,
            covariance_type=kind,
            n_init=1 if start is not None else options.n_init,
            random_state=options.seed,
            reg_covar=options.regularization,
            tol=options.tolerance,
            max_iter=options.max_iterations,
            weights_init=None if start is None else start.weights,
            means_init=None if start is None else start.means,
            precisions_init=None if start is None else _inverses(start, kind),
        )
        with warnings.catch_warnings():
            # reported in MixtureFit.converged and the log
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(self.scaled)
        covariances = model.covariances_
        if kind == "tied":
            covariances = np.repeat(covariances[None], n, axis=0)
        elif kind == "diag":
            covariances = covariances[:, :, None] * np.eye(self.scaled.shape[1])
        components = Components(model.weights_, model.means_, covariances)
        log_likelihood = float(model.score(self.scaled)) * float(self.weights.sum())
        return Fitted(components, log_likelihood, bool(model.converged_))

    def _own(self, n: int, options: EmOptions, start: Components | None) -> Fitted:
        rows = GappyRows(self.scaled, n, self.weights)
        if start is not None:
            return expectation_maximization(rows, start, options)
        single = self._one_gaussian(
            replace(options, tolerance=_SINGLE_TOLERANCE, covariance="full")
        )
        if n == 1:
            return expectation_maximization(rows, single.components, options)
        state = np.random.RandomState(options.seed)
        starts = [
            self._clustered(rows, n, single.components, state, options)
            for _ in range(options.n_init)
        ]
        runs = [expectation_maximization(rows, each, options) for each in starts]
        return max(runs, key=lambda run: run.log_likelihood)

    def _one_gaussian(self, options: EmOptions) -> Fitted:
        """One Gaussian from uncorrelated columns on, the base of all starts."""
        if self._single is None:
            d = self.scaled.shape[1]
            # scaled columns have mean zero and variance one
            start = Components(np.ones(1), np.zeros((1, d)), np.eye(d)[None])
            rows = GappyRows(self.scaled, weights=self.weights)
            self._single = expectation_maximization(rows, start, options)
            self._filled = rows.filled(self._single.components)
        return self._single

    def _clustered(
        self,
        rows: GappyRows,
        n: int,
        single: Components,
        state: np.random.RandomState,
        options: EmOptions,
    ) -> Components:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # fewer clusters than asked for leave components without weight
            warnings.simplefilter("ignore", ConvergenceWarning)
            clusters = KMeans(n, n_init=1, random_state=state)
            labels = clusters.fit(self._filled, sample_weight=self.weights).labels_
        flat = Components(
            np.full(n, 1.0 / n),
            np.repeat(single.means, n, axis=0),
            np.repeat(single.covariances, n, axis=0),
        )
        return rows.improve(flat, options.regularization, np.eye(n)[labels], options.covariance)[0]


def _inverses(start: Components, kind: str) -> Array:
    """Inverses of covariances in scikit-learn's shape of a kind, exactly symmetric."""
    covariances = start.shaped(kind).covariances
    if kind == "diag":
        return 1.0 / np.diagonal(covariances, axis1=1, axis2=2)
    inverses = np.linalg.inv(covariances).astype(np.float64)
    inverses = 0.5 * (inverses + inverses.transpose(0, 2, 1))
    return inverses[0] if kind == "tied" else inverses
