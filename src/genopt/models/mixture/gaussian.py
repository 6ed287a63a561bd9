"""One Gaussian: a `gmr.MVN` whose confidence regions hold what they claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gmr
import numpy as np
from numpy.typing import ArrayLike

from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.names import Columns, checked_names, column_numbers, picked

if TYPE_CHECKING:
    from genopt.models.mixture.gmm import GaussianMixture


class Gaussian(gmr.MVN):
    """A Gaussian in p dimensions.

    Differences to gmr: the region of probability alpha is bounded by the quantile of the chi-square
    law with p degrees of freedom (gmr takes p - 1, and for p = 1 the variance as a deviation), the
    density is exact where the determinant is tiny or huge, conditionals are positive definite, and
    without ``random_state`` the object has its own generator instead of numpy's global one.

    Args:
        mean: (p,).
        covariance: (p, p).
        verbose: verbosity, as in gmr.
        random_state: seed or generator of ``sample``.
        names: names of the columns, which then stand for their numbers.

    Raises:
        GenoptError: if names do not fit the columns.

    Example:
        >>> gaussian = Gaussian([0.0], [[4.0]])
        >>> bool(gaussian.is_in_confidence_region([1.9], 0.6827))
        True
        >>> bool(gaussian.is_in_confidence_region([2.1], 0.6827))
        False
    """

    def __init__(
        self,
        mean: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            mean=None if mean is None else np.array(mean, dtype=np.float64),
            covariance=None if covariance is None else np.array(covariance, dtype=np.float64),
            verbose=verbose,
            random_state=np.random.RandomState() if random_state is None else random_state,
        )
        self.names = checked_names(names, None if mean is None else len(self.mean))

    def _mixture(self) -> GaussianMixture:
        """The same law as a mixture of one component."""
        from genopt.models.mixture.gmm import GaussianMixture  # the two classes make each other

        self._check_initialized()
        covariance = np.reshape(self.covariance, (1, len(self.mean), len(self.mean)))
        return GaussianMixture(
            1, [1.0], self.mean[None], covariance, random_state=self.random_state, names=self.names
        )

    def log_prob(self, X: ArrayLike) -> Array:
        """Log density.

        Args:
            X: points (N, p).

        Returns:
            (N,).
        """
        return self._mixture().log_prob(X)

    def to_probability_density(self, X: ArrayLike) -> Array:
        """Density; zero where it underflows.

        Args:
            X: points (N, p).

        Returns:
            (N,).
        """
        return self._mixture().to_probability_density(X)

    def to_norm_factor_and_exponents(self, X: ArrayLike) -> tuple[float, Array]:
        """The density as a factor times the exponential of an exponent.

        Args:
            X: points (N, p).

        Returns:
            The factor, infinite where it overflows, and the exponents (N,).
        """
        mixture = self._mixture()
        peak = float(mixture.log_prob(self.mean[None])[0])
        with np.errstate(over="ignore"):
            return float(np.exp(peak)), mixture.log_prob(X) - peak

    def is_in_confidence_region(self, x: ArrayLike, alpha: float) -> Any:
        """Whether points lie in the region of probability alpha.

        Args:
            x: one point (p,) or points (N, p).
            alpha: probability of the region, such as .9.

        Returns:
            A bool for one point, else bool (N,).
        """
        return self._mixture().is_in_confidence_region(x, alpha)

    def sample_confidence_region(self, n_samples: int, alpha: float) -> Array:
        """Independent draws in the region of probability alpha.

        Args:
            n_samples: number of draws n.
            alpha: probability of the region.

        Returns:
            (n, p).
        """
        return self._mixture().sample_confidence_region(n_samples, alpha)

    def marginalize(self, indices: Columns) -> Gaussian:
        """The law of some columns.

        Args:
            indices: the columns to keep, numbers or names.

        Returns:
            Their Gaussian.
        """
        self._check_initialized()
        kept = column_numbers(indices, len(self.mean), self.names)
        return Gaussian(
            self.mean[kept],
            self.covariance[np.ix_(kept, kept)],
            random_state=self.random_state,
            names=picked(self.names, kept),
        )

    def condition(self, indices: Columns, x: ArrayLike) -> Gaussian:
        """The law of the other columns.

        Args:
            indices: the q given columns, numbers or names.
            x: their values (q,).

        Returns:
            The conditional Gaussian.
        """
        return self._mixture().condition(indices, x).extract_mvn(0)

    def predict(self, indices: Columns, X: ArrayLike) -> tuple[Array, Array]:
        """Conditional means of many queries and their one covariance.

        Args:
            indices: the q given columns, numbers or names.
            X: queries (C, q).

        Returns:
            Means (C, m) and the covariance (m, m).
        """
        batch = self._mixture().condition_batch(indices, X)
        return batch.mean(), batch.covariances[0]

    def estimate_from_sigma_points(self, *args: Any, **kwargs: Any) -> Gaussian:
        """The Gaussian of transformed sigma points.

        Args:
            *args: as in gmr.
            **kwargs: as in gmr.

        Returns:
            The transformed Gaussian.
        """
        found = super().estimate_from_sigma_points(*args, **kwargs)
        return Gaussian(found.mean, found.covariance, random_state=found.random_state)
