"""Acquisition: what simulating a design is worth, and which designs to simulate side by side.

Every wish is an *aim*: a number to be minimised, worked out from y. A goal with several wishes
(``min``, ``max``) has many aims, one for each drawn weighting of them, so that a batch spreads over
the trade-offs (Knowles 2006, ParEGO).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from genopt.goal import Goal
from genopt.terms import DIRECTIONS

ACQUISITIONS = ("auto", "improvement", "confidence", "thompson", "greedy")
# what a routine proposes is simulated as it is: nothing is chosen by its worth
PROPOSED = "proposed"
# a missed value must not be paid for by a wish
_MISS_FACTOR = 100.0
_NODES = 32
# a bound is kept by so many standard deviations; being outside costs so much beside the way back
_MARGIN, _OUTSIDE = 0.5, 0.01
_ALONG = 0.05
_NORMAL = math.sqrt(2.0)
# without any, all designs of a batch would be the same
_LEAST_OPTIMISM = 0.5


class Believer(Protocol):
    """A model that says how sure it is."""

    def predict_y(self, x: Tensor) -> Tensor:
        """Properties (..., K) of designs (..., P)."""
        ...

    def spread_y(self, x: Tensor) -> Tensor:
        """Their standard deviations (..., K)."""
        ...


def believed(model: Believer, x: Tensor) -> tuple[Tensor, Tensor]:
    """What is believed of designs, and how sure it is, by one question where the model has it.

    Args:
        model: says both.
        x: designs (..., P).

    Returns:
        Properties and their standard deviations (..., K) each, float64.
    """
    both = getattr(model, "belief_y", None)
    y, spread = both(x) if both is not None else (model.predict_y(x), model.spread_y(x))
    return y.to(torch.float64), spread.to(torch.float64)


class Spreadless:
    """A model without a spread as one that is always sure, or with another method's spread.

    Args:
        model: predicts y.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict_y(self, x: Tensor) -> Tensor:
        """What the model says.

        Args:
            x: designs (..., P).

        Returns:
            Properties (..., K).
        """
        said: Tensor = self.model.predict_y(x)
        return said

    def spread_y(self, x: Tensor) -> Tensor:
        """What the model says of its spread, zero where it says nothing.

        Args:
            x: designs (..., P).

        Returns:
            Standard deviations (..., K).
        """
        spread = getattr(self.model, "predict_spread", None)
        if spread is None or not isinstance(said := spread(x), Tensor):
            return torch.zeros_like(self.predict_y(x))
        return said


