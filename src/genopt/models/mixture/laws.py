"""The law of some variables for queries that know the same columns.

Known values are constants and a column that a sum implies is a sum of others, so all columns are an
affine map of those that are free of one another, whose conditional mixture is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from genopt.models.mixture.conditionals import ConditionalBatch
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.density import JointDensity
from genopt.models.mixture.modes_search import ConditionalModes
from genopt.models.mixture.quantiles import mixture_cdf, mixture_quantiles


class Law:
    """C laws of the F full columns of some variables (a class has one for each label).

    Args:
        density: the joint density.
        values: values of the known variables (C, V).
        known: the known variables.
        wanted: the variables, known or not.
    """

    def __init__(
        self,
        density: JointDensity,
        values: Tensor,
        known: tuple[int, ...],
        wanted: tuple[int, ...],
    ) -> None:
        columns = density.columns
        free = tuple(i for i in wanted if i not in known)
        batch, selection, given = density.conditional(values, known, free)
        order = columns.columns(wanted)
        self.batch: ConditionalBatch = batch
        self.map = np.zeros((len(order), len(selection.wanted)))
        self.shift = np.zeros((len(values), len(order)))
        for position, column in enumerate(selection.wanted):
            self.map[order.index(column), position] = 1.0
        for column, others in selection.implied:
            row = order.index(column)
            self.shift[:, row] = 1.0
            for other in others:
                if other in selection.wanted:
                    self.map[row, selection.wanted.index(other)] = -1.0
                else:
                    self.shift[:, row] -= given[:, selection.given.index(other)]
        everything = columns.full(values, known).numpy()
        for position, column in enumerate(columns.columns(known)):
            if column in order:
                self.shift[:, order.index(column)] = everything[:, position]

    @property
    def means(self) -> Array:
        """Means of the components (C, k, F)."""
        means: Array = self.batch.means @ self.map.T + self.shift[:, None]
        return means

    def mean(self) -> Array:
        """Means (C, F)."""
        return np.asarray(self.batch.mean() @ self.map.T + self.shift)

    def covariance(self) -> Array:
        """Covariances (C, F, F)."""
        return np.asarray(self.map @ self.batch.covariance() @ self.map.T)

    def quantile(self, levels: ArrayLike, column: int) -> Array:
        """Quantiles of one column.

        Args:
            levels: probabilities (Q,).
            column: which of the F columns.

        Returns:
            (C, Q).
        """
        return mixture_quantiles(levels, *self._column(column))

    def cdf(self, values: Array, column: int) -> Array:
        """Probability of one column below some values.

        Args:
            values: (C, n).
            column: which of the F columns.

        Returns:
            (C, n); for a known column 0 below its value, else 1.
        """
        if not self.map[column].any():
            return np.asarray(values >= self.shift[:, [column]], dtype=np.float64)
        return mixture_cdf(values, *self._column(column))

    def _column(self, column: int) -> tuple[Array, Array, Array]:
        """Weights (C, k), means (C, k) and deviations (k,) of one column."""
        deviations = np.linalg.norm(self.map[column] @ self.batch.lower, axis=-1)
        return self.batch.weights, self.means[:, :, column], deviations

    def modes(self) -> ConditionalModes:
        """The peaks of the density, with points (C, L, F).

        Returns:
            The modes; where everything is known the one point, of weight 1 and log density 0.
        """
        if not self.map.shape[1]:
            one = np.ones((len(self.shift), 1))
            count: Any = np.ones(len(one), dtype=np.intp)
            return ConditionalModes(self.shift[:, None], 0.0 * one, one, count)
        found = self.batch.modes()
        return ConditionalModes(
            found.points @ self.map.T + self.shift[:, None],
            found.log_density,
            found.weights,
            found.count,
        )
