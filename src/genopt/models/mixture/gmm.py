"""Gaussian mixture: a `gmr.GMM` that conditions all queries at once and stays finite far from data.

Everything of gmr works on it; what computes densities is done in log space by triangular factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gmr
import numpy as np
from numpy.typing import ArrayLike, NDArray

from genopt.errors import GenoptError
from genopt.models.mixture.conditionals import ConditionalBatch, Seed
from genopt.models.mixture.conditioning import Array, Conditioner


class GaussianMixture(gmr.GMM):
    """A mixture of Gaussians in p dimensions.

    Differences to gmr: arrays are copied, results are finite for every finite query, a near
    singular covariance gets a relative jitter with a warning, a component of prior zero never comes
    back, and without ``random_state`` the object has its own generator instead of numpy's global
    one.

    Args:
        n_components: number of components k.
        priors: weights of the components (k,).
        means: (k, p).
        covariances: (k, p, p).
        verbose: verbosity of gmr's own ``from_samples``.
        random_state: seed or generator of ``sample``.

    Raises:
        GenoptError: if shapes do not fit, a number is not finite or priors do not sum to one.

    Example:
        >>> gmm = GaussianMixture(1, [1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]])
        >>> float(gmm.condition([1], [[1.0]]).means[0, 0])
        0.5
    """

    def __init__(
        self,
        n_components: int,
        priors: ArrayLike | None = None,
        means: ArrayLike | None = None,
        covariances: ArrayLike | None = None,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        state = np.random.RandomState() if random_state is None else random_state
        super().__init__(
            n_components,
            priors=None if priors is None else np.array(priors, dtype=np.float64),
            means=None if means is None else np.array(means, dtype=np.float64),
            covariances=None if covariances is None else np.array(covariances, dtype=np.float64),
            verbose=verbose,
            random_state=state,
        )
        self._check_parameters()

    def _check_parameters(self) -> None:
        k = self.n_components
        if self.priors is not None:
            if self.priors.shape != (k,):
                raise GenoptError(f"priors has shape {self.priors.shape}; expected ({k},)")
            if not np.isfinite(self.priors).all() or (self.priors < 0).any():
                raise GenoptError("priors must be finite and not negative")
            if abs(self.priors.sum() - 1.0) > 1e-6:
                raise GenoptError(f"priors must sum to one, their sum is {self.priors.sum():.6g}")
        if self.means is not None:
            if self.means.ndim != 2 or len(self.means) != k:
                raise GenoptError(f"means has shape {self.means.shape}; expected ({k}, p)")
            if not np.isfinite(self.means).all():
                raise GenoptError("means must be finite numbers")
        if self.means is not None and self.covariances is not None:
            p = self.means.shape[1]
            if self.covariances.shape != (k, p, p):
                raise GenoptError(
                    f"covariances has shape {self.covariances.shape}; expected ({k}, {p}, {p})"
                )

    @property
    def dim(self) -> int:
        """Number of columns p."""
        self._check_initialized()
        return int(self.means.shape[1])

    # -- conditionals ------------------------------------------------------------------------------
    def conditioner(self, indices: ArrayLike) -> Conditioner:
        """What all conditionals on the same columns share.

        Args:
            indices: the q given columns.

        Returns:
            The factored mixture.
        """
        given = self._columns(indices)
        priors = np.asarray(self.priors, dtype=np.float64)
        return Conditioner.of(priors / priors.sum(), self.means, self.covariances, given)

    def _columns(self, indices: ArrayLike) -> list[int]:
        columns = np.asarray(indices, dtype=int).reshape(-1)
        if ((columns < -self.dim) | (columns >= self.dim)).any():
            raise GenoptError(f"indices {columns.tolist()} must lie between 0 and {self.dim - 1}")
        listed = [int(i) % self.dim for i in columns]
        if len(set(listed)) != len(listed):
            raise GenoptError(f"indices {columns.tolist()} name a column twice")
        return listed

    def condition_batch(self, indices: ArrayLike, X: ArrayLike) -> ConditionalBatch:
        """All conditionals p(free | given = X_c) at once.

        Args:
            indices: the q given columns.
            X: queries (C, q).

        Returns:
            The C conditional mixtures over the m = p - q free columns, in ascending order.

        Raises:
            GenoptError: if a column does not exist or X has another shape or is not finite.
        """
        given = self._columns(indices)
        queries = _matrix(X, len(given), "X")
        conditioner = self.conditioner(given)
        k, _, m = conditioner.slope.shape
        n = len(queries)
        weights, log_weights = np.empty((n, k)), np.empty((n, k))
        means, log_marginal = np.empty((n, k, m)), np.empty(n)
        for rows in conditioner.chunks(n):
            centered = conditioner.centered(queries[rows])
            weights[rows], log_weights[rows], log_marginal[rows] = conditioner.weigh(centered)
            means[rows] = conditioner.conditional_means(centered)
        return ConditionalBatch(
            weights=weights,
            log_weights=log_weights,
            means=means,
            covariances=conditioner.lower @ conditioner.lower.transpose(0, 2, 1),
            log_marginal=log_marginal,
            lower=conditioner.lower,
            whiten=conditioner.whiten_free,
            random_state=self.random_state,
        )

    def condition(self, indices: ArrayLike, x: ArrayLike) -> GaussianMixture:
        """The conditional of one query.

        Args:
            indices: the q given columns.
            x: the query, (q,) or (1, q).

        Returns:
            The mixture over the other columns.

        Raises:
            GenoptError: if ``x`` is not one query.
        """
        given = self._columns(indices)
        query = np.asarray(x, dtype=np.float64)
        if query.size != len(given):
            raise GenoptError(
                f"x has shape {query.shape}; expected ({len(given)},) or (1, {len(given)}): "
                "condition_batch takes many queries"
            )
        return self.condition_batch(given, query.reshape(1, len(given))).component(0)

    def predict(self, indices: ArrayLike, X: ArrayLike) -> Array:
        """Conditional means of many queries.

        Args:
            indices: the q given columns.
            X: queries (C, q).

        Returns:
            Means of the free columns (C, m).
        """
        given = self._columns(indices)
        queries = _matrix(X, len(given), "X")
        conditioner = self.conditioner(given)
        out = np.empty((len(queries), conditioner.slope.shape[2]))
        for rows in conditioner.chunks(len(queries)):
            centered = conditioner.centered(queries[rows])
            out[rows] = conditioner.mean(centered, conditioner.weigh(centered)[0])
        return out

    def marginal(self, indices: ArrayLike) -> GaussianMixture:
        """The mixture of some columns, in the given order.

        Args:
            indices: the columns to keep.

        Returns:
            Their marginal mixture.
        """
        kept = self._columns(indices)
        return GaussianMixture(
            self.n_components,
            self.priors,
            self.means[:, kept],
            self.covariances[:, kept][:, :, kept],
            verbose=self.verbose,
            random_state=self.random_state,
        )

    # -- densities ---------------------------------------------------------------------------------
    def _weigh(self, X: ArrayLike) -> tuple[Array, Array]:
        points = _matrix(X, self.dim, "X")
        conditioner = self.conditioner(list(range(self.dim)))
        weights, log_density = np.empty((len(points), self.n_components)), np.empty(len(points))
        for rows in conditioner.chunks(len(points)):
            weights[rows], _, log_density[rows] = conditioner.weigh(
                conditioner.centered(points[rows])
            )
        return weights, log_density

    def log_prob(self, X: ArrayLike) -> Array:
        """Log density.

        Args:
            X: points (N, p).

        Returns:
            (N,), never below the lowest finite number.
        """
        return self._weigh(X)[1]

    def to_responsibilities(self, X: ArrayLike) -> Array:
        """Posterior probability of each component.

        Args:
            X: points (N, p).

        Returns:
            (N, k), rows sum to one.
        """
        return self._weigh(X)[0]

    def to_probability_density(self, X: ArrayLike) -> Array:
        """Density; zero where it underflows.

        Args:
            X: points (N, p).

        Returns:
            (N,).
        """
        return np.exp(self.log_prob(X))

    def bic(self, X: ArrayLike) -> float:
        """Bayesian information criterion (lower is better).

        Args:
            X: points (N, p).

        Returns:
            -2 log likelihood + parameters * log N.
        """
        log_density = self.log_prob(X)
        return float(-2.0 * log_density.sum() + self.n_parameters * np.log(len(log_density)))

    def aic(self, X: ArrayLike) -> float:
        """Akaike information criterion (lower is better).

        Args:
            X: points (N, p).

        Returns:
            -2 log likelihood + 2 * parameters.
        """
        return float(-2.0 * self.log_prob(X).sum() + 2.0 * self.n_parameters)

    @property
    def n_parameters(self) -> int:
        """Number of free parameters of full covariances, means and priors."""
        p = self.dim
        return int(self.n_components) * (p + p * (p + 1) // 2) + int(self.n_components) - 1

    # -- samples -----------------------------------------------------------------------------------
    def sample(self, n_samples: int, random_state: Seed = None) -> Array:
        """Independent draws, in random order of the components.

        Args:
            n_samples: number of draws n.
            random_state: seed or generator; the object's own if None.

        Returns:
            (n, p).
        """
        batch = self.condition_batch([], np.empty((1, 0)))
        return batch.sample(n_samples, seed=random_state)[0]

    def to_mvn(self) -> Any:
        """The single Gaussian with the same mean and covariance.

        Returns:
            A `gmr.MVN`.
        """
        batch = self.condition_batch([], np.empty((1, 0)))
        return gmr.MVN(
            mean=batch.mean()[0],
            covariance=batch.covariance()[0],
            verbose=self.verbose,
            random_state=self.random_state,
        )


def _matrix(values: ArrayLike, width: int, name: str) -> Array:
    """A finite (N, width) matrix; a vector counts as rows of one column or as one row."""
    matrix: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if matrix.ndim == 1:
        matrix = matrix.reshape(-1, 1) if width == 1 else matrix.reshape(1, -1)
    if matrix.ndim != 2 or matrix.shape[1] != width:
        raise GenoptError(f"{name} has shape {np.shape(values)}; expected (N, {width})")
    if not np.isfinite(matrix).all():
        raise GenoptError(f"{name} must hold finite numbers, row {_first_bad(matrix)} does not")
    return matrix


def _first_bad(matrix: Array) -> Sequence[int] | int:
    return int(np.flatnonzero(~np.isfinite(matrix).all(1))[0])
