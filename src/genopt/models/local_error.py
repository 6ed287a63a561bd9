"""How far a model was off at the measured rows near a design: a spread for any model of y.

A search ends with many designs that all claim to meet the goal, so the claim cannot rank them. What
the model got right nearby can: the squared residuals of the nearest rows, grown with the distance
to them, are an estimate of the squared error that a claim may carry.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.protocols import ForwardModel

# rows nearer than a tenth of the usual distance count as equally near
_SOFT = 0.1


class LocalError:
    """Standard deviations of a model's claims, from its residuals at the nearest measured rows.

    The residuals of the k nearest rows are averaged with weights 1 / distance^2 (Shepard 1968, doi
    10.1145/800186.810616) and grow by 1 + (d / d_0)^2, where d is the mean distance to these rows,
    d_0 what it usually is between rows. Distances are taken in the unit box of the x Space. Rows
    that the model was fitted to are good enough to rank designs; their residuals are smaller than
    those of new rows.

    Args:
        model: a fitted model of y.
        table: measured rows; a row without a label says nothing about that column.
        neighbours: how many rows k speak for a design.

    Raises:
        GenoptError: if the table has other columns, or fewer than two rows.
    """

    def __init__(self, model: ForwardModel, table: Table, neighbours: int = 8) -> None:
        if table.x_space.names != model.x_space.names or table.y_space.names != model.y_space.names:
            raise GenoptError(
                f"table has columns {', '.join((*table.x_space.names, *table.y_space.names))}; the "
                f"model knows {', '.join((*model.x_space.names, *model.y_space.names))}"
            )
        if len(table) < 2 or neighbours < 1:
            raise GenoptError(
                f"a local error needs at least 2 measured rows and 1 neighbour, got {len(table)} "
                f"and {neighbours}"
            )
        self.space = table.x_space
        with torch.no_grad():
            residual = model.predict_y(table.x).to(table.y) - table.y
        for k, variable in enumerate(table.y_space):
            if variable.labels:
                residual[:, k] = torch.nan
        unit = self.space.encode(table.x)
        self.columns = residual.shape[1]
        self.groups = [
            _Neighbours(unit[known], residual[known][:, columns].square(), columns, neighbours)
            for known, columns in _alike(residual)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """The expected size of the model's error.

        Args:
            x: designs (..., P) in raw units.

        Returns:
            Standard deviations (..., K) in raw units, float64; NaN for a class column and for one
            with fewer than two labels.
        """
        unit = self.space.encode(x.detach().reshape(-1, self.space.dim))
        spread = torch.full((len(unit), self.columns), torch.nan, dtype=torch.float64)
        for group in self.groups:
            spread[:, group.columns] = group.variance(unit).sqrt()
        return spread.reshape(*x.shape[:-1], self.columns)


def _alike(residual: Tensor) -> list[tuple[Tensor, list[int]]]:
    """Columns that are known in the same rows: (rows (N,), columns) for each such set."""
    groups: list[tuple[Tensor, list[int]]] = []
    for k in range(residual.shape[1]):
        known = ~torch.isnan(residual[:, k])
        if int(known.sum()) < 2:
            continue
        same = next((columns for rows, columns in groups if torch.equal(rows, known)), None)
        if same is None:
            groups.append((known, [k]))
        else:
            same.append(k)
    return groups


class _Neighbours:
    """The rows that have a label in some columns, and the squared residuals there.

    Args:
        unit: rows in the unit box (N, E).
        squares: squared residuals (N, k).
        columns: the columns' numbers (k,).
        neighbours: how many rows speak for a design.
    """

    def __init__(self, unit: Tensor, squares: Tensor, columns: list[int], neighbours: int) -> None:
        from scipy.spatial import cKDTree

        self.columns = columns
        self.squares = squares
        self.count = min(neighbours, len(unit) - 1)
        self.tree: Any = cKDTree(unit.numpy())
        # a row's nearest row is itself
        gaps = self._query(unit, self.count + 1)[0][:, 1:].mean(1)
        usual = float(gaps.median())
        self.usual = usual if usual > 0.0 else max(float(gaps.mean()), 1e-12)

    def _query(self, unit: Tensor, count: int) -> tuple[Tensor, Tensor]:
        gaps, rows = self.tree.query(unit.numpy(), k=list(range(1, count + 1)))
        return torch.from_numpy(gaps), torch.from_numpy(rows)

    def variance(self, unit: Tensor) -> Tensor:
        """Expected squared errors (M, k) of points (M, E) of the unit box."""
        gaps, rows = self._query(unit, self.count)
        weights = 1.0 / (gaps.square() + (_SOFT * self.usual) ** 2)
        weights = weights / weights.sum(-1, keepdim=True)
        near = (weights.unsqueeze(-1) * self.squares[rows]).sum(1)
        growth = 1.0 + (gaps.mean(-1) / self.usual).square()
        return near * growth.unsqueeze(-1)
