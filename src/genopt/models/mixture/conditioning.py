"""Conditionals of a Gaussian mixture for many queries at once, in log space.

Each component is factored once as L L^T in the order [given, free]: the upper block whitens the
given values, the lower right block is the factor of the conditional covariance, so no subtraction
of nearly equal matrices is ever needed.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from genopt.errors import GenoptError

Array = NDArray[np.float64]

LOWEST = float(np.finfo(np.float64).min)
_SMALLEST_PIVOT = 1e-14
_FIRST_JITTER = 1e-12
_LARGEST_JITTER = 1e-3
_LARGEST_VALUE = 1e200
_ZERO_DEVIATION = 1e-8
_CHUNK = 1 << 17
_LOG_2PI = math.log(2.0 * math.pi)


def factorize(covariances: Array, means: Array, priors: Array) -> tuple[Array, Array]:
    """Cholesky factors of all components, with a relative jitter where one is near singular.

    It is the correlation matrix that is factored, so the columns' units do not matter.

    Args:
        covariances: (k, p, p).
        means: (k, p); their spread is the unit of the jitter of a variance of zero.
        priors: (k,).

    Returns:
        Lower factors (k, p, p) and their inverses (k, p, p).

    Raises:
        GenoptError: if a covariance is not finite or far from positive semi-definite.
    """
    if not np.isfinite(covariances).all():
        raise GenoptError("covariances must be finite numbers")
    diagonal = np.diagonal(covariances, axis1=1, axis2=2)
    variances, raised = _positive_variances(diagonal, means, priors)
    scale = np.sqrt(variances)
    correlations = covariances / (scale[:, :, None] * scale[:, None, :])
    index = np.arange(covariances.shape[-1])
    correlations[:, index, index] = 1.0
    factors, jittered = _cholesky(correlations)
    touched = np.flatnonzero(raised | jittered)
    if touched.size:
        warnings.warn(
            f"covariance of component {', '.join(map(str, touched))} is near singular: a small "
            "relative jitter was added to its diagonal",
            RuntimeWarning,
            stacklevel=4,
        )
    identity = np.eye(covariances.shape[-1])
    inverses = np.empty_like(factors)
    for k, factor in enumerate(factors):
        inverses[k] = solve_triangular(factor, identity, lower=True) if identity.size else factor
    return scale[:, :, None] * factors, inverses / scale[:, None, :]


def _positive_variances(
    diagonal: Array, means: Array, priors: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Variances, raised where they are zero, and which components that touched."""
    zero: NDArray[np.bool_] = np.asarray(diagonal <= 0.0)
    if not zero.any():
        return diagonal, np.zeros(len(diagonal), dtype=bool)
    within = np.sqrt(priors @ np.clip(diagonal, 0.0, None))
    between = priors @ np.abs(means - priors @ means)
    unit = within + between
    unit = np.where(unit > 0.0, unit, np.abs(means).max(0))
    unit = np.where(unit > 0.0, unit, 1.0)
    touched: NDArray[np.bool_] = np.asarray(zero.any(1))
    return np.where(zero, (_ZERO_DEVIATION * unit) ** 2, diagonal), touched


