"""Where the last EM starts: from the mixture that grew by cuts, or from clusters of all rows.

The one that grew is likelier, also on rows that it has not seen, but some of its components may be
wide and sparse, and what is predicted or drawn there is far off. So held-out rows are asked how far
each column is from what the others say.
"""

from __future__ import annotations

import numpy as np

from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components, EmOptions
from genopt.models.mixture.fitting import Fitter
from genopt.models.mixture.heldout import fold_rows

_FOLDS = 3


def prediction_errors(fitter: Fitter, starts: list[Components], options: EmOptions) -> Array:
    """How far held-out entries are from what the other entries of their rows say.

    EM goes on from each start on the rows that are not held out.

    Args:
        fitter: the rows.
        starts: mixtures of all rows.
        options: how EM is run.

    Returns:
        For each start the logarithm of the root mean square error, mean over the columns, in units
        of their standard deviation.
    """
    sums, weights = np.zeros((len(starts), fitter.width)), np.zeros(fitter.width)
    for part in fold_rows(fitter.n_rows, _FOLDS, options.seed):
        rest = fitter.without(part)
        for i, start in enumerate(starts):
            components = rest.fit(len(start.weights), options, start).components
            squares = fitter.squared_errors(part, components)
            sums[i] += fitter.weights[part] @ np.nan_to_num(squares)
        weights += fitter.weights[part] @ np.isfinite(squares)
    squares = sums / np.maximum(weights, 1.0)
    # what is added to each component is no error worth a difference
    logs: Array = 0.5 * np.log(squares + options.regularization)
    return logs.mean(1)


def last_start(fitter: Fitter, grown: Components, options: EmOptions) -> Components:
    """The better of two starts for the last EM.

    Args:
        fitter: the rows.
        grown: the mixture that was chosen, grown from smaller ones.
        options: how EM is run.

    Returns:
        That mixture, or one of as many components from clusters of all rows.
    """
    n = len(grown.weights)
    if n == 1 or fitter.n_rows < 2 * _FOLDS:
        return grown
    clustered = fitter.from_clusters(n, options).components
    errors = prediction_errors(fitter, [grown, clustered], options)
    return clustered if errors[1] < errors[0] else grown
