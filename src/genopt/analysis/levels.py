"""Levels: numbers that are uniform between 0 and 1 for a calibrated density, and how they miss.

Ranks, regions of highest density and distances to a random point all end in such levels; what is
made of them is here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.analysis.calibration import miscalibration_area


def rank_levels(draws: Tensor, truth: Tensor, generator: torch.Generator) -> Tensor:
    """Place of a true value among draws, as a level in (0, 1).

    With L draws of which r are smaller and e equal, the level is uniform in
    [r, r + e + 1] / (L + 1): exactly uniform over (0, 1) where the truth is one more draw, whatever
    L and however many ties.

    Args:
        draws: drawn values (..., L).
        truth: true values (...).
        generator: source of the randomness inside a rank.

    Returns:
        Levels (...), float64.
    """
    smaller = (draws < truth.unsqueeze(-1)).sum(-1).to(torch.float64)
    equal = (draws == truth.unsqueeze(-1)).sum(-1).to(torch.float64)
    inside = torch.rand(smaller.shape, dtype=torch.float64, generator=generator)
    return (smaller + inside * (equal + 1.0)) / (draws.shape[-1] + 1.0)


def uniform_p(levels: Tensor) -> float:
    """Probability of levels at least so far from uniform (Kolmogorov-Smirnov).

    Args:
        levels: (C,).

    Returns:
        The p-value.
    """
    from scipy.stats import kstest

    return float(kstest(levels.numpy(), "uniform").pvalue)


def held_shares(levels: Tensor, at: Tensor) -> Tensor:
    """Share of levels at most as large as each of some.

    Args:
        levels: (C,).
        at: nominal shares (S,).

    Returns:
        Observed shares (S,), float64.
    """
    inside = torch.searchsorted(levels.sort().values, at.to(levels), right=True)
    return inside.to(torch.float64) / len(levels)


def level_scores(levels: Tensor, at: tuple[float, ...]) -> dict[str, float]:
    """Coverage with its standard error, area and p-value of levels.

    Args:
        levels: (C,).
        at: nominal shares.

    Returns:
        ``coverage_<percent>`` and ``error_<percent>`` (one standard error of a calibrated model
        over so many conditions), ``area`` (between observed and nominal shares) and ``p_value``.
    """
    shares = held_shares(levels, torch.tensor(at, dtype=torch.float64)).tolist()
    scores: dict[str, float] = {}
    for level, share in zip(at, shares, strict=True):
        scores[f"coverage_{level * 100:.0f}"] = share
        scores[f"error_{level * 100:.0f}"] = (level * (1.0 - level) / len(levels)) ** 0.5
    return scores | {"area": miscalibration_area(levels), "p_value": uniform_p(levels)}
