"""Expressions over column names, such as ``2 * a + sqrt(b) <= 3``, read without running any code.

The text is parsed into a syntax tree and walked: only numbers, columns, arithmetic, comparisons and
a few functions of torch are understood, so a configuration file can hold one safely.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.space import Space

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "abs": torch.abs, "sqrt": torch.sqrt, "exp": torch.exp, "log": torch.log,
    "log10": torch.log10, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan,
    "tanh": torch.tanh, "min": torch.minimum, "max": torch.maximum,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], Callable[[Tensor, Tensor], Tensor]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_CONSTANTS = {"pi": math.pi, "e": math.e}
_QUOTED = re.compile(r"`([^`]*)`")
_LONGEST = 500
_LARGEST = 1e300


@dataclass(frozen=True)
class Affine:
    """A linear function of the columns, coefficients @ x + constant.

    Args:
        coefficients: one number a column (P,), float64.
        constant: what is added.
    """

    coefficients: Tensor
    constant: float

    @property
    def plain(self) -> bool:
        """Whether no column is in it."""
        return not bool(self.coefficients.any())

    @property
    def finite(self) -> bool:
        """Whether all its numbers are."""
        return math.isfinite(self.constant) and bool(torch.isfinite(self.coefficients).all())


@dataclass(frozen=True)
class Comparison:
    """Both sides of one comparison, right side subtracted: zero, or at most zero.

    Args:
        residual: from points (..., P) to numbers (...).
        equality: whether the residual is to be zero; else at most zero.
        affine: the residual as a linear function, where it is one.
    """

    residual: Callable[[Tensor], Tensor]
    equality: bool
    affine: Affine | None


class Expression:
    """A comparison of expressions over the columns of a Space.

    Understood are numbers, column names (in backticks where they are no plain words), ``pi``,
    ``e``, the signs ``+ - * / **``, abs, sqrt, exp, log, log10, sin, cos, tan, tanh, min and max,
    and class columns compared with a label, ``solvent == 'water'``, which count 1 or 0 in a sum.

    Args:
        text: such as ``a + 2 * b <= 3``, ``T * time == 300`` or ``0.1 <= a / b <= 0.2``.
        space: the columns.

    Raises:
        GenoptError: if the text is no comparison or holds something else.

    Example:
        >>> rule = Expression("a + 2 * b <= 3", Space.of(a=(0.0, 1.0), b=(0.0, 2.0)))
        >>> rule.comparisons[0].residual(torch.tensor([[1.0, 2.0], [1.0, 0.5]]))
        tensor([ 2., -1.])
    """

    def __init__(self, text: str, space: Space) -> None:
        self.text = text.strip()
        self.space = space
        self._quoted: dict[str, str] = {}
        if len(text) > _LONGEST:
            raise GenoptError(f"constraint of {len(text)} characters: give an import path instead")
        try:
            tree = ast.parse(_QUOTED.sub(self._placeholder, self.text), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", "too long or with strange characters")
            raise GenoptError(f"constraint {self.text!r} cannot be read: {reason}") from error
        if not isinstance(tree, ast.Compare):
            raise self._error("it compares nothing: use <=, >= or ==, as in 'a + 2 * b <= 3'")
        self.comparisons: tuple[Comparison, ...] = tuple(self._comparisons(tree))
        if len({c.equality for c in self.comparisons}) > 1:
            raise self._error("it mixes == with <= or >=: write two constraints")

    def _placeholder(self, match: re.Match[str]) -> str:
        word = f"_quoted_{len(self._quoted)}"
        self._quoted[word] = match.group(1)
        return word

    def _error(self, reason: str) -> GenoptError:
        return GenoptError(f"constraint {self.text!r}: {reason}")

    def _comparisons(self, tree: ast.Compare) -> list[Comparison]:
        if self._label(tree) is not None:
            return [Comparison(lambda x: 1.0 - self._value(tree, x), True, None)]
        sides = [tree.left, *tree.comparators]
        found = []
        for left, sign, right in zip(sides[:-1], tree.ops, sides[1:], strict=True):
            if isinstance(sign, ast.GtE | ast.Gt):
                left, right = right, left
            elif not isinstance(sign, ast.LtE | ast.Lt | ast.Eq):
                raise self._error("only <=, >= and == are understood")
            difference = ast.BinOp(left, ast.Sub(), right)
            self._check(difference)
            affine = self._affine(difference)
            if affine is not None and not affine.finite:
                raise self._error("its numbers overflow")
            if affine is not None and affine.plain:
                raise self._error(f"it depends on no column of {', '.join(self.space.names)}")
            found.append(Comparison(self._residual(difference), isinstance(sign, ast.Eq), affine))
        return found

    # -- reading ---------------------------------------------------------------------------------
    def _check(self, node: ast.expr) -> None:
        """Refuse whatever is not understood, at once."""
        if isinstance(node, ast.Constant):
            if isinstance(node.value, bool) or not isinstance(node.value, int | float):
                raise self._error(f"{node.value!r} is no number")
            if abs(node.value) > _LARGEST:
                raise self._error("its numbers overflow")
        elif isinstance(node, ast.Name):
            self._column(node)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            self._check(node.operand)
        elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            self._check(node.left)
            self._check(node.right)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            self._call(node, node.func.id)
        elif not (isinstance(node, ast.Compare) and self._label(node) is not None):
            raise self._error(
                f"{ast.unparse(node)!r} is not understood: columns, numbers, + - * / ** and "
                f"{', '.join(_FUNCTIONS)} are"
            )

    def _call(self, node: ast.Call, name: str) -> None:
        if name not in _FUNCTIONS:
            raise UnknownNameError(f"function in constraint {self.text!r}:", name, _FUNCTIONS)
        many = name in ("min", "max")
        if node.keywords or (len(node.args) < 2 if many else len(node.args) != 1):
            raise self._error(f"{name} takes {'two or more arguments' if many else 'one argument'}")
        for argument in node.args:
            self._check(argument)

    def _column(self, node: ast.Name) -> int | None:
        """The number of a column; None for a constant."""
        name = self._quoted.get(node.id, node.id)
        if name not in self.space:
            if name in _CONSTANTS:
                return None
            raise UnknownNameError(f"column in constraint {self.text!r}:", name, self.space.names)
        variable = self.space[name]
        if variable.labels:
            raise self._error(
                f"{name} is a class: compare it with a label, {name} == {variable.labels[0]!r}"
            )
        return self.space.index(name)

    def _label(self, node: ast.Compare) -> tuple[int, int, bool] | None:
        """Column, code and whether it is to be equal, of a class compared with a label."""
        right = node.comparators[0]
        if len(node.ops) != 1 or not isinstance(right, ast.Constant):
            return None
        if not isinstance(right.value, str) or not isinstance(node.left, ast.Name):
            return None
        name = self._quoted.get(node.left.id, node.left.id)
        variable = self.space[name]
        if not variable.labels or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            raise self._error(f"only a class column is compared with a label, by == or !=: {name}")
        return (
            self.space.index(name),
            variable.code(right.value),
            isinstance(node.ops[0], ast.Eq),
        )

    def _residual(self, node: ast.expr) -> Callable[[Tensor], Tensor]:
        def residual(x: Tensor) -> Tensor:
            return self._value(node, x).expand(x.shape[:-1])

        return residual

    # -- meaning ---------------------------------------------------------------------------------
    def _value(self, node: ast.expr, x: Tensor) -> Tensor:
        if isinstance(node, ast.Constant):
            return x.new_tensor(float(node.value) if isinstance(node.value, int | float) else 0.0)
        if isinstance(node, ast.Name):
            index = self._column(node)
            return x.new_tensor(_CONSTANTS[node.id]) if index is None else x[..., index]
        if isinstance(node, ast.UnaryOp):
            value = self._value(node.operand, x)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](self._value(node.left, x), self._value(node.right, x))
        if isinstance(node, ast.Compare):
            label = self._label(node)
            if label is not None:
                same = x[..., label[0]].round() == label[1]
                return (same if label[2] else ~same).to(x)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            function = _FUNCTIONS[node.func.id]
            first, *rest = (self._value(argument, x) for argument in node.args)
            if not rest:
                return function(first)
            for other in rest:
                first = function(first, other)
            return first
        raise self._error(f"{ast.unparse(node)!r} is not understood")

    def _affine(self, node: ast.expr) -> Affine | None:
        none = torch.zeros(self.space.dim, dtype=torch.float64)
        if isinstance(node, ast.Name):
            index = self._column(node)
            if index is not None:
                return Affine(none.index_fill(0, torch.tensor(index), 1.0), 0.0)
        if isinstance(node, ast.UnaryOp):
            inner = self._affine(node.operand)
            if inner is None or isinstance(node.op, ast.UAdd):
                return inner
            return Affine(-inner.coefficients, -inner.constant)
        if isinstance(node, ast.BinOp):
            left, right = self._affine(node.left), self._affine(node.right)
            if left is None or right is None:
                return None
            return _combined(node.op, left, right)
        if isinstance(node, ast.Call):
            parts = [self._affine(argument) for argument in node.args]
            if any(part is None or not part.plain for part in parts):
                return None
        if isinstance(node, ast.Compare):
            return None
        return Affine(none, float(self._value(node, none)))


def _combined(sign: ast.operator, left: Affine, right: Affine) -> Affine | None:
    """Two linear functions under an operator, where the result is linear."""
    if isinstance(sign, ast.Add):
        return Affine(left.coefficients + right.coefficients, left.constant + right.constant)
    if isinstance(sign, ast.Sub):
        return Affine(left.coefficients - right.coefficients, left.constant - right.constant)
    if isinstance(sign, ast.Mult) and (left.plain or right.plain):
        some, factor = (right, left.constant) if left.plain else (left, right.constant)
        return Affine(some.coefficients * factor, some.constant * factor)
    if isinstance(sign, ast.Div) and right.plain and right.constant:
        return Affine(left.coefficients / right.constant, left.constant / right.constant)
    if isinstance(sign, ast.Pow) and right.plain:
        if right.constant == 1.0:
            return left
        power = torch.tensor(left.constant, dtype=torch.float64) ** right.constant
        return Affine(left.coefficients, float(power)) if left.plain else None
    return None
