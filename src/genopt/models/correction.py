"""What a model got wrong at the rows near a design: how far it is off there, and to which side.

A smooth model of exact rows errs smoothly, so its error at a new design is much the same as at the
rows around it and can be taken off its claim. What is left is the spread that the claim may carry.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.protocols import ForwardModel

# a correction that takes less than a tenth off the squared residuals of rows left out is noise
_HELPS = 0.9
# rows nearer than a tenth of the usual distance count as equally near
_SOFT = 0.1
# above so many directions there are too few rows for slopes
_MOST_SLOPES = 20
_CHUNK = 8192
_RIDGE = 1e-9


class Correction:
    """Corrections to a model's claims and their standard deviations, from measured rows.

    The residuals of the nearest rows are fitted by a straight line in each direction, rows counting
    by 1 / distance^2 (local regression; Cleveland 1979, doi 10.1080/01621459.1979.10481038). A
    column is corrected only where this predicts rows that are left out, so noise is left alone. The
    spread is what is left of the residuals nearby, grown with the distance to them.

    Args:
        model: a fitted model of y.
        table: measured rows; a row without a label says nothing about that column.

    Raises:
        GenoptError: if the table has fewer than two rows.
    """

    def __init__(self, model: ForwardModel, table: Table) -> None:
        if len(table) < 2:
            raise GenoptError(f"a correction needs at least 2 measured rows, got {len(table)}")
        self.space = table.x_space
        unit = self.space.encode(table.x)
        with torch.no_grad():
            residual = table.y - model.predict_y(table.x).to(table.y)
        self.columns: list[_Column | None] = []
        for k, variable in enumerate(table.y_space):
            known = torch.isfinite(residual[:, k])
            usable = not variable.labels and int(known.sum()) > 1
            self.columns.append(_Column(unit[known], residual[known, k]) if usable else None)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to the model's claims of designs, and how sure the sum is.

        Args:
            x: designs (..., P) in raw units.

        Returns:
            Corrections and standard deviations (..., K) in raw units, float64; 0 and NaN for a
            class column and for one with fewer than two labels.
        """
        unit = self.space.encode(x.detach().reshape(-1, self.space.dim))
        shift = torch.zeros(len(unit), len(self.columns), dtype=torch.float64)
        spread = torch.full_like(shift, torch.nan)
        for k, column in enumerate(self.columns):
            if column is not None:
                shift[:, k], spread[:, k] = column(unit)
        shape = (*x.shape[:-1], len(self.columns))
        return shift.reshape(shape), spread.reshape(shape)


class _Column:
    """The residuals (N,) of one column at rows (N, E) of the unit box."""

    def __init__(self, unit: Tensor, residual: Tensor) -> None:
        from scipy.spatial import cKDTree

        self.unit, self.residual = unit, residual
        self.slopes = unit.shape[1] <= _MOST_SLOPES
        wanted = 4 * (unit.shape[1] + 1) if self.slopes else 8
        self.count = min(wanted, len(unit) - 1)
        self.tree: Any = cKDTree(unit.numpy())
        gaps, rows = self._query(unit, self.count + 1)
        # a row's nearest row is itself
        gaps, rows = gaps[:, 1:], rows[:, 1:]
        usual = float(gaps.mean(1).median())
        self.usual = usual if usual > 0.0 else max(float(gaps.mean()), 1e-12)
        left_out = residual - self._shift(unit, gaps, rows)
        plain = float(residual.square().mean())
        self.corrects = float(left_out.square().mean()) < _HELPS * plain
        self.squares = (left_out if self.corrects else residual).square()

    def __call__(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Corrections (M,) and standard deviations (M,) at points (M, E)."""
        gaps, rows = self._query(unit, self.count)
        weights = self._weights(gaps)
        near = (weights * self.squares[rows]).sum(-1)
        growth = 1.0 + (gaps.mean(-1) / self.usual).square()
        if not self.corrects:
            return torch.zeros(len(unit), dtype=torch.float64), (near * growth).sqrt()
        return self._shift(unit, gaps, rows), (near * growth).sqrt()

    def _query(self, unit: Tensor, count: int) -> tuple[Tensor, Tensor]:
        gaps, rows = self.tree.query(unit.numpy(), k=list(range(1, count + 1)))
        return torch.from_numpy(gaps), torch.from_numpy(rows)

    def _weights(self, gaps: Tensor) -> Tensor:
        weights = 1.0 / (gaps.square() + (_SOFT * self.usual) ** 2)
        return weights / weights.sum(-1, keepdim=True)

    def _shift(self, unit: Tensor, gaps: Tensor, rows: Tensor) -> Tensor:
        """The residual that the rows (M, k) around points (M, E) let expect."""
        weights = self._weights(gaps)
        if not self.slopes or rows.shape[1] <= unit.shape[1] + 1:
            return (weights * self.residual[rows]).sum(-1)
        pieces = zip(unit.split(_CHUNK), weights.split(_CHUNK), rows.split(_CHUNK), strict=True)
        return torch.cat([self._line(*piece) for piece in pieces])

    def _line(self, unit: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
        away = (self.unit[rows] - unit[:, None]) / self.usual
        design = torch.cat([torch.ones_like(away[..., :1]), away], -1)
        weighted = weights[..., None] * design
        normal = design.mT @ weighted
        normal = normal + _RIDGE * torch.eye(normal.shape[-1], dtype=normal.dtype)
        right = weighted.mT @ self.residual[rows][..., None]
        return torch.linalg.solve(normal, right)[:, 0, 0]
