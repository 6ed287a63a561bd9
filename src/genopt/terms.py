"""Terms: what is wanted of one column, read from a goal's words and checked against its bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.space import Space
from genopt.variable import Variable

TermKind = Literal["equals", "max", "min", "at_least", "at_most", "between", "label"]
DIRECTIONS = ("max", "min")
_VALUED = ("equals", "at_least", "at_most", "between", "label")
_OPTIONS = ("weight", "tolerance")
_MOST_WORDS = 6


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
        value = match(self.value, y)
        if self.kind == "at_least":
            return (value - y).clamp_min(0.0)
        if self.kind == "at_most":
            return (y - value).clamp_min(0.0)
        if self.kind == "between":
            return (value - y).clamp_min(0.0) + (y - match(self.upper, y)).clamp_min(0.0)
        if self.kind == "label":
            return (y.round() != value.round()).to(y)
        return y - value


def match(value: Tensor | None, y: Tensor) -> Tensor:
    """A value (B,) shaped to broadcast against y (B, ...) or, with B = 1, against any y."""
    if value is None:
        raise GenoptError("this kind of term has no value")
    value = value.to(y)
    if value.numel() == 1:
        return value.reshape(())
    return value.reshape(-1, *([1] * (y.ndim - 1)))


def plain(value: Any) -> Any:
    """A goal's words as plain data: mappings, lists, numbers and text.

    Args:
        value: what the user gave; tensors and arrays become lists.

    Returns:
        Plain data, fit for a JSON header.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(v) for v in value]
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
                f"words that are understood: {', '.join(DIRECTIONS)}"
            )
    if not values:
        raise GenoptError(f"goal.{column}: the list of values is empty")
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


def _codes(variable: Variable, value: Any) -> Tensor:
    labels = value if isinstance(value, list) else [value]
    return torch.tensor([float(variable.code(str(label))) for label in labels], dtype=torch.float64)


def parse_fixed(variable: Variable, wanted: Any) -> Tensor:
    """The value at which a design column is held.

    Args:
        variable: the column of x.
        wanted: a number, a class label, or a list of them for a batch.

    Returns:
        Values (B,).

    Raises:
        GenoptError: if it is no value of the column.
    """
    if isinstance(wanted, Mapping) and set(wanted) == {"equals"}:
        wanted = wanted["equals"]
    if variable.kind == "categorical":
        return _codes(variable, wanted)
    if isinstance(wanted, Mapping) or wanted in DIRECTIONS:
        raise GenoptError(
            f"goal.{variable.name}: a design column can only be held at a value; set bounds on "
            "the problem instead"
        )
    value = _numbers(variable.name, wanted)
    if bool(((value < variable.lower) | (value > variable.upper)).any()):
        raise GenoptError(
            f"goal.{variable.name}: {in_words(value)} lies outside the bounds [{variable.lower:g}, "
            f"{variable.upper:g}]"
        )
    if variable.kind == "integer" and bool((value != value.round()).any()):
        raise GenoptError(
            f"goal.{variable.name}: {in_words(value)} is no integer, which the column takes"
        )
    return value


def parse_term(column: str, index: int, variable: Variable, wanted: Any) -> Term:
    """The term that a goal's words for one column of y mean.

    Args:
        column: the column's name.
        index: its position in the y Space.
        variable: the column.
        wanted: a number, a label, a direction, or a mapping with one kind and options.

    Returns:
        The term.

    Raises:
        GenoptError: if the words do not fit the column; the message names the key.
    """
    if not isinstance(wanted, Mapping):
        if wanted in DIRECTIONS:
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
            f"{' | '.join(DIRECTIONS)}, "
            f"got {sorted(rest) or 'none'}"
        )
    kind, value = next(iter(rest.items()))
    if kind == "direction":
        if value not in DIRECTIONS:
            raise UnknownNameError(f"goal.{column}.direction", str(value), DIRECTIONS)
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
    elif kind not in DIRECTIONS:
        low = _numbers(column, value)
    _check_reachable(variable, kind, low, high)
    return Term(column, index, kind, low, high, weight, tolerance)


def _check_reachable(
    variable: Variable, kind: str, low: Tensor | None, high: Tensor | None
) -> None:
    """Refuse values that the column cannot take: its bounds say what is possible at all."""
    if low is None or variable.labels:
        return
    too_high = (
        low > variable.upper if kind != "at_most" else torch.zeros_like(low, dtype=torch.bool)
    )
    end = low if high is None else high
    too_low = end < variable.lower if kind != "at_least" else torch.zeros_like(too_high)
    if bool((too_high | too_low).any()):
        raise GenoptError(
            f"goal.{variable.name}: {kind.replace('_', ' ')} {in_words(low)} cannot be reached: "
            f"the column lies in [{variable.lower:g}, {variable.upper:g}]; give wider "
            "problem.bounds if designs beyond the data are wanted"
        )


def check_simplexes(space: Space, fixed: dict[int, Tensor]) -> None:
    """Refuse held fractions that leave no room for the rest of their simplex."""
    for names, group in zip(space.simplexes, space.simplex_indices, strict=True):
        held = [fixed[i] for i in group if i in fixed]
        if not held:
            continue
        total = sum(held, torch.zeros(1, dtype=torch.float64))
        free = [space.variables[i] for i in group if i not in fixed]
        least = total + sum(v.lower for v in free)
        most = total + sum(v.upper for v in free)
        if bool(((least > 1.0 + 1e-9) | (most < 1.0 - 1e-9)).any()):
            raise GenoptError(
                f"goal: the held fractions of {', '.join(names)} sum to {in_words(total)}, which "
                "leaves no blend that sums to one"
            )


def in_words(value: Tensor | None, variable: Variable | None = None) -> str:
    """Values as a reader writes them, classes by their labels.

    Args:
        value: values (B,), or None.
        variable: the column, for its labels.

    Returns:
        A number, a label, or a bracketed list of them, the first few of many.
    """
    if value is None:
        return ""
    labels = variable.labels if variable is not None else ()
    numbers = [labels[int(v)] if labels else f"{v:g}" for v in value.tolist()]
    if len(numbers) > _MOST_WORDS:
        numbers = [*numbers[:3], f"... {len(numbers)} values"]
    return numbers[0] if len(numbers) == 1 else f"[{', '.join(numbers)}]"


def phrase(term: Term, variable: Variable) -> str:
    """A term in words.

    Args:
        term: the term.
        variable: its column.

    Returns:
        For example ``density at most 5``.
    """
    if term.kind in DIRECTIONS:
        return f"{term.column} as {'high' if term.kind == 'max' else 'low'} as possible"
    if term.kind == "between":
        return f"{term.column} between {in_words(term.value)} and {in_words(term.upper)}"
    word = {"equals": "=", "at_least": "at least", "at_most": "at most", "label": "in class"}[
        term.kind
    ]
    return f"{term.column} {word} {in_words(term.value, variable)}"
