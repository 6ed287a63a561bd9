"""EM for one number of components: scikit-learn's on complete rows, our own where entries miss."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from genopt.models.mixture.conditioning import Array
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
    """

    def __init__(self, scaled: Array) -> None:
        self.scaled = scaled
        self.complete = bool(np.isfinite(scaled).all())
        # a value that no scaled row reaches stands for a gap
        distinct = np.unique(np.nan_to_num(scaled, nan=1e300), axis=0)
        self.most_components = len(distinct)
        self._single: Fitted | None = None
        self._filled: Array | None = None

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

        with threadpool_limits(1 if self.scaled.size < _SINGLE_THREAD_SIZE else None):
            if self.complete:
                return self._scikit(n, options, start)
            return self._own(n, options, start)

    def _scikit(self, n: int, options: EmOptions, start: Components | None) -> Fitted:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as ScikitMixture

        model: Any = ScikitMixture(
            n,
            n_init=1 if start is not None else options.n_init,
            random_state=options.seed,
            reg_covar=options.regularization,
            tol=options.tolerance,
            max_iter=options.max_iterations,
            weights_init=None if start is None else start.weights,
            means_init=None if start is None else start.means,
            precisions_init=None if start is None else _inverses(start.covariances),
        )
        with warnings.catch_warnings():
            # reported in MixtureFit.converged and the log
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(self.scaled)
        components = Components(model.weights_, model.means_, model.covariances_)
        log_likelihood = float(model.score(self.scaled)) * len(self.scaled)
        return Fitted(components, log_likelihood, bool(model.converged_))

    def _own(self, n: int, options: EmOptions, start: Components | None) -> Fitted:
        rows = GappyRows(self.scaled, n)
        if start is not None:
            return expectation_maximization(rows, start, options)
        single = self._one_gaussian(replace(options, tolerance=_SINGLE_TOLERANCE))
        if n == 1:
            return expectation_maximization(rows, single.components, options)
        state = np.random.RandomState(options.seed)
        starts = [
            self._clustered(rows, n, single.components, state, options.regularization)
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
            rows = GappyRows(self.scaled)
            self._single = expectation_maximization(rows, start, options)
            self._filled = rows.filled(self._single.components)
        return self._single

    def _clustered(
        self,
        rows: GappyRows,
        n: int,
        single: Components,
        state: np.random.RandomState,
        regularization: float,
    ) -> Components:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            # fewer clusters than asked for leave components without weight
            warnings.simplefilter("ignore", ConvergenceWarning)
            labels = KMeans(n, n_init=1, random_state=state).fit(self._filled).labels_
        flat = Components(
            np.full(n, 1.0 / n),
            np.repeat(single.means, n, axis=0),
            np.repeat(single.covariances, n, axis=0),
        )
        return rows.improve(flat, regularization, np.eye(n)[labels])[0]


def _inverses(covariances: Array) -> Array:
    """Inverses (k, d, d), exactly symmetric."""
    inverses = np.linalg.inv(covariances).astype(np.float64)
    return 0.5 * (inverses + inverses.transpose(0, 2, 1))
