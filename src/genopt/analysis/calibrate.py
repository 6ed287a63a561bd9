"""Calibrate: all checks of a conditional model's distribution from one set of draws.

Ranks by column, coverage of its densest regions and of balls around random points. What single
designs turn out to be when they are simulated is in `genopt.analysis.resimulation`, what claimed
intervals of a prediction of y cover in `genopt.analysis.calibration`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.analysis.conditional_draws import (
    Density,
    check_truth,
    conditional_draws,
    space_of,
)
from genopt.analysis.coverage import LEVELS, Coverage, expected_coverage
from genopt.analysis.levels import uniform_p
from genopt.analysis.ranks import RankCalibration, rank_calibration
from genopt.analysis.tarp import tarp_coverage
from genopt.errors import GenoptError

logger = logging.getLogger(__name__)

# below this probability a fault is called one
_DOUBTFUL = 0.05
# |mean level - 1/2| in standard errors from which it has a direction
_STEEP = 2.0


@dataclass(frozen=True)
class Calibration:
    """What a conditional model's distribution is worth.

    Args:
        ranks: simulation-based calibration, by column.
        tarp: coverage of balls around random points.
        coverage: coverage of regions of highest density; None where the model has no density for
            its columns.
    """

    ranks: RankCalibration
    tarp: Coverage
    coverage: Coverage | None

    def summary(self) -> dict[str, float]:
        """Plain numbers for a metrics file.

        Returns:
            Those of the parts: ``coverage_50``, ..., ``area``, ``p_value`` of the regions, with
            ``tarp/`` and ``ranks/`` before those of the others.
        """
        scores = {} if self.coverage is None else self.coverage.summary()
        scores |= {f"tarp/{name}": value for name, value in self.tarp.summary().items()}
        return scores | {f"ranks/{name}": value for name, value in self.ranks.summary().items()}

    def verdict(self) -> str:
        """What the checks say, in one clause."""
        shown = self.tarp if self.coverage is None else self.coverage
        scores, count = shown.summary(), len(shown.levels)
        nominal = "/".join(f"{level * 100:.0f}" for level in LEVELS)
        held = "/".join(f"{100.0 * scores[f'coverage_{level * 100:.0f}']:.0f}" for level in LEVELS)
        words = (
            f"over {count} unseen conditions the regions of {nominal} % hold {held} % of the true "
            f"designs: {self._fault(shown)}"
        )
        uneven = self._uneven()
        if uneven:
            words += f" (ranks uneven in {', '.join(uneven)})"
        return words

    def _fault(self, shown: Coverage) -> str:
        if uniform_p(shown.levels) >= _DOUBTFUL:
            return "no fault that so many can show"
        if self.coverage is None:
            return "not calibrated"
        tilt = float(shown.levels.mean()) - 0.5
        if abs(tilt) < _STEEP * (len(shown.levels) * 12.0) ** -0.5:
            return "not calibrated"
        return "too sure" if tilt > 0.0 else "wider than needed"

    def _uneven(self) -> list[str]:
        """Columns whose ranks are not uniform, by the bound of as many tests as columns."""
        bound = _DOUBTFUL / len(self.ranks.columns)
        return [
            name
            for name, levels in zip(self.ranks.columns, self.ranks.levels.T, strict=True)
            if uniform_p(levels) < bound
        ]


def calibrate(model: Density, x: Tensor, y: Tensor, draws: int = 50, seed: int = 0) -> Calibration:
    """All calibration checks of a conditional model.

    Args:
        model: whatever samples designs and knows their density: a mixture, a flow, or any object
            with ``sample`` and ``log_prob``.
        x: true designs (C, P) from the distribution that it learned, not its training rows.
        y: their properties (C, K); NaN for one that the model is not told.
        draws: draws L a condition; few are enough, as precision comes from the conditions.
        seed: seed of the draws.

    Returns:
        The checks.

    Raises:
        GenoptError: if shapes do not fit.
    """
    x, y = check_truth(x, y)
    generator = torch.Generator().manual_seed(seed)
    drawn = conditional_draws(model, y, draws, generator, x.shape[-1])
    coverage = None
    try:
        coverage = expected_coverage(model, x, y, seed=seed, drawn=drawn)
    except GenoptError as error:
        # a flow has no density of classes; anything else is an error of the caller
        if not space_of(model, x.shape[-1]).categorical:
            raise
        logger.info("no coverage of regions of highest density: %s", error)
    return Calibration(
        rank_calibration(model, x, y, seed=seed, drawn=drawn),
        tarp_coverage(model, x, y, seed=seed, drawn=drawn),
        coverage,
    )
