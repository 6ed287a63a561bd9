"""`offline`: designs beyond the data, ranked without the simulator, then scored by it.

Mixture and flow are asked for values beyond the best row; what they propose, and what an evolution
of the best rows finds, is ranked by a pessimist: a claim counts less the less sure it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.gaussian_process import GaussianProcess
from genopt.problems.base import Problem
from genopt.problems.offline import Offline
from genopt.problems.simulator import Simulator
from genopt.protocols import ConditionalModel
from genopt.routines.acquisition import Acquisition, Aims, Spreadless
from genopt.routines.active_pool import Room, evolve
from genopt.routines.active_settings import ActiveSettings
from genopt.routines.propose import propose
from genopt.terms import DIRECTIONS, Term

_TARGETS = 8
_DEFAULT = 128
_ROWS = 2048


def offline(
    model: Any,
    goal: Goal,
    *,
    table: Table | None = None,
    problem: Problem | None = None,
    proposals: int | None = None,
    surrogate: str = "auto",
    pessimism: float = 1.0,
    beyond: float = 0.5,
    seed: int = 0,
) -> Candidates:
    """Designs that promise more than the best row, from the rows alone.

    Args:
        model: the fitted model; it proposes, and says what designs are worth if it knows how sure
            it is.
        goal: one wish, ``min`` or ``max``.
        table: the rows that were learned from.
        problem: scores the proposals afterwards, where it is a `genopt.problems.offline.Offline`.
        proposals: how many designs are proposed; None for what the problem allows, or 128.
        surrogate: ``model``, ``gp`` (a Gaussian process) or ``auto``: the model where it knows how
            sure it is, else ``gp``.
        pessimism: standard deviations that a claim is lowered by.
        beyond: how far beyond the best row a conditional model is asked to go, in ranges from the
            median row to the best one.
        seed: seed of the search.

    Returns:
        Candidates (1, R), the most promising first, with the spread of each claim; for an offline
        problem the header has the scores.

    Raises:
        GenoptError: if the goal is no single wish, an option is out of range or there are no rows.
    """
    term, settings = check_offline(model, goal, proposals, surrogate, pessimism, beyond)
    if table is None or not len(table):
        raise GenoptError("offline needs the rows that were learned from: give table=")
    count = _DEFAULT if proposals is None else proposals
    if proposals is None and isinstance(problem, Offline):
        count = problem.proposals
    generator = torch.Generator().manual_seed(seed)
    believer: Any = model if hasattr(model, "spread_y") else Spreadless(model)
    if settings.surrogate == "gp":
        believer = GaussianProcess(goal.x_space, goal.y_space, columns=(term.index,), seed=seed)
        rows = torch.randperm(len(table), generator=generator)[:_ROWS]
        believer.fit(table.x[rows], table.y[rows])
    aims = Aims.of(goal, table.y, 1, generator)
    value = aims.values(table.y[None])
    value = torch.where(torch.isnan(value), torch.inf, value)
    promise = Acquisition(aims, believer, value.amin(1), "confidence", -pessimism, seed)
    room = Room(goal)
    starts = [table.x[value.argsort(1)[:, :count]], room.anywhere(count, seed)]
    own = beyond_goal(goal, term, table, beyond) if isinstance(model, ConditionalModel) else goal
    judge = {} if hasattr(model, "predict_y") else {"judge": believer}
    with warnings.catch_warnings():
        # targets beyond the data are the purpose here
        warnings.filterwarnings("ignore", message=".*outside the data.*")
        found = propose(model, own, count, table=table, seed=seed, **judge).x
    found = found[torch.isfinite(found).all(-1)][None]
    best = evolve(promise, room, torch.cat([*starts, found], 1), max(count, 384), generator)
    x = best[:, :count]
    with torch.no_grad():
        claims, spread = believer.predict_y(x), believer.spread_y(x)
    header: dict[str, Any] = {"routine": "offline"}
    if isinstance(problem, Offline):
        scores = problem.scores(Simulator(problem)(x), table.y)
        header["numbers"] = {"calls": count, **scores.numbers()}
        header["says"] = [
            f"the best of {x.shape[1]} proposals is {scores.best:.4g}, their median "
            f"{scores.median:.4g}, the best row {scores.data:.4g}"
        ]
    return Candidates.from_claims(goal, x, claims, y_spread=spread.to(torch.float64), header=header)


def beyond_goal(goal: Goal, term: Term, table: Table, beyond: float) -> Goal:
    """The same goal with values beyond the best row in the place of a wish, one goal each.

    Args:
        goal: one wish.
        term: the wish.
        table: the rows.
        beyond: the farthest value, in ranges from the median row to the best one.

    Returns:
        Goals for values from the best row's to that one.
    """
    miss = term.miss(table.y[:, term.index])
    miss = miss[torch.isfinite(miss)]
    best, median = float(miss.min()), float(miss.median())
    ways = torch.linspace(0.0, beyond, _TARGETS, dtype=torch.float64)
    wanted = best - ways * (median - best)
    column = goal.y_space[term.column]
    # what the column cannot take is no value to ask for
    values = (-wanted if term.kind == "max" else wanted).clamp(column.lower, column.upper)
    return Goal({**goal.spec, term.column: values.tolist()}, goal.x_space, goal.y_space)


def check_offline(
    model: Any,
    goal: Goal,
    proposals: int | None = None,
    surrogate: str = "auto",
    pessimism: float = 1.0,
    beyond: float = 0.5,
) -> tuple[Term, ActiveSettings]:
    """Check the options of `offline`.

    Args:
        model: the model, fitted or not.
        goal: what is wanted.
        proposals: as for `offline`, like all others.
        surrogate: who ranks.
        pessimism: standard deviations.
        beyond: how far.

    Returns:
        The wish, and the settings with ``auto`` decided.

    Raises:
        GenoptError: if one of them cannot be used with the model or the goal.
    """
    if len(goal.terms) != 1 or goal.terms[0].kind not in DIRECTIONS or goal.batched:
        raise GenoptError(f"offline needs a goal of one wish, min or max, got {goal}")
    if pessimism < 0 or beyond < 0:
        raise GenoptError(
            f"routine.pessimism={pessimism} and routine.beyond={beyond} must not be negative"
        )
    if proposals is not None and proposals < 1:
        raise GenoptError(f"routine.proposals must be at least 1, or null, got {proposals}")
    return goal.terms[0], ActiveSettings.read(model, goal, surrogate=surrogate)


def check_offline_options(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    """The check of the routine before training.

    Args:
        model: the model, not fitted.
        goal: what is wanted.
        options: keywords of `offline`.
    """
    check_offline(model, goal, **options)