def _cholesky(correlations: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Factors of correlation matrices and which of them needed a jitter."""
    jittered = np.zeros(len(correlations), dtype=bool)
    if correlations.shape[-1] == 0:
        return np.zeros_like(correlations), jittered
    try:
        factors: Array = np.linalg.cholesky(correlations).astype(np.float64)
        weak = np.diagonal(factors, axis1=1, axis2=2).min(1) ** 2 < _SMALLEST_PIVOT
    except np.linalg.LinAlgError:
        factors = np.zeros_like(correlations)
        weak = np.ones(len(correlations), dtype=bool)
    for k in np.flatnonzero(weak):
        factors[k], jittered[k] = _jittered_cholesky(correlations[k], int(k))
    return factors, jittered


def _jittered_cholesky(correlation: Array, component: int) -> tuple[Array, bool]:
    jitter = 0.0
    while jitter <= _LARGEST_JITTER:
        try:
            raised = correlation + jitter * np.eye(len(correlation))
            factor: Array = np.linalg.cholesky(raised).astype(np.float64)
        except np.linalg.LinAlgError:
            factor = np.zeros_like(correlation)
        if np.diagonal(factor).min() ** 2 >= _SMALLEST_PIVOT:
            return factor, jitter > 0.0
        jitter = max(10.0 * jitter, _FIRST_JITTER)
    raise GenoptError(
        f"the covariance of component {component} is not positive semi-definite: "
        "check that it is symmetric and a covariance of real data"
    )


@dataclass(frozen=True, eq=False)
class Conditioner:
    """What all queries of one pattern share: whitening of the given columns, regression on them.

    Args:
        center: (q,) subtracted from every query before anything else.
        whiten: (q, q*k), column i*k + j whitens row i of component j.
        offset: (q*k,) whitened means.
        log_coefficient: (k,) log prior and log normaliser of each marginal; -inf if dead.
        slope: (k, q, m) regression of the free columns on the given ones.
        intercept: (k, m) conditional means at the center.
        lower: (k, m, m) Cholesky factors of the conditional covariances.
        whiten_free: (k, m, m) inverses of `lower`.
    """

    center: Array
    whiten: Array
    offset: Array
    log_coefficient: Array
    slope: Array
    intercept: Array
    lower: Array
    whiten_free: Array

    @classmethod
    def of(cls, priors: Array, means: Array, covariances: Array, given: list[int]) -> Conditioner:
        """Factor a mixture for one set of given columns.

        Args:
            priors: (k,).
            means: (k, p).
            covariances: (k, p, p).
            given: the q columns that queries will give.

        Returns:
            The shared part of the conditionals.
        """
        n, dim = means.shape
        q = len(given)
        order = given + [i for i in range(dim) if i not in set(given)]
        means = means[:, order]
        lower, inverse = factorize(covariances[:, order][:, :, order], means, priors)
        whiten = inverse[:, :q, :q]
        slope = (lower[:, q:, :q] @ whiten).transpose(0, 2, 1)
        center = priors @ means[:, :q]
        shift = means[:, :q] - center
        with np.errstate(divide="ignore"):
            log_prior = np.log(priors)
        log_scale = np.log(np.diagonal(lower, axis1=1, axis2=2)[:, :q]).sum(1)
        return cls(
            center=center,
            whiten=np.ascontiguousarray(whiten.transpose(2, 1, 0)).reshape(q, q * n),
            offset=np.einsum("kij,kj->ik", whiten, shift).reshape(q * n),
            log_coefficient=log_prior - log_scale - 0.5 * q * _LOG_2PI,
            slope=slope,
            intercept=means[:, q:] - np.einsum("kqm,kq->km", slope, shift),
            lower=lower[:, q:, q:],
            whiten_free=inverse[:, q:, q:],
        )

    @property
    def n_components(self) -> int:
        """Number of components k."""
        return len(self.log_coefficient)

    def chunks(self, n: int) -> list[slice]:
        """Rows of one pass each, small enough to stay in the processor's cache.

        Args:
            n: number of rows.

        Returns:
            Slices that cover range(n).
        """
        k, q, m = self.slope.shape
        step = max(16, _CHUNK // (k * max(q, m, 1)))
        return [slice(start, min(start + step, n)) for start in range(0, n, step)]

    def centered(self, x: Array) -> Array:
        """Queries less the center, limited so that no later product overflows.

        Args:
            x: queries (C, q).

        Returns:
            (C, q).
        """
        return np.clip(x - self.center, -_LARGEST_VALUE, _LARGEST_VALUE)

    def weigh(self, centered: Array) -> tuple[Array, Array, Array]:
        """Posterior weights of the components.

        Args:
            centered: centered queries (C, q).

        Returns:
            Weights (C, k), their logs (C, k) and the log density of the queries (C,).
        """
        n, q = centered.shape
        whitened = centered @ self.whiten
        whitened -= self.offset
        return log_mixture(whitened.reshape(n, q, self.n_components), self.log_coefficient)

    def posterior(self, x: Array) -> tuple[Array, Array, Array]:
        """Posterior weights of the components for any number of queries.

        Args:
            x: queries (C, q).

        Returns:
            Weights (C, k), their logs (C, k) and the log density of the queries (C,).
        """
        n, k = len(x), self.n_components
        weights, log_weights, log_density = np.empty((n, k)), np.empty((n, k)), np.empty(n)
        for rows in self.chunks(n):
            parts = self.weigh(self.centered(x[rows]))
            weights[rows], log_weights[rows], log_density[rows] = parts
        return weights, log_weights, log_density

    def predict(self, x: Array) -> Array:
        """Means of the conditional mixtures of any number of queries.

        Args:
            x: queries (C, q).

        Returns:
            (C, m).
        """
        out = np.empty((len(x), self.slope.shape[2]))
        for rows in self.chunks(len(x)):
            centered = self.centered(x[rows])
            out[rows] = self.mean(centered, self.weigh(centered)[0])
        return out

    def conditional_means(self, centered: Array) -> Array:
        """Conditional mean of every component.

        Args:
            centered: centered queries (C, q).

        Returns:
            (C, k, m).
        """
        k, q, m = self.slope.shape
        flat = np.ascontiguousarray(self.slope.transpose(1, 0, 2)).reshape(q, k * m)
        with np.errstate(over="ignore"):
            means = centered @ flat
        means += self.intercept.reshape(k * m)
        return means.reshape(len(centered), k, m)

    def mean(self, centered: Array, weights: Array) -> Array:
        """Mean of the conditional mixture, by the cheaper of two orders of the same sums.

        Args:
            centered: centered queries (C, q).
            weights: posterior weights (C, k).

        Returns:
            (C, m).
        """
        k, q, m = self.slope.shape
        if q >= m:
            mixed: Array = weights[:, None, :] @ self.conditional_means(centered)
            return mixed[:, 0]
        features = (centered[:, :, None] * weights[:, None, :]).reshape(-1, q * k)
        out: Array = features @ self.slope.transpose(1, 0, 2).reshape(q * k, m)
        out += weights @ self.intercept
        return out


def log_mixture(whitened: Array, log_coefficient: Array) -> tuple[Array, Array, Array]:
    """Normalise sum_k exp(log_coefficient_k - |whitened_k|^2 / 2) in log space.

    Where every square overflows, the nearest component (in its own metric) takes the weight; the
    log density is then the lowest finite number.

    Args:
        whitened: (N, q, k).
        log_coefficient: (k,) or (N, k); -inf marks a dead component.

    Returns:
        Weights (N, k), log weights (N, k) and log of the sum (N,).
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        terms = np.einsum("nqk,nqk->nk", whitened, whitened)
        terms *= -0.5
        terms += log_coefficient
        top = terms.max(1)
        far = ~np.isfinite(top)
        if far.any():
            coefficient = np.broadcast_to(log_coefficient, terms.shape)[far]
            terms[far] = _far_terms(whitened[far], coefficient)
            top[far] = terms[far].max(1)
        terms -= top[:, None]
        weights = np.exp(terms)
        total = weights.sum(1)
        weights /= total[:, None]
        log_total = np.log(total)
        terms -= log_total[:, None]
        log_density = np.where(far, LOWEST, top + log_total)
    return weights, terms, log_density


def _far_terms(whitened: Array, log_coefficient: Array) -> Array:
    """Terms relative to the nearest component, for rows whose squares overflow."""
    dead = ~np.isfinite(log_coefficient)
    whitened = np.nan_to_num(whitened, nan=1e300, posinf=1e300, neginf=-1e300).clip(-1e300, 1e300)
    size = np.abs(whitened).max((1, 2))[:, None]
    square = ((whitened / size[:, :, None]) ** 2).sum(1)
    square[dead] = np.inf
    excess = square - square.min(1, keepdims=True)
    terms: Array = log_coefficient - 0.5 * (size * excess) * size
    return terms
