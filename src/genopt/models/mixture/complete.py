"""EM for complete rows by two matrix products.

The log density of a Gaussian is linear in the features 1, x_i and x_i x_j. One product of all rows'
features with the components' coefficients gives all log densities; one of the responsibilities with
the same features gives all moments of the M-step. Rows are taken in blocks that stay in the
processor's cache, one column after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components, Index, Moments
from genopt.models.mixture.quadratic import coefficients, features, n_features, symmetric

_BLOCK_SIZE = 1 << 17
_MOST_ROWS, _FEWEST_ROWS = 2048, 64
_KEPT_SIZE = 1 << 22
# the largest error of a log density that one row far out may suffer under a narrow component
_LARGEST_ERROR = 1e-4


class CompleteRows:
    """Rows without gaps: what EM asks of them.

    Args:
        data: rows (N, d) about zero, of about unit scale.
        weights: how many rows each row counts for (N,); None for one.
        diagonal: whether all covariances are diagonal, which needs fewer features.
    """

    def __init__(
        self, data: Array, weights: Array | None = None, *, diagonal: bool = False
    ) -> None:
        n, d = data.shape
        self.data = data
        self.weights = np.ones(n) if weights is None else weights
        self._alike = weights is None or bool((weights == 1.0).all())
        self._diagonal = diagonal
        self._width = n_features(d, diagonal=diagonal)
        size = int(np.clip(_BLOCK_SIZE // self._width, _FEWEST_ROWS, _MOST_ROWS))
        self._spans = [slice(i, min(i + size, n)) for i in range(0, n, size)]
        self._columns = [np.ascontiguousarray(data[span].T) for span in self._spans]
        self._kept: list[Array] = []

    @staticmethod
    def suits(data: Array, smallest_variance: float) -> bool:
        """Whether products of entries do not drown the narrowest component in rounding errors.

        Args:
            data: rows (N, d).
            smallest_variance: of any component in any direction.

        Returns:
            Whether this class may be used.
        """
        if not len(data):
            return True
        longest = float(np.einsum("nd,nd->n", data, data).max())
        return float(np.finfo(np.float64).eps) * longest < _LARGEST_ERROR * smallest_variance

    def _blocks(self) -> Iterator[tuple[slice, Array]]:
        if self._kept:
            yield from zip(self._spans, self._kept, strict=True)
            return
        keep = self._width * len(self.data) <= _KEPT_SIZE
        kept: list[Array] = []
        for span, columns in zip(self._spans, self._columns, strict=True):
            block = features(columns, diagonal=self._diagonal)
            if keep:
                kept.append(block)
            yield span, block
        # all at once: another thread may look
        self._kept = kept

    def _coefficients(self, components: Components) -> Array:
        return coefficients(
            components.weights, components.means, components.covariances, diagonal=self._diagonal
        )

    def moments(self, components: Components, labels: Index | None = None) -> Moments:
        """The E-step.

        Args:
            components: the mixture.
            labels: the component of each row (N,), instead of what the mixture expects.

        Returns:
            The moments of all rows about zero; with labels their log likelihood is NaN.
        """
        k, d = components.means.shape
        sums, total = np.zeros((k, self._width)), 0.0
        factors = None if labels is not None else self._coefficients(components)
        for span, block in self._blocks():
            if labels is not None:
                shares = np.equal.outer(np.arange(k), labels[span]).astype(np.float64)
                total = math.nan
            elif factors is not None:
                shares, log_density = _normalised(factors @ block)
                total += float(self.weights[span] @ log_density)
            if not self._alike:
                shares *= self.weights[span]
            sums += shares @ block.T
        second = symmetric(sums[:, 1 + d :], d, diagonal=self._diagonal)
        return Moments(np.zeros((k, d)), sums[:, 0].copy(), sums[:, 1 : 1 + d], second, total)

    def expected(self, components: Components) -> tuple[Array, Index]:
        """What each row is likely to be.

        Args:
            components: the mixture.

        Returns:
            The rows themselves (N, d), and the likeliest component of each (N,).
        """
        factors = self._coefficients(components)
        labels = [(factors @ block).argmax(0) for _, block in self._blocks()]
        return self.data, np.concatenate(labels)

    def log_prob(self, components: Components) -> Array:
        """Log density of each row.

        Args:
            components: the mixture.

        Returns:
            (N,).
        """
        factors = self._coefficients(components)
        parts = [_normalised(factors @ block)[1] for _, block in self._blocks()]
        return np.concatenate(parts)


def _normalised(log_terms: Array) -> tuple[Array, Array]:
    """Shares of the components (k, n), in place, and the log of the sum of their terms (n,)."""
    top = log_terms.max(0)
    log_terms -= top
    np.exp(log_terms, out=log_terms)
    total = log_terms.sum(0)
    log_terms /= total
    return log_terms, top + np.log(total)
