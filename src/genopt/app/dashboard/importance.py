"""Which keys matter: how much worse a forest predicts a number when one key is shuffled.

Permutation importance (Breiman 2001) on studies that the forest has not seen, so that a key that
only memorises noise gets none. The share that the forest explains says how far to trust it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# fewer studies than these say nothing about several keys
FEWEST = 10
_TREES, _FOLDS, _REPEATS = 60, 5, 5
# a number that spans more than this ratio is looked at on a log scale
_DECADES = 30.0


def importance(
    columns: dict[str, Sequence[Any]], values: Sequence[float | None], seed: int = 0
) -> dict[str, Any]:
    """How much each key decides a number.

    Args:
        columns: values of each key by study; None where a study does not have it, which counts as
            its usual value, so that a key of one engine does not stand for the engine.
        values: the number by study; None or NaN where there is none.
        seed: of the forest and the shuffles.

    Returns:
        ``keys``, their ``mean`` importance (the loss of explained share when shuffled) and its
        ``spread``, the share ``explained`` of unseen studies, the number of ``studies``, and
        whether it was looked at on a ``log`` scale; or ``why`` there is none.
    """
    rows = [i for i, v in enumerate(values) if v is not None and math.isfinite(v)]
    names = [
        name
        for name, column in columns.items()
        if len({repr(column[i]) for i in rows if column[i] is not None}) > 1
    ]
    if len(rows) < FEWEST:
        return {"why": f"{len(rows)} finished studies; at least {FEWEST} are needed"}
    if not names:
        return {"why": "no key varies between the finished studies"}
    y = np.array([values[i] for i in rows], dtype=float)
    if float(np.ptp(y)) == 0.0:
        return {"why": "all studies have the same value"}
    log = bool(y.min() > 0.0 and y.max() > _DECADES * y.min())
    y = np.log10(y) if log else y
    x = np.stack([_codes([columns[name][i] for i in rows]) for name in names], axis=1)
    means, explained = _shuffled(x, y, seed)
    order = np.argsort(-means.mean(0))
    return {
        "keys": [names[i] for i in order],
        "mean": [float(means[:, i].mean()) for i in order],
        "spread": [float(means[:, i].std()) for i in order],
        "explained": explained,
        "studies": len(rows),
        "log": log,
    }


def _shuffled(x: NDArray[Any], y: NDArray[Any], seed: int) -> tuple[NDArray[Any], float]:
    """Importances by fold (folds, keys), and the explained share of unseen studies."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    generator = np.random.default_rng(seed)
    losses, errors, total = [], 0.0, 0.0
    for train, test in KFold(_FOLDS, shuffle=True, random_state=seed).split(x):
        forest = RandomForestRegressor(_TREES, random_state=seed, n_jobs=1).fit(x[train], y[train])
        # asking the forest once for all shuffles costs a tenth of asking for each
        asked = np.tile(x[test], (1 + _REPEATS * x.shape[1], 1, 1))
        for i, block in enumerate(asked[1:]):
            block[:, i % x.shape[1]] = generator.permutation(block[:, i % x.shape[1]])
        told = forest.predict(asked.reshape(-1, x.shape[1])).reshape(len(asked), -1)
        squared = ((told - y[test]) ** 2).mean(1)
        losses.append((squared[1:] - squared[0]).reshape(_REPEATS, -1).mean(0))
        errors += float(squared[0]) * len(test)
        total += float(np.sum((y[test] - y.mean()) ** 2))
    # as a share of the variance: 0.5 means that half of what could be explained is lost
    return np.array(losses) / max(float(y.var()), 1e-300), 1.0 - errors / max(total, 1e-300)


def _codes(values: Sequence[Any]) -> NDArray[Any]:
    """A column of numbers; texts by rank, a key that a study does not have at its usual value."""
    known = [v for v in values if v is not None]
    if not all(isinstance(v, int | float) for v in known):
        ranks = {text: i for i, text in enumerate(sorted({str(v) for v in known}))}
        values = [None if v is None else ranks[str(v)] for v in values]
        known = [v for v in values if v is not None]
    usual = Counter(known).most_common(1)[0][0]
    return np.array([usual if v is None else v for v in values], dtype=float)
