"""A quick guess of y between measured rows, by radial basis functions.

It is no engine: `genopt.problems.adaptive` asks it where the next designs are worth simulating.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.errors import GenoptError

# relative to the spread of a column; the first interpolates, the others smooth noise away
_SMOOTHING = (1e-10, 1e-3, 1e-1, 10.0)
_KEEP_OUT = 4
# more rows cost more than a guess is worth
_MOST_ROWS = 1000
_FLAT = 1e-6


class Interpolation:
    """Cubic radial basis functions with a linear trend (Fasshauer 2007, doi 10.1142/6437).

    Each column of y is interpolated between the rows that have it, or smoothed where every fourth
    row is then met better; classes go by the largest of their interpolated shares.

    Args:
        table: measured rows; of more than a thousand so many are used.

    Raises:
        GenoptError: if a column of y has fewer labels than the design has columns, plus two.
    """

    def __init__(self, table: Table) -> None:
        self.x_space, self.y_space = table.x_space, table.y_space
        if len(table) > _MOST_ROWS:
            table = table.rows(torch.linspace(0, len(table) - 1, _MOST_ROWS).round().long())
        unit = self.x_space.encode(table.x).numpy()
        self._middle = unit.mean(0)
        # one-hot blocks and fractions are dependent: directions that the rows span
        _, sizes, directions = np.linalg.svd(unit - self._middle, full_matrices=False)
        self._directions = directions[sizes > _FLAT * max(sizes.max(initial=0.0), 1e-300)].T
        z = (unit - self._middle) @ self._directions
        self._columns: list[Any] = []
        for k, variable in enumerate(self.y_space):
            known = torch.isfinite(table.y[:, k]).numpy()
            least = z.shape[1] + 2
            if known.sum() < least:
                raise GenoptError(
                    f"y column {variable.name!r} has {int(known.sum())} labels in the first round "
                    f"of sampling; at least {least} are needed: raise data.rows or lower "
                    "data.rounds"
                )
            values = table.y[known, k].numpy()[:, None]
            if variable.labels:
                values = (values == np.arange(len(variable.labels))).astype(float)
            self._columns.append(_smoothest(z[known], values))

    def __call__(self, x: Tensor) -> Tensor:
        """Guessed properties.

        Args:
            x: designs (M, P) in raw units.

        Returns:
            Properties (M, K), float64; classes as codes.
        """
        z = (self.x_space.encode(x).numpy() - self._middle) @ self._directions
        guesses = [column(z) for column in self._columns]
        return torch.stack(
            [
                torch.from_numpy(g.argmax(1).astype(float) if v.labels else g[:, 0])
                for g, v in zip(guesses, self.y_space, strict=True)
            ],
            1,
        )


def _smoothest(z: np.ndarray, values: np.ndarray) -> Any:
    """The interpolator of rows (N, D) and values (N, C) that meets left-out rows best."""
    held = np.arange(len(z)) % _KEEP_OUT == 0
    least = z.shape[1] + 2
    misses = []
    for smoothing in _SMOOTHING:
        if (~held).sum() < least:
            break
        guess = _fitted(z[~held], values[~held], smoothing)(z[held])
        misses.append(float(np.square(guess - values[held]).mean()))
    best = int(np.nanargmin(misses)) if misses else 0
    return _fitted(z, values, _SMOOTHING[best])


def _fitted(z: np.ndarray, values: np.ndarray, smoothing: float) -> Any:
    from scipy.interpolate import RBFInterpolator

    # equal designs have one value: their mean
    points, group = np.unique(z, axis=0, return_inverse=True)
    means = np.zeros((len(points), values.shape[1]))
    np.add.at(means, group.reshape(-1), values)
    means /= np.bincount(group.reshape(-1))[:, None]
    return RBFInterpolator(points, means, smoothing=smoothing, kernel="cubic")
