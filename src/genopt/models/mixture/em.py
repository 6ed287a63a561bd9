"""Expectation maximisation for Gaussian mixtures where entries are missing.

The missing entries of a row are summed out exactly, component by component (Ghahramani and Jordan,
Supervised learning from incomplete data via an EM approach, 1994). Nothing is imputed: an entry
counts by its conditional mean and covariance, so the likelihood of the observed entries rises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.covariances import shaped
from genopt.models.mixture.sweep import Index, Mask, PatternTree

_BLOCK = 1 << 17
_LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class EmOptions:
    """How EM is run on scaled columns.

    Args:
        n_init: runs, the likeliest is kept.
        seed: seed of the starts.
        regularization: variance added to each component.
        tolerance: EM stops when the mean log likelihood of a row gains less.
        max_iterations: most iterations of a run.
        covariance: ``full``, ``tied`` or ``diag``.
    """

    n_init: int = 1
    seed: int = 0
    regularization: float = 1e-6
    tolerance: float = 1e-5
    max_iterations: int = 1000
    covariance: str = "full"


@dataclass(frozen=True, eq=False)
class Components:
    """The parameters of a mixture.

    Args:
        weights: (k,), sum to one.
        means: (k, d).
        covariances: (k, d, d).
    """

    weights: Array
    means: Array
    covariances: Array

    def shaped(self, kind: str) -> Components:
        """The same mixture with covariances of a kind.

        Args:
            kind: ``full``, ``tied`` or ``diag``.

        Returns:
            The mixture.
        """
        return replace(self, covariances=shaped(self.covariances, self.weights, kind))


@dataclass(frozen=True, eq=False)
class Fitted:
    """Where EM ended.

    Args:
        components: the parameters.
        log_likelihood: of all observed entries, the sum over the rows.
        converged: whether the last gain was below the tolerance.
        trace: the log likelihood at the start and after each iteration.
    """

    components: Components
    log_likelihood: float
    converged: bool
    trace: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class _Block:
    """Rows sorted by pattern, few enough to stay in the processor's cache."""

    rows: Index
    values: Array
    starts: Index
    member: Index
    tree: PatternTree

    @property
    def spans(self) -> Iterator[tuple[int, slice]]:
        ends = [*self.starts[1:].tolist(), len(self.values)]
        for u, (start, end) in enumerate(zip(self.starts.tolist(), ends, strict=True)):
            yield u, slice(start, end)


@dataclass(frozen=True, eq=False)
class _Expected:
    """One block under a mixture.

    Args:
        log_terms: log of weight times density of the observed entries (n, k).
        away: deviations from each component's mean, the expected one where missing (k, n, d).
        residual: covariance of the missing entries by pattern (U, k, d, d).
    """

    log_terms: Array
    away: Array
    residual: Array


