"""Diagnosis: what is wrong with a study, recognised from what it left behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genopt.analysis.diagnose_designs import (
    collapsed,
    missing_answers,
    overclaimed,
    too_few_steps,
    unlike_held_out,
)
from genopt.analysis.diagnose_fit import (
    FitTimes,
    loss_not_falling,
    slow_training,
    too_few_components,
    variance_too_high,
)
from genopt.analysis.diagnose_table import constant_columns, outside_data, unscaled_columns
from genopt.analysis.findings import Finding
from genopt.analysis.heldout import HeldOut
from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.goal import Goal


def diagnose(
    table: Table,
    goal: Goal,
    model: Any = None,
    candidates: Candidates | None = None,
    *,
    history: Sequence[Mapping[str, float]] | None = None,
    times: FitTimes | None = None,
    held_out: HeldOut | None = None,
    seed: int = 0,
) -> list[Finding]:
    """The faults of a study, those of the table first.

    Args:
        table: all rows, with split labels.
        goal: what was wanted.
        model: the fitted model; None to look at the table alone.
        candidates: what was returned.
        history: numbers of each epoch; None for those that the model holds.
        times: what the fit took.
        held_out: predictions for unseen rows.
        seed: seed of the draws that are compared.

    Returns:
        The findings; none where nothing is wrong.

    Example:
        >>> from genopt.problems import PlugFlow
        >>> problem = PlugFlow()
        >>> goal = Goal({"F_A": 0.02}, problem.x_space, problem.y_space)
        >>> diagnose(problem.table(64), goal)
        []
    """
    checks: list[Callable[[], Finding | None]] = [
        lambda: constant_columns(table),
        lambda: unscaled_columns(table),
        lambda: outside_data(table, goal),
    ]
    if model is not None:
        past = history if history is not None else getattr(model, "history", None)
        checks += [
            lambda: too_few_components(model),
            lambda: loss_not_falling(past),
            lambda: slow_training(model, times),
            lambda: variance_too_high(held_out, table, goal, model),
            lambda: unlike_held_out(model, table, seed),
            lambda: too_few_steps(model, table, seed),
        ]
    if candidates is not None:
        train = table.part("train")
        found = candidates
        checks += [
            lambda: missing_answers(found, train, goal, model),
            lambda: collapsed(found, train, goal, model),
            lambda: overclaimed(found, goal, train),
        ]
    return [finding for check in checks if (finding := check()) is not None]
