"""Designs improved by a solver, whichever fits: choice, bookkeeping, and never a worse design."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.constraint import read_constraints
from genopt.data.table import Table
from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.problems.base import Problem
from genopt.problems.simulator import SimulationWarning
from genopt.routines.constraints.possible import check_possible
from genopt.routines.constraints.rules import Rules, rules_of
from genopt.routines.diverse import choose
from genopt.routines.gauss_newton import Solved, gauss_newton
from genopt.routines.lagrangian import augmented_lagrangian
from genopt.routines.refine_ask import Ask
from genopt.routines.refine_room import Room
from genopt.routines.residuals import Wanted
from genopt.routines.scipy_solvers import SCIPY, check_installed, solve_by_scipy
from genopt.routines.search import progress_bar

BATCHED = ("gauss_newton", "lagrangian")
REFINERS = ("auto", *BATCHED, *SCIPY)
_LISTED = 64


@dataclass(frozen=True)
class Solver:
    """How designs are improved.

    Args:
        method: ``auto``: ``gauss_newton`` for wanted values, ``lagrangian`` where something is to
            be as small or large as possible; or one of scipy's: ``least_squares``, ``slsqp``,
            ``lbfgsb``, ``differential_evolution``, ``ipopt``.
        steps: most steps of each design.
        tolerance: largest miss of a converged design, in widths of the properties.
        difference: step of differences for black boxes, in widths of the columns; None to choose.
        constraints: rules that every design keeps, as for `genopt.Constraint`.
        distance: root mean square distance in the unit box below which two designs are one answer.

    Raises:
        GenoptError: if a number is out of range or the method needs a package.
        UnknownNameError: if the method is unknown.
    """

    method: str = "auto"
    steps: int = 100
    tolerance: float = 1e-8
    difference: float | None = None
    constraints: Any = None
    distance: float = 0.01

    def __post_init__(self) -> None:
        if self.method not in REFINERS:
            raise UnknownNameError("routine.method", str(self.method), REFINERS)
        check_installed(self.method)
        if self.steps < 1:
            raise GenoptError(f"steps must be at least 1, got {self.steps}")
        for name in ("tolerance", "difference", "distance"):
            value = getattr(self, name)
            if value is not None and not (0.0 < value < 1.0):
                raise GenoptError(f"{name} must lie between 0 and 1, got {value}")

    def check(self, goal: Goal) -> None:
        """Refuse a goal that the method cannot work on.

        Args:
            goal: what is wanted.

        Raises:
            GenoptError: if a term has no slope, a wish cannot be met by the method, or a rule
                cannot be read.
        """
        wanted = Wanted.of(goal, torch.zeros(1, dtype=torch.long))
        if wanted.wishes and self.method in ("gauss_newton", "least_squares"):
            raise GenoptError(
                f"method={self.method} finds values, it cannot follow min or max: use "
                "method=lagrangian, slsqp or auto"
            )
        self.rules(goal)

    def rules(self, goal: Goal) -> Rules | None:
        """The constraints, read.

        Args:
            goal: what is wanted; its held columns do not move.

        Returns:
            The rules; None without any.
        """
        space = goal.x_space
        read = read_constraints(self.constraints, space)
        check_possible(read, space, goal.fixed)
        return rules_of(read, space, tuple(goal.fixed))

    def chosen(self, goal: Goal) -> str:
        """The method, after ``auto`` has looked at the goal."""
        if self.method != "auto":
            return self.method
        wishes = any(term.kind in ("min", "max") for term in goal.terms)
        return "lagrangian" if wishes else "gauss_newton"

    def improve(
        self,
        x: Tensor,
        goal: Goal,
        problem: Problem,
        *,
        table: Table | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> Improved:
        """Improve designs; none gets worse.

        Args:
            x: designs (B, R, P); NaN where a goal has none.
            goal: what is wanted, B goals.
            problem: whose simulator is asked.
            table: measured rows, which give columns without bounds a width.
            seed: seed of methods that draw.
            progress: whether to show a progress bar.

        Returns:
            Designs, their properties and what they cost.

        Raises:
            GenoptError: if the simulator fails for every design.
        """
        self.check(goal)
        space, rules = goal.x_space, self.rules(goal)
        shape = x.shape[:2]
        there = torch.isfinite(x).all(-1)
        held = goal.hold(space.project(x.detach().to(torch.float64)))
        start = held[there]
        rows = torch.arange(len(x))[:, None].expand(shape)[there]
        room = Room(space, start, tuple(goal.fixed), None if table is None else table.x)
        start = room.x(room.first())
        ask = Ask(problem, room.movable, rules, self.difference)
        wanted = Wanted.of(goal, rows, rules, self.tolerance)
        method = self.chosen(goal)
        with progress_bar(self.steps, progress) as tick:
            options: dict[str, Any] = {
                "steps": self.steps,
                "tolerance": self.tolerance,
                "tick": tick,
            }
            first = ask.values(start)
            if method in BATCHED:
                solver = gauss_newton if method == "gauss_newton" else augmented_lagrangian
                solved = solver(ask, wanted, room, first, **options)
            else:
                solved = solve_by_scipy(
                    ask, wanted, room, first, rows, method, seed=seed, **options
                )
        better = _better(wanted, first, solved, self.tolerance)
        u = torch.where(better[:, None], solved.u, room.first())
        values = torch.where(better[:, None], solved.values, first)
        _warn_of_failures(ask)
        count = problem.y_space.dim
        converged = better & solved.converged

        def grid(flat: Tensor, empty: float) -> Tensor:
            out = flat.new_full((*shape, *flat.shape[1:]), empty)
            out[there] = flat
            return out

        return Improved(
            grid(room.x(u).detach(), math.nan),
            grid(values[:, :count], math.nan),
            grid(converged, False),
            grid(wanted.largest(values), math.inf),
            grid(wanted.objective(values), math.inf),
            ask.calls,
            ask.gradients,
            method,
            rules,
        )


@dataclass(frozen=True)
class Improved:
    """What a solver made of designs.

    Args:
        x: designs (B, R, P).
        y: what the simulator says of them (B, R, K).
        converged: whether each came to its end (B, R).
        miss: largest miss of each in widths of the properties (B, R).
        objective: what was minimised (B, R).
        calls: designs that were simulated.
        gradients: designs whose slopes torch worked out.
        method: what found them.
        rules: rules they were to keep.
    """

    x: Tensor
    y: Tensor
    converged: Tensor
    miss: Tensor
    objective: Tensor
    calls: int
    gradients: int
    method: str
    rules: Rules | None

    def distinct(self, goal: Goal, distance: float) -> list[list[int]]:
        """The best design of each distinct answer, among those that converged.

        Args:
            goal: what is wanted.
            distance: root mean square distance in the unit box below which two are one answer.

        Returns:
            For each goal the positions along R, best first, at most 64 of them.
        """
        rank = torch.where(self.converged, self.objective + self.miss, torch.inf)
        unit = goal.x_space.encode(torch.nan_to_num(self.x))
        picks = choose(unit, rank, min(_LISTED, self.x.shape[1]), distance)
        return [[i for i in row if i >= 0] for row in picks.tolist()]

    def candidates(self, goal: Goal, routine: str, distance: float, **extra: Any) -> Candidates:
        """Candidates whose claims are the simulator's.

        Args:
            goal: what was wanted.
            routine: the routine's name.
            distance: below which two designs are one answer.
            **extra: further fields of Candidates.

        Returns:
            Candidates (B, R) with ``converged``; the header lists distinct answers as ``distinct``.
        """
        modes = self.distinct(goal, distance)
        done = self.converged
        header = {
            **extra.pop("header", {}),
            "routine": routine,
            "method": self.method,
            "distance": distance,
            "distinct": modes,
            "numbers": {
                "calls": self.calls,
                "gradients": self.gradients,
                "converged": float(done.double().mean()),
                "distinct": sum(len(row) for row in modes) / len(modes),
                **({"largest_miss": float(self.miss[done].max())} if bool(done.any()) else {}),
            },
            "says": self._says(goal, modes),
        }
        extra |= {"y_verified": self.y.detach().to(torch.float64), "converged": done}
        found = Candidates.from_claims(goal, self.x, self.y, header=header, **extra)
        if self.rules is not None:
            found.feasible.logical_and_(self.rules.kept(torch.nan_to_num(self.x)))
        return found

    def _says(self, goal: Goal, modes: Sequence[Sequence[int]]) -> list[str]:
        """What the verdict does not say of every solver."""
        parts = [f"{self.calls} simulator calls by {self.method.replace('_', ' ')}"]
        numbers = [len(row) for row in modes]
        if max(numbers):
            few = "at least " if max(numbers) == _LISTED else ""
            several = "" if max(numbers) == 1 else "s"
            which = f"{few}{max(numbers)} distinct design{several} converged"
            parts.append(which if len(numbers) == 1 else f"up to {which} for a goal")
        elif bool(torch.isfinite(self.miss).any()) and len(goal.terms):
            parts.append(
                f"no design converged, the nearest misses by {float(self.miss.min()):.2g} of a "
                "property's width"
            )
        return parts


def _better(wanted: Wanted, first: Tensor, solved: Solved, tolerance: float) -> Tensor:
    """Whether the end of each row is at least as good as its start."""
    before, after = wanted.largest(first), wanted.largest(solved.values)
    if not wanted.wishes:
        old = wanted.residual(first).square().sum(-1)
        new = wanted.residual(solved.values).square().sum(-1)
        return (new <= old) | (torch.isnan(old) & torch.isfinite(new)) | solved.converged
    broken = ~(before <= tolerance)
    gain = wanted.objective(solved.values) <= wanted.objective(first)
    return (after <= before.clamp_min(tolerance)) & (gain | broken) & torch.isfinite(after)


def _warn_of_failures(ask: Ask) -> None:
    simulator = ask.simulator
    if simulator.failed:
        reasons = "; ".join(str(reason) for reason in simulator.failures)
        warnings.warn(
            f"the simulator of {ask.problem.name!r} failed for {simulator.failed} of "
            f"{simulator.calls} designs that were tried, which were left aside ({reasons})",
            SimulationWarning,
            stacklevel=4,
        )
