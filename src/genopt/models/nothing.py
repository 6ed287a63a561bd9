"""No model: for routines that ask the simulator alone, such as `multistart`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from genopt.errors import GenoptError
from genopt.space import Space

if TYPE_CHECKING:
    from genopt.data.table import Table
    from genopt.models.options import FitOptions

_FORMAT = "genopt no model 1"


class Nothing:
    """Columns and nothing else: a fit learns nothing, and there is nothing to predict or draw.

    Args:
        x_space: the columns of x.
        y_space: the columns of y.
        seed: not used; every model of a study is offered one.

    Example:
        >>> model = Nothing(Space.of(x=(0.0, 1.0)), Space.of(y=(0.0, 2.0)))
        >>> model.x_space.names
        ('x',)
    """

    def __init__(self, x_space: Space, y_space: Space, *, seed: int = 0) -> None:
        del seed
        self.x_space = x_space
        self.y_space = y_space

    def fit_table(self, table: Table, options: FitOptions) -> None:
        """Check that the table has the columns, and learn nothing.

        Args:
            table: the table.
            options: how other models are fitted.

        Raises:
            GenoptError: if the table has other columns.
        """
        del options
        for role in ("x", "y"):
            theirs, ours = getattr(table, f"{role}_space"), getattr(self, f"{role}_space")
            if theirs.names != ours.names:
                raise GenoptError(
                    f"the table has {role} columns {', '.join(theirs.names)}; expected "
                    f"{', '.join(ours.names)}"
                )

    def save(self, path: str | Path) -> Path:
        """Write the columns to a file.

        Args:
            path: the file.

        Returns:
            Its path.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        spaces = {"x_space": self.x_space.to_dict(), "y_space": self.y_space.to_dict()}
        path.write_text(json.dumps({"format": _FORMAT, **spaces}))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Nothing:
        """The inverse of `save`.

        Args:
            path: the file.

        Returns:
            The object.

        Raises:
            GenoptError: if the file is missing or is none that `save` wrote.
        """
        path = Path(path)
        if not path.exists():
            raise GenoptError(f"{path} does not exist: give the file that save wrote")
        try:
            content = json.loads(path.read_text())
            known = content["format"] == _FORMAT
        except (ValueError, KeyError, TypeError) as error:
            raise GenoptError(f"{path} was not written by model=none") from error
        if not known:
            raise GenoptError(f"{path} was not written by model=none")
        return cls(Space.from_dict(content["x_space"]), Space.from_dict(content["y_space"]))
