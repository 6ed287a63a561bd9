"""Gaussian mixture: a `gmr.GMM` that conditions all queries at once and stays finite far from data.

Everything of gmr works on it; what computes densities is done in log space by triangular factors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gmr
import numpy as np
from numpy.typing import ArrayLike

from genopt.errors import GenoptError
from genopt.models.mixture.conditionals import ConditionalBatch, Seed
from genopt.models.mixture.conditioning import Array, Conditioner
from genopt.models.mixture.confidence import draw_in_region, log_density_threshold
from genopt.models.mixture.conversions import parameters_of_gmr, parameters_of_sklearn
from genopt.models.mixture.points import as_matrix, check_parameters
from genopt.models.mixture.regions import RegionBatch

if TYPE_CHECKING:
    from genopt.models.mixture.torch_mixture import TorchMixture


class GaussianMixture(gmr.GMM):
    """A mixture of Gaussians in p dimensions.

    Differences to gmr: arrays are copied, results are finite for every finite query, a near
    singular covariance gets a relative jitter with a warning, a component of prior zero never comes
    back, a confidence region holds the probability it claims, and without ``random_state`` the
    object has its own generator instead of numpy's global one.

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
        check_parameters(n_components, self.priors, self.means, self.covariances)

    # -- from and to other libraries ---------------------------------------------------------------
    @classmethod
    def from_gmr(cls, gmm: Any) -> GaussianMixture:
        """The same mixture as a `gmr.GMM`, with this class's answers.

        Args:
            gmm: the fitted mixture.

        Returns:
            The mixture; nothing is shared with ``gmm``.
        """
        parameters = parameters_of_gmr(gmm)
        return cls(len(parameters[0]), *parameters)

    @classmethod
    def from_sklearn(cls, model: Any) -> GaussianMixture:
        """The same mixture as a fitted one of scikit-learn.

        Args:
            model: a ``GaussianMixture`` or ``BayesianGaussianMixture`` of any covariance type.

        Returns:
            The mixture; nothing is shared with ``model``.
        """
        parameters = parameters_of_sklearn(model)
        return cls(len(parameters[0]), *parameters)

    def to_torch(self, seed: int = 0) -> TorchMixture:
        """The mixture as a torch distribution, differentiable through conditioning.

        Args:
            seed: seed of its draws.

        Returns:
            A ``MixtureSameFamily`` of the components that have a weight, float64.
        """
        from genopt.models.mixture.torch_mixture import TorchMixture  # torch takes long to import

        self._check_initialized()
        return TorchMixture.of(self.priors, self.means, self.covariances, seed)

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
        queries = as_matrix(X, len(given), "X")
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

    def condition_region(
        self,
        indices: ArrayLike,
        lower: ArrayLike,
        upper: ArrayLike,
        *,
        given: ArrayLike = (),
        X: ArrayLike | None = None,
    ) -> RegionBatch:
        """Conditionals on columns that lie in intervals or on half-lines.

        Args:
            indices: the r columns confined.
            lower: lower ends, (r,) for all queries or (C, r); -inf for none.
            upper: upper ends alike; inf for none.
            given: q columns that are known exactly.
            X: their values (C, q); None where ``given`` is empty, which is one query.

        Returns:
            The conditionals over the p - q columns that are not given, in ascending order; the
            confined ones stay among them.

        Raises:
            GenoptError: if a column is named twice.
        """
        known, confined = self._columns(given), self._columns(indices)
        batch = self.condition_batch(known, np.empty((1, 0)) if X is None else X)
        free = [i for i in range(self.dim) if i not in known]
        if not set(confined) <= set(free):
            raise GenoptError(f"indices {confined} and given {known} name a column twice")
        return RegionBatch.of(batch, [free.index(i) for i in confined], lower, upper)

    def predict(self, indices: ArrayLike, X: ArrayLike) -> Array:
        """Conditional means of many queries.

        Args:
            indices: the q given columns.
            X: queries (C, q).

        Returns:
            Means of the free columns (C, m).
        """
        given = self._columns(indices)
        queries = as_matrix(X, len(given), "X")
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
        points = as_matrix(X, self.dim, "X")
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

    def is_in_confidence_region(self, x: ArrayLike, alpha: float) -> Any:
        """Whether points lie in the smallest region of probability alpha.

        Args:
            x: one point (p,) or points (N, p).
            alpha: probability of the region, such as .9.

        Returns:
            A bool for one point, else bool (N,).
        """
        points = as_matrix(x, self.dim, "x")
        inside = self.log_prob(points) >= log_density_threshold(self, alpha)
        one = np.ndim(x) == 1 and len(points) == 1
        return bool(inside[0]) if one else inside

    def sample_confidence_region(
        self, n_samples: int, alpha: float, random_state: Seed = None
    ) -> Array:
        """Independent draws in the smallest region of probability alpha.

        Args:
            n_samples: number of draws n.
            alpha: probability of the region.
            random_state: seed or generator; the object's own if None.

        Returns:
            (n, p).
        """
        seed = self.random_state if random_state is None else random_state
        return draw_in_region(self, n_samples, alpha, seed)

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
