"""Speed of the mixture's queries against gmr's, side by side in one process, in CPU seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gmr
import numpy as np

from genopt.models.mixture.gmm import GaussianMixture

_QUERIES = 10_000
_LOOPED = 200


def mixture_ratios(given: int = 5, seed: int = 0) -> dict[str, float]:
    """Compare 10,000 queries of a 10-D mixture of 20 components.

    The loop over ``gmr.condition`` is timed on 200 queries and scaled.

    Args:
        given: number of known columns of a query.
        seed: seed of the mixture and of the queries.

    Returns:
        CPU seconds of both sides, their ratios and the largest difference of the means.
    """
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(20, 10, 10))
    covariances = factors @ factors.transpose(0, 2, 1) / 10 + 0.1 * np.eye(10)
    parameters = rng.dirichlet(np.ones(20)), 3.0 * rng.normal(size=(20, 10)), covariances
    theirs = gmr.GMM(20, *parameters, random_state=seed)
    ours = GaussianMixture(20, *parameters, random_state=seed)
    known = list(range(given))
    queries = ours.sample(_QUERIES, random_state=seed)[:, known]

    predict, expected = _fastest(lambda: theirs.predict(known, queries), 3)
    predict_batch, found = _fastest(lambda: ours.predict(known, queries), 7)
    looped, _ = _fastest(lambda: [theirs.condition(known, x) for x in queries[:_LOOPED]], 2)
    batch, _ = _fastest(lambda: ours.condition_batch(known, queries), 7)
    loop = looped * _QUERIES / _LOOPED
    return {
        "gmr_predict_s": predict,
        "predict_s": predict_batch,
        "predict_ratio": predict / predict_batch,
        "gmr_condition_s": loop,
        "condition_s": batch,
        "condition_ratio": loop / batch,
        "largest_difference": float(np.abs(expected - found).max()),
    }


def _fastest(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    times, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        times.append(time.process_time() - start)
    return min(times), result


if __name__ == "__main__":
    for name, value in mixture_ratios().items():
        print(f"{name:20s} {value:.4g}")
