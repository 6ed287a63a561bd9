"""Re-simulation: what proposals for wanted properties turn out to be when they are simulated.

The curve r_T of Ren, Padilla and Malof (NeurIPS 33, 2020, arXiv 2009.12919): the mean over targets
of the smallest squared miss among the first T proposals. It rewards proposals that are all alike,
so the diversity of these T proposals and, where the exact posterior can be drawn from, the distance
to it stand beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.local_error import LocalError
from genopt.protocols import ForwardModel
from genopt.routines.abstain import answered

# kernel widths of Kruse et al. (2021, arXiv 2101.10763)
_WIDTHS = (0.05, 0.2, 0.9)
# exact draws cost a rejection sampling each, so a study compares with those of some targets
_EXACT_TARGETS, _EXACT_DRAWS = 20, 500
# the published curves end here
_MOST = 50
CLAIM, EXPECTED = "by claim", "by expected loss"

# r_T by problem and method, 10,000 pairs (Ren et al. 2020)
PUBLISHED: dict[str, dict[str, dict[int, float]]] = {
    "robot_arm": {
        "neural adjoint": {1: 2.3e-4, 10: 1.1e-5, 50: 2.6e-6},
        "conditional INN": {1: 1.8e-3, 10: 1.1e-5, 50: 4.5e-6},
    },
    "sine_wave": {
        "neural adjoint": {1: 1.2e-3, 10: 3.0e-5, 50: 1.6e-6},
        "generative models": {1: 0.6, 10: 1e-2, 50: 4e-4},
    },
}


@dataclass(frozen=True)
class ResimulationCurve:
    """r_T and what stands beside it, for T = 1, 2, ..., R.

    Args:
        proposals: T (R,).
        error: r_T (R,): mean over targets of the smallest mean squared miss so far.
        median: the same with the median over targets (R,).
        diversity: mean over targets of the mean distance between the first T proposals (R,), root
            mean square over the columns of the unit box; 0 for T = 1.
        mmd2: unbiased squared maximum mean discrepancy between all R proposals and exact draws,
            mean over targets; None where there are none.
    """

    proposals: Tensor
    error: Tensor
    median: Tensor
    diversity: Tensor
    mmd2: float | None = None

    def at(self, proposals: int) -> float:
        """r_T.

        Args:
            proposals: T, at most R.

        Returns:
            The error.

        Raises:
            GenoptError: if there are fewer proposals.
        """
        if not 1 <= proposals <= len(self.error):
            raise GenoptError(
                f"r_{proposals} needs {proposals} proposals for each target, there are "
                f"{len(self.error)}"
            )
        return float(self.error[proposals - 1])

    def scores(self, at: tuple[int, ...] = (1, 10, 50)) -> dict[str, float]:
        """Plain numbers for a metrics file.

        Args:
            at: the T to report; those beyond R are left out.

        Returns:
            ``r_<T>``, ``diversity_<T>`` (T > 1) and, where it is known, ``mmd2``.
        """
        out: dict[str, float] = {}
        for count in at:
            if count > len(self.error):
                continue
            out[f"r_{count}"] = self.at(count)
            if count > 1:
                out[f"diversity_{count}"] = float(self.diversity[count - 1])
        if self.mmd2 is not None:
            out["mmd2"] = self.mmd2
        return out


def resimulation_curve(
    candidates: Candidates,
    targets: Tensor | None = None,
    exact: Tensor | None = None,
) -> ResimulationCurve:
    """r_T of proposals in ranked order.

    The order is that of the candidates, which must not come from the simulator: rank first, for
    example by ``candidates.take(candidates.order("claimed"))``. Misses are in raw units, as
    published.

    Args:
        candidates: proposals (B, R) for B targets, best first, verified by the simulator.
        targets: wanted properties (B, K), NaN for a column that is free; None for those of the
            candidates' goal.
        exact: exact draws (B, S, P) of the designs with these properties, or of the first targets
            only; None for no comparison.

    Returns:
        The curve; a proposal that could not be simulated (NaN) never counts as the best.

    Raises:
        GenoptError: if the candidates are not verified or a shape does not fit.
    """
    goals, ranks = candidates.shape
    if not candidates.verified:
        raise GenoptError("candidates hold no simulated properties: verify them first")
    if targets is None:
        targets = Goal(candidates.goal, candidates.x_space, candidates.y_space).condition()
        targets = targets.reshape(-1, candidates.y_space.dim).expand(goals, -1)
    if tuple(targets.shape) != (goals, candidates.y_space.dim):
        raise GenoptError(
            f"targets has shape {tuple(targets.shape)}; expected "
            f"({goals}, {candidates.y_space.dim}): one row for each goal"
        )
    wanted = ~torch.isnan(targets)
    if not bool(wanted.any(1).all()):
        raise GenoptError("targets: a row names no value; re-simulation needs wanted values")
    square = (candidates.y_verified - targets[:, None]).square()
    named = wanted[:, None].expand_as(square)
    miss = torch.where(named, square, 0.0).sum(-1) / wanted.sum(-1, keepdim=True)
    miss = torch.where(torch.isnan(miss), torch.inf, miss)
    lowest = miss.cummin(1).values
    unit = candidates.x_space.encode(candidates.x)
    if exact is not None and (exact.ndim != 3 or len(exact) > goals):
        raise GenoptError(
            f"exact has shape {tuple(exact.shape)}; expected (B, S, {candidates.x_space.dim}) with "
            f"B at most {goals}"
        )
    return ResimulationCurve(
        torch.arange(1, ranks + 1),
        lowest.mean(0),
        lowest.median(0).values,
        running_diversity(unit),
        None if exact is None else float(mmd2(candidates.x[: len(exact)], exact).mean()),
    )


def running_diversity(points: Tensor) -> Tensor:
    """Mean distance between the first T points, for every T.

    Args:
        points: points (B, R, E).

    Returns:
        Mean over B of the mean pairwise distance (R,), root mean square over E; 0 for T = 1.
    """
    ranks = points.shape[1]
    gaps = _distances(points, points) / points.shape[-1] ** 0.5
    # the pairs that point T closes: its distances to the points before it
    closed = gaps.tril(-1).sum(-1).mean(0)
    count = torch.arange(ranks, dtype=points.dtype)
    return closed.cumsum(0) / (count * (count + 1.0) / 2.0).clamp_min(1.0)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # matrix products would cancel the digits of short distances
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def mmd2(first: Tensor, second: Tensor, widths: tuple[float, ...] = _WIDTHS) -> Tensor:
    """Unbiased squared maximum mean discrepancy of two sets of points (Gretton et al. 2012).

    The kernel is the sum over h in ``widths`` of 1 / (1 + d^2 / h^2).

    Args:
        first: points (..., R, P), R > 1.
        second: points (..., S, P), S > 1.
        widths: the kernel's widths h.

    Returns:
        (...); 0 in the mean where both sets are of one distribution, so single values may be
        negative.

    Raises:
        GenoptError: if a set has fewer than two points.
    """
    sizes = first.shape[-2], second.shape[-2]
    if min(sizes) < 2:
        raise GenoptError(f"an unbiased discrepancy needs two points in each set, got {sizes}")

    def mean(a: Tensor, b: Tensor, same: bool) -> Tensor:
        square = _distances(a, b).square()
        total = torch.stack([1.0 / (1.0 + square / h**2) for h in widths]).sum(0).sum((-2, -1))
        pairs = a.shape[-2] * b.shape[-2]
        # a point's kernel with itself is the number of widths
        return (
            (total - len(widths) * a.shape[-2]) / (pairs - a.shape[-2]) if same else total / pairs
        )

    cross = mean(first, second, False)
    return mean(first, first, True) + mean(second, second, True) - 2.0 * cross


def held_out_curves(
    candidates: Candidates, train: Table, model: Any = None, problem: object = None, seed: int = 0
) -> dict[str, ResimulationCurve]:
    """The curves of a study that asked for held-out targets, by the order of the proposals.

    Proposals for exact values all claim to meet them, so their order decides r_1: by the claimed
    loss, or by the loss expected with the claim's own spread, else with the model's error at the
    nearest training rows.

    Args:
        candidates: proposals (B, R) for B targets, verified by the simulator.
        train: the rows that the model learned from.
        model: the model, if it predicts y.
        problem: the problem; one with a posterior is compared with.
        seed: seed of the exact draws.

    Returns:
        Curves of the first fifty proposals by order: ``by claim`` and, with a spread or a model,
        ``by expected loss``.
    """
    asked = Goal(candidates.goal, candidates.x_space, candidates.y_space)
    candidates, goal, _ = answered(candidates, asked)
    if goal is None:
        return {}
    targets = goal.condition().reshape(goal.batch_size, -1)
    exact = exact_draws(problem, targets[:_EXACT_TARGETS], _EXACT_DRAWS, seed)
    claimed = torch.where(torch.isnan(candidates.loss), torch.inf, candidates.loss)
    orders = {CLAIM: claimed.argsort(dim=1, stable=True)}
    spread = candidates.y_spread
    if spread is None and isinstance(model, ForwardModel):
        spread = LocalError(model, train)(candidates.x)
    if spread is not None:
        worth = goal.expected_loss(candidates.y_predicted, spread)
        worth = torch.where(torch.isnan(worth), torch.inf, worth)
        orders[EXPECTED] = worth.argsort(dim=1, stable=True)
    return {
        name: resimulation_curve(candidates.take(order[:, :_MOST]), targets, exact)
        for name, order in orders.items()
    }


def curve_scores(curves: Mapping[str, ResimulationCurve]) -> dict[str, float]:
    """Plain numbers of curves for a metrics file.

    Args:
        curves: by order of the proposals, as `held_out_curves` gives them.

    Returns:
        ``resimulation/r_1``, ... of the last order and ``resimulation/claimed/r_1``, ... of the
        order by claim where there are two.
    """
    names = list(curves)
    out = {f"resimulation/{k}": v for k, v in curves[names[-1]].scores().items()}
    if len(names) > 1:
        first = curves[names[0]].scores()
        out |= {f"resimulation/claimed/{k}": v for k, v in first.items()}
    return out


def exact_draws(problem: object, targets: Tensor, n: int = 1000, seed: int = 0) -> Tensor | None:
    """Draws of the designs that have wanted properties, where a problem can give them.

    Args:
        problem: a problem; one with a method ``posterior(y, n, seed)`` can.
        targets: wanted properties (B, K).
        n: draws S for each.
        seed: seed of the draws.

    Returns:
        Designs (B, S, P), or None.
    """
    posterior = getattr(problem, "posterior", None)
    if posterior is None or bool(torch.isnan(targets).any()):
        return None
    draws: Tensor = posterior(targets, n, seed)
    return draws
