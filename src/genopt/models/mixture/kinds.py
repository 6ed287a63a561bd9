"""Which kind of covariance, and how many factors: by the criterion that chooses the components.

A full covariance of d columns has d (d + 1) / 2 numbers for each component, more than a wide table
can tell. The criterion sees that: its scores are those of densities in raw units, so they compare
kinds of covariances as well as numbers of components. Held-out densities are compared row by row:
in a column that hardly varies, the few rows that differ have a density so low under every kind that
their sum would decide alone, so one row counts only so much.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np

from genopt.errors import GenoptError, UnknownNameError
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.covariances import KINDS
from genopt.models.mixture.factors import largest_rank

logger = logging.getLogger(__name__)
CHOICES = (*KINDS, "auto")
# below this, no table was found where factors are worth a second search
NARROW = 10
_FIRST_RANK = 2
_ROWS_A_NUMBER = 10
# with more factors a component covers more, so larger mixtures are not tried again
_MORE_COMPONENTS = 2
_MOST_OF_A_ROW = 10.0


class Scored(Protocol):
    """A fit with the scores of its choice."""

    @property
    def n_components(self) -> int:
        """The number that was chosen."""

    @property
    def scores(self) -> dict[int, float]:
        """The criterion of each number tried, lower is better."""

    @property
    def held_out(self) -> Array | None:
        """Log density of each row while it was held out (N,); None for other criteria."""


Fit = TypeVar("Fit", bound=Scored)


def check_kind(kind: str, n_factors: int | None) -> None:
    """Refuse what is no kind of covariance, or a number of factors without factors.

    Args:
        kind: the kind.
        n_factors: number of factors; None where it is to be chosen or there are none.

    Raises:
        GenoptError: if there cannot be so many factors, or none at all.
        UnknownNameError: if the kind is unknown.
    """
    if kind not in CHOICES:
        raise UnknownNameError("covariance", kind, CHOICES)
    if n_factors is not None and kind != "factors":
        raise GenoptError(f"n_factors={n_factors} needs covariance='factors', not {kind!r}")
    if n_factors is not None and n_factors < 1:
        raise GenoptError(f"n_factors={n_factors} must be at least 1; None chooses it")


def hint_at_factors(kind: str, n: int, width: int) -> None:
    """Say that a wide table with few rows may be better off with factors.

    Args:
        kind: the kind that is asked for.
        n: number of rows.
        width: number of columns.
    """
    numbers = width * (width + 1) // 2
    if kind == "full" and width > NARROW and n < _ROWS_A_NUMBER * numbers:
        logger.info(
            "%d rows of %d columns for full covariances of %d numbers: covariance=auto also tries "
            "factors, which need fewer",
            n,
            width,
            numbers,
        )


def chosen_covariance(
    fit: Callable[[str, int | None, int], Fit],
    kind: str,
    width: int,
    least: int,
    most: int,
    weights: Array,
) -> Fit:
    """The best of several kinds of covariances.

    The number of factors is doubled from two on until that does not help.

    Args:
        fit: chooses the number of components for a kind, a number of factors and a largest number.
        kind: ``factors``, or ``auto`` for full covariances too.
        width: number of columns.
        least: smallest number of components.
        most: largest number of components.
        weights: how many rows each row counts for (N,).

    Returns:
        The best fit.
    """
    if kind == "auto" and width <= NARROW:
        return fit("full", None, most)
    tried: list[Fit] = []
    with warnings.catch_warnings():
        # each fit would warn of the same rows
        warnings.simplefilter("ignore")
        if kind == "auto":
            tried.append(fit("full", None, most))
            logger.info("full covariances: score %.6g", _score(tried[-1]))
            # smaller components may be more, but a wide table does not tell many apart
            most = max(least, min(most, 2 * tried[-1].n_components + _MORE_COMPONENTS))
        rank, top = min(_FIRST_RANK, largest_rank(width)), most
        factored: Fit | None = None
        while rank <= largest_rank(width):
            last, factored = factored, fit("factors", rank, top)
            logger.info("%d factors: score %.6g", rank, _score(factored))
            if last is not None and advantage(factored, last, weights) <= 0.0:
                factored = last
                break
            top = max(least, min(most, factored.n_components + _MORE_COMPONENTS))
            rank *= 2
    if factored is not None:
        tried.append(factored)
    if len(tried) == 1 or advantage(tried[1], tried[0], weights) > 0.0:
        return tried[-1]
    return tried[0]


def advantage(one: Scored, other: Scored, weights: Array) -> float:
    """By how much one fit is better than another of the same rows.

    Args:
        one: a fit.
        other: the other.
        weights: how many rows each row counts for (N,).

    Returns:
        The difference of log densities of held-out rows, no row counting for more than a limit,
        mean over the rows; of other criteria the difference of the scores.
    """
    if one.held_out is None or other.held_out is None:
        return _score(other) - _score(one)
    differences = np.clip(one.held_out - other.held_out, -_MOST_OF_A_ROW, _MOST_OF_A_ROW)
    return float(np.average(differences, weights=weights))


def _score(fit: Scored) -> float:
    return fit.scores[fit.n_components]
