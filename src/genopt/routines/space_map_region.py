"""A region of outputs: an interval of each property that is asked for, and rules over them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genopt.constraint import Constraint, read_constraints
from genopt.data.sampling import unit_samples
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.terms import DIRECTIONS

_LOOK = 8192
_TRIES = 40
_WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Region:
    """Outputs that are asked for.

    Args:
        columns: numbers of the columns of y that the region is in.
        lower: least values (k,) of those columns.
        upper: largest values (k,).
        rules: what outputs keep beside that, over all columns of y.
        width: number of columns of y.
    """

    columns: tuple[int, ...]
    lower: Tensor
    upper: Tensor
    rules: tuple[Constraint, ...]
    width: int

    @classmethod
    def of(cls, goal: Goal, rules: Any = None) -> Region:
        """The region of a goal: all outputs that satisfy it, and keep the rules.

        An ``equals`` term is the interval of its tolerance; where a rule names its column, the rule
        says how far from the value outputs may lie, and the column's bounds are the interval.

        Args:
            goal: what is wanted.
            rules: rules over the columns of y, such as ``["(a - 1)**2 + b**2 <= 0.1"]``.

        Returns:
            The region.

        Raises:
            GenoptError: if a rule cannot be read or is an equality, a term has no interval, or a
                column has no bounds.
        """
        space = goal.y_space
        if goal.batched:
            raise GenoptError("routine=space_map maps one region: give one value for each column")
        read = read_constraints(rules, space)
        named = {word for rule in read for word in _WORD.findall(rule.name)} & set(space.names)
        for rule in read:
            if rule.equality:
                raise GenoptError(
                    f"routine.region: {rule.name!r} leaves no region of outputs, only a line: use "
                    "<= or >="
                )
        low, high = space.lower.clone(), space.upper.clone()
        asked = {space.index(name) for name in named}
        for term in goal.terms:
            if term.kind in (*DIRECTIONS, "label") or term.value is None:
                raise GenoptError(
                    f"routine=space_map: {term.column} is asked for as {term.kind}, which is no "
                    "region: give between, at_least, at_most or a value with a tolerance"
                )
            i, value = term.index, float(term.value)
            asked.add(i)
            if term.kind == "equals":
                if term.column not in named:
                    slack = (
                        0.02 * float(goal.scale[i]) if term.tolerance is None else (term.tolerance)
                    )
                    low[i], high[i] = value - slack, value + slack
                continue
            if term.kind in ("at_least", "between"):
                low[i] = max(float(low[i]), value)
            if term.kind in ("at_most", "between"):
                end = value if term.upper is None else float(term.upper)
                high[i] = min(float(high[i]), end)
        columns = tuple(sorted(asked))
        index = list(columns)
        if not bool(torch.isfinite(high[index] - low[index]).all()):
            open_ended = next(i for i in columns if not bool(torch.isfinite(high[i] - low[i])))
            raise GenoptError(
                f"routine=space_map: column {space.names[open_ended]!r} has no finite bounds: say "
                "between which values"
            )
        return cls(columns, low[index], high[index], read, space.dim)

    def contains(self, y: Tensor) -> Tensor:
        """Whether outputs lie in the region.

        Args:
            y: outputs (..., K).

        Returns:
            bool (...); False where an output of the region is NaN.
        """
        y = y.to(torch.float64)
        part = y[..., list(self.columns)]
        inside = ((part >= self.lower) & (part <= self.upper)).all(-1)
        for rule in self.rules:
            inside &= rule.violation(y.reshape(-1, self.width)).reshape(y.shape[:-1]) <= 0.0
        return inside

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """Outputs spread evenly over the region.

        Args:
            n: how many.
            seed: seed of the draw.

        Returns:
            Outputs (n, K), NaN in the columns that the region is not in.

        Raises:
            GenoptError: if no output keeps all rules.
        """
        found = self._within(self.lower, self.upper, _LOOK, seed)
        if not len(found):
            names = ", ".join(repr(rule.name) for rule in self.rules)
            raise GenoptError(
                f"routine.region: none of {_LOOK} outputs inside the bounds keeps {names}: "
                "widen a rule, or give the goal narrower intervals around the region"
            )
        index = list(self.columns)
        # a small region is looked for again in a box around what was found of it
        seen = found[:, index]
        edge = (seen.amax(0) - seen.amin(0)) * 0.1 + 0.01 * (self.upper - self.lower)
        low = torch.maximum(seen.amin(0) - edge, self.lower)
        high = torch.minimum(seen.amax(0) + edge, self.upper)
        kept: list[Tensor] = []
        for turn in range(_TRIES):
            kept.append(self._within(low, high, max(2 * n, 256), seed + 1 + turn))
            if sum(map(len, kept)) >= n:
                break
        return torch.cat(kept)[:n]

    def _within(self, low: Tensor, high: Tensor, n: int, seed: int) -> Tensor:
        unit = torch.from_numpy(unit_samples(n, len(self.columns), "sobol", seed))
        y = torch.full((n, self.width), torch.nan, dtype=torch.float64)
        y[:, list(self.columns)] = low + unit * (high - low)
        # rules are over all columns; those that are not in the region do not matter to them
        return y[self.contains(y)]
