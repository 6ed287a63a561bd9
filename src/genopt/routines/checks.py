"""Checks of a routine's options before anything is trained.

A search that cannot run should say so in a second, not after the fit.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.flow.given import refuse_classes
from genopt.models.mixture.engine import Mixture
from genopt.problems.base import Problem
from genopt.protocols import ConditionalModel, ForwardModel
from genopt.routines.abstain import threshold_of
from genopt.routines.active import active, check_active
from genopt.routines.constraints.limits import Limits
from genopt.routines.densest import check_highest_density
from genopt.routines.hybrid import check_hybrid, hybrid
from genopt.routines.latent_candidates import DENSITIES, optimize_latent_candidates
from genopt.routines.multistart import check_multistart, multistart
from genopt.routines.offline import check_offline_options, offline
from genopt.routines.pareto import check_pareto, pareto
from genopt.routines.refine import check_refine, refine
from genopt.routines.sample import check_request, condition, generate
from genopt.routines.space_map import check_space_map, space_map
from genopt.routines.space_mapping import check_space_mapping, corrected_model
from genopt.routines.stationary import check_stationary, stationary
from genopt.routines.stationary_points import Search
from genopt.routines.surrogate import is_surrogate
from genopt.terms import Term
from genopt.variable import Variable


def check_routine(
    routine: Callable[..., Any],
    model: Any,
    goal: Goal,
    fitted: bool = False,
    problem: Problem | None = None,
) -> None:
    """Refuse goals that cannot be met and options that the shipped routines would refuse later.

    Args:
        routine: the routine, its options bound by `functools.partial`; one of the user's own is
            not looked at.
        model: the model.
        goal: what is wanted.
        fitted: whether the model is used as it is; else heads without labels may still get some.
        problem: what is asked, for routines that need its simulator.

    Raises:
        GenoptError: if the routine cannot work with the model, the goal, the problem or its
            options.
    """
    check_simplex_goal(goal)
    if not isinstance(routine, partial):
        return
    check = _CHECKS.get(routine.func)
    if check is None:
        return
    options = dict(routine.keywords)
    asked = inspect.signature(routine.func).parameters.get("problem")
    if problem is not None and asked is not None and asked.default is inspect.Parameter.empty:
        if not problem.has_simulator:
            raise GenoptError(
                f"routine={routine.func.__name__} asks the simulator, and problem "
                f"{problem.name!r} has measured data only: choose another routine or problem"
            )
        options["problem"] = problem
    with nullcontext() if fitted else _as_if_new(model):
        check(model, goal, options)


@contextmanager
def _as_if_new(model: Any) -> Iterator[None]:
    """A model that starts from a checkpoint is not fitted: its new heads have still to learn."""
    flag = getattr(model, "fitted", None)
    if not isinstance(flag, Tensor):
        yield
        return
    was = flag.clone()
    try:
        flag.fill_(False)
        yield
    finally:
        flag.copy_(was)


def check_simplex_goal(goal: Goal) -> None:
    """Refuse a goal on fractions that sum to one which no fractions can meet.

    Args:
        goal: what is wanted.

    Raises:
        GenoptError: if the wanted values of a simplex of y leave no sum of one.
    """
    terms = {term.column: term for term in goal.terms}
    for group in goal.y_space.simplexes:
        least = most = torch.zeros(1, dtype=torch.float64)
        for name in group:
            low, high = _range(terms.get(name), goal.y_space[name])
            least, most = least + low, most + high
        if bool(((least > 1.0 + 1e-9) | (most < 1.0 - 1e-9)).any()):
            wanted = ", ".join(name for name in group if name in terms)
            raise GenoptError(
                f"goal: {', '.join(group)} sum to one, but what is wanted of {wanted} leaves "
                f"sums from {float(least.max()):g} to {float(most.min()):g} only: change a value "
                "or a tolerance"
            )


def _range(term: Term | None, column: Variable) -> tuple[Tensor, Tensor]:
    """The values of a column that a term accepts, within the column's bounds."""
    low = torch.tensor([column.lower], dtype=torch.float64)
    high = torch.tensor([column.upper], dtype=torch.float64)
    if term is None or term.value is None:
        return low, high
    slack = term.tolerance or 0.0
    if term.kind in ("equals", "at_least", "between"):
        low = torch.maximum(low, term.value - slack)
    if term.kind in ("equals", "at_most"):
        high = torch.minimum(high, term.value + slack)
    if term.upper is not None:
        high = torch.minimum(high, term.upper + slack)
    return low, high


