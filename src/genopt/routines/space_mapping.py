"""Space mapping: a cheap model corrected to a costly one, with few calls of the costly one.

The cheap model has the right shape at the wrong place. *Aggressive* space mapping corrects its
inputs: for each costly answer it looks for the cheap design with the same answer, and moves on
until that is the cheap optimum. *Manifold* mapping corrects its outputs and needs no such search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.problems.base import Problem
from genopt.problems.simulator import Simulator
from genopt.protocols import ForwardModel
from genopt.routines.space_mapping_steps import Function, Wish, Work, coordinates_of

METHODS = ("aggressive", "manifold")


def space_mapping(
    cheap: Function,
    costly: Function,
    goal: Goal,
    x0: Tensor | Sequence[float] | None = None,
    *,
    method: str = "manifold",
    calls: int = 20,
    tolerance: float = 1e-8,
    seed: int = 0,
) -> Candidates:
    """The best design of a costly simulator, found by a cheap one that is corrected on the way.

    ``aggressive`` solves P(x) = the cheap optimum for the map P from costly to cheap designs with
    equal outputs, by Broyden's quasi-Newton steps; it ends at the cheap model's best output, so it
    is for models that reach the same. Bandler et al., IEEE Transactions on Microwave Theory and
    Techniques 43 (1995). ``manifold`` minimises the goal's misses of s + S (cheap(x) - cheap(x_k)),
    with the costly answer s at x_k and S learned from the last differences; it ends at an optimum
    of the costly model also where the two never agree. Echeverria and Hemker, Computational Methods
    in Applied Mathematics 5 (2005).

    Args:
        cheap: from designs (N, P) to properties (N, K), by torch.
        costly: the same for the costly simulator; it is never differentiated.
        goal: what is wanted. ``min`` and ``max`` ask for the end of the column's bounds.
        x0: where to begin (P,); None for the cheap model's optimum.
        method: ``manifold`` or ``aggressive``.
        calls: most designs that the costly simulator is asked for.
        tolerance: the search ends after a step that is shorter, in the unit box, or where the goal
            is missed by less, in units of the y Space's widths.
        seed: seed of the starts of searches on the cheap model.

    Returns:
        Candidates (1, R), one for each costly call, the best first: ``y_predicted`` is what the
        cheap model said, ``y_verified`` the costly one.

    Raises:
        UnknownNameError: if the method is unknown.
        GenoptError: if the goal cannot be asked for, or the costly simulator fails.
    """
    check_space_mapping(goal, method=method, calls=calls, tolerance=tolerance)
    wish = Wish.of(goal)
    work = Work(cheap, costly, wish, goal, calls, tolerance, seed)
    start = None
    if x0 is not None:
        design = torch.as_tensor(x0, dtype=torch.float64)
        goal.x_space.check(design, "x0")
        start = work.coordinates.unit(goal.x_space.project(design))
    if method == "aggressive":
        work.aggressive(start)
    else:
        work.manifold(start)
    return work.candidates(method)


def check_space_mapping(
    goal: Goal, *, method: str = "manifold", calls: int = 20, tolerance: float = 1e-8
) -> None:
    """Refuse what cannot be mapped, before any work.

    Args:
        goal: what is wanted.
        method: which mapping.
        calls: most costly calls.
        tolerance: when to end.

    Raises:
        UnknownNameError: if the method is unknown.
        GenoptError: if the goal or a number cannot be used.
    """
    if method not in METHODS:
        raise UnknownNameError("routine.method", method, METHODS)
    if calls < 2:
        raise GenoptError(f"routine.calls must be at least 2, got {calls}")
    if not tolerance > 0.0:
        raise GenoptError(f"routine.tolerance must be positive, got {tolerance:g}")
    Wish.of(goal)
    coordinates_of(goal)


def corrected_model(
    model: Any,
    goal: Goal,
    *,
    problem: Problem | None = None,
    method: str = "manifold",
    calls: int = 20,
    tolerance: float = 1e-8,
    seed: int = 0,
) -> Candidates:
    """`space_mapping` from a learned model to the simulator that it was learned from.

    Args:
        model: a fitted model that predicts y.
        goal: what is wanted.
        problem: whose simulator is the costly one.
        method: ``manifold`` or ``aggressive``.
        calls: most designs that are simulated.
        tolerance: when to end, as in `space_mapping`.
        seed: seed of the searches on the model.

    Returns:
        Candidates (1, R), one for each simulated design, the best first.

    Raises:
        GenoptError: if the model predicts nothing or there is no simulator.
    """
    if not isinstance(model, ForwardModel):
        raise GenoptError(
            f"routine=space_mapping needs a model that predicts y, not {type(model).__name__}: use "
            "model=multitask or model=mixture"
        )
    if problem is None or not problem.has_simulator:
        raise GenoptError("routine=space_mapping corrects a model to a simulator: there is none")
    simulate = Simulator(problem, budget=calls)
    return space_mapping(
        lambda x: model.predict_y(x).to(torch.float64),
        simulate,
        goal,
        method=method,
        calls=calls,
        tolerance=tolerance,
        seed=seed,
    )
