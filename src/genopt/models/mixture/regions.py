"""Conditionals on regions: columns in intervals or on half-lines, beside others known exactly.

A component's weight is multiplied by its probability of the region. With one column in an interval
that is a difference of normal distribution functions; with more it is the mean of a sequential
importance sampler (J. Geweke, 1991; V. Hajivassiliou, D. McFadden, 1998; A. Genz, 1992) on a Sobol
sequence. Draws come from the truncated normal law in one column; in more, proposals of the same
sampler pass an independence Metropolis test and Gibbs sweeps, which leave the exact law unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from scipy.stats import qmc

from genopt.errors import GenoptError
from genopt.models.mixture.conditionals import ConditionalBatch, Seed, generator_from
from genopt.models.mixture.conditioning import Array, factorize
from genopt.models.mixture.truncation import draw_interval, log_interval

_PROPOSALS = 24
_SWEEPS = 3
_FEWEST_POINTS, _MOST_POINTS = 64, 4096
_BUDGET = 1 << 21
_CHUNK = 1 << 20
# an interval without width: components then count by their density
_POINT = 1e-150


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """C conditional mixtures whose first columns are confined to boxes.

    Args:
        batch: the conditionals before the region is known (C queries, m columns).
        order: the m columns, the r confined ones first.
        lower: lower ends (C, r); -inf for none.
        upper: upper ends (C, r); inf for none.
        log_weights: (C, k) logs of the components' weights given the region.
        log_probability: (C,) log probability of the region; exact for one confined column, else
            good to about .1 %.
        factors: Cholesky factors of the components with the columns in that order (k, m, m).
    """

    batch: ConditionalBatch
    order: tuple[int, ...]
    lower: Array
    upper: Array
    log_weights: Array
    log_probability: Array
    factors: Array = field(repr=False)

    @classmethod
    def of(
        cls, batch: ConditionalBatch, columns: Sequence[int], lower: ArrayLike, upper: ArrayLike
    ) -> RegionBatch:
        """Confine columns of conditionals.

        Args:
            batch: the conditionals.
            columns: r of their m free columns.
            lower: lower ends, (r,) for all queries or (C, r); -inf for none.
            upper: upper ends alike; inf for none.

        Returns:
            The confined conditionals.

        Raises:
            GenoptError: if the shapes do not fit or a lower end exceeds its upper end.
        """
        count, k, m = batch.means.shape
        confined = [int(i) for i in columns]
        if not confined or len(set(confined)) != len(confined) or min(confined) < 0:
            raise GenoptError(f"columns {confined} must name at least one column, and none twice")
        if max(confined) >= m:
            raise GenoptError(f"columns {confined} must lie between 0 and {m - 1}")
        low, high = (
            _ends(ends, count, len(confined), name)
            for ends, name in ((lower, "lower"), (upper, "upper"))
        )
        if (low > high).any() or (low == np.inf).any() or (high == -np.inf).any():
            raise GenoptError("lower must not exceed upper, and each interval must hold a number")
        order = (*confined, *(i for i in range(m) if i not in confined))
        covariances = batch.covariances[:, order][:, :, order]
        priors = np.full(k, 1.0 / k)
        factors = factorize(covariances, batch.means.mean(0)[:, order], priors)[0]
        mass = _log_mass(batch.means[:, :, confined], factors, low, high)
        terms = batch.log_weights + mass
        total = logsumexp(terms, axis=1)
        return cls(batch, order, low, high, terms - total[:, None], total, factors)

    def __len__(self) -> int:
        return len(self.log_weights)

    @property
    def weights(self) -> Array:
        """Weights of the components given the region (C, k)."""
        return np.asarray(np.exp(self.log_weights))

    def take(self, rows: ArrayLike) -> RegionBatch:
        """The conditionals of some of the queries.

        Args:
            rows: their numbers (C',).

        Returns:
            The smaller batch.
        """
        index = np.asarray(rows, dtype=np.intp)
        return replace(
            self,
            batch=self.batch.take(index),
            lower=self.lower[index],
            upper=self.upper[index],
            log_weights=self.log_weights[index],
            log_probability=self.log_probability[index],
        )

    def log_prob(self, Y: ArrayLike) -> Array:
        """Log density of points given the region.

        Args:
            Y: one point a query (C, m), or n points each (C, n, m), columns as in ``batch``.

        Returns:
            (C,) or (C, n); -inf outside the region.
        """
        points = np.asarray(Y, dtype=np.float64)
        density = self.batch.log_prob(points)
        stacked = points.reshape(len(self), -1, points.shape[-1])[:, :, self._confined]
        inside = ((stacked >= self.lower[:, None]) & (stacked <= self.upper[:, None])).all(-1)
        shift = self.log_probability.reshape(-1, *([1] * (density.ndim - 1)))
        return np.where(inside.reshape(density.shape), density - shift, -np.inf)

    @property
    def _confined(self) -> list[int]:
        return list(self.order[: self.lower.shape[1]])

    def sample(self, n: int, seed: Seed = None) -> Array:
        """Independent draws of every conditional given its region.

        Args:
            n: draws per query.
            seed: seed or generator; the mixture's own generator if None.

        Returns:
            (C, n, m), columns as in ``batch``.
        """
        rng = generator_from(self.batch.random_state if seed is None else seed)
        count, k, m = self.batch.means.shape
        cumulative = self.weights.cumsum(1)
        cumulative /= cumulative[:, -1:]
        uniform = rng.random((count, n))
        chosen = np.zeros((count, n), dtype=np.intp)
        for j in range(k - 1):
            chosen += uniform >= cumulative[:, j, None]
        query = np.repeat(np.arange(count), n)
        component = chosen.reshape(-1)
        out = np.empty((count * n, m))
        step = max(1, _CHUNK // (_PROPOSALS * m * m))
        for start in range(0, len(out), step):
            rows = slice(start, start + step)
            out[rows] = self._draw(query[rows], component[rows], rng)
        return out.reshape(count, n, m)

    def _draw(
        self, query: NDArray[np.intp], component: NDArray[np.intp], rng: np.random.Generator
    ) -> Array:
        """One draw (D, m) for each pair of a query and a component."""
        r, m = self.lower.shape[1], len(self.order)
        factor = self.factors[component]
        means = self.batch.means[query, component][:, list(self.order)]
        low, high = self.lower[query] - means[:, :r], self.upper[query] - means[:, :r]
        if r == 1:
            white, _ = _sequential(factor[:, :1, :1], low, high, rng.random((len(low), 1)))
        else:
            white = _metropolis(factor[:, :r, :r], low, high, rng)
        normal = np.concatenate([white, rng.standard_normal((len(low), m - r))], 1)
        out = np.empty_like(means)
        out[:, list(self.order)] = means + np.einsum("dij,dj->di", factor, normal)
        # a sum may round to beyond an end
        confined = out[:, self._confined]
        out[:, self._confined] = np.clip(confined, self.lower[query], self.upper[query])
        return out


def log_box(batch: ConditionalBatch, lower: ArrayLike, upper: ArrayLike) -> Array:
    """Log probability that all free columns lie in a box.

    Args:
        batch: conditionals over m columns.
        lower: lower ends (m,) or (C, m).
        upper: upper ends alike.

    Returns:
        (C,), exact for m = 1.
    """
    return RegionBatch.of(batch, range(batch.means.shape[2]), lower, upper).log_probability


def _ends(ends: ArrayLike, count: int, width: int, name: str) -> Array:
    given = np.asarray(ends, dtype=np.float64)
    matrix = given.reshape(1, -1) if given.ndim < 2 else given
    if matrix.shape not in {(1, width), (count, width)} or np.isnan(matrix).any():
        raise GenoptError(
            f"{name} has shape {given.shape}; expected ({width},) or ({count}, {width}) numbers"
        )
    return np.broadcast_to(matrix, (count, width))


def _sequential(factor: Array, low: Array, high: Array, uniform: Array) -> tuple[Array, Array]:
    """Whitened draws column by column, each within its interval given those before it.

    Args:
        factor: Cholesky factors (..., r, r).
        low: lower ends less the mean (..., r).
        high: upper ends less the mean (..., r).
        uniform: draws between 0 and 1 (..., r), or (..., r - 1) where the last draw is not needed.

    Returns:
        Draws (..., r), the last zero where it is not needed, and the log of the product of the
        intervals' probabilities (...).
    """
    shape = np.broadcast_shapes(low.shape, factor.shape[:-1], (*uniform.shape[:-1], 1))
    white, log_mass = np.zeros(shape), np.zeros(shape[:-1])
    for i in range(shape[-1]):
        pull = (factor[..., i, :i] * white[..., :i]).sum(-1)
        a = (low[..., i] - pull) / factor[..., i, i]
        b = (high[..., i] - pull) / factor[..., i, i]
        width = np.maximum(high[..., i] - low[..., i], _POINT) / factor[..., i, i]
        mass = log_interval(a, b, width)
        log_mass += mass
        if i < uniform.shape[-1]:
            white[..., i] = draw_interval(a, b, uniform[..., i], mass)
    return white, log_mass


def _log_mass(means: Array, factors: Array, low: Array, high: Array) -> Array:
    """Log probability of each query's box under each component (C, k)."""
    count, k, r = means.shape
    factor = factors[:, :r, :r]
    if r == 1:
        ends = (low[:, None] - means, high[:, None] - means)
        return _sequential(factor, *ends, np.empty((1, 1, 0)))[1]
    exponent = int(np.log2(np.clip(_BUDGET // (count * k), _FEWEST_POINTS, _MOST_POINTS)))
    uniform = qmc.Sobol(r - 1, rng=np.random.default_rng(0)).random_base2(exponent)
    uniform = uniform.clip(1e-12, 1.0 - 1e-12)
    out = np.empty((count, k))
    step = max(1, _CHUNK // (k * r * len(uniform)))
    for start in range(0, count, step):
        rows = slice(start, start + step)
        a, b = ((ends[rows, None] - means[rows])[:, :, None] for ends in (low, high))
        logs = _sequential(factor[:, None], a, b, uniform)[1]
        out[rows] = logsumexp(logs, axis=-1) - np.log(len(uniform))
    return out


def _metropolis(factor: Array, low: Array, high: Array, rng: np.random.Generator) -> Array:
    """Whitened draws in boxes (D, r): sequential proposals, tested; then Gibbs sweeps."""
    draws, r = low.shape
    uniform = rng.random((draws, _PROPOSALS, r))
    proposed, logs = _sequential(factor[:, None], low[:, None], high[:, None], uniform)
    test = np.log(rng.random((draws, _PROPOSALS)))
    white, now = proposed[:, 0], logs[:, 0]
    for i in range(1, _PROPOSALS):
        better = test[:, i] < logs[:, i] - now
        white = np.where(better[:, None], proposed[:, i], white)
        now = np.where(better, logs[:, i], now)
    away = np.einsum("dij,dj->di", factor, white)
    inverse = np.linalg.inv(factor)
    precision = inverse.transpose(0, 2, 1) @ inverse
    for i in [*range(r)] * _SWEEPS:
        scale: Array = np.asarray(1.0 / np.sqrt(precision[:, i, i]))
        pull = np.einsum("dj,dj->d", precision[:, i], away) * scale**2
        center = away[:, i] - pull
        a, b = (low[:, i] - center) / scale, (high[:, i] - center) / scale
        away[:, i] = center + scale * draw_interval(a, b, np.asarray(rng.random(draws)))
    return np.einsum("dij,dj->di", inverse, away)
