"""Goal: what is wanted, one language for every routine.

A goal names columns of y with what they should be (a value, ``max``, ``min``, a bound, an interval,
a class) and columns of x that are held fixed. A column that is not named is free. Goals may be
batched: B values for a column are B goals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.space import Space
from genopt.terms import (
    DIRECTIONS,
    Term,
    check_simplexes,
    in_words,
    match,
    parse_fixed,
    parse_term,
    phrase,
    plain,
)

__all__ = ["Goal", "Term"]

_DEFAULT_TOLERANCE = 0.02

# nodes and weights of the three-point Gauss-Hermite rule for a standard Gaussian
_NODES = ((-math.sqrt(3.0), 1.0 / 6.0), (0.0, 2.0 / 3.0), (math.sqrt(3.0), 1.0 / 6.0))


class Goal:
    """What is wanted, for named columns of y, with named columns of x held fixed.

    Args:
        spec: a mapping from column to what is wanted, as in YAML: ``5.0`` or ``{equals: 5.0}``,
            ``max``, ``min``, ``{at_least: v}``, ``{at_most: v}``, ``{between: [a, b]}``, ``{label:
            name}``, ``{direction: min}``; a mapping may add ``weight`` and ``tolerance``. A list of
            numbers is a batch of goals. A column of x takes a number (or a class label) and is held
            fixed.
        x_space: the Space of the designs.
        y_space: the Space of the properties.

    Raises:
        GenoptError: if a column, kind, class or number is not valid; the message names it.

    Example:
        >>> x, y = Space.of(a=(0, 1)), Space.of(density=(0, 9), cost=(0, 1))
        >>> goal = Goal({"density": 5.0, "cost": "min"}, x, y)
        >>> goal.condition()
        tensor([5., nan], dtype=torch.float64)
    """

    def __init__(self, spec: Mapping[str, Any], x_space: Space, y_space: Space) -> None:
        if not isinstance(spec, Mapping) or not spec:
            raise GenoptError(
                "goal is empty: name at least one property, for example "
                "goal={density: 5.0, cost: min}"
            )
        self.spec: dict[str, Any] = {str(k): plain(v) for k, v in spec.items()}
        self.x_space = x_space
        self.y_space = y_space
        terms: list[Term] = []
        fixed: dict[int, Tensor] = {}
        for column, wanted in self.spec.items():
            if column in y_space:
                terms.append(parse_term(column, y_space.index(column), y_space[column], wanted))
            elif column in x_space:
                fixed[x_space.index(column)] = parse_fixed(x_space[column], wanted)
            else:
                raise UnknownNameError("goal column", column, [*y_space.names, *x_space.names])
        if not terms:
            raise GenoptError(
                f"goal names only columns of x ({', '.join(self.spec)}): name at least one "
                "property of "
                f"{', '.join(y_space.names)}"
            )
        self.terms: tuple[Term, ...] = tuple(terms)
        self.fixed: dict[int, Tensor] = fixed
        check_simplexes(x_space, fixed)
        tensors = [t for term in terms for t in (term.value, term.upper) if t is not None]
        sizes = {t.numel() for t in [*tensors, *fixed.values()]} - {1}
        if len(sizes) > 1:
            raise GenoptError(f"batched goal values have different lengths {sorted(sizes)}")
        self.batch_size: int = sizes.pop() if sizes else 1
        self.batched: bool = self.batch_size > 1

    def __repr__(self) -> str:
        return f"Goal({self.spec})"

    def __str__(self) -> str:
        wanted = [phrase(term, self.y_space.variables[term.index]) for term in self.terms]
        held = [
            f"{self.x_space.names[i]} fixed at {in_words(v, self.x_space.variables[i])}"
            for i, v in self.fixed.items()
        ]
        return ", ".join(wanted + held)

    @cached_property
    def scale(self) -> Tensor:
        """Width of each y column (K,), 1 where it has no finite bounds: the unit of the loss."""
        width = self.y_space.upper - self.y_space.lower
        return torch.where(torch.isfinite(width) & (width > 0), width, 1.0)

    def _scale(self, scale: Tensor | None, like: Tensor) -> Tensor:
        chosen = self.scale if scale is None else scale
        return chosen.to(like)

    def _checked(self, y: Tensor) -> Tensor:
        self.y_space.check(y, "y")
        if self.batched and (y.ndim < 2 or y.shape[0] != self.batch_size):
            raise GenoptError(
                f"y has shape {tuple(y.shape)}; expected ({self.batch_size}, ..., "
                f"{self.y_space.dim}) for a batch of "
                f"{self.batch_size} goals"
            )
        return y

    def loss(self, y: Tensor, scale: Tensor | None = None) -> Tensor:
        """Weighted mean of the squared scaled misses; ``max`` and ``min`` count linearly.

        Args:
            y: properties (..., K), or (B, ..., K) for a batch of goals.
            scale: unit of each column (K,); None for the width of the y Space.

        Returns:
            Losses (...); differentiable in y; NaN where a named column is NaN.
        """
        y = self._checked(y)
        unit = self._scale(scale, y)
        total = torch.zeros_like(y[..., 0])
        for term in self.terms:
            miss = term.miss(y[..., term.index])
            if term.kind == "label":
                miss = torch.where(torch.isnan(y[..., term.index]), torch.nan, miss)
            elif term.kind in DIRECTIONS:
                miss = miss / unit[term.index]
            else:
                miss = (miss / unit[term.index]).square()
            total = total + term.weight * miss
        return total / sum(term.weight for term in self.terms)

    def expected_loss(self, y: Tensor, spread: Tensor) -> Tensor:
        """The mean loss when the truth scatters around the claim like a Gaussian.

        The loss is a sum over columns, so three nodes a column are exact for wanted values (the
        squared claimed miss plus the variance) and close for inequalities; ``max`` and ``min`` are
        linear and do not change.

        Args:
            y: claims (..., K), or (B, ..., K) for a batch of goals.
            spread: their standard deviations, of the same shape; NaN counts as none.

        Returns:
            Expected losses (...).
        """
        spread = torch.nan_to_num(spread, nan=0.0).to(y)
        return torch.stack([w * self.loss(y + node * spread) for node, w in _NODES]).sum(0)

    def satisfied(self, y: Tensor, scale: Tensor | None = None) -> Tensor:
        """Whether every term with a value holds within its tolerance; directions ask nothing.

        Args:
            y: properties (..., K), or (B, ..., K) for a batch of goals.
            scale: unit of each column (K,) for terms without a tolerance; None for the width of the
                y Space.

        Returns:
            bool (...); False where a named column is NaN.
        """
        y = self._checked(y)
        unit = self._scale(scale, y)
        holds = torch.ones_like(y[..., 0], dtype=torch.bool)
        for term in self.terms:
            column = y[..., term.index]
            holds &= ~torch.isnan(column)
            if term.kind in DIRECTIONS:
                continue
            slack = term.tolerance
            if slack is None:
                slack = (
                    float(_DEFAULT_TOLERANCE * unit[term.index]) if term.kind == "equals" else 0.0
                )
            holds &= term.miss(column).abs() <= slack + 1e-12
        return holds

    def condition(self) -> Tensor:
        """The values that a conditional model is asked for.

        Returns:
            (K,), or (B, K) for a batch of goals: the value of ``equals`` and ``label`` terms, NaN
            elsewhere.
        """
        out = torch.full((self.batch_size, self.y_space.dim), math.nan, dtype=torch.float64)
        for term in self.terms:
            if term.kind in ("equals", "label") and term.value is not None:
                out[:, term.index] = term.value
        return out if self.batched else out[0]

    def hold(self, x: Tensor) -> Tensor:
        """Designs with the fixed columns set to their values.

        Args:
            x: designs (B or 1, ..., P) for a batch of goals, else (..., P).

        Returns:
            Designs of the same shape.
        """
        if not self.fixed:
            return x
        out = x.clone()
        for i, value in self.fixed.items():
            out[..., i] = match(value, out[..., i])
        return out
