"""EM for one number of components, from clusters or from fewer components.

Columns that are exact linear functions of others are left to `AffineColumns`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from genopt.models.mixture.affine import AffineColumns
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.covariances import n_parameters
from genopt.models.mixture.em import Components, EmOptions, Fitted, Index, expectation_maximization
from genopt.models.mixture.observed import (
    ObservedRows,
    observed_log_prob,
    smallest_variance,
    squared_error,
)
from genopt.models.mixture.parallel import in_parallel
from genopt.models.mixture.splits import split_components

_SINGLE_TOLERANCE = 1e-4
_EACH_TO_ITS_END = 10
_HEATS = 15
_EARLY_STEPS = 10
# a component cut from fewer rows is likelier than it is right: designs and predictions get worse
_ROWS_A_PARAMETER = 2


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
        self.most_components = _n_distinct(scaled)
        self._rows: tuple[tuple[int, float, bool], ObservedRows] | None = None
        self._single: Components | None = None
        self._filled = scaled
        self._last: Components | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows N."""
        return len(self.scaled)

    @property
    def width(self) -> int:
        """Number of columns that EM sees."""
        return int(self.scaled.shape[1])

    def n_parameters(self, n: int, kind: str, rank: int | None = None) -> int:
        """Number of free parameters.

        Args:
            n: number of components.
            kind: of their covariances.
            rank: number of factors, of the kind that has them.

        Returns:
            Those of the mixture and of the linear map.
        """
        own = n_parameters(n, self.scaled.shape[1], kind, rank)
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
            return observed_log_prob(self.scaled[rows], components)
        reduced = self.affine.reduced(components)
        own = observed_log_prob(self.scaled[rows], reduced)
        return own + self.affine.log_density(self._every[rows])

    def squared_errors(self, rows: NDArray[np.intp], components: Components) -> Array:
        """How far entries are from their means given the other entries of their rows.

        Args:
            rows: their numbers (n,).
            components: the mixture of all columns.

        Returns:
            The squares (n, d), of the columns that EM sees; NaN where an entry is missing.
        """
        own = components if self.affine is None else self.affine.reduced(components)
        data = self.scaled[rows]
        return np.stack([squared_error(data, own, i) for i in range(self.width)], 1)

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

        It starts from k-means, on rows whose gaps are filled by the conditional means of one
        Gaussian, and from the last, smaller mixture where there is one, some components cut in two
        that have rows enough.

        Args:
            n: number of components.
            options: how to run it.
            start: parameters to start from instead.

        Returns:
            The parameters and their likelihood.
        """
        if start is not None and self.affine is not None:
            start = self.affine.reduced(start)
        if start is not None:
            fitted = self._run(start, options)
        else:
            starts = self._clustered(n, options) + self._grown(n, options)
            fitted = self._likeliest(starts, options)
            self._last = fitted.components
        return self._completed(fitted)

    def _completed(self, fitted: Fitted) -> Fitted:
        """The same with the columns that are linear in others."""
        if self.affine is None:
            return fitted
        explained = float(self.weights @ self.affine.log_density(self._every))
        return replace(
            fitted,
            components=self.affine.expanded(fitted.components),
            log_likelihood=fitted.log_likelihood + explained,
        )

    def from_clusters(self, n: int, options: EmOptions) -> Fitted:
        """The same from clusters alone, whatever was fitted before.

        Args:
            n: number of components.
            options: how to run it.

        Returns:
            The parameters and their likelihood.
        """
        return self._completed(self._likeliest(self._clustered(n, options), options))

    def _likeliest(self, starts: list[Components], options: EmOptions) -> Fitted:
        """Where EM ends from the best start; of large mixtures only the leader runs to its end."""
        if len(starts) > 1 and len(starts[0].weights) > _EACH_TO_ITS_END:
            short = replace(options, max_iterations=min(_HEATS, options.max_iterations))
            runs = in_parallel(lambda each: self._run(each, short), starts, options.n_jobs)
            leader = max(runs, key=lambda run: run.log_likelihood)
            if leader.converged:
                return leader
            starts = [leader.components]
        runs = in_parallel(lambda each: self._run(each, options), starts, options.n_jobs)
        return max(runs, key=lambda run: run.log_likelihood)

    def _run(self, start: Components, options: EmOptions) -> Fitted:
        # a mixture from elsewhere may be narrower than any that is fitted here
        narrow = smallest_variance(start) < 0.5 * options.regularization
        smallest = smallest_variance(start) if narrow else options.regularization
        rows = self._observed(len(start.weights), smallest, options.covariance == "diag")
        return expectation_maximization(rows, start, options)

    def _observed(self, n: int, smallest: float, diagonal: bool) -> ObservedRows:
        key = (1 if self.complete else n, smallest, diagonal)
        last = self._rows
        if last is not None and last[0] == key:
            return last[1]
        rows = ObservedRows(
            self.scaled,
            self.weights,
            n_components=n,
            smallest_variance=smallest,
            diagonal=diagonal,
        )
        self._rows = key, rows
        return rows

    def _clustered(self, n: int, options: EmOptions) -> list[Components]:
        single = self._one_gaussian(options)
        rows = self._observed(n, options.regularization, options.covariance == "diag")
        if n == 1:
            everything = np.zeros(self.n_rows, dtype=np.intp)
            return [rows.moments(single, everything).likeliest(single, options)]
        flat = Components(
            np.full(n, 1.0 / n),
            np.repeat(single.means, n, axis=0),
            np.repeat(single.covariances, n, axis=0),
        )
        state = np.random.RandomState(options.seed)
        starts = []
        for _ in range(options.n_init):
            labels = self._clusters(n, state)
            starts.append(rows.moments(flat, labels).likeliest(flat, options))
        return starts

    def _grown(self, n: int, options: EmOptions) -> list[Components]:
        last = self._last
        if last is None or not len(last.weights) < n <= 2 * len(last.weights):
            return []
        rows = self._observed(n, options.regularization, options.covariance == "diag")
        filled, labels = rows.expected(last)
        grown = split_components(
            filled,
            labels,
            self.weights,
            last,
            n,
            options.regularization,
            _ROWS_A_PARAMETER * self.parameters_a_component(options),
        )
        return [] if grown is None else [grown]

    def parameters_a_component(self, options: EmOptions) -> int:
        """What one more component adds.

        Args:
            options: kind of the covariances.

        Returns:
            The number of its free parameters.
        """
        one, two = (
            n_parameters(k, self.scaled.shape[1], options.covariance, options.n_factors)
            for k in (1, 2)
        )
        return two - one

    def _one_gaussian(self, options: EmOptions) -> Components:
        """One Gaussian, the base of all starts: that of rows with gaps, else a round one."""
        if self._single is None:
            d = self.scaled.shape[1]
            # scaled columns have mean zero and variance one
            start = Components(np.ones(1), np.zeros((1, d)), np.eye(d)[None])
            coarse = replace(options, tolerance=_SINGLE_TOLERANCE, covariance="full")
            rows = self._observed(1, options.regularization, False)
            if options.covariance == "factors":
                # full covariances overfit few rows of many columns in the end, not at once
                early = replace(coarse, max_iterations=_EARLY_STEPS)
                start = expectation_maximization(rows, start, early).components
                coarse = replace(coarse, covariance="factors")
            single = expectation_maximization(rows, start, coarse).components
            if not self.complete:
                self._filled = rows.expected(single)[0]
            # last, so that another thread finds the rows filled
            self._single = single
        return self._single

    def _clusters(self, n: int, state: np.random.RandomState) -> Index:
        from sklearn.cluster import KMeans

        alike = bool((self.weights == self.weights[0]).all())
        clusters = KMeans(n, n_init=1, random_state=state)
        clusters.fit(self._filled, sample_weight=None if alike else self.weights)
        labels: Index = clusters.labels_.astype(np.intp)
        return labels


def _n_distinct(scaled: Array) -> int:
    """Number of distinct rows."""
    # a value that no scaled row reaches stands for a gap; adding zero takes the sign from -0
    bits = (np.nan_to_num(scaled, nan=1e300) + 0.0).view(np.uint64)
    odd = np.random.default_rng(0).integers(0, 1 << 63, scaled.shape[1], dtype=np.uint64) * 2 + 1
    # the bits of whole numbers are zero at the low end, so the high ones are folded down
    return len(np.unique(((bits ^ (bits >> np.uint64(29))) * odd).sum(1, dtype=np.uint64)))