@dataclass(frozen=True)
class Aims:
    """What is to be minimised: A aims, W for each of the goal's B goals.

    Args:
        goal: what is wanted.
        weights: share of each wish (A, number of wishes).
        lower: smallest measured value of each wish, as a miss (A, wishes).
        width: range of the measured values that are not dominated (A, wishes).
    """

    goal: Goal
    weights: Tensor
    lower: Tensor
    width: Tensor

    @classmethod
    def of(cls, goal: Goal, y: Tensor, each: int, generator: torch.Generator) -> Aims:
        """Aims of a goal; one for each of its B goals where it has at most one wish.

        Args:
            goal: what is wanted.
            y: measured properties (N, K), for the ranges of several wishes.
            each: weightings W of each goal with several wishes.
            generator: source of the weightings.

        Returns:
            The aims.
        """
        wishes = [term for term in goal.terms if term.kind in DIRECTIONS]
        if len(wishes) < 2:
            ones = torch.ones(goal.batch_size, len(wishes), dtype=torch.float64)
            return cls(goal, ones, torch.zeros_like(ones), ones)
        unit = goal.scale
        misses = torch.stack(
            [term.weight * term.miss(y[:, term.index]) / unit[term.index] for term in wishes], -1
        )
        misses = misses[torch.isfinite(misses).all(1)]
        front = misses[undominated(misses)]
        lower, width = front.amin(0), front.amax(0) - front.amin(0)
        width = torch.where(width > 0, width, misses.amax(0) - lower).clamp_min(1e-12)
        count = goal.batch_size * each
        shares = torch.rand(count, len(wishes), generator=generator, dtype=torch.float64)
        shares = -torch.log(shares.clamp_min(1e-12))
        shares = shares / shares.sum(-1, keepdim=True)
        return cls(goal, shares, lower.expand(count, -1), width.expand(count, -1))

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def each(self) -> int:
        """Aims W of each goal."""
        return len(self) // self.goal.batch_size

    def values(self, y: Tensor, spread: Tensor | None = None, optimism: float = 0.0) -> Tensor:
        """How far designs are from each aim.

        With a spread, wishes and wanted values count as what they may well be, while a bound is to
        be kept by a margin: a search that trusts to luck there ends just outside.

        Args:
            y: properties (A or 1, ..., K).
            spread: their standard deviations, of the same shape; None for none.
            optimism: standard deviations that are counted on; negative for a pessimist.

        Returns:
            Values (A, ...), lower is better; NaN where a named column is NaN.
        """
        y = y.expand(len(self), *y.shape[1:])
        scale = self.goal.scale
        wishes, missed = [], torch.zeros_like(y[..., 0])
        for term in self.goal.terms:
            column, unit = y[..., term.index], scale[term.index]
            unsure = torch.zeros_like(column) if spread is None else spread[..., term.index]
            if term.kind in DIRECTIONS:
                wishes.append(term.weight * (term.miss(column) - optimism * unsure) / unit)
            elif term.kind == "equals":
                away = self._each_goal(term.miss, column).abs() - optimism * unsure
                missed = missed + term.weight * (away.clamp_min(0.0) / unit).square()
            elif term.kind == "label":
                wrong = self._each_goal(term.miss, column)
                missed = missed + term.weight * torch.where(torch.isnan(column), torch.nan, wrong)
            else:
                margin = max(_MARGIN, -optimism) * unsure
                sides = (self._each_goal(term.miss, column + way * margin) for way in (-1.0, 1.0))
                away = torch.maximum(*sides) / unit
                missed = missed + term.weight * (away + _OUTSIDE * (away > 0.0))
        if not wishes:
            return missed
        if len(wishes) == 1:
            return wishes[0] + _MISS_FACTOR * missed
        side = [1] * (y.ndim - 2)
        found = torch.stack(wishes, -1)
        lower, width = (t.reshape(len(self), *side, -1) for t in (self.lower, self.width))
        shares = self.weights.reshape(len(self), *side, -1) * (found - lower) / width
        return shares.amax(-1) + _ALONG * shares.sum(-1) + _MISS_FACTOR * missed

    def _each_goal(self, miss: Any, column: Tensor) -> Tensor:
        """Misses of a column (A, ...), whose goals come one after another, W aims each."""
        parts = column.reshape(self.goal.batch_size, self.each, *column.shape[1:])
        missed: Tensor = miss(parts)
        return missed.reshape(column.shape)


def undominated(misses: Tensor) -> Tensor:
    """Which rows no other row beats in one column without losing in another.

    Args:
        misses: values to be minimised (N, W).

    Returns:
        bool (N,).
    """
    kept = torch.ones(len(misses), dtype=torch.bool)
    for part in torch.arange(len(misses)).split(512):
        here = misses[part, None]
        beaten = (misses <= here).all(-1) & (misses < here).any(-1)
        kept[part] = ~beaten.any(1)
    return kept


class Acquisition:
    """How much a design promises, for each aim.

    Args:
        aims: what is to be minimised.
        model: what is believed of y.
        best: the best value measured so far, for each aim (A,).
        kind: ``improvement`` (how much better than the best one may expect, Mockus 1975),
            ``confidence`` (what a design may well be worth, Srinivas et al. 2010), ``thompson``
            (what one draw of the truth says) or ``greedy`` (what is expected).
        optimism: standard deviations that ``confidence`` counts on.
        seed: seed of the draws.
    """

    def __init__(
        self, aims: Aims, model: Believer, best: Tensor, kind: str, optimism: float, seed: int
    ) -> None:
        self.aims, self.model, self.best = aims, model, best
        self.kind, self.optimism = kind, optimism
        width = aims.goal.y_space.dim
        engine = torch.quasirandom.SobolEngine(width, scramble=True, seed=seed)
        even = engine.draw(_NODES, dtype=torch.float64).clamp(1e-6, 1.0 - 1e-6)
        self.nodes = _NORMAL * torch.erfinv(2.0 * even - 1.0)

    def __call__(self, x: Tensor) -> Tensor:
        """What designs promise.

        Args:
            x: designs (A, M, P).

        Returns:
            Values (A, M), lower is better.
        """
        with torch.no_grad():
            if self.kind == "greedy":
                return self._worth(self.model.predict_y(x).to(torch.float64))
            y, spread = believed(self.model, x)
        spread = torch.where(torch.isfinite(spread), spread, 0.0)
        return self.of_beliefs(y, spread, self.optimism)

    def of_beliefs(self, y: Tensor, spread: Tensor, optimism: float) -> Tensor:
        """What designs promise whose properties are known so and so well.

        Args:
            y: means (A, M, K).
            spread: standard deviations (A, M, K).
            optimism: standard deviations that are counted on; negative for a pessimist.

        Returns:
            Values (A, M), lower is better.
        """
        if self.kind != "improvement":
            # a draw of the truth is taken among the few that are left at the end
            value = self.aims.values(y, spread, optimism)
            return torch.where(torch.isnan(value), torch.inf, value)
        drawn = self._worth(y[:, None] + self.nodes[:, None] * spread[:, None])
        middle, deviation = drawn.mean(1), drawn.std(1)
        gain = (self.best[:, None, None] - drawn).clamp_min(0.0).mean(1)
        # where no node improves, the nearer to it the better
        short = (middle - self.best[:, None]) / deviation.clamp_min(1e-12)
        return torch.where(gain > 0.0, -gain, 1e-6 * short.clamp_min(0.0))

    def _worth(self, y: Tensor) -> Tensor:
        values = self.aims.values(y)
        return torch.where(torch.isnan(values), torch.inf, values)


