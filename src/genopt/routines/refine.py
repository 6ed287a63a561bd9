"""`refine`: a model proposes designs, the simulator's own slopes bring them to the exact answer.

Wanted values are solved for by Gauss-Newton, wishes under conditions by an augmented Lagrangian,
all designs as one tensor; scipy's solvers stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.nothing import Nothing
from genopt.problems.base import Problem
from genopt.routines.latent_candidates import start_designs
from genopt.routines.propose import propose
from genopt.routines.refine_rows import Solver
from genopt.routines.surrogate import is_surrogate

_KEYS = ("method", "steps", "tolerance", "difference", "constraints", "distance")


def refine(
    model: Any,
    goal: Goal,
    *,
    problem: Problem,
    table: Table | None = None,
    proposals: int = 256,
    method: str = "auto",
    steps: int = 100,
    tolerance: float = 1e-8,
    difference: float | None = None,
    constraints: Any = None,
    distance: float = 0.01,
    seed: int = 0,
    progress: bool = False,
) -> Candidates:
    """Designs that a model proposes, improved on the simulator until they meet the goal exactly.

    No design gets worse than it was proposed. Designs of a goal with many answers take the shortest
    way to the nearest one, so a model's variety stays.

    Args:
        model: the fitted model; with `genopt.models.nothing.Nothing` the best rows and points
            spread over the Space are improved.
        goal: what is wanted, B goals.
        problem: whose simulator is asked.
        table: measured rows, for wishes and for starts.
        proposals: designs for each goal.
        method: ``auto``: ``gauss_newton`` for wanted values, ``lagrangian`` with ``min`` or
            ``max``; or ``least_squares``, ``slsqp``, ``lbfgsb``, ``differential_evolution``,
            ``ipopt``.
        steps: most steps of each design, of each descent with ``lagrangian``.
        tolerance: largest miss of a converged design, in widths of the properties.
        difference: step of differences in widths of the columns, for simulators through which
            gradients do not pass; None for 1e-7, or 1e-3 where they answer in float32.
        constraints: rules that every design keeps, such as ``["a + 2 * b <= 3"]``.
        distance: designs closer than this in the unit box are one answer.
        seed: seed of the proposals.
        progress: whether to show a progress bar.

    Returns:
        Candidates (B, R) with ``converged``; the claims are the simulator's, the header counts
        ``calls`` and ``gradients`` and lists the best design of each distinct answer.

    Raises:
        GenoptError: if the problem has no simulator, or the goal or an option does not fit.
    """
    solver = Solver(method, steps, tolerance, difference, constraints, distance)
    needs_simulator(problem, "refine")
    solver.check(goal)
    if isinstance(model, Nothing):
        x = start_designs(goal, table, proposals, seed)
        found = solver.improve(x, goal, problem, table=table, seed=seed, progress=progress)
        return found.candidates(goal, "refine", distance)
    limited = constraints is not None and not is_surrogate(model)
    proposed = propose(
        model,
        goal,
        proposals,
        table=table,
        seed=seed,
        **({"constraints": constraints} if limited else {}),
    )
    return _refined(proposed, problem, goal, solver, table, seed, progress)


def refine_candidates(
    candidates: Candidates,
    problem: Problem,
    goal: Goal | None = None,
    *,
    table: Table | None = None,
    method: str = "auto",
    steps: int = 100,
    tolerance: float = 1e-8,
    difference: float | None = None,
    constraints: Any = None,
    distance: float = 0.01,
    seed: int = 0,
    progress: bool = False,
) -> Candidates:
    """The same for designs that are already there, from whatever routine.

    Args:
        candidates: designs (B, R).
        problem: whose simulator is asked.
        goal: what is wanted, B goals; None for the goal of the candidates.
        table: measured rows, which give columns without bounds a width.
        method: as in `refine`.
        steps: as in `refine`.
        tolerance: as in `refine`.
        difference: as in `refine`.
        constraints: as in `refine`.
        distance: as in `refine`.
        seed: seed of methods that draw.
        progress: whether to show a progress bar.

    Returns:
        Candidates (B, R), row by row the improved ones.

    Raises:
        GenoptError: if the designs are of other columns than the problem, or there is none.
    """
    solver = Solver(method, steps, tolerance, difference, constraints, distance)
    needs_simulator(problem, "refine")
    if candidates.x_space.names != problem.x_space.names:
        raise GenoptError(
            f"candidates have x columns {', '.join(candidates.x_space.names)}; the problem has "
            f"{', '.join(problem.x_space.names)}"
        )
    if goal is None:
        goal = Goal(candidates.goal, problem.x_space, problem.y_space)
    if goal.batch_size != candidates.shape[0]:
        raise GenoptError(
            f"candidates are for {candidates.shape[0]} goals, the goal asks {goal.batch_size}"
        )
    return _refined(candidates, problem, goal, solver, table, seed, progress)


def _refined(
    proposed: Candidates,
    problem: Problem,
    goal: Goal,
    solver: Solver,
    table: Table | None,
    seed: int,
    progress: bool,
) -> Candidates:
    if not bool(proposed.x.isfinite().all(-1).any()):
        raise GenoptError(
            "there is no design to refine: the model abstained from every goal, or found none"
        )
    found = solver.improve(proposed.x, goal, problem, table=table, seed=seed, progress=progress)
    header = {k: v for k, v in proposed.header.items() if k not in ("trajectory", "times")}
    return found.candidates(goal, "refine", solver.distance, ood=proposed.ood, header=header)


def needs_simulator(problem: Problem, routine: str) -> None:
    """Refuse a problem with measured data only.

    Args:
        problem: what is asked.
        routine: who needs it.

    Raises:
        GenoptError: if it has no simulator.
    """
    if not problem.has_simulator:
        raise GenoptError(
            f"routine={routine} asks a simulator, and problem {problem.name!r} has measured data "
            "only: use routine=condition, generate, optimize_latent or hybrid"
        )


def check_refine(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    """Refuse options of `refine` that would fail later.

    Args:
        model: the model, fitted or not.
        goal: what is wanted.
        options: the routine's options; ``problem`` where it is known already.

    Raises:
        GenoptError: if an option, the goal or the problem does not fit.
    """
    del model
    if options.get("proposals", 1) < 1:
        raise GenoptError(f"routine.proposals must be at least 1, got {options['proposals']}")
    Solver(**{key: options[key] for key in _KEYS if key in options}).check(goal)
    if options.get("problem") is not None:
        needs_simulator(options["problem"], "refine")
