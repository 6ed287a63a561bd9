"""Problem: what is asked. Designs, properties and, where there is one, the simulator between them.

A problem of one's own is a class with two methods, `__init__` (the two Spaces and the goal) and
`simulate`, and one YAML file with its import path; measured data without a simulator need no class
at all, see `genopt.problems.table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genopt.data.sampling import sample_space
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.space import Space, Variable


@dataclass(frozen=True, eq=False)
class Answer:
    """One exact answer to a problem's default goal.

    Args:
        x: the design (P,).
        y: its properties (K,).
        weight: its share of the probability mass among all answers, when designs are drawn as
            `Problem.design` draws them; the weights of a problem sum to one.
        label: a short name for legends.
    """

    x: Tensor
    y: Tensor
    weight: float = 1.0
    label: str = ""


class Problem:
    """Two Spaces, a default goal and, where they are known, a simulator and the exact answers.

    Args:
        name: short name, for folders and titles.
        x_space: the Space of the designs.
        y_space: the Space of the properties.
        default_goal: what is asked when the user asks nothing, in the language of
            `genopt.goal.Goal`.
        default_rows: number of rows of `table` when none is given.
        answers: all exact answers to the default goal; empty if they are not known or not
            countable.
        description: one or two sentences for the reader of a report.
        citation: where the problem comes from.

    Raises:
        GenoptError: if a column is both a design and a property, or the goal does not fit the
            columns.

    Example:
        >>> class Parabola(Problem):
        ...     def __init__(self):
        ...         u, height = Space.of(u=(-2.0, 2.0)), Space.of(height=(0.0, 4.0))
        ...         super().__init__("parabola", u, height, {"height": 1.0})
        ...
        ...     def simulate(self, x):
        ...         return x**2
        >>> Parabola().simulate(torch.tensor([[1.5]]))
        tensor([[2.2500]])
    """

    def __init__(
        self,
        name: str,
        x_space: Space,
        y_space: Space,
        default_goal: Mapping[str, Any] | None = None,
        *,
        default_rows: int = 1024,
        answers: Sequence[Answer] = (),
        description: str = "",
        citation: str = "",
    ) -> None:
        both = [column for column in x_space.names if column in y_space]
        if both:
            raise GenoptError(
                f"problem {name!r}: column {both[0]!r} is both a design and a property: "
                "name it once"
            )
        self.name = name
        self.x_space = x_space
        self.y_space = y_space
        self.default_goal: dict[str, Any] = dict(default_goal or {})
        if self.default_goal:
            # a goal that does not fit the columns fails here, before any work
            Goal(self.default_goal, x_space, y_space)
        self.default_rows = default_rows
        self.answers = tuple(answers)
        self.description = description
        self.citation = citation

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(x: {', '.join(self.x_space.names)}; "
            f"y: {', '.join(self.y_space.names)})"
        )

    @property
    def has_simulator(self) -> bool:
        """Whether `simulate` can be called: the class brings its own."""
        return type(self).simulate is not Problem.simulate

    def simulate(self, x: Tensor) -> Tensor:
        """The properties of designs.

        Args:
            x: designs (..., P) in raw units.

        Returns:
            Properties (..., K) in raw units.

        Raises:
            GenoptError: if the problem has measured data only.
        """
        raise GenoptError(
            f"problem {self.name!r} has no simulator: designs of shape {tuple(x.shape)} cannot be "
            "evaluated, use its table()"
        )

    def design(self, n: int, seed: int = 0) -> Tensor:
        """Designs to learn from: a Sobol set of the x Space, unless the problem has its own prior.

        Args:
            n: number of designs.
            seed: seed of the draw.

        Returns:
            Designs (n, P), float64.
        """
        return sample_space(self.x_space, n, method="sobol", seed=seed)

    def table(self, n: int | None = None, seed: int = 0) -> Table:
        """Simulated data: a design and its properties.

        Args:
            n: number of rows; None for `default_rows`.
            seed: seed of the design.

        Returns:
            The Table; a property that the simulator cannot compute (NaN or infinite) is a missing
            entry, a design that it cannot simulate at all is left out with a warning.

        Raises:
            GenoptError: if n is not positive, or `simulate` returns a wrong shape or always fails.
        """
        # below, because a Simulator is made of a Problem
        from genopt.problems.simulator import Simulator

        x = self.design(self._row_count(n), seed).to(torch.float64)
        y = Simulator(self)(x)
        kept = torch.isfinite(y).any(1)
        return Table(x[kept], y[kept], self.x_space, self.y_space)

    def describe(self) -> list[dict[str, str]]:
        """The columns as the problem sees them, one row each, ready to be printed as a table.

        Returns:
            Rows with the keys ``column``, ``role``, ``kind``, ``range``, ``unit``.
        """
        return [
            _describe(variable, role, any(variable.name in group for group in space.simplexes))
            for role, space in (("x", self.x_space), ("y", self.y_space))
            for variable in space
        ]

    def columns(self, x: Tensor) -> tuple[Tensor, ...]:
        """Designs taken apart for a simulator: one float64 tensor a column.

        Args:
            x: designs (..., P).

        Returns:
            P tensors (...).
        """
        return self.x_space.check(x).to(torch.float64).unbind(-1)

    def _row_count(self, n: int | None) -> int:
        rows = self.default_rows if n is None else n
        if rows < 1:
            raise GenoptError(f"problem {self.name!r}: n must be at least 1, got {rows}")
        return rows


def _describe(variable: Variable, role: str, in_simplex: bool) -> dict[str, str]:
    if variable.kind == "categorical":
        extent = ", ".join(variable.labels)
    else:
        extent = f"{variable.lower:.6g} to {variable.upper:.6g}"
    kind = f"{variable.kind}, sums to 1 with its group" if in_simplex else variable.kind
    return {
        "column": variable.name,
        "role": role,
        "kind": kind,
        "range": extent,
        "unit": variable.unit,
    }
