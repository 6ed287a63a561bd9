"""Longer steps of EM where it creeps.

Two steps of EM tell in which direction it goes on and how slowly; the step between is stretched
accordingly (Varadhan and Roland, Simple and globally convergent methods for accelerating the
convergence of any EM algorithm, 2008, scheme S3). Mixtures are stretched in the logarithms of the
weights, the means and the Cholesky factors, so that weights and covariances stay valid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from genopt.models.mixture.conditioning import Array

if TYPE_CHECKING:
    from genopt.models.mixture.em import Components

_FIRST_LIMIT = 4.0


class Stretching:
    """Steps that are longer than those of EM.

    Args:
        smallest_variance: a mixture that is narrower in some direction is not proposed.
    """

    def __init__(self, smallest_variance: float) -> None:
        self._smallest = smallest_variance
        self._limit = _FIRST_LIMIT

    def shorten(self) -> None:
        """Be more careful, after a proposal that was less likely than what it came from."""
        self._limit = max(self._limit / 4.0, _FIRST_LIMIT)

    def proposed(
        self, first: Components, second: Components, third: Components
    ) -> Components | None:
        """Where many steps of EM might lead.

        Args:
            first: a mixture.
            second: one step of EM later.
            third: another step later.

        Returns:
            A mixture; None where EM does not creep, a component is dead or covariances have
            factors.
        """
        if third.loadings is not None or min(first.weights.min(), third.weights.min()) <= 0.0:
            return None
        start, middle, end = (_packed(each) for each in (first, second, third))
        step = middle - start
        change = (end - middle) - step
        bend = float(np.linalg.norm(change))
        factor = float(np.linalg.norm(step)) / bend if bend > 0.0 else self._limit
        if factor <= 1.0:
            return None
        if factor >= self._limit:
            factor = self._limit
            self._limit *= 4.0
        values = start + 2.0 * factor * step + factor**2 * change
        d = first.means.shape[1]
        weights = np.exp(values[:, 0] - values[:, 0].max())
        roots = values[:, 1 + d :].reshape(-1, d, d)
        covariances = roots @ roots.transpose(0, 2, 1)
        if not np.isfinite(covariances).all():
            return None
        if np.linalg.eigvalsh(covariances).min() < self._smallest:
            return None
        weights /= weights.sum()
        return replace(third, weights=weights, means=values[:, 1 : 1 + d], covariances=covariances)


def _packed(components: Components) -> Array:
    roots = np.linalg.cholesky(components.covariances)
    logs = np.log(components.weights)[:, None]
    return np.concatenate([logs, components.means, roots.reshape(len(roots), -1)], 1)
