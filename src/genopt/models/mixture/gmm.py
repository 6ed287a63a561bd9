"""Gaussian mixture: a `gmr.GMM` that conditions all queries at once and stays finite far from data.

Everything of gmr works on it; what computes densities is done in log space by triangular factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from genopt.errors import GenoptError
from genopt.models.mixture.conditionals import ConditionalBatch, Seed
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.conversions import parameters_of_gmr, parameters_of_sklearn
from genopt.models.mixture.densities import Densities
from genopt.models.mixture.gaussian import Gaussian
from genopt.models.mixture.names import Columns, checked_names, picked
from genopt.models.mixture.points import as_matrix, as_query, check_parameters
from genopt.models.mixture.regions import RegionBatch

if TYPE_CHECKING:
    from genopt.models.mixture.torch_mixture import TorchMixture


class GaussianMixture(Densities):
    """A mixture of Gaussians in p dimensions.

    Differences to gmr: arrays are copied, results are finite for every finite query, a near
    singular covariance gets a relative jitter with a warning, a component of prior zero never comes
    back, a confidence region holds the probability it claims, and without ``random_state`` the
    object has its own generator instead of numpy's global one. Columns may have names.

    Args:
        n_components: number of components k.
        priors: weights of the components (k,).
        means: (k, p).
        covariances: (k, p, p).
        verbose: verbosity of gmr's own ``from_samples``.
        random_state: seed or generator of ``sample``.
        names: names of the p columns, which then stand for their numbers.
        n_parameters: number of free parameters; None for that of full covariances.

    Raises:
        GenoptError: if shapes or names do not fit or the numbers are no mixture.

    Example:
        >>> gmm = GaussianMixture(1, [1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]])
        >>> float(gmm.condition([1], [[1.0]]).means[0, 0])
        0.5
        >>> named = GaussianMixture.from_gmr(gmm, names=["a", "b"])
        >>> named.condition("b", [1.0])
        GaussianMixture(1 component of a)
    """

    def __init__(
        self,
        n_components: int,
        priors: ArrayLike | None = None,
        means: ArrayLike | None = None,
        covariances: ArrayLike | None = None,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
        names: Sequence[str] | None = None,
        n_parameters: int | None = None,
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
        self._names = checked_names(names, None if self.means is None else self.dim)
        self._n_parameters, self._counted = n_parameters, np.array(self.covariances)

    def __repr__(self) -> str:
        some = f"{self.n_components} component{'s' if self.n_components > 1 else ''}"
        columns = ["?" if self.means is None else f"{self.dim} columns"]
        return f"GaussianMixture({some} of {', '.join(self.names or columns)})"

    # -- from and to other libraries ---------------------------------------------------------------
    @classmethod
    def from_gmr(cls, gmm: Any, names: Sequence[str] | None = None) -> GaussianMixture:
        """The same mixture as a `gmr.GMM`, with this class's answers.

        Args:
            gmm: the fitted mixture.
            names: names of its columns; None for those of ``gmm``, if it has any.

        Returns:
            The mixture; nothing is shared with ``gmm``.
        """
        return cls(**parameters_of_gmr(gmm, names))

    @classmethod
    def from_sklearn(cls, model: Any, names: Sequence[str] | None = None) -> GaussianMixture:
        """The same mixture as a fitted one of scikit-learn.

        Args:
            model: a ``GaussianMixture`` or ``BayesianGaussianMixture`` of any covariance type.
            names: names of its columns; None for those of the data frame it was fitted to, if any.

        Returns:
            The mixture; nothing is shared with ``model``.
        """
        return cls(**parameters_of_sklearn(model, names))

    def to_torch(self, seed: int = 0) -> TorchMixture:
        """The mixture as a torch distribution, differentiable through conditioning.

        Args:
            seed: seed of its draws.

        Returns:
            A ``MixtureSameFamily`` of the components that have a weight, float64.
        """
        from genopt.models.mixture.torch_mixture import TorchMixture  # torch takes long to import

        self._check_initialized()
        return TorchMixture.of(self.priors, self.means, self.covariances, seed, names=self.names)

    # -- conditionals ------------------------------------------------------------------------------
    def condition_batch(self, indices: Columns, X: ArrayLike) -> ConditionalBatch:
        """All conditionals p(free | given = X_c) at once.

        Args:
            indices: the q given columns, numbers or names.
            X: queries (C, q).

        Returns:
            The C conditional mixtures over the m = p - q free columns, in ascending order.

        Raises:
            GenoptError: if a column does not exist or X has another shape or is not finite.
        """
        given = self._columns(indices)
        queries = as_matrix(X, len(given), "X")
        free = [i for i in range(self.dim) if i not in given]
        return ConditionalBatch.of(
            self.conditioner(given), queries, self.random_state, picked(self.names, free)
        )

    def condition(self, indices: Columns, x: ArrayLike) -> GaussianMixture:
        """The conditional of one query.

        Args:
            indices: the q given columns, numbers or names.
            x: the query, (q,) or (1, q).

        Returns:
            The mixture over the other columns.

        Raises:
            GenoptError: if ``x`` is not one query.
        """
        given = self._columns(indices)
        return self.condition_batch(given, as_query(x, len(given))).component(0)

    def condition_region(
        self,
        indices: Columns,
        lower: ArrayLike,
        upper: ArrayLike,
        *,
        given: Columns = (),
        X: ArrayLike | None = None,
    ) -> RegionBatch:
        """Conditionals on columns that lie in intervals or on half-lines.

        Args:
            indices: the r columns confined, numbers or names.
            lower: lower ends, (r,) for all queries or (C, r); -inf for none.
            upper: upper ends alike; inf for none.
            given: q columns that are known exactly, numbers or names.
            X: their values (C, q); None where ``given`` is empty, which is one query.

        Returns:
            The conditionals over the p - q columns that are not given, in ascending order; the
            confined ones stay among them.

        Raises:
            GenoptError: if a column is named twice.
        """
        known, confined = self._columns(given, "given"), self._columns(indices)
        batch = self.condition_batch(known, np.empty((1, 0)) if X is None else X)
        free = [i for i in range(self.dim) if i not in known]
        if not set(confined) <= set(free):
            raise GenoptError(f"indices {confined} and given {known} name a column twice")
        return RegionBatch.of(batch, [free.index(i) for i in confined], lower, upper)

    def predict(self, indices: Columns, X: ArrayLike) -> Array:
        """Conditional means of many queries.

        Args:
            indices: the q given columns, numbers or names.
            X: queries (C, q).

        Returns:
            Means of the free columns (C, m).
        """
        given = self._columns(indices)
        return self.conditioner(given).predict(as_matrix(X, len(given), "X"))

    def marginal(self, indices: Columns) -> GaussianMixture:
        """The mixture of some columns, in the given order.

        Args:
            indices: the columns to keep, numbers or names.

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
            names=picked(self.names, kept),
        )

    # -- likelihoods and draws ---------------------------------------------------------------------
    def bic(self, X: ArrayLike) -> float:
        """Bayesian information criterion (lower is better).

        Args:
            X: points (N, p).

        Returns:
            -2 log likelihood + parameters * log N.
        """
        logs = self.log_prob(X)
        return float(-2.0 * logs.sum() + self.n_parameters * np.log(len(logs)))

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
        """Number of free parameters: those of the fit, else of full covariances."""
        # a later fit by gmr writes into the covariances and leaves all of them free
        if self._n_parameters is not None and np.array_equal(self._counted, self.covariances):
            return self._n_parameters
        return int(self.n_components) * (self.dim + 1) * (self.dim + 2) // 2 - 1

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

    def to_mvn(self) -> Gaussian:
        """The single Gaussian with the same mean and covariance.

        Returns:
            A `gmr.MVN` with the right confidence regions.
        """
        batch = self.condition_batch([], np.empty((1, 0)))
        return Gaussian(
            batch.mean()[0], batch.covariance()[0], self.verbose, self.random_state, self.names
        )

    def extract_mvn(self, component_idx: int) -> Gaussian:
        """One component.

        Args:
            component_idx: its number, from 0 to k - 1.

        Returns:
            A `gmr.MVN` with the right confidence regions.

        Raises:
            GenoptError: if there is no such component.
        """
        self._check_initialized()
        if not 0 <= component_idx < self.n_components:
            raise GenoptError(
                f"component_idx={component_idx} must lie between 0 and {self.n_components - 1}"
            )
        mean, covariance = self.means[component_idx], self.covariances[component_idx]
        return Gaussian(mean, covariance, self.verbose, self.random_state, self.names)
