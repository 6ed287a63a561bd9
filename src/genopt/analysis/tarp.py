"""TARP: coverage of balls around random points, for models that draw but know no density.

Tests of Accuracy with Random Points (Lemos, Coogan, Hezaveh and Perreault-Levasseur, ICML 2023,
arXiv 2302.03026): the ball around any point that reaches to the truth holds a uniform share of the
draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.analysis.conditional_draws import Sampler, check_truth, conditional_draws, space_of
from genopt.analysis.coverage import Coverage
from genopt.analysis.levels import rank_levels
from genopt.errors import GenoptError

_LEAST_STD = 1e-12


def tarp_coverage(
    model: Sampler,
    x: Tensor,
    y: Tensor,
    draws: int = 100,
    seed: int = 0,
    drawn: Tensor | None = None,
    references: Tensor | None = None,
) -> Coverage:
    """Coverage of balls around random points.

    Distances are Euclidean in the columns of the unit box, each divided by the standard deviation
    of the true designs. Points that do not depend on the condition cannot tell the prior from the
    posterior; give points that depend on y to see that, too.

    Args:
        model: whatever samples designs given conditions.
        x: true designs (C, P), not used in training.
        y: their properties (C, K); NaN for one that the model is not told.
        draws: draws L a condition.
        seed: seed of the draws and of the points.
        drawn: draws (C, L, P) that are already there.
        references: the points (C, P); None for uniform ones between the true designs' extremes.

    Returns:
        The coverage.

    Raises:
        GenoptError: if shapes do not fit.
    """
    x, y = check_truth(x, y)
    generator = torch.Generator().manual_seed(seed)
    if drawn is None:
        drawn = conditional_draws(model, y, draws, generator, x.shape[-1])
    space = space_of(model, x.shape[-1])
    truth, found = space.encode(x), space.encode(drawn)
    if references is None:
        low, high = truth.min(0).values, truth.max(0).values
        share = torch.rand(truth.shape, dtype=truth.dtype, generator=generator)
        points = low + (high - low) * share
    elif references.shape != x.shape:
        raise GenoptError(
            f"references has shape {tuple(references.shape)}; expected {tuple(x.shape)}: one point "
            "for each condition"
        )
    else:
        points = space.encode(references.to(torch.float64))
    scale = truth.std(0, correction=0).clamp_min(_LEAST_STD)
    reach = ((truth - points) / scale).square().sum(-1)
    near = ((found - points.unsqueeze(1)) / scale).square().sum(-1)
    return Coverage(rank_levels(near, reach, generator), "around random points (TARP)")
