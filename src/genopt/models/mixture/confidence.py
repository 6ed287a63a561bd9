"""Confidence regions of a mixture: the smallest set that holds a given share of the probability.

It is where the density exceeds a threshold. Of one Gaussian the threshold follows from the
chi-square law with as many degrees of freedom as columns; of more it is a quantile of the density
at draws (R. J. Hyndman, Computing and graphing highest density regions, 1996).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2

from genopt.errors import GenoptError
from genopt.models.mixture.conditionals import Seed, generator_from
from genopt.models.mixture.conditioning import Array, factorize

if TYPE_CHECKING:
    from genopt.models.mixture.densities import Densities

_DRAWS = 40_000
_ROUNDS = 1000


def log_density_threshold(gmm: Densities, alpha: float) -> float:
    """The log density that a share alpha of the probability exceeds.

    Args:
        gmm: the mixture.
        alpha: probability of the region, between 0 and 1.

    Returns:
        The threshold: exact for one component, else from 40,000 draws with a fixed seed, which put
        the share held within .003 of alpha.

    Raises:
        GenoptError: if alpha is no probability.
    """
    if not 0.0 <= alpha <= 1.0:
        raise GenoptError(f"alpha={alpha} must lie between 0 and 1")
    alive = np.flatnonzero(gmm.priors > 0)
    if len(alive) == 1:
        peak = float(gmm.log_prob(gmm.means[alive])[0])
        return peak - 0.5 * float(chi2(gmm.dim).ppf(alpha))
    if alpha in (0.0, 1.0):
        return float(np.inf if alpha == 0.0 else -np.inf)
    logs = gmm.log_prob(gmm.sample(_DRAWS, random_state=0))
    return float(np.quantile(logs, 1.0 - alpha))


def draw_in_region(gmm: Densities, n: int, alpha: float, seed: Seed) -> Array:
    """Independent draws of the mixture that lie in its confidence region.

    Args:
        gmm: the mixture.
        n: number of draws.
        alpha: probability of the region, above 0.
        seed: seed or generator.

    Returns:
        (n, p).

    Raises:
        GenoptError: if alpha is no positive probability, or the region is too small to be hit.
    """
    threshold = log_density_threshold(gmm, alpha)
    rng = generator_from(seed)
    alive = np.flatnonzero(gmm.priors > 0)
    if len(alive) == 1 and alpha > 0.0:
        return _draw_in_ellipsoid(gmm.means[alive[0]], gmm.covariances[alive[0]], n, alpha, rng)
    kept: list[Array] = []
    missing = n
    for _ in range(_ROUNDS):
        if missing <= 0:
            break
        draws = gmm.sample(max(64, int(1.2 * missing / max(alpha, 1e-3))), random_state=rng)
        inside = draws[gmm.log_prob(draws) >= threshold][:missing]
        kept.append(inside)
        missing -= len(inside)
    if missing > 0:
        raise GenoptError(f"hardly any draw lies in the region of alpha={alpha}: take a larger one")
    return np.concatenate(kept) if kept else np.empty((0, gmm.dim))


def _draw_in_ellipsoid(
    mean: Array, covariance: Array, n: int, alpha: float, rng: np.random.Generator
) -> Array:
    """Draws (n, p) of one Gaussian: a direction, and a radius from the truncated chi-square law."""
    p = len(mean)
    factor = factorize(covariance[None], mean[None], np.ones(1))[0][0]
    direction = rng.standard_normal((n, p))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    radius = np.sqrt(chi2(p).ppf(alpha * rng.random(n)))
    return np.asarray(mean + (radius[:, None] * direction) @ factor.T)