def _needs(model: Any, kind: type, routine: str, choice: str) -> None:
    if not isinstance(model, kind):
        _refuse(model, routine, choice)


def _refuse(model: Any, routine: str, choice: str) -> NoReturn:
    kind = type(model).__name__
    given = "model=none" if kind == "Nothing" else kind
    raise GenoptError(
        f"routine={routine} works with model={choice}, not with {given}: drop "
        "the choice of the routine, or choose that model"
    )


def _counts(options: Mapping[str, Any]) -> None:
    threshold_of(options.get("abstain"))
    check_highest_density(options.get("highest_density", 1.0), options.get("constraints"))
    for name in ("samples", "targets"):
        if options.get(name, 1) < 1:
            raise GenoptError(f"routine.{name} must be at least 1, got {options[name]}")


def _check_condition(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    _needs(model, Mixture, "condition", "mixture")
    _counts(options)
    _check_limits(model, goal, options)


def _check_generate(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    _needs(model, ConditionalModel, "generate", "flow")
    if options.get("trajectory"):
        _needs(model, ConditionalFlow, "generate with routine.trajectory=true", "flow")
    _counts(options)
    check_request(model, goal, options.get("guidance", 1.0))
    if options.get("highest_density", 1.0) < 1.0 and isinstance(model, ConditionalFlow):
        refuse_classes(
            model.transform, model.x_space, "routine.highest_density below 1", list(goal.fixed),
            "leave it at 1",
        )  # fmt: skip
    _check_limits(model, goal, options)


def _check_limits(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    """Refuse constraints that cannot be read or kept, before anything is trained."""
    limits = Limits.of(
        options.get("constraints"),
        goal,
        options.get("constraint_method", "auto"),
        options.get("constraint_tries", 500),
        model,
    )
    if limits is not None:
        limits.warn_if_empty(goal)


def _check_optimize_latent(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    """One step of the search on the untrained model meets every check of the real one."""
    if not is_surrogate(model):
        _refuse(model, "optimize_latent", "multitask")
    small = {"starts": 1, "restarts": 2, "steps": 1}
    least = {k: min(options[k], v) for k, v in small.items() if k in options}
    changed: dict[str, Any] = {"trajectory": False}
    if options.get("density") in DENSITIES[1:]:
        # there are no rows yet to learn it from
        changed["density"] = _anywhere
    if goal.x_space.bounded:
        optimize_latent_candidates(model, goal, **{**options, **least, **changed})


def _anywhere(x: Tensor) -> Tensor:
    return -x.square().sum(-1)


def _check_stationary(_: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    own = inspect.signature(check_stationary).parameters
    given = {name: value for name, value in options.items() if name in own}
    searched = {f.name: options[f.name] for f in fields(Search) if f.name in options}
    check_stationary(goal, **given, options=Search(**searched))


def _check_space_map(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    check_space_map(model, goal, **options)


def _check_space_mapping(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    _needs(model, ForwardModel, "space_mapping", "multitask or model=mixture")
    check_space_mapping(goal, **options)


def _check_pareto(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    check_pareto(model, goal, **options)


_CHECKS: dict[Callable[..., Any], Callable[[Any, Goal, Mapping[str, Any]], None]] = {
    condition: _check_condition,
    stationary: _check_stationary,
    space_map: _check_space_map,
    corrected_model: _check_space_mapping,
    generate: _check_generate,
    pareto: _check_pareto,
    hybrid: check_hybrid,
    optimize_latent_candidates: _check_optimize_latent,
    active: check_active,
    offline: check_offline_options,
    refine: check_refine,
    multistart: check_multistart,
}
