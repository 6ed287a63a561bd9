"""Goals that no design reaches: what comes nearest, by a search on the simulator or in the rows.

It is asked only after a study whose designs and rows all miss a goal, because then either the
engine is too coarse or the goal is impossible, and a user wants to know which.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.mixture.reach import in_words as values_in_words
from genopt.problems.base import Problem
from genopt.problems.simulator import SimulationWarning, Simulator
from genopt.routines.abstain import answered, some_goals
from genopt.routines.targets import ranked_rows

_STARTS = 8
_MOST_GOALS = 16
_STEP = 1e-6
_SECONDS = 20.0
_FAILED = 1e6
_ITERATIONS = 60
_NOTHING = 1e-12
# a row has a held column's value within so much of the column's width
_HELD = 1e-6
# how exactly fractions sum to one, and what a miss of it weighs beside the goal
_ON_SIMPLEX, _SUM = 1e-7, 1e3


@dataclass(frozen=True)
class Reach:
    """What a search says of one goal that nothing reached.

    Args:
        goal: the goal's number in the batch.
        reachable: whether a design was found that reaches it.
        asked: what was wanted, in words.
        nearest: the values that come nearest, in words.
        x: their design by column, classes by label; the row's, where there is no simulator.
        y: the values by column.
        calls: simulator calls that the search took; 0 where only rows were looked at.
    """

    goal: int
    reachable: bool
    asked: str
    nearest: str
    x: dict[str, float | str]
    y: dict[str, float]
    calls: int

    def __str__(self) -> str:
        where = ", ".join(f"{k} {_short(v)}" for k, v in self.x.items())
        if self.reachable:
            return (
                f"none of the designs reaches {self.asked}, but the simulator can: "
                f"{self.nearest} at {where} (routine=refine goes on from the designs)"
            )
        if not self.calls:
            return f"{self.asked} is not reached; the nearest measured row has {self.nearest}"
        return (
            f"unreachable: {self.asked}; the nearest reachable values that {self.calls} simulator "
            f"calls found are {self.nearest} at {where}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data."""
        return {**asdict(self), "text": str(self)}


def unreached(
    candidates: Candidates, goal: Goal, table: Table, problem: Problem, calls: int, seed: int = 0
) -> list[Reach]:
    """The goals with values that neither a design nor a row reaches, and what comes nearest.

    Args:
        candidates: what a routine returned, verified where there is a simulator.
        goal: what was wanted.
        table: the rows.
        problem: what was asked; its simulator is searched where it has one.
        calls: most simulator calls for each goal; 0 to look at the rows only.
        seed: seed of further starts.

    Returns:
        One entry for each such goal, the first 16 of many.
    """
    if all(term.kind in ("max", "min") for term in goal.terms):
        return []
    known = _reached_by_rows(goal, table)
    known |= _reached_by_designs(candidates, goal)
    found = []
    for b in (~known).nonzero().flatten().tolist()[:_MOST_GOALS]:
        one = some_goals(goal, [b])
        starts = table.rows(ranked_rows(one, table.y)[0, :_STARTS])
        if problem.has_simulator and calls:
            found.append(_searched(b, one, starts, _best(candidates, b), problem, calls, seed))
        elif not candidates.verified:
            found.append(_nearest_row(b, one, starts))
    return found


def _reached_by_rows(goal: Goal, table: Table) -> Tensor:
    """Which goals a row reaches that also has the held columns."""
    y = table.y.expand(goal.batch_size, *table.y.shape) if goal.batched else table.y
    reached = goal.satisfied(y).reshape(goal.batch_size, -1)
    width = table.x_space.upper - table.x_space.lower
    for i, value in goal.fixed.items():
        reached &= (table.x[:, i] - value[:, None]).abs() <= _HELD * width[i]
    return reached.any(1)


