"""The steps of space mapping: what is asked of the two models, and what is learned from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.sampling import unit_samples
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.routines.stationary_newton import Linear, newton
from genopt.routines.stationary_system import Coordinates
from genopt.terms import DIRECTIONS

_STARTS = 64
_STEPS = 100
# weight of staying near in a search that has many answers
_NEAR = 1e-4
# share of a column's width by which an interval is aimed at from within
_INSIDE = 1e-7

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Wish:
    """What outputs should be, as intervals.

    Args:
        columns: numbers of the columns of y (k,).
        lower: least wanted values (k,).
        upper: largest wanted values (k,).
        size: unit of the misses (k,): the column's width over the root of the term's weight.
    """

    columns: tuple[int, ...]
    lower: Tensor
    upper: Tensor
    size: Tensor

    @classmethod
    def of(cls, goal: Goal) -> Wish:
        """The terms of a goal.

        Args:
            goal: what is wanted.

        Returns:
            The wish.

        Raises:
            GenoptError: if the goal is a batch, asks for a class, or has a direction without an
                end.
        """
        if goal.batched:
            raise GenoptError("routine=space_mapping serves one goal: one value for each column")
        lower, upper = [], []
        for term in goal.terms:
            variable = goal.y_space.variables[term.index]
            low, high = -torch.inf, torch.inf
            if term.kind == "label":
                raise GenoptError(
                    f"routine=space_mapping: {term.column!r} is a class, not a number"
                )
            if term.kind in DIRECTIONS:
                low = high = variable.lower if term.kind == "min" else variable.upper
                if abs(low) == torch.inf:
                    raise GenoptError(
                        f"routine=space_mapping: {term.column!r} is asked for as {term.kind} and "
                        "has no finite bound to aim at: give it bounds, or name a value"
                    )
            elif term.value is not None:
                value = float(term.value)
                if term.kind in ("equals", "at_least", "between"):
                    low = value
                if term.kind in ("equals", "at_most"):
                    high = value
                if term.upper is not None:
                    high = float(term.upper)
                if low != high:
                    # a little inside, so that a search that ends at the edge satisfies the term
                    edge = _INSIDE * float(goal.scale[term.index])
                    low, high = low + edge, high - edge
            lower.append(low)
            upper.append(high)
        columns = tuple(term.index for term in goal.terms)
        weight = torch.tensor([term.weight for term in goal.terms], dtype=torch.float64)
        return cls(
            columns,
            torch.tensor(lower, dtype=torch.float64),
            torch.tensor(upper, dtype=torch.float64),
            goal.scale[list(columns)] / weight.sqrt(),
        )

    def miss(self, y: Tensor) -> Tensor:
        """Signed distance from the intervals.

        Args:
            y: the wish's columns (..., k).

        Returns:
            Misses (..., k), in units of the columns.
        """
        below, above = (y - self.lower).clamp_max(0.0), (y - self.upper).clamp_min(0.0)
        return (below + above) / self.size


def coordinates_of(goal: Goal) -> Coordinates:
    """The columns that the goal does not hold."""
    return Coordinates(goal.x_space, {i: float(value) for i, value in goal.fixed.items()})


class Work:
    """The two models in the unit box, and what was asked of the costly one."""

    def __init__(
        self,
        cheap: Function,
        costly: Function,
        wish: Wish,
        goal: Goal,
        budget: int,
        tolerance: float,
        seed: int,
    ) -> None:
        self.cheap_function, self.costly_function = cheap, costly
        self.wish, self.goal = wish, goal
        self.coordinates = coordinates_of(goal)
        self.dim = len(self.coordinates.moving)
        self.budget, self.tolerance, self.seed = budget, tolerance, seed
        self.cheap_calls = 0
        self.z: list[Tensor] = []
        self.y: list[Tensor] = []
        self.ended = False

    # -- the models --------------------------------------------------------------------------------
    def cheap(self, z: Tensor) -> Tensor:
        """The wished columns (N, k) of the cheap model, in units of the misses."""
        self.cheap_calls += len(z)
        y = self.cheap_function(self.coordinates.raw(z)).to(torch.float64)
        return y[:, list(self.wish.columns)] / self.wish.size

    def costly(self, z: Tensor) -> Tensor:
        """The same (k,) of the costly simulator at one point (P,); kept."""
        with torch.no_grad():
            y = self.costly_function(self.coordinates.raw(z)[None]).to(torch.float64)[0]
        part = y[list(self.wish.columns)] / self.wish.size
        if not bool(torch.isfinite(part).all()):
            raise GenoptError(
                "the costly simulator gives no finite number at "
                f"{[round(v, 6) for v in self.coordinates.raw(z).tolist()]}"
            )
        self.z.append(z)
        self.y.append(y)
        return part

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return len(self.z) >= self.budget

    def misses(self, part: Tensor) -> Tensor:
        """What the goal misses, of values in units of the misses."""
        return self.wish.miss(part * self.wish.size)

    # -- searches on the cheap model ---------------------------------------------------------------
    def least(self, residual: Function, near: Tensor | None = None) -> Tensor:
        """The point (P,) of the box with the least residuals of cheap outputs.

        Args:
            residual: from cheap outputs (N, k) to what is to be zero (N, m).
            near: of many such points, one near to this.

        Returns:
            The point.
        """
        spread = torch.from_numpy(unit_samples(_STARTS, self.dim, "sobol", self.seed))
        starts = spread if near is None else torch.cat([near[None], spread])
        pull = 0.0 if near is None else _NEAR
        centre = starts[0]

        def system(z: Tensor, weight: float) -> Linear:
            with torch.enable_grad():
                leaf = z.detach().clone().requires_grad_()
                value = residual(self.cheap(leaf))
                if not value.requires_grad:
                    raise GenoptError(
                        "space mapping needs a cheap model that torch can differentiate"
                    )
                rows = [
                    torch.autograd.grad(v.sum(), leaf, retain_graph=True)[0]
                    for v in value.unbind(-1)
                ]
            value = torch.cat([value.detach().to(torch.float64), weight * (z - centre)], 1)
            still = weight * torch.eye(self.dim, dtype=torch.float64).expand(len(z), -1, -1)
            return Linear(value, torch.cat([torch.stack(rows, 1).to(torch.float64), still], 1))

        def solve(points: Tensor, weight: float) -> Tensor:
            return newton(
                lambda z: system(z, weight),
                points,
                clip=lambda z: z.clamp(0.0, 1.0),
                steps=_STEPS,
                tolerance=1e-13,
            ).point

        ends = solve(starts, pull)
        if pull:
            # the pull chose among answers; without it the last digits are right
            ends = solve(ends, 0.0)
        with torch.no_grad():
            size = residual(self.cheap(ends)).square().sum(1)
        good = size <= size.min() * (1.0 + 1e-6) + 1e-18
        gap = (ends - centre).square().sum(1)
        return ends[torch.where(good, gap, torch.inf).argmin()]

    # -- the two mappings --------------------------------------------------------------------------
    def aggressive(self, start: Tensor | None) -> None:
        """Broyden's method for P(x) = the cheap optimum.

        Args:
            start: where to begin; None for the cheap optimum.
        """
        optimum = self.least(self.misses)
        z = optimum if start is None else start
        matrix = torch.eye(self.dim, dtype=torch.float64)
        gap = self._extracted(z) - optimum
        while not self.spent:
            step = -torch.linalg.lstsq(matrix, gap[:, None]).solution[:, 0]
            moved = (z + step).clamp(0.0, 1.0)
            step = moved - z
            if self._close(gap, step):
                return
            z = moved
            gap = self._extracted(z) - optimum
            matrix = matrix + torch.outer(gap, step) / step.square().sum()
        self.ended = bool(gap.abs().max() <= self.tolerance)

    def _extracted(self, z: Tensor) -> Tensor:
        """The cheap design with the outputs of a costly one: parameter extraction."""
        answer = self.costly(z)
        return self.least(lambda y: y - answer, near=z)

    def _close(self, gap: Tensor, step: Tensor) -> bool:
        small = float(gap.abs().max()) <= self.tolerance
        self.ended = small or float(step.abs().max()) <= self.tolerance
        return self.ended

    def manifold(self, start: Tensor | None) -> None:
        """Corrected outputs, the correction learned from the last differences.

        Args:
            start: where to begin; None for the cheap optimum.
        """
        z = self.least(self.misses) if start is None else start
        best, answers, guesses = z, [], []
        lowest = torch.inf
        while True:
            answer = self.costly(z)
            with torch.no_grad():
                guess = self.cheap(z[None])[0]
            answers.append(answer)
            guesses.append(guess)
            loss = float(self.misses(answer).square().sum())
            if loss < lowest:
                best, lowest, kept = z, loss, len(answers) - 1
            if lowest**0.5 <= self.tolerance:
                self.ended = True
                return
            if self.spent:
                return
            moved = self._corrected(best, answers, guesses, kept)
            if float((moved - z).abs().max()) <= self.tolerance:
                self.ended = True
                return
            if kept != len(answers) - 1:
                # the last step did not help: half of the way
                moved = 0.5 * (moved + best)
            z = moved

    def _corrected(
        self, best: Tensor, answers: list[Tensor], guesses: list[Tensor], kept: int
    ) -> Tensor:
        """The optimum of s + S (cheap(x) - cheap(x_k)) around the best design so far."""
        answer, guess = answers[kept], guesses[kept]
        recent = [i for i in range(len(answers)) if i != kept][-self.dim :]
        width = len(answer)
        matrix = torch.eye(width, dtype=torch.float64)
        if recent:
            cheap = torch.stack([guesses[i] - guess for i in recent], 1)
            costly = torch.stack([answers[i] - answer for i in recent], 1)
            left, size, right = torch.linalg.svd(cheap, full_matrices=False)
            known = size > 1e-8 * size[0].clamp_min(1e-300)
            left, size, right = left[:, known], size[known], right[known]
            matrix = matrix - left @ left.T + costly @ right.T @ torch.diag(1.0 / size) @ left.T
        return self.least(lambda y: self.misses(answer + (y - guess) @ matrix.T), near=best)

    # -- the result --------------------------------------------------------------------------------
    def candidates(self, method: str) -> Candidates:
        """One candidate for each costly call, the best first."""
        z, y = torch.stack(self.z), torch.stack(self.y)
        x = self.coordinates.raw(z)
        with torch.no_grad():
            claims = self.cheap_function(x).to(torch.float64)
        order = self.goal.loss(y).argsort(stable=True)
        gap = float(self.wish.miss(y[order[0], list(self.wish.columns)]).abs().max())
        end = "came to rest" if self.ended else "used up its calls"
        return Candidates.from_claims(
            self.goal,
            x[order][None],
            claims[order][None],
            y_verified=y[order][None],
            header={
                "routine": "space_mapping",
                "numbers": {
                    "calls": len(x),
                    "cheap_calls": self.cheap_calls,
                    "largest_miss": gap,
                    "came_to_rest": float(self.ended),
                },
                "distance": 1e-9,
                "says": [
                    f"space mapping ({method}) {end} after {len(x)} costly calls; largest miss "
                    f"{gap:.2g} of a column's width"
                ],
            },
        )
