"""`stationary`: every design at which an objective is stationary, or at which derivatives vanish.

A goal with one ``min`` or ``max`` asks for the stationary points of that column, its other terms
and the rules being constraints. A goal that only names values (derivatives equal to zero) asks for
all their roots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.constraint import Constraint, read_constraints
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.flow.conditional import ConditionalFlow
from genopt.problems.base import Problem
from genopt.protocols import ForwardModel
from genopt.routines.stationary_points import Search, StationaryPoints
from genopt.routines.stationary_roots import RootTask
from genopt.routines.stationary_solve import Task, check_options
from genopt.routines.stationary_system import Coordinates, Functions
from genopt.terms import DIRECTIONS, Term

# the second derivatives of a network in single precision are not exact beyond this
_LEARNED = 1e-4


def stationary(
    model: Any,
    goal: Goal,
    *,
    table: Table | None = None,
    problem: Problem | None = None,
    engine: str = "auto",
    samples: int = 1024,
    rounds: int = 16,
    rows: int = 1024,
    constraints: Any = None,
    bounds: bool = False,
    multipliers: Sequence[str] = (),
    barrier: float = 1e-2,
    steps: int = 60,
    tolerance: float = 1e-9,
    distinct: float = 1e-4,
    seed: int = 0,
) -> Candidates:
    """All stationary points of the goal's objective, or all roots of its values.

    With a simulator the points are those of the simulator, which torch must be able to
    differentiate; else those of the model's prediction.

    Args:
        model: a fitted model; its draws are the starts where the goal names derivatives.
        goal: one ``min`` or ``max`` term, the others being constraints, or values only.
        table: measured rows.
        problem: whose simulator is solved; None for the model's prediction.
        engine: what draws the starts: ``auto`` (the study's model where the goal names derivatives,
            a model of its kind for slopes else), ``mixture``, ``flow``, or ``none`` for points
            spread over the box.
        samples: starts of each round.
        rounds: most rounds; no further one after a round without a new point, if hardly any is
            left to find.
        rows: designs whose slopes are learned for an objective.
        constraints: rules on designs, such as ``["a + 2 * b <= 3"]``; see `genopt.Constraint`.
        bounds: whether the bounds of x count as inequalities.
        multipliers: columns of x that are multipliers already, where the goal names the derivatives
            of a Lagrangian: the second-order check leaves them out.
        barrier: strength of the log barrier of inequalities at the start, in units of the
            objective's spread; it is driven to zero.
        steps: most Newton steps of a start.
        tolerance: largest residual of an answer, in units of each function's size.
        distinct: distance in the unit box within which two ends are one point.
        seed: seed of everything random.

    Returns:
        Candidates (1, R), the lowest objective first; the header says the ``kinds`` and for an
        objective ``multipliers``, ``slack`` and ``active``.

    Raises:
        GenoptError: if the goal is of another form, or nothing can be differentiated.
    """
    options = Search(samples, rounds, steps, tolerance, distinct, seed)
    check_stationary(
        goal,
        engine=engine,
        rows=rows,
        barrier=barrier,
        constraints=constraints,
        bounds=bounds,
        multipliers=multipliers,
        options=options,
    )
    simulated = problem is not None and problem.has_simulator
    outputs = _outputs(model, problem)
    if not simulated:
        options = Search(samples, rounds, steps, max(tolerance, _LEARNED), distinct, seed)
    coordinates = _coordinates(goal)
    wish = _wish(goal)
    if wish is None:
        task = RootTask(outputs, goal, coordinates, tuple(multipliers))
        found = task.solve(model, engine, table, options)
    else:
        found = objective_task(
            outputs, goal, wish, coordinates, read_constraints(constraints, goal.x_space), bounds
        ).solve(_engine(engine, model), barrier, rows, options)
    return _candidates(found, goal, outputs, simulated)


def check_stationary(
    goal: Goal,
    *,
    engine: str = "auto",
    rows: int = 1024,
    barrier: float = 1e-2,
    constraints: Any = None,
    bounds: bool = False,
    multipliers: Sequence[str] = (),
    options: Search | None = None,
) -> None:
    """Refuse what cannot be solved, before any work.

    Args:
        goal: what is wanted.
        engine: what draws the starts.
        rows: designs to learn from.
        barrier: strength of the barrier.
        constraints: rules on designs.
        bounds: whether bounds count as inequalities.
        multipliers: columns of x that are multipliers.
        options: how to search.

    Raises:
        GenoptError: if the goal, a name or a number cannot be used.
    """
    check_options(engine, barrier, rows, options or Search())
    if goal.batched:
        raise GenoptError("routine=stationary solves one goal: give one value for each column")
    rules = read_constraints(constraints, goal.x_space)
    wish = _wish(goal)
    coordinates = _coordinates(goal)
    if wish is not None and multipliers:
        raise GenoptError(
            f"routine.multipliers={list(multipliers)} is for goals that name the derivatives of a "
            f"Lagrangian; here {wish.column} is asked for as {wish.kind}: drop it"
        )
    if wish is None and (rules or bounds):
        raise GenoptError(
            "routine.constraints and routine.bounds need an objective: name one column as min or "
            "max, or drop them"
        )
    for name in multipliers:
        if name not in coordinates.names:
            raise GenoptError(
                f"routine.multipliers: {name!r} is no moving column of x; these are "
                f"{', '.join(coordinates.names)}"
            )


def objective_task(
    outputs: Functions,
    goal: Goal,
    wish: Term,
    coordinates: Coordinates,
    rules: Sequence[Constraint] = (),
    bounds: bool = False,
) -> Task:
    """The goal's one wish under its other terms.

    Args:
        outputs: from designs (N, P) to properties (N, K).
        goal: what is wanted.
        wish: the term with ``min`` or ``max``.
        coordinates: what may move.
        rules: rules on designs.
        bounds: whether bounds count as inequalities.

    Returns:
        The task.
    """
    sides: list[tuple[int, float, float, bool]] = []
    names: list[str] = []
    for term in goal.terms:
        if term is wish or term.value is None:
            continue
        low = float(term.value)
        if term.kind == "equals":
            sides.append((term.index, 1.0, low, True))
            names.append(f"{term.column} = {low:g}")
        if term.kind in ("at_least", "between"):
            sides.append((term.index, -1.0, low, False))
            names.append(f"{term.column} >= {low:g}")
        if term.kind in ("at_most", "between"):
            high = low if term.upper is None else float(term.upper)
            sides.append((term.index, 1.0, high, False))
            names.append(f"{term.column} <= {high:g}")

    def values(x: Tensor) -> Tensor:
        y = outputs(x)
        columns = [y[:, wish.index]]
        columns += [sign * (y[:, i] - value) for i, sign, value, _ in sides]
        return torch.stack(columns, 1)

    equality = [equal for *_, equal in sides]
    return Task.of(values, names, equality, coordinates, rules, bounds, wish.kind == "max")


def _wish(goal: Goal) -> Term | None:
    """The one term to minimise or maximise; None where the goal only names values."""
    wishes = [term for term in goal.terms if term.kind in DIRECTIONS]
    labels = [term.column for term in goal.terms if term.kind == "label"]
    if labels:
        raise GenoptError(f"routine=stationary: the class {labels[0]!r} has no slope")
    if len(wishes) > 1:
        columns = ", ".join(term.column for term in wishes)
        raise GenoptError(
            f"routine=stationary takes one objective, the goal has {columns}: routine=pareto "
            "trades them off"
        )
    if wishes:
        return wishes[0]
    if any(term.kind != "equals" for term in goal.terms):
        raise GenoptError(
            "routine=stationary needs one column as min or max, or values only (derivatives equal "
            f"to zero); the goal is: {goal}"
        )
    return None


def _coordinates(goal: Goal) -> Coordinates:
    return Coordinates(goal.x_space, {i: float(value) for i, value in goal.fixed.items()})


def _engine(engine: str, model: Any) -> str:
    if engine != "auto":
        return engine
    return "flow" if isinstance(model, ConditionalFlow) else "mixture"


def _outputs(model: Any, problem: Problem | None) -> Functions:
    """What is solved: the simulator, else the model's prediction."""
    if problem is not None and problem.has_simulator:
        return problem.simulate
    if isinstance(model, ForwardModel):
        return lambda x: model.predict_y(x).to(torch.float64)
    raise GenoptError(
        f"routine=stationary needs a simulator, or a model that predicts y, not "
        f"{type(model).__name__}: use model=multitask or model=mixture"
    )


def _candidates(
    found: StationaryPoints, goal: Goal, outputs: Functions, simulated: bool
) -> Candidates:
    x = found.x.unsqueeze(0)
    with torch.no_grad():
        y = outputs(found.x) if len(found) else torch.empty(0, goal.y_space.dim)
    numbers = {
        "calls": found.calls + len(found) if simulated else 0,
        "starts": found.starts,
        "found": len(found),
        "unseen": found.unseen,
        **{f"{kind}_points": count for kind, count in found.count().items()},
    }
    if len(found):
        numbers["largest_residual"] = float(found.residual.max())

    def listed(values: dict[str, Tensor]) -> dict[str, list[Any]]:
        return {name: value.tolist() for name, value in values.items()}

    says = found.says()
    if not simulated:
        says.append("stationary for the model, not verified")
    return Candidates.from_claims(
        goal,
        x,
        y.to(torch.float64).unsqueeze(0),
        converged=torch.ones(1, len(found), dtype=torch.bool),
        header={
            "routine": "stationary",
            "kinds": list(found.kinds),
            "multipliers": listed(found.multipliers),
            "slack": listed(found.slack),
            "active": listed(found.active),
            "distance": 1e-6,
            "numbers": numbers,
            "says": says,
        },
    )