def _reached_by_designs(candidates: Candidates, goal: Goal) -> Tensor:
    """Which goals are reached: in truth where there is a simulator, else by the claims."""
    said = candidates.y_verified if candidates.verified else candidates.y_predicted
    reached = torch.zeros(goal.batch_size, dtype=torch.bool)
    smaller, some, rows = answered(candidates, goal)
    if some is not None:
        values = smaller.y_verified if candidates.verified else smaller.y_predicted
        values = values if some.batched else values[0]
        reached[rows] = some.satisfied(values).reshape(len(rows), -1).any(1)
    return reached if len(said) else torch.zeros_like(reached)


def _best(candidates: Candidates, goal: int) -> Tensor:
    """The best designs for one goal (n, P)."""
    order = candidates.order()[goal, : _STARTS // 2]
    x = candidates.x[goal, order]
    return x[torch.isfinite(x).all(-1)]


def _nearest_row(number: int, goal: Goal, starts: Table) -> Reach:
    y = starts.y[0]
    named = torch.full_like(y, torch.nan)
    columns = [term.index for term in goal.terms]
    named[columns] = y[columns]
    return _reach(number, goal, False, starts.x[0], named, 0)


def _reach(number: int, goal: Goal, reachable: bool, x: Tensor, y: Tensor, calls: int) -> Reach:
    space, there = goal.x_space, torch.isfinite(y)
    asked = Goal({t.column: goal.spec[t.column] for t in goal.terms
                  if t.kind not in ("max", "min")}, space, goal.y_space)  # fmt: skip
    design = {v.name: v.labels[int(x[i])] if v.labels else float(x[i]) for i, v in enumerate(space)}
    values = {v.name: float(y[i]) for i, v in enumerate(goal.y_space) if bool(there[i])}
    nearest = values_in_words(goal.y_space, y, y)
    return Reach(number, reachable, str(asked), nearest, design, values, calls)


def _searched(
    number: int,
    goal: Goal,
    rows: Table,
    designs: Tensor,
    problem: Problem,
    calls: int,
    seed: int,
) -> Reach:
    """The nearest values: sequential quadratic programming, then Gauss-Newton, some starts."""
    from scipy import optimize

    # the stubs know no function that gives its slope as well
    minimize: Any = optimize.minimize
    least_squares: Any = optimize.least_squares

    search = _Search(goal, problem, calls)
    more = problem.design(_STARTS // 2, seed + 1).to(torch.float64)
    starts = goal.hold(torch.cat([designs, rows.x, more]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimulationWarning)
        first = search.ask(problem.x_space.project(starts))
        order = first.square().sum(-1).argsort()
        for start in problem.x_space.project(starts)[order[:_STARTS]]:
            if search.done:
                break
            search.begin(start)
            if not search.free or not search.valued:
                continue
            try:
                end = minimize(
                    search.value_and_slope,
                    search.unit(start),
                    jac=True,
                    method="SLSQP",
                    bounds=[(0.0, 1.0)] * len(search.free),
                    constraints=search.sums(),
                    options={"maxiter": _ITERATIONS, "ftol": 1e-14},
                ).x
                # the squared misses are flat where they vanish, the misses themselves are not
                least_squares(
                    lambda u: search.misses(u)[0],
                    np.clip(end, 0.0, 1.0),
                    jac=lambda u: search.misses(u)[1],
                    bounds=(0.0, 1.0),
                    xtol=1e-15,
                    ftol=1e-15,
                    gtol=1e-15,
                    max_nfev=_ITERATIONS,
                )
            except _EnoughError:
                break
    best_x, best_y = search.best
    named = torch.full_like(best_y, torch.nan)
    columns = [t.index for t in goal.terms if t.kind not in ("max", "min")]
    named[columns] = best_y[columns]
    return _reach(number, goal, search.reached, best_x, named, search.simulate.calls)


class _EnoughError(Exception):
    """The goal is reached, or the budget of calls or time is spent."""


class _Search:
    """The simulator as a function of the free, continuous columns, each between 0 and 1."""

    def __init__(self, goal: Goal, problem: Problem, calls: int) -> None:
        self.goal, self.space, self.most = goal, problem.x_space, calls
        self.simulate = Simulator(problem)
        self.until = time.monotonic() + _SECONDS
        self.valued = [t for t in goal.terms if t.kind not in ("max", "min", "label")]
        held = {*goal.fixed, *self.space.discrete}
        self.free = [i for i in range(self.space.dim) if i not in held]
        self.low = self.space.lower[self.free]
        self.width = (self.space.upper - self.space.lower)[self.free]
        self.start = torch.empty(0)
        self.reached = False
        self.least = np.inf
        self.best: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self.seen: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def done(self) -> bool:
        spent = self.simulate.calls + len(self.free) + 1 > self.most
        return self.reached or spent or time.monotonic() > self.until

    def begin(self, start: Tensor) -> None:
        self.start = start
        self.seen = {}

    def unit(self, x: Tensor) -> np.ndarray:
        return ((x[self.free] - self.low) / self.width).clamp(0.0, 1.0).numpy()

    def design(self, unit: Tensor) -> Tensor:
        x = self.start.expand(*unit.shape[:-1], -1).clone()
        x[..., self.free] = self.low + unit * self.width
        return x

    def ask(self, x: Tensor, trials: int | None = None) -> Tensor:
        """Scaled misses (n, T) of designs; the best valid one of the first trials is kept."""
        try:
            y = self.simulate(x)
        except GenoptError:
            # every one of these designs fails
            return torch.full((len(x), len(self.valued)), _FAILED, dtype=torch.float64)
        misses = torch.stack(
            [
                term.weight**0.5 * term.miss(y[:, term.index]) / self.goal.scale[term.index]
                for term in self.valued
            ],
            -1,
        ).nan_to_num(_FAILED)
        count = len(x) if trials is None else trials
        valid = x[:count] if not self.space.simplexes else self.space.project(x[:count])
        counts = (valid - x[:count]).abs().amax(-1) <= _ON_SIMPLEX
        reached = self.goal.satisfied(y[:count]) & counts
        # a design that reaches the goal is the best one, whatever its misses
        rank = torch.where(counts, misses[:count].square().sum(-1) - reached.double(), torch.inf)
        place = int(rank.argmin())
        if float(rank[place]) < self.least or not len(self.best[0]):
            self.least, self.best = float(rank[place]), (x[place], y[place])
        self.reached |= bool(reached.any())
        return misses

    def misses(self, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Misses (T,) and their slopes (T, F), the sums of simplexes among them."""
        key = unit.tobytes()
        if key not in self.seen:
            self.seen = {key: self._misses(unit)}
        return self.seen[key]

    def _misses(self, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.done:
            raise _EnoughError
        here = torch.from_numpy(np.asarray(unit, dtype=float).copy())
        # steps into the box
        step = _STEP * torch.where(here > 0.5, -1.0, 1.0).to(torch.float64)
        miss = self.ask(self.design(torch.cat([here[None], here + torch.diag(step)])), 1)
        slopes = ((miss[1:] - miss[0]) / step[:, None]).mT.numpy()
        value = miss[0].numpy()
        for equation in self.sums():
            value = np.append(value, _SUM * equation["fun"](unit))
            slopes = np.vstack([slopes, _SUM * equation["jac"](unit)])
        return value, slopes

    def value_and_slope(self, unit: np.ndarray) -> tuple[float, np.ndarray]:
        """Half the sum of the squared misses and its slope; the sums are constraints there."""
        value, slopes = self.misses(unit)
        count = len(self.valued)
        return 0.5 * float(value[:count] @ value[:count]), slopes[:count].T @ value[:count]

    def sums(self) -> list[dict[str, Any]]:
        """The simplexes, as linear equalities of the free columns."""
        found = []
        for group in self.space.simplex_indices:
            inside = np.array([i in group for i in self.free], dtype=float)
            if not inside.any():
                continue
            slope = inside * self.width.numpy()
            held = sum(float(self.start[i]) for i in group if i not in self.free)
            offset = float((torch.from_numpy(inside) * self.low).sum()) + held - 1.0
            found.append(
                {
                    "type": "eq",
                    "fun": lambda u, slope=slope, offset=offset: float(slope @ u + offset),
                    "jac": lambda _, slope=slope: slope,
                }
            )
        return found


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return "0" if abs(value) < _NOTHING else f"{value:.4g}"
