"""Held-out likelihood: how well a mixture explains rows that it has not seen, joint or conditional.

The conditional density of the wanted columns is that of all columns over that of the given ones;
both are sums over the observed entries, so rows with gaps count by what they show.

One row far from all components would outweigh all others, so a mixture is scored together with a
share of one per cent of a single Gaussian: a row can cost at most log 100 more than under that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components, EmOptions
from genopt.models.mixture.fitting import Fitter
from genopt.models.mixture.observed import observed_log_prob
from genopt.models.mixture.parallel import in_parallel

Rows = NDArray[np.intp]
_SINGLE_SHARE = 0.01
_FEWEST_FOLDS, _MOST_FOLDS = 3, 10
_ROWS_OF_ALL_FOLDS = 2000


def usual_folds(n: int) -> int:
    """How many parts are worth their time: ten of a small table, three of a large one.

    Args:
        n: number of rows.

    Returns:
        The number of parts.
    """
    return int(np.clip(_ROWS_OF_ALL_FOLDS // max(n, 1), _FEWEST_FOLDS, _MOST_FOLDS))


def fold_rows(n: int, folds: int, seed: int) -> list[Rows]:
    """Random parts of nearly equal size.

    Args:
        n: number of rows N.
        folds: number of parts; fewer where a part would have no two rows.
        seed: seed of the permutation.

    Returns:
        Sorted row numbers of each part.
    """
    order = np.random.default_rng(seed).permutation(n)
    return [np.sort(part) for part in np.array_split(order, max(2, min(folds, n // 2)))]


def log_density(scaled: Array, components: Components, given: Sequence[int] | None = None) -> Array:
    """Log density of the observed entries of rows, given the observed entries of some columns.

    Args:
        scaled: rows (n, d), NaN where an entry is missing.
        components: the mixture.
        given: the given columns; None for the joint density.

    Returns:
        (n,).
    """
    joint = observed_log_prob(scaled, components)
    if not given:
        return joint
    known = np.full_like(scaled, np.nan)
    known[:, list(given)] = scaled[:, list(given)]
    return joint - observed_log_prob(known, components)


class HeldOutLoss:
    """Cross-validated loss of a number of components.

    Args:
        fitter: all rows.
        options: how EM is run.
        folds: number of parts, each of which is held out once.
        score: log densities of held-out rows, given by their numbers, under a mixture.

    Attributes:
        best: log density of each row while it was held out (N,), of the best number so far.
        most_components: largest number that every training part has rows for.
    """

    def __init__(
        self,
        fitter: Fitter,
        options: EmOptions,
        folds: int,
        score: Callable[[Components, Rows], Array],
    ) -> None:
        self._parts = fold_rows(fitter.n_rows, folds, options.seed)
        self._fitters = [fitter.without(part) for part in self._parts]
        self._weights = fitter.weights[np.concatenate(self._parts)]
        # folds side by side leave nothing to share within one
        self._options, self._n_jobs = replace(options, n_jobs=1), options.n_jobs
        self._score = score
        # no more than a training part has distinct rows for
        self.best: Array | None = None
        self._lowest = math.inf
        self.most_components = min(each.most_components for each in self._fitters)
        self._single = self._scores(1)

    def _scores(self, n: int) -> Array:
        most = min(n, self.most_components)

        def fit(fitter: Fitter) -> Components:
            return fitter.fit(most, self._options).components

        mixtures = in_parallel(fit, self._fitters, self._n_jobs)
        pairs = zip(mixtures, self._parts, strict=True)
        return np.concatenate([self._score(mixture, part) for mixture, part in pairs])

    def __call__(self, n: int) -> float:
        """The loss.

        Args:
            n: number of components.

        Returns:
            Minus the mean log density of a held-out row.
        """
        own = self._scores(n) if n > 1 else self._single
        own = np.logaddexp(own + np.log1p(-_SINGLE_SHARE), self._single + np.log(_SINGLE_SHARE))
        loss = -float(np.average(own, weights=self._weights))
        if loss < self._lowest:
            self._lowest, self.best = loss, own[np.argsort(np.concatenate(self._parts))]
        return loss
