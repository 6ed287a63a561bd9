"""Rows whose design has gaps: learned from by models that can, out of sight of everything else.

A design with gaps cannot be simulated, plotted, compared or held out. So a Table keeps such rows
beside its complete ones, as training rows only.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.space import Space

if TYPE_CHECKING:
    from genopt.data.table import Table

logger = logging.getLogger(__name__)
LEARN, DROP, REFUSE = POLICIES = ("learn", "drop", "refuse")


@dataclass(frozen=True)
class Incomplete:
    """Training rows whose designs have gaps.

    Args:
        x: designs (M, P), float64; NaN where an entry is missing.
        y: properties (M, K), float64; NaN where an entry is missing.
        row_ids: a name for each row.
        weight: how many rows each row counts for (M,); None where all count alike.
    """

    x: Tensor
    y: Tensor
    row_ids: tuple[str, ...]
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: Tensor) -> Incomplete | None:
        """Some rows.

        Args:
            index: positions (m,) or a mask (M,) of bool.

        Returns:
            Those rows; None for none.
        """
        positions = (index.nonzero().flatten() if index.dtype == torch.bool else index).tolist()
        if not positions:
            return None
        return Incomplete(
            self.x[positions],
            self.y[positions],
            tuple(self.row_ids[i] for i in positions),
            None if self.weight is None else self.weight[positions],
        )

    def told(self, space: Space) -> str:
        """How many rows and in which columns, in words.

        Args:
            space: the Space of the designs.

        Returns:
            Such as ``12 rows have gaps in x (temperature 10, solvent 3)``.
        """
        counts = torch.isnan(self.x).sum(0).tolist()
        columns = [f"{n} {c}" for n, c in zip(space.names, counts, strict=True) if c]
        rows = "1 row has" if len(self) == 1 else f"{len(self):,} rows have"
        return f"{rows} gaps in x ({', '.join(columns)})"


def set_apart(table: Table, x: Tensor, gaps: Tensor) -> Table:
    """The complete rows of a Table, with the others beside them where they are training rows.

    Args:
        table: all rows, the gaps of their designs filled with anything.
        x: their designs (N, P); NaN where an entry is missing.
        gaps: which rows have gaps (N,), bool.

    Returns:
        The Table.

    Raises:
        GenoptError: if no row is complete.
    """
    whole = Incomplete(x, table.y, table.row_ids, table.weight)
    if bool(gaps.all()):
        raise GenoptError(
            f"no row has a complete design: {whole.told(table.x_space)}; fill them, or leave out "
            "the columns that cause most"
        )
    trained = torch.tensor([label == "train" for label in table.split])
    return replace(table.rows(~gaps), incomplete=whole.rows(gaps & trained))


def check_policy(policy: str) -> None:
    """Refuse a word that says nothing of rows with gaps.

    Args:
        policy: ``learn``, ``drop`` or ``refuse``.

    Raises:
        UnknownNameError: if it is none of these.
    """
    if policy not in POLICIES:
        raise UnknownNameError("problem.incomplete", policy, POLICIES)


def by_policy(table: Table, policy: str) -> Table:
    """A Table with, or without, the rows that its file has gaps in x for.

    Args:
        table: the Table.
        policy: ``learn`` keeps them for models that can, ``drop`` leaves them out, ``refuse``
            raises.

    Returns:
        The Table.

    Raises:
        GenoptError: if they are refused.
    """
    rows = table.incomplete
    if rows is None:
        return table
    told = rows.told(table.x_space)
    if policy == REFUSE:
        raise GenoptError(
            f"{told}, first row {rows.row_ids[0]!r}: fill them, or set problem.incomplete to "
            f"{LEARN} (what they hold is learned by model=mixture and model=flow) or {DROP}"
        )
    if policy == DROP:
        logger.info("%s and are left out", told)
        return replace(table, incomplete=None)
    logger.info("%s: model=mixture and model=flow learn from what they hold", told)
    return table


def warn_left_out(table: Table, model: str) -> None:
    """Say that a model does not learn from rows with gaps in x.

    Args:
        table: what it learns from.
        model: its name.
    """
    if table.incomplete is not None:
        warnings.warn(
            f"{table.incomplete.told(table.x_space)}: {model} leaves them out; model=mixture and "
            "model=flow learn from what they hold",
            stacklevel=3,
        )
