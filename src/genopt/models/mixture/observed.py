"""Rows of a table with or without gaps as EM sees them, each by the fastest exact way."""

from __future__ import annotations

import numpy as np

from genopt.models.mixture.complete import CompleteRows
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components, Index, Moments, Rows
from genopt.models.mixture.gappy import GappyRows

# fewer complete rows are not worth a pass of their own
_FEWEST_COMPLETE = 64


class ObservedRows:
    """Complete rows and rows with gaps together.

    Args:
        data: rows (N, d), NaN where an entry is missing; columns of about unit scale.
        weights: how many rows each row counts for (N,); None for one.
        n_components: the number of components that blocks of rows are sized for.
        smallest_variance: of any component in any direction.
        diagonal: whether all covariances are diagonal.
    """

    def __init__(
        self,
        data: Array,
        weights: Array | None = None,
        *,
        n_components: int,
        smallest_variance: float,
        diagonal: bool = False,
    ) -> None:
        self.shape = data.shape
        self.weights = np.ones(len(data)) if weights is None else weights
        complete = np.isfinite(data).all(1)
        whole = data[complete]
        quick = (
            len(whole) >= min(len(data), _FEWEST_COMPLETE)
            and bool(len(whole))
            and CompleteRows.suits(whole, smallest_variance)
        )
        self._parts: list[tuple[Index, Rows]] = []
        if quick:
            rows = np.flatnonzero(complete)
            self._parts.append((rows, CompleteRows(whole, self.weights[rows], diagonal=diagonal)))
        rows = np.flatnonzero(~complete) if quick else np.arange(len(data))
        if rows.size:
            part = GappyRows(data[rows], n_components, self.weights[rows])
            self._parts.append((rows, part))

    def moments(self, components: Components, labels: Index | None = None) -> Moments:
        """The E-step.

        Args:
            components: the mixture.
            labels: the component of each row (N,), instead of what the mixture expects.

        Returns:
            The moments of all rows.
        """
        parts = [
            part.moments(components, None if labels is None else labels[rows])
            for rows, part in self._parts
        ]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def expected(self, components: Components) -> tuple[Array, Index]:
        """What each row is likely to be.

        Args:
            components: the mixture.

        Returns:
            The rows with conditional means where entries miss (N, d), and the likeliest component
            of each (N,).
        """
        filled = np.empty(self.shape)
        labels = np.empty(self.shape[0], dtype=np.intp)
        for rows, part in self._parts:
            filled[rows], labels[rows] = part.expected(components)
        return filled, labels

    def log_prob(self, components: Components) -> Array:
        """Log density of each row's observed entries.

        Args:
            components: the mixture.

        Returns:
            (N,); zero for a row without any.
        """
        out = np.empty(self.shape[0])
        for rows, part in self._parts:
            out[rows] = part.log_prob(components)
        return out


def observed_log_prob(data: Array, components: Components) -> Array:
    """Log density of the observed entries of rows under any mixture.

    Args:
        data: rows (N, d), NaN where an entry is missing; columns of about unit scale.
        components: the mixture.

    Returns:
        (N,); zero for a row without any.
    """
    smallest = smallest_variance(components)
    k = len(components.weights)
    return ObservedRows(data, n_components=k, smallest_variance=smallest).log_prob(components)


def squared_error(data: Array, components: Components, column: int) -> Array:
    """How far the entries of a column are from their means given the other entries.

    Args:
        data: rows (N, d), NaN where an entry is missing.
        components: any mixture.
        column: the column's number.

    Returns:
        The squares (N,); NaN where the entry is missing.
    """
    others = data.copy()
    others[:, column] = np.nan
    rows = GappyRows(others, len(components.weights))
    errors: Array = (rows.expected(components)[0][:, column] - data[:, column]) ** 2
    return errors


def smallest_variance(components: Components) -> float:
    """The smallest variance of any component in any direction.

    Args:
        components: the mixture.

    Returns:
        It, not below zero.
    """
    return max(float(np.linalg.eigvalsh(components.covariances).min()), 0.0)
