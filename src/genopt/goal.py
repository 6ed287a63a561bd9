"""Goal: what is wanted, one language for every routine.

A goal names columns of y with what they should be (a value, ``max``, ``min``, a bound, an interval,
a class) and columns of x that are held fixed. A column that is not named is free. Goals may be
batched: B values for a column are B goals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.space import Space, Variable

TermKind = Literal["equals", "max", "min", "at_least", "at_most", "between", "label"]
_DIRECTIONS = ("max", "min")
_VALUED = ("equals", "at_least", "at_most", "between", "label")
_OPTIONS = ("weight", "tolerance")
_DEFAULT_TOLERANCE = 0.02


@dataclass(frozen=True)
class Term:
    """What is wanted of one column of y.

    Args:
        column: the column's name.
        index: its position in the y Space.
        kind: one of ``equals``, ``max``, ``min``, ``at_least``, ``at_most``, ``between``,
            ``label``.
        value: the wanted value, class code or lower end (B,); None for ``max`` and ``min``.
        upper: the upper end (B,) of ``between``, else None.
        weight: share in the loss.
        tolerance: absolute slack of `Goal.satisfied`; None for two percent of the column's scale.
    """

    column: str
    index: int
    kind: TermKind
    value: Tensor | None = None
    upper: Tensor | None = None
    weight: float = 1.0
    tolerance: float | None = None

    def miss(self, y: Tensor) -> Tensor:
        """How far a column is from what is wanted, signed as the gradient needs it.

        Args:
            y: values of this column; its leading dimension is B where the goal is batched.

        Returns:
            Misses of the same shape: zero where the term holds; for ``max`` and ``min`` the
            (negated) value itself.
        """
        if self.kind == "max":
            return -y
        if self.kind == "min":
            return y
        value = _match(self.value, y)
        if self.kind == "at_least":
            return (value - y).clamp_min(0.0)
        if self.kind == "at_most":
            return (y - value).clamp_min(0.0)
        if self.kind == "between":
            return (value - y).clamp_min(0.0) + (y - _match(self.upper, y)).clamp_min(0.0)
        if self.kind == "label":
            return (y.round() != value.round()).to(y)
        return y - value


def _match(value: Tensor | None, y: Tensor) -> Tensor:
    """A value (B,) shaped to broadcast against y (B, ...) or, with B = 1, against any y."""
    if value is None:
        raise GenoptError("this kind of term has no value")
    value = value.to(y)
    if value.numel() == 1:
        return value.reshape(())
    return value.reshape(-1, *([1] * (y.ndim - 1)))


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
        self.spec: dict[str, Any] = {str(k): _plain(v) for k, v in spec.items()}
        self.x_space = x_space
        self.y_space = y_space
        terms: list[Term] = []
        fixed: dict[int, Tensor] = {}
        for column, wanted in self.spec.items():
            if column in y_space:
                terms.append(_term(column, y_space.index(column), y_space[column], wanted))
            elif column in x_space:
                fixed[x_space.index(column)] = _fixed(x_space[column], wanted)
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
        tensors = [t for term in terms for t in (term.value, term.upper) if t is not None]
        sizes = {t.numel() for t in [*tensors, *fixed.values()]} - {1}
        if len(sizes) > 1:
            raise GenoptError(f"batched goal values have different lengths {sorted(sizes)}")
        self.batch_size: int = sizes.pop() if sizes else 1
        self.batched: bool = self.batch_size > 1

    def __repr__(self) -> str:
        return f"Goal({self.spec})"

    def __str__(self) -> str:
        wanted = [_phrase(term, self.y_space.variables[term.index]) for term in self.terms]
        held = [
            f"{self.x_space.names[i]} fixed at {_number(v, self.x_space.variables[i])}"
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
            elif term.kind in _DIRECTIONS:
                miss = miss / unit[term.index]
            else:
                miss = (miss / unit[term.index]).square()
            total = total + term.weight * miss
        return total / sum(term.weight for term in self.terms)

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
            if term.kind in _DIRECTIONS:
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
            out[..., i] = _match(value, out[..., i])
        return out


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def _numbers(column: str, value: Any) -> Tensor:
    values = value if isinstance(value, list) else [value]
    for v in values:
        if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v):
            raise GenoptError(
                f"goal.{column}: expected a finite number (or a list of them for a batch), got "
                f"{v!r}; "
                f"words that are understood: {', '.join(_DIRECTIONS)}"
            )
    if not values:
        raise GenoptError(f"goal.{column}: the list of values is empty")
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


def _codes(variable: Variable, value: Any) -> Tensor:
    labels = value if isinstance(value, list) else [value]
    return torch.tensor([float(variable.code(str(label))) for label in labels], dtype=torch.float64)


def _fixed(variable: Variable, wanted: Any) -> Tensor:
    if isinstance(wanted, Mapping) and set(wanted) == {"equals"}:
        wanted = wanted["equals"]
    if variable.kind == "categorical":
        return _codes(variable, wanted)
    if isinstance(wanted, Mapping) or wanted in _DIRECTIONS:
        raise GenoptError(
            f"goal.{variable.name}: a design column can only be held at a value; set bounds on "
            "the problem instead"
        )
    value = _numbers(variable.name, wanted)
    if bool(((value < variable.lower) | (value > variable.upper)).any()):
        raise GenoptError(
            f"goal.{variable.name}: {_number(value)} lies outside the bounds [{variable.lower:g}, "
            f"{variable.upper:g}]"
        )
    return value


def _term(column: str, index: int, variable: Variable, wanted: Any) -> Term:
    if not isinstance(wanted, Mapping):
        if wanted in _DIRECTIONS:
            wanted = {"direction": wanted}
        elif variable.kind == "categorical":
            wanted = {"label": wanted}
        else:
            wanted = {"equals": wanted}
    options = {k: wanted[k] for k in _OPTIONS if k in wanted}
    rest = {k: v for k, v in wanted.items() if k not in _OPTIONS}
    if len(rest) != 1:
        raise GenoptError(
            f"goal.{column}: give exactly one of {', '.join(_VALUED)} or "
            f"{' | '.join(_DIRECTIONS)}, "
            f"got {sorted(rest) or 'none'}"
        )
    kind, value = next(iter(rest.items()))
    if kind == "direction":
        if value not in _DIRECTIONS:
            raise UnknownNameError(f"goal.{column}.direction", str(value), _DIRECTIONS)
        kind, value = value, None
    elif kind not in _VALUED:
        raise UnknownNameError(f"kind of goal.{column}", kind, (*_VALUED, "direction"))
    if (kind == "label") != (variable.kind == "categorical"):
        raise GenoptError(
            f"goal.{column}: {kind!r} does not fit a {variable.kind} column"
            + (f"; its classes are {', '.join(variable.labels)}" if variable.labels else "")
        )
    weight = float(_numbers(f"{column}.weight", options.get("weight", 1.0))[0])
    if weight <= 0:
        raise GenoptError(f"goal.{column}.weight must be positive, got {weight:g}")
    tolerance = options.get("tolerance")
    if (
        tolerance is not None
        and (tolerance := float(_numbers(f"{column}.tolerance", tolerance)[0])) < 0
    ):
        raise GenoptError(f"goal.{column}.tolerance must not be negative, got {tolerance:g}")
    low = high = None
    if kind == "label":
        low = _codes(variable, value)
    elif kind == "between":
        if not isinstance(value, list) or len(value) != 2:
            raise GenoptError(f"goal.{column}.between: expected [lower, upper], got {value!r}")
        low, high = _numbers(column, value[0]), _numbers(column, value[1])
        if bool((low > high).any()):
            raise GenoptError(
                f"goal.{column}.between: lower end {value[0]} exceeds upper end {value[1]}"
            )
    elif kind not in _DIRECTIONS:
        low = _numbers(column, value)
    return Term(column, index, kind, low, high, weight, tolerance)


def _number(value: Tensor | None, variable: Variable | None = None) -> str:
    if value is None:
        return ""
    labels = variable.labels if variable is not None else ()
    numbers = [labels[int(v)] if labels else f"{v:g}" for v in value.tolist()]
    return numbers[0] if len(numbers) == 1 else f"[{', '.join(numbers)}]"


def _phrase(term: Term, variable: Variable) -> str:
    if term.kind in _DIRECTIONS:
        return f"{term.column} as {'high' if term.kind == 'max' else 'low'} as possible"
    if term.kind == "between":
        return f"{term.column} between {_number(term.value)} and {_number(term.upper)}"
    word = {"equals": "=", "at_least": "at least", "at_most": "at most", "label": "in class"}[
        term.kind
    ]
    return f"{term.column} {word} {_number(term.value, variable)}"
