"""Constraint: what every returned design must keep, whatever else is wanted of it.

A goal says what y should be; a constraint is a rule on the columns of x, written over their names
or as a function of designs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.expression import Expression
from genopt.space import Space

Kind = Literal["equality", "inequality"]
Function = Callable[[Tensor], Tensor]
Rule = "str | Mapping[str, Any] | Constraint"
_KINDS = ("equality", "inequality")
_OPTIONS = ("function", "kind", "differentiable", "name")


class Constraint:
    """One rule on designs.

    A strict inequality counts as its closed form. A rule on y is written as a function that calls a
    forward model, ``Constraint(lambda x: model.predict_y(x)[..., 0] - 3.0, kind="inequality")``;
    what is merely wanted of y belongs into the goal.

    Args:
        rule: an expression over the columns' names (see `genopt.expression.Expression`), a function
            from designs (..., P) in raw units to one number each (...), or the import path of one.
        space: the columns of x; needed for an expression.
        kind: of a function: ``equality`` (it is to be zero) or ``inequality`` (it is to be at most
            zero).
        differentiable: whether torch can differentiate the function.
        name: how messages call it.

    Raises:
        GenoptError: if the rule cannot be read, or an argument is missing or makes no sense.

    Example:
        >>> rule = Constraint("a + 2 * b <= 3", Space.of(a=(0.0, 1.0), b=(0.0, 2.0)))
        >>> rule.kind, rule.linear, rule.violation(torch.tensor([[1.0, 2.0], [1.0, 0.5]]))
        ('inequality', True, tensor([2., 0.]))
    """

    def __init__(
        self,
        rule: str | Function,
        space: Space | None = None,
        *,
        kind: str | None = None,
        differentiable: bool = True,
        name: str | None = None,
    ) -> None:
        self.space = space
        self.coefficients: Tensor | None = None
        self.constants: Tensor | None = None
        path = isinstance(rule, str) and _is_path(rule)
        if isinstance(rule, str) and not path:
            self._read(rule, kind, differentiable)
            self.name = name or rule.strip()
            return
        if kind is None:
            raise GenoptError(
                f"constraint {name or rule!r}: say kind=equality (zero) or kind=inequality "
                "(at most zero)"
            )
        if kind not in _KINDS:
            raise UnknownNameError("kind of constraint", kind, _KINDS)
        function = _imported(rule) if isinstance(rule, str) else rule
        if not callable(function):
            raise GenoptError(f"constraint {name or rule!r} is neither text nor a function")
        self.kind: str = kind
        self.differentiable = differentiable
        self.name = name or (rule if isinstance(rule, str) else "") or _name_of(function)
        self.count = 1
        self._functions: tuple[Function, ...] = (function,)

    def _read(self, text: str, kind: str | None, differentiable: bool) -> None:
        if self.space is None:
            raise GenoptError(f"constraint {text!r}: give the Space whose columns it names")
        comparisons = Expression(text, self.space).comparisons
        self.kind = "equality" if comparisons[0].equality else "inequality"
        if kind is not None and kind != self.kind:
            raise GenoptError(f"constraint {text!r} is an {self.kind}: drop kind={kind}")
        self.differentiable = differentiable
        self.count = len(comparisons)
        self._functions = tuple(comparison.residual for comparison in comparisons)
        affine = [c.affine for c in comparisons if c.affine is not None]
        if len(affine) == self.count:
            self.coefficients = torch.stack([a.coefficients for a in affine])
            self.constants = torch.tensor([a.constant for a in affine], dtype=torch.float64)

    def __repr__(self) -> str:
        return f"Constraint({self.name!r}, {self.kind})"

    @property
    def equality(self) -> bool:
        """Whether residuals are to be zero."""
        return self.kind == "equality"

    @property
    def linear(self) -> bool:
        """Whether it is known to be linear: ``coefficients`` (M, P) and ``constants`` (M,)."""
        return self.coefficients is not None

    def residual(self, x: Tensor) -> Tensor:
        """What is to be zero, or at most zero.

        Args:
            x: designs (..., P) in raw units.

        Returns:
            Residuals (..., M), M = 1 but for chains such as ``0 <= a - b <= 1``; NaN where the
            rule is not defined.

        Raises:
            GenoptError: if a function does not return one number a design.
        """
        parts = []
        for function in self._functions:
            value = function(x)
            if not isinstance(value, Tensor):
                value = torch.as_tensor(value).to(x)
            if value.shape == (*x.shape[:-1], 1) and x.shape[:-1] != value.shape:
                value = value.squeeze(-1)
            if value.shape != x.shape[:-1]:
                raise GenoptError(
                    f"constraint {self.name} returns shape {tuple(value.shape)} for designs of "
                    f"shape {tuple(x.shape)}; expected one number each, {tuple(x.shape[:-1])}"
                )
            parts.append(value.to(x))
        return torch.stack(parts, -1)

    def violation(self, x: Tensor) -> Tensor:
        """How far designs are from keeping the rule, in its own units.

        Args:
            x: designs (..., P) in raw units.

        Returns:
            Violations (...), zero where it is kept, inf where it is not defined.
        """
        value = self.residual(x)
        miss = value.abs() if self.equality else value.clamp_min(0.0)
        return torch.where(torch.isnan(miss), torch.inf, miss).amax(-1)


def read_constraints(rules: Any, space: Space) -> tuple[Constraint, ...]:
    """Constraints from what a user wrote.

    Args:
        rules: a constraint or several: expressions, `Constraint` objects, or mappings with
            ``function`` (a function or its import path), ``kind`` and further options.
        space: the columns of x.

    Returns:
        The constraints.

    Raises:
        GenoptError: if one cannot be read.
    """
    if rules is None:
        return ()
    if isinstance(rules, str | Mapping | Constraint):
        rules = [rules]
    if not isinstance(rules, Sequence):
        raise GenoptError(f"constraints={rules!r}: give a list such as ['a + b <= 1']")
    return tuple(_one(rule, space) for rule in rules)


def _one(rule: Any, space: Space) -> Constraint:
    if isinstance(rule, Constraint):
        names = rule.space.names if rule.space is not None else space.names
        if names != space.names:
            raise GenoptError(
                f"constraint {rule.name!r} was made for columns {', '.join(names)}, the designs "
                f"have {', '.join(space.names)}"
            )
        return rule
    if isinstance(rule, str):
        return Constraint(rule, space)
    if isinstance(rule, Mapping):
        for key in rule:
            if key not in _OPTIONS:
                raise UnknownNameError("key of a constraint", str(key), _OPTIONS)
        options = {str(k): v for k, v in rule.items() if k != "function"}
        if "function" not in rule:
            raise GenoptError(f"constraint {dict(rule)}: name a function by its import path")
        return Constraint(rule["function"], space, **options)
    raise GenoptError(
        f"constraint {rule!r}: give text such as 'a + b <= 1', a Constraint, or a mapping with "
        "function and kind"
    )


def _is_path(text: str) -> bool:
    parts = text.strip().split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def _imported(path: str) -> Any:
    module, _, name = path.strip().rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise GenoptError(f"constraint: cannot import {path!r}: {error}") from error


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
