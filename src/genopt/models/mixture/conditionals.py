"""The C conditional mixtures of one batch of queries: moments, draws, densities, quantiles."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genopt.errors import GenoptError
from genopt.models.mixture.conditioning import LOWEST, Array, Conditioner, log_mixture
from genopt.models.mixture.modes_search import ConditionalModes, find_modes
from genopt.models.mixture.names import one_column
from genopt.models.mixture.quantiles import mixture_cdf, mixture_quantiles

if TYPE_CHECKING:
    from genopt.models.mixture.gmm import GaussianMixture

Seed = int | np.random.RandomState | np.random.Generator | None
_LARGEST_DEVIATION = 1e150


@dataclass(frozen=True, eq=False)
class ConditionalBatch:
    """C conditional mixtures; a component's covariance is the same for all queries.

    Args:
        weights: (C, k), rows sum to one.
        log_weights: (C, k); -inf for a dead component.
        means: (C, k, m).
        covariances: (k, m, m).
        log_marginal: (C,) log density of the given values.
        lower: Cholesky factors of ``covariances`` (k, m, m).
        whiten: inverses of ``lower`` (k, m, m).
        random_state: generator of ``sample`` where no seed is given.
        names: names of the m free columns; None where they have none.
    """

    weights: Array
    log_weights: Array
    means: Array
    covariances: Array
    log_marginal: Array
    lower: Array = field(repr=False)
    whiten: Array = field(repr=False)
    random_state: np.random.RandomState = field(repr=False)
    names: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        conditioner: Conditioner,
        queries: Array,
        random_state: np.random.RandomState,
        names: tuple[str, ...] | None = None,
    ) -> ConditionalBatch:
        """The conditionals of some queries.

        Args:
            conditioner: the mixture, factored for the given columns.
            queries: values of the given columns (C, q).
            random_state: generator of ``sample`` where no seed is given.
            names: names of the m free columns.

        Returns:
            The C conditionals.
        """
        k, _, m = conditioner.slope.shape
        n = len(queries)
        weights, log_weights = np.empty((n, k)), np.empty((n, k))
        means, log_marginal = np.empty((n, k, m)), np.empty(n)
        for rows in conditioner.chunks(n):
            centered = conditioner.centered(queries[rows])
            weights[rows], log_weights[rows], log_marginal[rows] = conditioner.weigh(centered)
            means[rows] = conditioner.conditional_means(centered)
        return cls(
            weights=weights,
            log_weights=log_weights,
            means=means,
            covariances=conditioner.lower @ conditioner.lower.transpose(0, 2, 1),
            log_marginal=log_marginal,
            lower=conditioner.lower,
            whiten=conditioner.whiten_free,
            random_state=random_state,
            names=names,
        )

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def far(self) -> NDArray[np.bool_]:
        """Queries (C,) beyond the range of numbers: the nearest component alone answers them."""
        return np.asarray(self.log_marginal <= LOWEST)

    def mean(self) -> Array:
        """Mean of each conditional, (C, m)."""
        return np.einsum("ck,ckm->cm", self.weights, self.means)

    def covariance(self) -> Array:
        """Covariance of each conditional, (C, m, m): within and between the components."""
        deviation = (self.means - self.mean()[:, None]).clip(
            -_LARGEST_DEVIATION, _LARGEST_DEVIATION
        )
        weighted = self.weights[:, :, None] * deviation
        between: Array = weighted.transpose(0, 2, 1) @ deviation
        return between + np.einsum("ck,kij->cij", self.weights, self.covariances)

    def take(self, rows: ArrayLike) -> ConditionalBatch:
        """The conditionals of some of the queries.

        Args:
            rows: their numbers (C',).

        Returns:
            The smaller batch.
        """
        index = np.asarray(rows, dtype=np.intp)
        return replace(
            self,
            weights=self.weights[index],
            log_weights=self.log_weights[index],
            means=self.means[index],
            log_marginal=self.log_marginal[index],
        )

    def component(self, c: int) -> GaussianMixture:
        """The conditional of one query as a mixture of its own.

        Args:
            c: which query.

        Returns:
            The mixture over the m free columns.
        """
        from genopt.models.mixture.gmm import GaussianMixture  # the two classes make each other

        return GaussianMixture(
            self.weights.shape[1],
            self.weights[c],
            self.means[c],
            self.covariances,
            random_state=self.random_state,
            names=self.names,
        )

    def sample(self, n: int, seed: Seed = None) -> Array:
        """Independent draws of every conditional.

        Args:
            n: draws per query.
            seed: seed or generator; the mixture's own generator if None.

        Returns:
            (C, n, m).
        """
        rng = generator_from(self.random_state if seed is None else seed)
        count, k, m = self.means.shape
        cumulative = self.weights.cumsum(1)
        cumulative /= cumulative[:, -1:]
        uniform = rng.random((count, n))
        chosen = np.zeros((count, n), dtype=np.intp)
        for j in range(k - 1):
            chosen += uniform >= cumulative[:, j, None]
        noise = rng.standard_normal((count, n, m))
        out = np.take_along_axis(self.means, chosen[:, :, None], axis=1)
        for j in np.unique(chosen):
            rows = chosen == j
            out[rows] += noise[rows] @ self.lower[j].T
        return out

    def log_prob(self, Y: ArrayLike) -> Array:
        """Log density of points under their conditional.

        Args:
            Y: one point a query (C, m), or n points each (C, n, m).

        Returns:
            (C,) or (C, n).

        Raises:
            GenoptError: if the shape does not fit or a number is not finite.
        """
        count, k, m = self.means.shape
        points = np.asarray(Y, dtype=np.float64)
        if points.ndim not in (2, 3) or len(points) != count or points.shape[-1] != m:
            raise GenoptError(
                f"Y has shape {points.shape}; expected ({count}, {m}) or ({count}, n, {m})"
            )
        if not np.isfinite(points).all():
            raise GenoptError("Y must hold finite numbers")
        stacked = points.reshape(count, -1, m)
        log_scale = np.log(np.abs(np.diagonal(self.whiten, axis1=1, axis2=2))).sum(1)
        coefficient = self.log_weights + log_scale - 0.5 * m * np.log(2.0 * np.pi)
        out = np.empty(stacked.shape[:2])
        step = max(1, (1 << 20) // max(1, stacked.shape[1] * k * m))
        for start in range(0, count, step):
            rows = slice(start, start + step)
            away = stacked[rows, :, None, :] - self.means[rows, None]
            whitened = np.einsum("kij,cnkj->cnik", self.whiten, away, optimize=True)
            terms = np.repeat(coefficient[rows], stacked.shape[1], axis=0)
            density = log_mixture(whitened.reshape(-1, m, k), terms)[2]
            out[rows] = density.reshape(-1, stacked.shape[1])
        return out.reshape(points.shape[:-1])

    def cdf(self, values: ArrayLike, column: int | str = 0) -> Array:
        """Probability of one free column below some values.

        Args:
            values: n values for all queries (n,), or for each (C, n).
            column: which of the m free columns, its number among them or its name.

        Returns:
            (C, n).

        Raises:
            GenoptError: if the shape does not fit or the column does not exist.
        """
        points = np.asarray(values, dtype=np.float64)
        if points.ndim < 2:
            points = np.broadcast_to(points.reshape(1, -1), (len(self), points.size))
        if points.ndim != 2 or len(points) != len(self):
            raise GenoptError(f"values has shape {points.shape}; expected (n,) or ({len(self)}, n)")
        return mixture_cdf(points, *self._column(column))

    def quantile(self, levels: ArrayLike, column: int | str = 0) -> Array:
        """Exact quantiles of one free column, by bisection.

        Args:
            levels: probabilities, one or (Q,).
            column: which of the m free columns, its number among them or its name.

        Returns:
            (C, Q).
        """
        return mixture_quantiles(levels, *self._column(column))

    def _column(self, column: int | str) -> tuple[Array, Array, Array]:
        """Weights (C, k), means (C, k) and deviations (k,) of one free column."""
        number = one_column(column, self.means.shape[2], self.names)
        deviations = np.linalg.norm(self.lower[:, number], axis=1)
        return self.weights, self.means[:, :, number], deviations

    def modes(self) -> ConditionalModes:
        """The peaks of each conditional density.

        Returns:
            Those to which the mean of a component leads, with the share of the probability that
            climbs there. In more than one dimension a mixture can have further ones.
        """
        return find_modes(self.log_weights, self.means, self.whiten)


def generator_from(seed: Seed) -> np.random.Generator:
    """A numpy Generator.

    Args:
        seed: a seed, a generator, which is returned, or a RandomState, a draw of which is the seed.

    Returns:
        The generator.
    """
    if isinstance(seed, np.random.RandomState):
        return np.random.default_rng(seed.randint(0, 2**32, size=4, dtype=np.uint32))
    return np.random.default_rng(seed)
