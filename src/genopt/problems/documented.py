"""Documented optima and fronts of other packages, checked before they are trusted.

What a test problem states about itself may be wrong: a constraint of the other sign, another
domain, an optimum of a variant. So its points are evaluated again, must be feasible, and a local
search must not beat them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt.data.sampling import sample_space
from genopt.goal import Goal
from genopt.problems.base import Answer, Problem
from genopt.problems.fronts import best_of_two, front_designs
from genopt.space import Space, Variable
from genopt.terms import DIRECTIONS, Term

SAMPLE = 1024
_CHECKED = 5
_ROOM = 0.25
_STARTS = 2
_STEPS = 100
_TOLERANCE = 1e-3
# documented designs are rounded, those that a search finds are not
_ROUNDED, _FEASIBLE = 1e-4, 1e-6


class DocumentedWarning(UserWarning):
    """What a package states about its test problem does not hold; the answer is dropped."""


def sampled_space(
    names: Sequence[str], y: Tensor, bounds: dict[str, tuple[float, float]], zero: Sequence[str]
) -> Space:
    """A y Space with bounds from a sample, for a problem that states none.

    Args:
        names: columns of y.
        y: properties of the sample (N, K).
        bounds: bounds that are given, by column.
        zero: columns whose bounds reach zero, because a constraint asks for it.

    Returns:
        The Space; bounds are a quarter of the range wider than the sample.
    """
    variables = []
    for i, name in enumerate(names):
        column = y[torch.isfinite(y[:, i]), i]
        low, high = (float(column.min()), float(column.max())) if len(column) else (0.0, 1.0)
        room = _ROOM * (high - low) or max(1.0, abs(high))
        low, high = low - room, high + room
        if name in zero:
            low, high = min(low, 0.0), max(high, 0.0)
        low, high = bounds.get(name, (low, high))
        variables.append(Variable(name, float(low), float(high)))
    return Space(tuple(variables))


def sample(x_space: Space) -> Tensor:
    """The designs that bounds are read from (N, P): a Sobol set.

    Args:
        x_space: the Space of the designs.

    Returns:
        The designs, the same at each call.
    """
    return sample_space(x_space, SAMPLE, seed=0)


def checked_answers(problem: Problem, x: Tensor, value: Tensor) -> tuple[Answer, ...]:
    """Documented optima of one objective as answers, none of them if the check fails.

    Args:
        problem: whose optima they are.
        x: documented designs (N, P).
        value: their documented objective (1,).

    Returns:
        The answers.
    """
    why = Referee(problem).objection(x, value[:1])
    if why:
        _warn(problem.name, "optimum", why)
        return ()
    y = problem.simulate(x).detach()
    share = 1.0 / len(x)
    return tuple(Answer(row, point, share) for row, point in zip(x, y, strict=True))


def checked_front(problem: Any, function: str, objectives: int, n: int) -> Tensor:
    """Pareto-optimal designs in closed form, none if the check fails.

    Args:
        problem: an adapter; it remembers the outcome of the check as ``_trusted``.
        function: name in `genopt.problems.fronts`.
        objectives: number of objectives M.
        n: about how many designs.

    Returns:
        Designs (n', P).
    """
    none = torch.empty(0, problem.x_space.dim, dtype=torch.float64)
    x = front_designs(function, problem.x_space.dim, objectives, n)
    if problem._trusted is False or not len(x):
        return none
    x = torch.minimum(torch.maximum(x, problem.x_space.lower), problem.x_space.upper)
    if objectives == 2:
        x = x[best_of_two(problem.simulate(x).detach()[:, :2])]
    if problem._trusted is None:
        some = x[torch.linspace(0, len(x) - 1, min(_CHECKED, len(x))).round().long()]
        why = Referee(problem).objection(some)
        problem._trusted = not why
        if why:
            _warn(problem.name, "front", why)
            return none
    return x


def _warn(name: str, what: str, why: str) -> None:
    warnings.warn(
        f"problem {name!r}: the documented {what} is dropped: {why}",
        DocumentedWarning,
        stacklevel=3,
    )


class Referee:
    """Says whether documented points can be trusted.

    Args:
        problem: whose points they are; all columns of x continuous and bounded.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
        self.wishes = [term for term in self.goal.terms if term.kind in DIRECTIONS]
        self.lower = problem.x_space.lower.numpy()
        self.width = problem.x_space.upper.numpy() - self.lower

    def objection(self, x: Tensor, values: Tensor | None = None) -> str:
        """Why points are not to be trusted.

        Args:
            x: documented designs (N, P), all optimal, or on one front.
            values: their documented objectives (M,), in the signs of the problem.

        Returns:
            The reason in words; empty where there is none.
        """
        outside = (~self.problem.x_space.contains(x)).nonzero()[:, 0]
        if len(outside):
            return f"the documented design {_words(x[outside[0]])} lies outside the bounds"
        y = self.problem.simulate(x)
        worst, column = self._violation(y, y)
        if worst > _ROUNDED:
            return f"the documented designs violate {column} by {worst:.3g} of its usual size"
        unit = self._unit(y)
        if values is not None:
            found = y[0, [term.index for term in self.wishes]]
            gap = (found - values).abs()
            if bool((gap > _TOLERANCE * torch.maximum(values.abs(), unit)).any()):
                return f"the documented value is {_words(values)}, evaluated it is {_words(found)}"
        for row, point in zip(x, y, strict=True):
            gain, better = self._gain(row, point, unit)
            if gain > _TOLERANCE:
                return (
                    f"a local search finds {_words(better)}, better than the documented "
                    f"{_words(point[[term.index for term in self.wishes]])}"
                )
        return ""

    @cached_property
    def _best_sampled(self) -> Tensor:
        """Designs of a sample that meet the constraints, the best first."""
        x = sample(self.problem.x_space)
        y = self.problem.simulate(x)
        good = self.goal.satisfied(y)
        loss = torch.where(good, self.goal.loss(y), torch.inf)
        return x[loss.argsort()[: min(2, int(good.sum()))]]

    def _violation(self, y: Tensor, near: Tensor) -> tuple[float, str]:
        """The largest violation of all rows in the size of its column, and the column."""
        worst, column = 0.0, ""
        for term in self.goal.terms:
            if term.kind in DIRECTIONS:
                continue
            miss = (term.miss(y[..., term.index]).abs() - (term.tolerance or 0.0)).max()
            size = float(miss) / self._size(term, near)
            if size > worst or not np.isfinite(size):
                worst, column = size, term.column
        return worst, column

    def _size(self, term: Term, y: Tensor) -> float:
        """What counts as one in a constraint near documented properties (..., K).

        Not the width of the column: a few wild designs may stretch that beyond all measure.
        """
        here = float(y[..., term.index].abs().amax())
        return min(float(self.goal.scale[term.index]), max(1.0, here))

    def _unit(self, y: Tensor) -> Tensor:
        """What counts as one in an objective (M,): the front's range, or an optimum's size."""
        values = y[:, [term.index for term in self.wishes]]
        width = values.amax(0) - values.amin(0)
        scale = self.goal.scale[[term.index for term in self.wishes]]
        own = torch.maximum(values.abs().amax(0), _TOLERANCE * scale)
        return torch.where(width > 1e-9, width, own) if len(self.wishes) > 1 else own

    def _gain(self, x: Tensor, y: Tensor, unit: Tensor) -> tuple[float, Tensor]:
        """By how many units a local search improves all objectives at once, and what it found.

        It minimises t with f_m(x) - f_m(x*) <= t unit_m (Wierzbicki 1980) by SLSQP.
        """
        from scipy import optimize

        solve: Any = optimize.minimize
        index = [term.index for term in self.wishes]
        rng = np.random.default_rng(0)
        here = self._unit_box(x)
        starts = [here]
        starts += [here + s * rng.normal(size=here.shape) for s in np.geomspace(0.01, 0.1, _STARTS)]
        if len(self.wishes) == 1:
            starts += [self._unit_box(row) for row in self._best_sampled]
        best, found = 0.0, y[index]
        for start in starts:
            start = np.append(start.clip(0.0, 1.0), 0.0)
            result = solve(
                lambda z: z[-1],
                start,
                jac=lambda z: np.append(np.zeros(len(z) - 1), 1.0),
                bounds=[(0.0, 1.0)] * len(here) + [(-1e3, 1e3)],
                constraints={
                    "type": "ineq",
                    "fun": lambda z: self._slack(z, y, unit)[0],
                    "jac": lambda z: self._slack(z, y, unit)[1],
                },
                method="SLSQP",
                options={"maxiter": _STEPS, "ftol": 1e-9},
            )
            if not np.isfinite(result.x).all():
                continue
            reached = self._simulate(result.x[None, :-1].clip(0.0, 1.0))[0]
            if self._violation(reached, y)[0] > _FEASIBLE:
                continue
            gain = float((self._signed(y - reached) / unit).min())
            if gain > best:
                best, found = gain, reached[index]
        return best, found

    def _slack(self, z: Any, y: Tensor, unit: Tensor) -> tuple[Any, Any]:
        """What SLSQP keeps above zero (C,), and its slopes (C, P + 1) by differences."""
        p = len(z) - 1
        step = 1e-7
        inward = np.where(z[:-1] + step <= 1.0, step, -step)
        points = np.vstack([z[None, :-1], z[:-1] + np.diag(inward)])
        reached = self._simulate(points)
        better = self._signed(y - reached) / unit + float(z[-1])
        parts = [better, *(self._sides(term, reached, y) for term in self.goal.terms)]
        slack = torch.nan_to_num(torch.cat(parts, -1), nan=-1e6, neginf=-1e6, posinf=1e6).numpy()
        slopes = np.zeros((slack.shape[1], p + 1))
        slopes[:, :p] = ((slack[1:] - slack[0]) / inward[:, None]).T
        slopes[: len(self.wishes), p] = 1.0
        return slack[0], slopes

    def _sides(self, term: Term, y: Tensor, near: Tensor) -> Tensor:
        """The signed slacks (..., 0 to 2) of one constraint, in the size of its column."""
        column, slack = y[..., term.index], term.tolerance or 0.0
        sides = []
        if term.kind in ("at_least", "between", "equals") and term.value is not None:
            sides.append(column - float(term.value) + slack)
        upper = term.value if term.kind in ("at_most", "equals") else term.upper
        if upper is not None and term.kind != "at_least":
            sides.append(float(upper) + slack - column)
        if not sides:
            return y[..., :0]
        return torch.stack(sides, -1) / self._size(term, near)

    def _signed(self, y: Tensor) -> Tensor:
        """The objectives of (..., K), positive where lower is better."""
        signs = torch.tensor([1.0 if term.kind == "min" else -1.0 for term in self.wishes])
        return y[..., [term.index for term in self.wishes]] * signs.to(y)

    def _unit_box(self, x: Tensor) -> Any:
        return (x.numpy() - self.lower) / self.width

    def _simulate(self, unit: Any) -> Tensor:
        return self.problem.simulate(torch.from_numpy(self.lower + unit * self.width)).detach()


def _words(values: Tensor) -> str:
    numbers = ", ".join(f"{v:.6g}" for v in values.reshape(-1).tolist()[:6])
    return f"({numbers})" if values.numel() > 1 else numbers
