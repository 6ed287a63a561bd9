"""`multistart`: the classical baseline, a solver on the simulator from many starts.

Nothing is learned. The starts are the best measured rows and points spread over the Space, or, with
a model, what it proposes, so that the two can be compared at the same number of starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.models.nothing import Nothing
from genopt.problems.base import Problem
from genopt.routines.latent_candidates import start_designs
from genopt.routines.propose import propose
from genopt.routines.refine import needs_simulator
from genopt.routines.refine_rows import Solver

METHODS = ("slsqp", "lbfgsb", "differential_evolution", "ipopt", "least_squares")
_KEYS = ("method", "steps", "tolerance", "difference", "distance")


def multistart(
    model: Any,
    goal: Goal,
    *,
    problem: Problem,
    table: Table | None = None,
    starts: int = 32,
    method: str = "slsqp",
    steps: int = 200,
    tolerance: float = 1e-8,
    difference: float | None = None,
    distance: float = 0.01,
    seed: int = 0,
    progress: bool = False,
) -> Candidates:
    """Designs by one of scipy's solvers, or IPOPT, from many starts.

    Args:
        model: `genopt.models.nothing.Nothing`, or a fitted model that proposes the starts.
        goal: what is wanted, B goals.
        problem: whose simulator is asked.
        table: measured rows; the best of them are half of the starts.
        starts: starts of each goal; the generation of ``differential_evolution``.
        method: ``slsqp`` and ``ipopt`` (package cyipopt) keep the goal's values as constraints;
            ``lbfgsb`` and ``differential_evolution`` pay for them, a squared miss a hundredfold;
            ``least_squares`` finds values alone.
        steps: most steps from each start, or generations.
        tolerance: largest miss of a converged design, in widths of the properties.
        difference: step of differences in widths of the columns, for simulators through which
            gradients do not pass; None for 1e-7, or 1e-3 where they answer in float32.
        distance: designs closer than this in the unit box are one answer.
        seed: seed of the starts.
        progress: whether to show a progress bar.

    Returns:
        Candidates (B, R), R the number of starts, as `genopt.routines.refine.refine` returns them.

    Raises:
        GenoptError: if the problem has no simulator, or the goal or an option does not fit.
    """
    solver = _solver(
        method=method, steps=steps, tolerance=tolerance, difference=difference, distance=distance
    )
    needs_simulator(problem, "multistart")
    solver.check(goal)
    if starts < 1:
        raise GenoptError(f"starts must be at least 1, got {starts}")
    if isinstance(model, Nothing):
        x = start_designs(goal, table, starts, seed)
    else:
        x = propose(model, goal, starts, table=table, seed=seed).x
    found = solver.improve(x, goal, problem, table=table, seed=seed, progress=progress)
    return found.candidates(goal, "multistart", distance)


def check_multistart(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    """Refuse options of `multistart` that would fail later.

    Args:
        model: the model, fitted or not.
        goal: what is wanted.
        options: the routine's options; ``problem`` where it is known already.

    Raises:
        GenoptError: if an option, the goal or the problem does not fit.
    """
    del model
    if options.get("starts", 1) < 1:
        raise GenoptError(f"routine.starts must be at least 1, got {options['starts']}")
    _solver(**{key: options[key] for key in _KEYS if key in options}).check(goal)
    if options.get("problem") is not None:
        needs_simulator(options["problem"], "multistart")


def _solver(**options: Any) -> Solver:
    if options.get("method", "slsqp") not in METHODS:
        raise UnknownNameError("routine.method", str(options["method"]), METHODS)
    return Solver(**{"method": "slsqp", **options})
