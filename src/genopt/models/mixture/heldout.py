"""Held-out likelihood: how well a mixture explains rows that it has not seen, joint or conditional.

The conditional density of the wanted columns is that of all columns over that of the given ones;
both are sums over the observed entries, so rows with gaps count by what they show.

One row far from all components would outweigh all others, so a mixture is scored together with a
share of one per cent of a single Gaussian: a row can cost at most log 100 more than under that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components, EmOptions, GappyRows
from genopt.models.mixture.fitting import Fitter

Rows = NDArray[np.intp]
_PATIENCE = 6
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
    k = len(components.weights)
    joint = GappyRows(scaled, k).log_prob(components)
    if not given:
        return joint
    known = np.full_like(scaled, np.nan)
    known[:, list(given)] = scaled[:, list(given)]
    return joint - GappyRows(known, k).log_prob(components)


def held_out_losses(
    scaled: Array,
    sizes: Sequence[int],
    options: EmOptions,
    folds: int,
    score: Callable[[Components, Rows], Array],
) -> dict[int, float]:
    """Cross-validated loss of each number of components.

    Args:
        scaled: rows (N, d), NaN where an entry is missing.
        sizes: numbers of components.
        options: how EM is run.
        folds: number of parts, each of which is held out once.
        score: log densities of held-out rows, given by their numbers, under a mixture.

    Returns:
        Minus the mean log density of a row for each number of components that was tried: not those
        that a training part has too few distinct rows for, nor those above after a run of losses.
    """
    parts = fold_rows(len(scaled), folds, options.seed)
    fitters = [Fitter(np.delete(scaled, part, axis=0)) for part in parts]
    most = min(fitter.most_components for fitter in fitters)

    def scores(n: int) -> Array:
        fits = [fitter.fit(min(n, most), options) for fitter in fitters]
        pairs = zip(fits, parts, strict=True)
        return np.concatenate([score(fit.components, part) for fit, part in pairs])

    single = scores(1)
    losses: dict[int, float] = {}
    for n in sizes:
        if n > most and losses:
            break
        own = scores(n) if n > 1 else single
        mixed = np.logaddexp(own + np.log1p(-_SINGLE_SHARE), single + np.log(_SINGLE_SHARE))
        losses[n] = -float(mixed.mean())
        if n - min(losses, key=lambda size: losses[size]) >= _PATIENCE:
            break
    return losses
