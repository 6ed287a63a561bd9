"""Simulation-based calibration: where true designs lie among a model's draws, column by column.

Talts, Betancourt, Simpson, Vehtari and Gelman (2018, arXiv 1804.06788): over pairs from the joint
distribution, the rank of the true design among draws given its properties is uniform.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.analysis.conditional_draws import Sampler, check_truth, conditional_draws, space_of
from genopt.analysis.levels import rank_levels, uniform_p


@dataclass(frozen=True)
class RankCalibration:
    """Levels of true designs among draws.

    Args:
        columns: the design columns, P names.
        levels: place of each true value among its draws (C, P), between 0 and 1.
        draws: how many draws each was compared with.
    """

    columns: tuple[str, ...]
    levels: Tensor
    draws: int

    def summary(self) -> dict[str, float]:
        """Plain numbers by column.

        Returns:
            ``p_value/<column>``: of uniform ranks. ``shift``: mean level minus 1/2, positive where
            the draws are too small. ``dispersion``: variance of the levels over that of uniform
            ones; above 1 the draws are too narrow, below 1 too wide.
        """
        scores: dict[str, float] = {}
        for name, levels in zip(self.columns, self.levels.T, strict=True):
            scores[f"p_value/{name}"] = uniform_p(levels)
            scores[f"shift/{name}"] = float(levels.mean()) - 0.5
            scores[f"dispersion/{name}"] = 12.0 * float((levels - 0.5).square().mean())
        return scores


def rank_calibration(
    model: Sampler,
    x: Tensor,
    y: Tensor,
    draws: int = 100,
    seed: int = 0,
    drawn: Tensor | None = None,
) -> RankCalibration:
    """Ranks of true designs among a model's draws.

    Pairs must come from the distribution that the model learned, and must not be its training rows.

    Args:
        model: whatever samples designs given conditions.
        x: true designs (C, P).
        y: their properties (C, K); NaN for one that the model is not told.
        draws: draws L a condition.
        seed: seed of the draws.
        drawn: draws (C, L, P) that are already there.

    Returns:
        The ranks.

    Raises:
        GenoptError: if shapes do not fit or draws are not finite.

    Example:
        >>> from genopt.problems.linear_gaussian import LinearGaussian
        >>> class Exact(LinearGaussian):
        ...     def sample(self, y, n, generator=None):
        ...         return self.posterior(y, n, generator.initial_seed() + 1)
        >>> rows = Exact(2).table(500)
        >>> ranks = rank_calibration(Exact(2), rows.x, rows.y)
        >>> 0.8 < ranks.summary()["dispersion/x1"] < 1.2
        True
    """
    x, y = check_truth(x, y)
    generator = torch.Generator().manual_seed(seed)
    if drawn is None:
        drawn = conditional_draws(model, y, draws, generator, x.shape[-1])
    levels = rank_levels(drawn.movedim(1, -1), x, generator)
    return RankCalibration(space_of(model, x.shape[-1]).names, levels, drawn.shape[1])
