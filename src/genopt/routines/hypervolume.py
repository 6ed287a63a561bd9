"""Hypervolume: how much space of objectives a front leaves behind it, and its share of the true.

It is worked out by moocore, which is kept by the authors of the algorithms (Fonseca, Paquete and
Lopez-Ibanez, IEEE CEC 2006, 1157).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.problems.base import Problem
from genopt.problems.fronts import front_of
from genopt.routines.nondominated import Objectives, nondominated

_ROOM = 0.1


def hypervolume(values: Tensor, reference: Tensor) -> float:
    """Volume of what a set of points beats, up to a reference point.

    Args:
        values: what is to be made small (N, M); rows that are not finite have no part.
        reference: the reference point (M,).

    Returns:
        The volume, 0 where no point beats the reference.

    Raises:
        GenoptError: if moocore is not installed.

    Example:
        >>> points = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
        >>> hypervolume(points, torch.tensor([3.0, 3.0]))
        5.0
    """
    require_moocore()
    import moocore

    points = values[torch.isfinite(values).all(-1) & (values < reference).all(-1)]
    if not len(points):
        return 0.0
    return float(moocore.hypervolume(points.double().numpy(), ref=reference.double().numpy()))


def require_moocore() -> None:
    """Say what is missing before any work.

    Raises:
        GenoptError: if moocore is not installed.
    """
    if find_spec("moocore") is None:
        raise GenoptError(
            "the hypervolume of a front needs the package moocore: pip install 'genopt[pareto]'"
        )


def reference_point(front: Tensor) -> Tensor:
    """A reference point a tenth of the front's range behind its worst values.

    Args:
        front: points of a front (N, M), all to be made small.

    Returns:
        The point (M,), float64.
    """
    worst, best = front.double().amax(0), front.double().amin(0)
    width = torch.where(worst > best, worst - best, worst.abs().clamp_min(1.0))
    return worst + _ROOM * width


@dataclass(frozen=True)
class FrontScore:
    """What a set of designs is worth as a front.

    Args:
        values: the points that no other one beats (n, M), all to be made small.
        reference: the reference point (M,).
        hypervolume: what they leave behind them.
        share: of the true front's hypervolume; None where that is not known.
    """

    values: Tensor
    reference: Tensor
    hypervolume: float
    share: float | None


def true_front(problem: Problem | None, goal: Goal, n: int = 1000) -> Tensor | None:
    """The objectives on the true front, where the problem knows it.

    Args:
        problem: what is asked.
        goal: what is wanted.
        n: about how many points.

    Returns:
        Points (n, M), all to be made small; None where no front is known or the goal asks another
        question than the problem's own.
    """
    if problem is None or not problem.default_goal or goal.fixed:
        return None
    own = Goal(problem.default_goal, problem.x_space, problem.y_space)
    if [_question(term) for term in own.terms] != [_question(term) for term in goal.terms]:
        return None
    y = front_of(problem, n)
    return None if y is None else Objectives.of(goal).values(y)


def score_front(
    goal: Goal,
    y: Tensor,
    problem: Problem | None = None,
    reference: Tensor | None = None,
    truth: Tensor | None = None,
) -> FrontScore:
    """The front among designs whose properties are known, and its hypervolume.

    Args:
        goal: what is wanted: the wishes are objectives, the other terms constraints.
        y: properties (N, K).
        problem: whose true front is compared with.
        reference: the reference point (M,), all to be made small; None for a tenth of its range
            behind the true front, or behind the found one.
        truth: points of the true front, instead of those of the problem.

    Returns:
        The score.
    """
    objectives = Objectives.of(goal)
    values = objectives.values(y)
    values = values[nondominated(values, goal.satisfied(y))]
    truth = true_front(problem, goal) if truth is None else truth
    if reference is None:
        known = values if truth is None else truth
        if not len(known):
            empty = torch.full((len(objectives.index),), torch.nan, dtype=torch.float64)
            return FrontScore(values, empty, 0.0, None)
        reference = reference_point(known)
    volume = hypervolume(values, reference)
    share = None if truth is None else volume / hypervolume(truth, reference)
    return FrontScore(values, reference, volume, share)


def _question(term: object) -> tuple[object, ...]:
    """What a term asks, its weight apart."""
    return tuple(
        value.tolist() if isinstance(value, Tensor) else value
        for value in (getattr(term, name) for name in ("column", "kind", "value", "upper"))
    )
