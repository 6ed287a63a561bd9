"""EM where entries are missing.

The missing entries of a row are summed out exactly, component by component (Ghahramani and Jordan,
Supervised learning from incomplete data via an EM approach, 1994). Nothing is imputed: an entry
counts by its conditional mean and covariance, so the likelihood of the observed entries rises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components, Index, Moments
from genopt.models.mixture.sweep import Mask, PatternTree

_BLOCK = 1 << 17
_LOG_2PI = math.log(2.0 * math.pi)


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

    def expected(self, components: Components) -> tuple[Array, Index]:
        """What each row is likely to be.

        Args:
            components: the mixture.

        Returns:
            The rows with conditional means where entries miss (N, d), and the likeliest component
            of each (N,).
        """
        out = np.empty(self.shape)
        labels = np.empty(self.shape[0], dtype=np.intp)
        for block in self._blocks:
            seen = self._expect(block, components)
            shares = _normalise(seen.log_terms)[0]
            every = seen.away + components.means[:, None]
            out[block.rows] = np.einsum("nk,knd->nd", shares, every)
            labels[block.rows] = shares.argmax(1)
        return out, labels

    def moments(self, components: Components, labels: Index | None = None) -> Moments:
        """The E-step.

        Args:
            components: the mixture.
            labels: the component of each row (N,), instead of what the mixture expects.

        Returns:
            The moments of all rows about the means.
        """
        k, d = components.means.shape
        count, first, second = np.zeros(k), np.zeros((k, d)), np.zeros((k, d, d))
        total = 0.0
        for block in self._blocks:
            expected = self._expect(block, components)
            shares, log_density = _normalise(expected.log_terms)
            if labels is not None:
                shares = np.equal.outer(labels[block.rows], np.arange(k)).astype(np.float64)
            row_weights = self.weights[block.rows]
            total += float(row_weights @ log_density)
            shares = shares * row_weights[:, None]
            count += shares.sum(0)
            weighted = expected.away * shares.T[:, :, None]
            first += weighted.sum(1)
            second += weighted.transpose(0, 2, 1) @ expected.away
            mass = np.add.reduceat(shares, block.starts, axis=0)
            second += np.einsum("uk,ukij->kij", mass, expected.residual)
        return Moments(components.means, count, first, second, total)


def _normalise(log_terms: Array) -> tuple[Array, Array]:
    """Shares of the components (n, k) and the log of the sum of their terms (n,)."""
    top = log_terms.max(1)
    shares = np.exp(log_terms - top[:, None])
    total = shares.sum(1)
    shares /= total[:, None]
    return shares, top + np.log(total)
