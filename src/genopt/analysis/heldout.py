"""What a model says of rows that its training did not see, and how far that can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genopt.analysis.calibration import CalibrationCurve, calibration_curves, calibration_scores
from genopt.analysis.metrics import regression_scores
from genopt.data.table import Table


@dataclass(frozen=True)
class HeldOut:
    """Predictions beside what was measured.

    Args:
        rows: the rows (N).
        predicted: predictions (N, K); NaN for a column that the model does not predict.
        spread: their standard deviations (N, K), NaN for a column without one; None where the
            model claims no spread at all.
    """

    rows: Table
    predicted: Tensor
    spread: Tensor | None = None

    @classmethod
    def of(cls, model: Any, table: Table) -> HeldOut:
        """Ask a model of the test rows; of the training rows where there are none.

        Args:
            model: a forward model; one with ``spread_y`` is asked for its spread too.
            table: all rows, with split labels.

        Returns:
            The predictions.
        """
        rows = table.part("test") if len(table.part("test")) else table.part("train")
        with torch.no_grad():
            predicted = model.predict_y(rows.x).detach().to(torch.float64)
            spread = None
            if getattr(model, "has_spread", False):
                spread = model.spread_y(rows.x).detach().to(torch.float64)
        return cls(rows, predicted, spread)

    @property
    def unseen(self) -> bool:
        """Whether training did not see the rows."""
        return "test" in self.rows.split

    def scores(self) -> dict[str, float]:
        """Errors of each column and, where there is a spread, how well it covers them.

        Returns:
            Those of `regression_scores` and of `calibration_scores`.
        """
        space = self.rows.y_space
        found = regression_scores(self.rows.y, self.predicted, space)
        if self.spread is not None:
            found |= calibration_scores(self.rows.y, self.predicted, self.spread, space)
        return found

    def curves(self) -> list[CalibrationCurve]:
        """Observed against expected coverage, a curve for each column with a spread.

        Returns:
            The curves; none where the model claims no spread.
        """
        if self.spread is None:
            return []
        return calibration_curves(self.rows.y, self.predicted, self.spread, self.rows.y_space)
