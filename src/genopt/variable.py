"""Variable: one named column with its bounds, unit and kind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from genopt.errors import GenoptError, UnknownNameError

Kind = Literal["continuous", "integer", "categorical"]
_KINDS = ("continuous", "integer", "categorical")


@dataclass(frozen=True)
class Variable:
    """One column: its name, bounds, unit and kind.

    Args:
        name: the column's name.
        lower: lower bound in raw units; ``-inf`` if there is none.
        upper: upper bound in raw units; ``inf`` if there is none.
        unit: unit of measure, for axes and tables.
        kind: ``continuous``, ``integer`` or ``categorical``.
        labels: class names of a categorical column; the column's values are the codes 0 to C-1.

    Raises:
        GenoptError: if the bounds are not ordered or the kind does not fit the labels.
    """

    name: str
    lower: float = -math.inf
    upper: float = math.inf
    unit: str = ""
    kind: Kind = "continuous"
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise UnknownNameError(f"kind of variable {self.name!r}", self.kind, _KINDS)
        if self.kind == "categorical":
            if not self.labels:
                raise GenoptError(f"categorical variable {self.name!r} needs labels=(...)")
            object.__setattr__(self, "labels", tuple(str(label) for label in self.labels))
            object.__setattr__(self, "lower", 0.0)
            object.__setattr__(self, "upper", float(len(self.labels) - 1))
        elif self.labels:
            raise GenoptError(
                f"variable {self.name!r} has labels but kind {self.kind!r}: set kind='categorical'"
            )
        if math.isnan(self.lower) or math.isnan(self.upper) or self.lower > self.upper:
            raise GenoptError(
                f"variable {self.name!r}: lower bound {self.lower} must not exceed upper bound "
                f"{self.upper}"
            )

        if (
            self.kind == "integer"
            and self.bounded
            and math.ceil(self.lower) > math.floor(self.upper)
        ):
            raise GenoptError(
                f"integer variable {self.name!r} has no integer between {self.lower:g} and "
                f"{self.upper:g}: give other bounds or kind='continuous'"
            )

    @property
    def bounded(self) -> bool:
        """Whether both bounds are finite."""
        return math.isfinite(self.lower) and math.isfinite(self.upper)

    @property
    def axis_label(self) -> str:
        """Name and unit, as an axis of a figure shows them."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    def code(self, label: str) -> int:
        """The code of a class label.

        Args:
            label: one of ``labels``.

        Returns:
            Its position in ``labels``.

        Raises:
            UnknownNameError: if the variable has no such class.
        """
        if str(label) not in self.labels:
            raise UnknownNameError(f"class of {self.name!r}", str(label), self.labels)
        return self.labels.index(str(label))
