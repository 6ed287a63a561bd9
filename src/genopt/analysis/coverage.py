"""Expected coverage: the share of true designs inside a model's regions of highest density.

Hermans et al. (2022, arXiv 2110.06581): the region of level p should hold a share p of the truths.
Less is too sure, more is wider than needed. A model that repeats the prior passes, so look at the
log density or a two-sample test beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.analysis.conditional_draws import (
    Density,
    check_truth,
    conditional_draws,
    log_densities,
)
from genopt.analysis.levels import level_scores, rank_levels

LEVELS = (0.5, 0.8, 0.95)


@dataclass(frozen=True)
class Coverage:
    """Level of the smallest region that holds each truth.

    Args:
        levels: between 0 and 1 (C,).
        name: of the regions, for legends.
    """

    levels: Tensor
    name: str = "highest density"

    def summary(self, at: tuple[float, ...] = LEVELS) -> dict[str, float]:
        """Plain numbers.

        Args:
            at: nominal shares to report.

        Returns:
            ``coverage_<percent>``, its standard error ``error_<percent>``, ``area`` and
            ``p_value`` of uniform levels.
        """
        return level_scores(self.levels, at)


def expected_coverage(
    model: Density,
    x: Tensor,
    y: Tensor,
    draws: int = 100,
    seed: int = 0,
    drawn: Tensor | None = None,
) -> Coverage:
    """Coverage of the regions of highest density.

    The level of a truth is the share of draws that are denser, so few draws cost no bias; the
    precision comes from the number of conditions.

    Args:
        model: whatever samples designs and knows their density.
        x: true designs (C, P), not used in training.
        y: their properties (C, K); NaN for one that the model is not told.
        draws: draws L a condition.
        seed: seed of the draws.
        drawn: draws (C, L, P) that are already there.

    Returns:
        The coverage.

    Raises:
        GenoptError: if shapes do not fit, or a density is NaN.
    """
    x, y = check_truth(x, y)
    generator = torch.Generator().manual_seed(seed)
    if drawn is None:
        drawn = conditional_draws(model, y, draws, generator, x.shape[-1])
    density = log_densities(model, torch.cat([x.unsqueeze(1), drawn], 1), y)
    # a denser draw has the smaller negative density
    return Coverage(rank_levels(-density[:, 1:], -density[:, 0], generator))
