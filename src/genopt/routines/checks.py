"""Checks of a routine's options before anything is trained.

A search that cannot run should say so in a second, not after the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.mixture.engine import Mixture
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.protocols import ConditionalModel
from genopt.routines.latent_candidates import optimize_latent_candidates
from genopt.routines.sample import condition, generate, refuse_fixed


def check_routine(routine: Callable[..., Any], model: Any, goal: Goal) -> None:
    """Refuse options that the shipped routines would refuse after the fit.

    Args:
        routine: the routine, its options bound by `functools.partial`; one of the user's own is
            not looked at.
        model: the model, not fitted.
        goal: what is wanted.

    Raises:
        GenoptError: if the routine cannot work with the model, the goal or its options.
    """
    if not isinstance(routine, partial):
        return
    check = _CHECKS.get(routine.func)
    if check is not None:
        check(model, goal, routine.keywords)


def _needs(model: Any, kind: type, routine: str, choice: str) -> None:
    if not isinstance(model, kind):
        raise GenoptError(
            f"routine={routine} works with model={choice}, not with {type(model).__name__}: drop "
            "the choice of the routine, or choose that model"
        )


def _counts(options: Mapping[str, Any]) -> None:
    for name in ("samples", "targets"):
        if options.get(name, 1) < 1:
            raise GenoptError(f"routine.{name} must be at least 1, got {options[name]}")


def _check_condition(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    del goal
    _needs(model, Mixture, "condition", "mixture")
    _counts(options)


def _check_generate(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    _needs(model, ConditionalModel, "generate", "flow")
    if options.get("trajectory"):
        _needs(model, ConditionalFlow, "generate with routine.trajectory=true", "flow")
    _counts(options)
    refuse_fixed(goal)


def _check_optimize_latent(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    """One step of the search on the untrained model meets every check of the real one."""
    _needs(model, FlexibleMultiTaskModel, "optimize_latent", "multitask")
    small = {"starts": 1, "restarts": 2, "steps": 1}
    least = {k: min(options[k], v) for k, v in small.items() if k in options}
    if goal.x_space.bounded:
        optimize_latent_candidates(model, goal, **{**options, **least, "trajectory": False})


_CHECKS: dict[Callable[..., Any], Callable[[Any, Goal, Mapping[str, Any]], None]] = {
    condition: _check_condition,
    generate: _check_generate,
    optimize_latent_candidates: _check_optimize_latent,
}