def choose_batch(
    acquisition: Acquisition,
    x: Tensor,
    count: int,
    generator: torch.Generator,
    barred: Tensor | None = None,
) -> Tensor:
    """Designs to be simulated side by side: each is chosen knowing that those before it will be.

    With a joint law of y, what is known after a chosen design shrinks the spread around it
    (Desautels, Krause and Burdick 2014, GP-BUCB); ``thompson`` takes the best of one joint draw of
    the truth for each place in the batch.

    Args:
        acquisition: what designs promise.
        x: designs (A, M, P), those that promise most.
        count: how many for each aim.
        generator: source of the draws.
        barred: designs that are not to be chosen while there are others (A, M).

    Returns:
        Positions along M (A, count).
    """
    aims, model = acquisition.aims, acquisition.model
    with torch.no_grad():
        y = model.predict_y(x).to(torch.float64)
        joint = [_joint(model, part, mean, aims.goal) for part, mean in zip(x, y, strict=True)]
    covariance = torch.stack(joint)  # (A, K, M, M)
    taken = torch.zeros(y.shape[:2], dtype=torch.bool) if barred is None else barred.clone()
    jitter = 1e-6 * covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + 1e-300
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    factor = None
    if acquisition.kind == "thompson":
        factor = torch.linalg.cholesky_ex(covariance + jitter * eye)[0]
    rows = torch.arange(len(aims))
    picks = []
    for _ in range(count):
        if factor is not None:
            noise = torch.randn(*y.mT.shape, 1, generator=generator, dtype=torch.float64)
            drawn = y + (factor @ noise)[..., 0].mT
            value = aims.values(drawn)
        elif acquisition.kind == "greedy":
            value = aims.values(y)
        else:
            spread = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0.0).sqrt().mT
            value = acquisition.of_beliefs(y, spread, max(acquisition.optimism, _LEAST_OPTIMISM))
        value = torch.where(torch.isnan(value), torch.inf, value)
        pick = torch.where(taken, torch.inf, value).argmin(1)
        picks.append(pick)
        taken[rows, pick] = True
        column = covariance[rows, :, :, pick]
        own = column.gather(-1, pick[:, None, None].expand(-1, column.shape[1], 1))
        noise_share = 1e-3 * covariance.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
        shrink = (own + noise_share + 1e-300)[..., None]
        covariance = covariance - column[..., :, None] * column[..., None, :] / shrink
    return torch.stack(picks, 1)


def _joint(model: Believer, x: Tensor, mean: Tensor, goal: Goal) -> Tensor:
    """Covariances (K, M, M) of y at designs (M, P); near designs are alike where nobody says."""
    known = getattr(model, "joint_y", None)
    if known is not None:
        covariance: Tensor = known(x)
        return covariance
    spread = torch.nan_to_num(model.spread_y(x).to(torch.float64)).mT
    unit = goal.x_space.encode(x)
    apart = torch.cdist(unit, unit)
    reach = apart[apart > 0].median() if bool((apart > 0).any()) else torch.ones(())
    alike = torch.exp(-0.5 * (apart / reach.clamp_min(1e-9)).square())
    # a model that is always sure: what is near a chosen design promises less
    flat = (spread <= 0).all(1, keepdim=True)
    width = mean.mT.nan_to_num().std(1, keepdim=True).clamp_min(1e-12)
    spread = torch.where(flat, width.expand_as(spread), spread)
    return spread[:, :, None] * spread[:, None, :] * alike
