"""What the sections share: CPU seconds, Markdown tables, a mixture to draw tables from."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genopt import GaussianMixture

Array = NDArray[np.float64]


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[Any, float]:
    """A result and the fewest CPU seconds it took."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        result = work()
        seconds.append(time.process_time() - started)
    return result, min(seconds)


def table(head: str, lines: list[str]) -> str:
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *lines])


def some_mixture(k: int, d: int, seed: int) -> GaussianMixture:
    """Components that touch one another."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(k, d, d)) / math.sqrt(d)
    covariances = factors @ factors.transpose(0, 2, 1) + 0.05 * np.eye(d)
    weights = rng.dirichlet(np.full(k, 5.0))
    return GaussianMixture(k, weights, 2.0 * rng.normal(size=(k, d)), covariances, random_state=0)


def version(package: str) -> str:
    return str(getattr(importlib.import_module(package), "__version__", ""))
