"""`active`: a loop of learning, proposing, simulating and learning again, on a budget of calls.

Each round spends a batch of simulations on the designs that promise most, by a model that says how
sure it is: the study's ensemble, or a Gaussian process that is refitted in a second. The engine
proposes too, and the best measured rows are recombined; the acquisition chooses among them all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.problems.base import Problem
from genopt.problems.simulator import Simulator
from genopt.protocols import ConditionalModel, ForwardModel
from genopt.routines.acquisition import PROPOSED
from genopt.routines.active_learner import Learner
from genopt.routines.active_progress import (
    History,
    best_buffer,
)
from genopt.routines.active_record import Record
from genopt.routines.active_round import next_designs
from genopt.routines.active_settings import ActiveSettings
from genopt.routines.propose import propose
from genopt.routines.surrogate import is_surrogate

_PROPOSALS = 128
_PATIENCE = 3


def active(
    model: Any,
    goal: Goal,
    *,
    problem: Problem,
    table: Table | None = None,
    train: Callable[[Table], Any] | None = None,
    folder: Path | None = None,
    batch: int = 10,
    budget: int = 200,
    acquisition: str = "auto",
    optimism: float = 1.5,
    surrogate: str = "auto",
    proposals: Any = "auto",
    retrain: int | None = None,
    trust_region: bool | str = "auto",
    explore: float = 0.1,
    keep: int = 20,
    seed: int = 0,
    progress: bool = False,
) -> Candidates:
    """The best designs that a budget of simulations finds, in rounds.

    With a Gaussian process, and one goal with one wish at most, rounds without success move ever
    more of the batch near the best row: into a box of the spread of the best rows, which a second
    Gaussian process knows by its nearest rows.

    A design that the simulator fails on is lost alone, is paid for and is not tried again. A goal
    with several wishes is approached from many sides at once, and what is returned are its
    trade-offs.

    Args:
        model: the fitted model; it proposes designs, and says how sure it is if it can.
        goal: what is wanted, B goals; every round's batch is shared among them.
        problem: its simulator is asked.
        table: the rows to begin with.
        train: a fresh model of the same kind, fitted to a table; None to keep ``model`` as it is.
        folder: where all rows are kept after each round; a run that was cut off goes on from there.
        batch: designs simulated side by side in each round, for all goals.
        budget: simulations in all.
        acquisition: ``improvement``, ``confidence``, ``thompson``, ``greedy``, ``auto``:
            ``confidence``; or ``proposed``: the designs of ``proposals``, in their order, ``batch``
            at most.
        optimism: standard deviations that ``confidence`` counts on.
        surrogate: who says what a design is worth: ``model``, ``gp`` (a Gaussian process of the
            values or, if that gained more, of the values on a learned scale), or ``auto``: the
            model where it says how sure it is, as an ensemble does, else ``gp``.
        proposals: who proposes beside the recombination of the best rows: ``auto`` (the model, by
            its own routine), ``none``, an import path or a node of a routine, or a callable
            ``(model, goal, ...) -> Candidates``.
        retrain: every how many rounds the model is trained again; None for 1 where it is the
            surrogate, else 5.
        trust_region: whether designs stay in a box around the best row that grows with success and
            shrinks without (Eriksson et al. 2019, TuRBO); ``auto``: for one goal with one wish at
            most, in ten columns or more, where the surrogate is the model.
        explore: with ``proposed``, the share of each batch that tries designs one column beside the
            best rows, of which the model is least sure.
        keep: how many of the best rows are returned.
        seed: seed of the run.
        progress: whether to show a progress bar.

    Returns:
        Candidates (B, R): the best measured designs, their measured values both claimed and
        verified; the header's ``history`` has the best value after each round.

    Raises:
        GenoptError: if an option cannot be used, there are no rows to begin with, the folder holds
            another run, or the simulator fails for all designs of three rounds.
    """
    settings = ActiveSettings.read(
        model, goal, batch, budget, acquisition, optimism, surrogate, retrain, trust_region,
        explore, keep,
    )  # fmt: skip
    if proposals == "auto" and not isinstance(model, ForwardModel | ConditionalModel):
        proposals = "none"
    routine = _proposer(proposals, settings)
    if table is None or not len(table):
        raise GenoptError("active needs rows to begin with: give table=")
    started = time.perf_counter()
    options = {**settings.mark, "goal": goal.spec, "seed": seed, "problem": problem.name}
    record = Record.open(table, options, folder)
    if record.calls >= budget:
        return _result(goal, record, settings, started)
    simulate = Simulator(problem, budget - record.calls)
    history, silent = History.of(goal, record), 0
    learner = Learner(model, goal, settings, train, seed)
    with _bar(budget, record.calls, progress) as advance:
        while record.calls < budget:
            number = int(record.rounds.max()) + 1
            learner.learn(record, history)
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            x = next_designs(learner, record, history, routine, settings, generator)[
                : budget - record.calls
            ]
            if not len(x):
                break
            y, failed = _asked(simulate, x)
            silent = silent + 1 if failed else 0
            record = record.with_rows(x, y)
            history = History.of(goal, record)
            record.save(history.plain())
            advance(len(x), history.words())
            if silent == _PATIENCE:
                raise GenoptError(
                    f"the simulator of {problem.name!r} failed for all designs of {_PATIENCE} "
                    f"rounds: {next(iter(simulate.failures))}"
                )
    return _result(goal, record, settings, started)


def check_active(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    """The check of the options before training.

    Args:
        model: the model, not fitted.
        goal: what is wanted.
        options: keywords of `active`.
    """
    own = {name: value for name, value in options.items() if name != "problem"}
    proposals = own.pop("proposals", "auto")
    _proposer(proposals, ActiveSettings.read(model, goal, **own))


def _proposer(proposals: Any, settings: ActiveSettings) -> Callable[..., Candidates] | None:
    routine = routine_of(proposals)
    if routine is None and settings.acquisition == PROPOSED:
        raise GenoptError(
            "routine.acquisition=proposed simulates what a routine proposes: give "
            "routine.proposals, such as genopt.routines.pareto.pareto"
        )
    return routine


def routine_of(proposals: Any) -> Callable[..., Candidates] | None:
    """The routine that proposes.

    Args:
        proposals: ``auto``, ``none``, an import path, a node with ``_target_`` or a callable.

    Returns:
        The routine; None for none.

    Raises:
        GenoptError: if it is nothing of these, or the import path leads nowhere.
    """
    if proposals is None or proposals == "none":
        return None
    if proposals == "auto":
        return _own_routine
    if isinstance(proposals, str) and "." in proposals:
        proposals = {"_target_": proposals}
    if isinstance(proposals, Mapping) and "_target_" in proposals:
        return _imported(proposals)
    if callable(proposals):
        chosen: Callable[..., Candidates] = proposals
        return chosen
    raise GenoptError(
        f"proposals must be auto, none, the import path of a routine (such as "
        f"genopt.routines.pareto.pareto) or a node with _target_, got {proposals!r}"
    )


def _imported(node: Mapping[str, Any]) -> Callable[..., Candidates]:
    from functools import partial
    from importlib import import_module

    module, _, name = str(node["_target_"]).rpartition(".")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise GenoptError(f"proposals: cannot import {node['_target_']!r}: {error}") from error
    return partial(function, **{k: v for k, v in node.items() if not k.startswith("_")})


def _own_routine(
    model: Any, goal: Goal, *, table: Table, judge: Any = None, seed: int = 0
) -> Candidates:
    # the acquisition goes on from there, so a search need not come to rest
    quick: dict[str, Any] = {"restarts": 4, "steps": 60} if is_surrogate(model) else {}
    count = _PROPOSALS // 4 if quick else _PROPOSALS
    return propose(model, goal, count, table=table, judge=judge, seed=seed, **quick)


def _asked(simulate: Simulator, x: Tensor) -> tuple[Tensor, bool]:
    """What the simulator says, and whether it failed for all designs."""
    before = simulate.failed
    try:
        return simulate(x), False
    except GenoptError:
        if simulate.failed - before < len(x):
            raise
        shape = (len(x), simulate.problem.y_space.dim)
        return torch.full(shape, torch.nan, dtype=torch.float64), True


def _result(goal: Goal, record: Record, settings: ActiveSettings, started: float) -> Candidates:
    history = History.of(goal, record)
    x, y = best_buffer(goal, record.known, settings.keep)
    header = {
        "routine": "active",
        "history": history.plain(),
        "numbers": {
            "calls": record.calls,
            "rounds": int(record.rounds.max()),
            "failed": int(record.lost.sum()),
            "seconds": time.perf_counter() - started,
        },
        "says": history.says(record),
    }
    return Candidates.from_claims(goal, x, y, y_verified=y, header=header)


def _no_bar(calls: int, words: str) -> None:
    """Nobody looks."""


@contextmanager
def _bar(budget: int, done: int, progress: bool) -> Iterator[Callable[[int, str], None]]:
    """A bar over the budget, if it is wanted."""
    if not progress:
        yield _no_bar
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("simulations"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("", total=budget, completed=done)
        yield lambda calls, words: bar.update(task, advance=calls, description=words)
