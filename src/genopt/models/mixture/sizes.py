"""Numbers of components one after the other, until larger ones have not helped for a while."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

logger = logging.getLogger(__name__)
_EVERY_ONE_UP_TO = 20


def sizes_between(smallest: int, largest: int) -> list[int]:
    """The numbers of components worth trying: each one up to 20, then in steps of a tenth.

    Args:
        smallest: the first.
        largest: the last.

    Returns:
        The numbers in ascending order.
    """
    sizes = [smallest]
    while sizes[-1] < largest:
        step = 1 if sizes[-1] < _EVERY_ONE_UP_TO else sizes[-1] // 10
        sizes.append(min(sizes[-1] + step, largest))
    return sizes


def scores_of_sizes(
    sizes: Sequence[int],
    score: Callable[[int], float],
    *,
    patience: int | None,
    criterion: str,
    progress: bool,
) -> dict[int, float]:
    """Score numbers of components.

    Args:
        sizes: the numbers, in ascending order.
        score: the criterion of one of them, lower is better.
        patience: how many numbers in a row may fail to improve it; None for all.
        criterion: its name.
        progress: show a bar and log each score at level INFO instead of DEBUG.

    Returns:
        The criterion of each number that was tried.
    """
    level = logging.INFO if progress else logging.DEBUG
    scores: dict[int, float] = {}
    with _bar() if progress else nullcontext() as bar:
        task = None if bar is None else bar.add_task("mixture", total=len(sizes), best="")
        for n in sizes:
            scores[n] = score(n)
            logger.log(level, "%d components: %s %.6g", n, criterion, scores[n])
            best = min(scores, key=lambda size: scores[size])
            if bar is not None:
                bar.update(task, advance=1, best=f"{criterion} {scores[best]:.5g} with {best}")
            if patience is not None and sum(size > best for size in scores) >= patience:
                break
    return scores


def _bar() -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("sizes"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[best]}"),
        refresh_per_second=4,
    )