class GappyRows:
    """Rows with missing entries, grouped by pattern: what EM asks of them.

    Args:
        data: rows (N, d), NaN where an entry is missing; columns of about unit scale.
        n_components: the number of components that the blocks are sized for.
        weights: how many rows each row counts for (N,); None for one.
    """

    def __init__(self, data: Array, n_components: int = 1, weights: Array | None = None) -> None:
        self.shape = data.shape
        self.weights = np.ones(len(data)) if weights is None else weights
        known = np.isfinite(data)
        patterns, member = np.unique(known, axis=0, return_inverse=True)
        member = member.reshape(-1)
        order = np.argsort(member, kind="stable")
        d = data.shape[1]
        most_rows = max(256, _BLOCK // max(n_components * d, 1))
        most_patterns = max(16, _BLOCK // max(n_components * d * d, 1))
        self._blocks: list[_Block] = []
        start, ordered = 0, member[order]
        while start < len(order):
            end = np.searchsorted(ordered, ordered[start] + most_patterns)
            rows = order[start : min(start + most_rows, int(end))]
            mine, starts, local = np.unique(member[rows], return_index=True, return_inverse=True)
            values = np.where(known[rows], data[rows], 0.0)
            tree = PatternTree(patterns[mine])
            self._blocks.append(_Block(rows, values, starts, local, tree))
            start += len(rows)

    def _expect(self, block: _Block, components: Components) -> _Expected:
        k, d = components.means.shape
        swept = block.tree.sweep(components.covariances)
        n = len(block.values)
        flat = np.empty((n, k * d))
        matrices = swept.transform.reshape(-1, k * d, d)
        for u, span in block.spans:
            np.matmul(block.values[span], matrices[u].T, out=flat[span])
        moved = flat.reshape(n, k, d)
        moved -= np.einsum("ukij,kj->uki", swept.transform, components.means)[block.member]
        known: Mask = block.tree.known[block.member]
        whitened = moved * known[:, None]
        with np.errstate(divide="ignore"):
            log_terms = np.log(components.weights) - 0.5 * np.einsum(
                "nkd,nkd->nk", whitened, whitened
            )
        log_terms -= 0.5 * swept.log_determinant[block.member]
        log_terms -= 0.5 * _LOG_2PI * known.sum(1)[:, None]
        direct = block.values[:, None] - components.means
        away = np.where(known[:, None], direct, moved).transpose(1, 0, 2)
        return _Expected(log_terms, np.ascontiguousarray(away), swept.residual)

    def log_prob(self, components: Components) -> Array:
        """Log density of each row's observed entries.

        Args:
            components: the mixture.

        Returns:
            (N,); zero for a row without any.
        """
        out = np.empty(self.shape[0])
        for block in self._blocks:
            out[block.rows] = _normalise(self._expect(block, components).log_terms)[1]
        return out

    def filled(self, components: Components) -> Array:
        """The rows with each missing entry replaced by its conditional mean.

        Args:
            components: the mixture.

        Returns:
            (N, d) without NaN.
        """
        out = np.empty(self.shape)
        for block in self._blocks:
            expected = self._expect(block, components)
            shares = _normalise(expected.log_terms)[0]
            every = expected.away + components.means[:, None]
            out[block.rows] = np.einsum("nk,knd->nd", shares, every)
        return out

    def improve(
        self,
        components: Components,
        regularization: float,
        responsibilities: Array | None = None,
        covariance: str = "full",
    ) -> tuple[Components, float]:
        """One iteration of EM; a component without weight stays as it is.

        Args:
            components: the mixture.
            regularization: added to the variances.
            responsibilities: (N, k) to use instead of those of the mixture, for a start.
            covariance: the kind of the next covariances.

        Returns:
            The next mixture and the log likelihood of the given one.
        """
        k, d = components.means.shape
        count, first, second = np.zeros(k), np.zeros((k, d)), np.zeros((k, d, d))
        total = 0.0
        for block in self._blocks:
            expected = self._expect(block, components)
            shares, log_density = _normalise(expected.log_terms)
            if responsibilities is not None:
                shares = responsibilities[block.rows]
            row_weights = self.weights[block.rows]
            total += float(row_weights @ log_density)
            shares = shares * row_weights[:, None]
            count += shares.sum(0)
            weighted = expected.away * shares.T[:, :, None]
            first += weighted.sum(1)
            second += weighted.transpose(0, 2, 1) @ expected.away
            mass = np.add.reduceat(shares, block.starts, axis=0)
            second += np.einsum("uk,ukij->kij", mass, expected.residual)
        alive = count > 0.0
        size = np.where(alive, count, 1.0)[:, None]
        shift = first / size
        covariances = second / size[:, :, None] - shift[:, :, None] * shift[:, None, :]
        covariances = 0.5 * (covariances + covariances.transpose(0, 2, 1))
        covariances = shaped(covariances, count, covariance)
        covariances[:, np.arange(d), np.arange(d)] += regularization
        kept = alive | (covariance == "tied")
        covariances = np.where(kept[:, None, None], covariances, components.covariances)
        following = Components(count / count.sum(), components.means + shift, covariances)
        return following, total


def _normalise(log_terms: Array) -> tuple[Array, Array]:
    """Shares of the components (n, k) and the log of the sum of their terms (n,)."""
    top = log_terms.max(1)
    shares = np.exp(log_terms - top[:, None])
    total = shares.sum(1)
    shares /= total[:, None]
    return shares, top + np.log(total)


def expectation_maximization(rows: GappyRows, start: Components, options: EmOptions) -> Fitted:
    """One run of EM.

    What no row shows is not learned: the covariance, within a component, of two columns that are
    never observed together, beyond what third columns explain, stays near its start.

    Args:
        rows: the data.
        start: the first parameters.
        options: when to stop.

    Returns:
        The parameters of the highest likelihood that was met.
    """
    components = best = start.shaped(options.covariance)
    trace, n_rows = list[float](), float(rows.weights.sum())
    converged = False
    for iteration in range(options.max_iterations + 1):
        following, log_likelihood = rows.improve(
            components, options.regularization, covariance=options.covariance
        )
        gain = (log_likelihood - trace[-1]) / n_rows if trace else math.inf
        if log_likelihood > max(trace, default=-math.inf):
            best = components
        trace.append(log_likelihood)
        # a small loss is possible too, where the regularisation outweighs what is left to gain
        converged = abs(gain) < options.tolerance
        if converged or iteration == options.max_iterations:
            break
        components = following
    return Fitted(best, max(trace), converged, tuple(trace))
