"""Densities of a mixture, in log space: of points, of components, of confidence regions."""

from __future__ import annotations

from typing import Any

import gmr
import numpy as np
from numpy.typing import ArrayLike

from genopt.models.mixture.conditionals import Seed
from genopt.models.mixture.conditioning import Array, Conditioner
from genopt.models.mixture.confidence import draw_in_region, log_density_threshold
from genopt.models.mixture.names import Columns, column_numbers
from genopt.models.mixture.points import as_matrix


class Densities(gmr.GMM):
    """A `gmr.GMM` whose densities are finite for every finite point."""

    _names: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the columns; None where they have none."""
        return self._names

    @property
    def dim(self) -> int:
        """Number of columns p."""
        self._check_initialized()
        return int(self.means.shape[1])

    def conditioner(self, indices: Columns) -> Conditioner:
        """What all conditionals on the same columns share.

        Args:
            indices: the q given columns, numbers or names.

        Returns:
            The factored mixture.
        """
        given = self._columns(indices)
        priors = np.asarray(self.priors, dtype=np.float64)
        return Conditioner.of(priors / priors.sum(), self.means, self.covariances, given)

    def _columns(self, indices: Columns, argument: str = "indices") -> list[int]:
        return column_numbers(indices, self.dim, self.names, argument)

    def _weigh(self, X: ArrayLike) -> tuple[Array, Array, Array]:
        points = as_matrix(X, self.dim, "X")
        return self.conditioner(range(self.dim)).posterior(points)

    def log_prob(self, X: ArrayLike) -> Array:
        """Log density.

        Args:
            X: points (N, p).

        Returns:
            (N,), never below the lowest finite number.
        """
        return self._weigh(X)[2]

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
