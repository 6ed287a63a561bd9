"""The record of an active run: all rows so far, on disk after every round, so that none is lost."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.errors import GenoptError

ROWS, STATE = "rows.parquet", "state.json"
_NAME = re.compile(r"^simulated-(\d+)-\d+$")


@dataclass(frozen=True)
class Record:
    """The rows that were given and those that were simulated, in order.

    A design that could not be simulated stays as a row without labels: it was paid for, and is not
    tried again.

    Args:
        table: all rows; the ids of simulated ones name their round.
        given: how many rows were there before.
        mark: what the run is, so that another one does not go on with its rows.
        folder: where it is kept; None for nowhere.
    """

    table: Table
    given: int
    mark: str
    folder: Path | None = None

    @classmethod
    def open(cls, table: Table, options: Mapping[str, Any], folder: Path | None) -> Record:
        """A new record, or the one that a run with the same options left in the folder.

        Args:
            table: the rows to begin with.
            options: what distinguishes one run from another; plain data.
            folder: where it is kept, made when the first round is saved.

        Returns:
            The record.

        Raises:
            GenoptError: if the folder holds another run.
        """
        start = Table(table.x, table.y, table.x_space, table.y_space, table.row_ids)
        content = json.dumps([dict(options), table.x_space.to_dict(), table.y_space.to_dict()])
        digest = hashlib.sha256(content.encode())
        digest.update(start.x.numpy().tobytes() + start.y.numpy().tobytes())
        mark = digest.hexdigest()[:16]
        if folder is None or not (folder / ROWS).exists() or not (folder / STATE).exists():
            return cls(start, len(start), mark, folder)
        state = json.loads((folder / STATE).read_text())
        if state["mark"] != mark:
            raise GenoptError(
                f"{folder} holds another active run (other rows, goal or options): choose another "
                "folder, or delete it"
            )
        import pandas as pd

        frame = pd.read_parquet(folder / ROWS)
        rows = Table.from_frame(frame, table.x_space, table.y_space, "row_id")
        return cls(rows, len(start), mark, folder)

    @property
    def calls(self) -> int:
        """How many designs were simulated, failed ones included."""
        return len(self.table) - self.given

    @property
    def rounds(self) -> Tensor:
        """The round of each row (N,); 0 for those that were given."""
        later = [_NAME.match(name) for name in self.table.row_ids[self.given :]]
        numbers = [0] * self.given + [int(found[1]) if found else 0 for found in later]
        return torch.tensor(numbers)

    @property
    def lost(self) -> Tensor:
        """Which rows have no label at all: bool (N,)."""
        return torch.isnan(self.table.y).all(1)

    @property
    def known(self) -> Table:
        """The rows with a label."""
        return self.table.rows(~self.lost)

    def with_rows(self, x: Tensor, y: Tensor) -> Record:
        """The record after another round.

        Args:
            x: designs (M, P).
            y: what the simulator says (M, K); NaN where it failed.

        Returns:
            The longer record.
        """
        number = int(self.rounds.max()) + 1
        old = self.table
        table = Table(
            torch.cat([old.x, x.to(torch.float64)]),
            torch.cat([old.y, y.to(torch.float64)]),
            old.x_space,
            old.y_space,
            (*old.row_ids, *(f"simulated-{number}-{i}" for i in range(len(x)))),
        )
        return Record(table, self.given, self.mark, self.folder)

    def save(self, history: Mapping[str, Any]) -> None:
        """Write rows and state, each in one step, so that a kill leaves the last round or this one.

        Args:
            history: the run so far, for the reader of the folder.
        """
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {"mark": self.mark, "calls": self.calls, "history": dict(history)}
        waiting = self.folder / f".{STATE}"
        waiting.write_text(json.dumps(state, indent=2))
        waiting.replace(self.folder / STATE)
        waiting = self.folder / "waiting.parquet"
        self.table.write(waiting)
        waiting.replace(self.folder / ROWS)
