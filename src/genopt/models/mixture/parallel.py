"""Several EM runs at the same time, in threads: their matrix products release the interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_SINGLE_THREAD_SIZE = 500_000


def in_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], n_jobs: int = 1
) -> list[Result]:
    """The results of some work on all items, in their order.

    Args:
        work: a function of one item that changes nothing the others see.
        items: the items.
        n_jobs: how many are worked on at the same time.

    Returns:
        The results.
    """
    if n_jobs == 1 or len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(n_jobs, len(items))) as pool:
        return list(pool.map(work, items))


@contextmanager
def quiet_threads(size: int, n_jobs: int) -> Iterator[None]:
    """Fit without threads inside matrix products where they cost more than they bring.

    It also silences k-means where there are fewer clusters than were asked for: such components
    have no weight. Both are settings of the whole process, so they are made once, around all fits.

    Args:
        size: number of entries of the table.
        n_jobs: how many fits run at the same time.

    Yields:
        Nothing.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    alone = n_jobs == 1 and size >= _SINGLE_THREAD_SIZE
    with warnings.catch_warnings(), threadpool_limits(None if alone else 1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
