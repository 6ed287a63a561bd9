"""Table: measured or simulated rows of x and y, with missing entries as NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genopt.data.infer import infer_space, to_numbers
from genopt.errors import GenoptError, UnknownNameError
from genopt.space import Kind, Space

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")
# the column of a file that holds the weights of rows
WEIGHT = "row_weight"


@dataclass(frozen=True)
class Table:
    """Rows of designs and properties.

    Args:
        x: designs (N, P), float64, complete.
        y: properties (N, K), float64; NaN where an entry is missing.
        x_space: the Space of x.
        y_space: the Space of y.
        row_ids: a name for each row; numbered when empty.
        split: ``train``, ``validation`` or ``test`` for each row; all ``train`` when empty.
        weight: how many rows each row counts for (N,), float64, positive; None where all count
            alike. See `genopt.problems.adaptive` for rows that need it.

    Raises:
        GenoptError: if shapes do not fit, x holds gaps, a weight is not positive, or there is no
            row.
    """

    x: Tensor
    y: Tensor
    x_space: Space
    y_space: Space
    row_ids: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", torch.as_tensor(self.x).to(torch.float64))
        object.__setattr__(self, "y", torch.as_tensor(self.y).to(torch.float64))
        n = self.x.shape[0]
        if self.x.ndim != 2 or self.y.ndim != 2 or self.y.shape[0] != n:
            raise GenoptError(
                f"x has shape {tuple(self.x.shape)} and y {tuple(self.y.shape)}; expected (N, "
                f"{self.x_space.dim}) and "
                f"(N, {self.y_space.dim})"
            )
        self.x_space.check(self.x, "x")
        self.y_space.check(self.y, "y")
        bad = ~torch.isfinite(self.x)
        if bool(bad.any()):
            row, column = (int(i) for i in bad.nonzero()[0])
            raise GenoptError(
                f"x column {self.x_space.names[column]!r} has no finite value in row {row} "
                f"({int(bad.any(1).sum())} "
                "such rows): designs must be complete, drop or fill these rows"
            )
        if bool(torch.isinf(self.y).any()):
            row, column = (int(i) for i in torch.isinf(self.y).nonzero()[0])
            raise GenoptError(
                f"y column {self.y_space.names[column]!r} is infinite in row {row}: use NaN for a "
                "missing entry"
            )
        if not self.row_ids:
            object.__setattr__(self, "row_ids", tuple(str(i) for i in range(n)))
        if not self.split:
            object.__setattr__(self, "split", ("train",) * n)
        for name in ("row_ids", "split"):
            if len(getattr(self, name)) != n:
                raise GenoptError(f"{name} has {len(getattr(self, name))} entries for {n} rows")
        for label in set(self.split) - set(SPLITS):
            raise UnknownNameError("split", label, SPLITS)
        if self.weight is not None:
            object.__setattr__(self, "weight", _checked_weight(self.weight, n))

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def missing_share(self) -> float:
        """Share of missing entries of y."""
        return float(torch.isnan(self.y).to(torch.float64).mean()) if self.y.numel() else 0.0

    # -- rows --------------------------------------------------------------------------------------
    def rows(self, index: Tensor) -> Table:
        """Some rows.

        Args:
            index: positions (n,) or a mask (N,) of bool.

        Returns:
            The smaller Table.
        """
        positions = (index.nonzero().flatten() if index.dtype == torch.bool else index).tolist()
        return replace(
            self,
            x=self.x[positions],
            y=self.y[positions],
            row_ids=tuple(self.row_ids[i] for i in positions),
            split=tuple(self.split[i] for i in positions),
            weight=None if self.weight is None else self.weight[positions],
        )

    def part(self, split: str) -> Table:
        """The rows of one split.

        Args:
            split: ``train``, ``validation`` or ``test``.

        Returns:
            The smaller Table; it may have no row.
        """
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        return self.rows(torch.tensor([label == split for label in self.split], dtype=torch.bool))

    def complete(self) -> Table:
        """The rows without a missing property."""
        return self.rows(~torch.isnan(self.y).any(1))

    def with_split(self, validation: float = 0.1, test: float = 0.1, seed: int = 0) -> Table:
        """The same rows, split at random; rows of the same design stay together.

        A design that was measured twice would otherwise leak from training into the test rows.

        Args:
            validation: share of designs that watch the training.
            test: share of designs that training never sees.
            seed: seed of the draw.

        Returns:
            The Table with split labels.

        Raises:
            GenoptError: if the shares leave no training row.
        """
        if validation < 0 or test < 0 or validation + test >= 1:
            raise GenoptError(
                f"data.validation={validation} and data.test={test} must be shares >= 0 with a "
                "sum below 1"
            )
        _, groups = np.unique(self.x.numpy().round(12), axis=0, return_inverse=True)
        groups = groups.reshape(-1)
        n_groups = int(groups.max()) + 1 if len(groups) else 0
        order = np.random.default_rng(seed).permutation(n_groups)
        n_test, n_validation = math.floor(test * n_groups), math.floor(validation * n_groups)
        role = np.full(n_groups, "train", dtype=object)
        role[order[:n_test]] = "test"
        role[order[n_test : n_test + n_validation]] = "validation"
        return replace(self, split=tuple(str(role[g]) for g in groups))

    # -- files -------------------------------------------------------------------------------------
    @classmethod
    def from_frame(
        cls, frame: pd.DataFrame, x_space: Space, y_space: Space, row_id: str | None = None
    ) -> Table:
        """A Table from a data frame, its columns checked against the Spaces.

        Args:
            frame: the data; class columns hold labels.
            x_space: the Space of x; its columns must be there and complete.
            y_space: the Space of y; its columns must be there.
            row_id: a column that names the rows.

        Returns:
            The Table; columns ``split`` with the three split labels and ``row_weight`` are used
            where there are such.

        Raises:
            UnknownNameError: if a column or a class is not there.
            GenoptError: if there is no row, a text stands where a number is needed, or all labels
                are missing.
        """
        if len(frame) == 0:
            raise GenoptError("the table has no row")
        both = set(x_space.names) & set(y_space.names)
        if both:
            raise GenoptError(
                f"column {sorted(both)[0]!r} is named under both x and y: name it once"
            )
        if row_id is not None and row_id not in frame.columns:
            raise UnknownNameError("row_id column", row_id, map(str, frame.columns))
        weight = None
        if WEIGHT in frame.columns and WEIGHT not in [*x_space.names, *y_space.names]:
            numbers = to_numbers(frame[WEIGHT], "weight")
            weight = torch.from_numpy(numbers.to_numpy(dtype=float).copy())
        split: tuple[str, ...] = ()
        if "split" in frame.columns and set(frame["split"].astype(str)) <= set(SPLITS):
            split = tuple(frame["split"].astype(str))
        y = _matrix(frame, y_space, "y")
        for i in torch.isnan(y).all(0).nonzero().flatten().tolist():
            raise GenoptError(
                f"y column {y_space.names[i]!r} has no label: all {len(frame)} entries are missing"
            )
        return cls(
            _matrix(frame, x_space, "x"),
            y,
            x_space,
            y_space,
            tuple(frame[row_id].astype(str)) if row_id else (),
            split,
            weight,
        )

    @classmethod
    def read(
        cls,
        path: str | Path,
        x: Sequence[str],
        y: Sequence[str],
        *,
        bounds: Mapping[str, Sequence[float]] | None = None,
        kinds: Mapping[str, Kind] | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,
        units: Mapping[str, str] | None = None,
        simplexes: Sequence[Sequence[str]] = (),
        row_id: str | None = None,
    ) -> Table:
        """A Table from a CSV or Parquet file; kinds and bounds not given are inferred.

        Args:
            path: the file, ``.csv`` or ``.parquet``.
            x: names of the design columns.
            y: names of the property columns.
            bounds: ``{column: [lower, upper]}`` to override the observed range.
            kinds: ``{column: kind}`` to override the inferred kind.
            labels: ``{column: [labels]}`` of categorical columns.
            units: ``{column: unit}``.
            simplexes: groups of x columns that sum to one.
            row_id: a column that names the rows.

        Returns:
            The Table.

        Raises:
            GenoptError: if the file is missing or cannot be used; the message names the column and
                the row.
        """
        frame = read_frame(path)
        spaces = []
        for role, names, groups in (("x", x, simplexes), ("y", y, ())):
            spaces.append(
                infer_space(
                    frame,
                    names,
                    bounds=bounds,
                    kinds=kinds,
                    labels=labels,
                    units=units,
                    simplexes=groups,
                    role=role,
                )
            )
        for what, given in (
            ("bounds", bounds),
            ("kinds", kinds),
            ("labels", labels),
            ("units", units),
        ):
            for name in given or {}:
                if name not in [*x, *y]:
                    raise UnknownNameError(f"column under {what}", name, [*x, *y])
        return cls.from_frame(frame, spaces[0], spaces[1], row_id)

    def to_frame(self) -> pd.DataFrame:
        """A data frame: row ids, x, y (classes as labels), split labels, weights if there are."""
        import pandas as pd

        columns: dict[str, Any] = {"row_id": list(self.row_ids)}
        for space, values in ((self.x_space, self.x), (self.y_space, self.y)):
            for i, v in enumerate(space):
                column = values[:, i].tolist()
                columns[v.name] = (
                    [None if math.isnan(c) else v.labels[int(c)] for c in column]
                    if v.labels
                    else column
                )
        columns["split"] = list(self.split)
        if self.weight is not None:
            columns[WEIGHT] = self.weight.tolist()
        return pd.DataFrame(columns)

    def write(self, path: str | Path) -> Path:
        """Write the Table as CSV or Parquet, by the file's suffix.

        Args:
            path: the file.

        Returns:
            Its path.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            self.to_frame().to_parquet(path, index=False)
        else:
            self.to_frame().to_csv(path, index=False)
        return path


def read_frame(path: str | Path) -> pd.DataFrame:
    """A CSV or Parquet file as a data frame.

    Args:
        path: the file.

    Returns:
        The data frame.

    Raises:
        GenoptError: if there is no such file or it is of another kind.
    """
    import pandas as pd

    path = Path(path).expanduser()
    if not path.exists():
        raise GenoptError(f"problem.path: {path} does not exist (looked from {Path.cwd()})")
    if path.suffix.lower() == ".csv":
        try:
            frame = pd.read_csv(path)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise GenoptError(f"problem.path: {path.name} is no CSV table: {error}") from error
        if len(frame.columns) == 1 and (";" in frame.columns[0] or "\t" in frame.columns[0]):
            raise GenoptError(
                f"problem.path: {path.name} has one column {frame.columns[0]!r}: separate the "
                "columns by commas"
            )
        return frame
    if path.suffix.lower() in (".parquet", ".pq"):
        return pd.read_parquet(path)
    raise GenoptError(f"problem.path: {path.name} is neither .csv nor .parquet")


def _checked_weight(weight: Tensor, n: int) -> Tensor:
    weight = torch.as_tensor(weight).to(torch.float64)
    if tuple(weight.shape) != (n,):
        raise GenoptError(f"weight has shape {tuple(weight.shape)}; expected ({n},): one a row")
    bad = ~(torch.isfinite(weight) & (weight > 0))
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise GenoptError(
            f"the weight of row {row} is {float(weight[row]):g}: weights must be positive, leave "
            "out rows that do not count"
        )
    return weight


def _matrix(frame: pd.DataFrame, space: Space, role: str) -> Tensor:
    columns = []
    for v in space:
        if v.name not in frame.columns:
            raise UnknownNameError(f"{role} column", v.name, map(str, frame.columns))
        column = frame[v.name]
        if v.labels:
            codes = [
                math.nan if missing else float(v.code(str(c)))
                for c, missing in zip(column, column.isna(), strict=True)
            ]
            columns.append(torch.tensor(codes, dtype=torch.float64))
        else:
            columns.append(torch.from_numpy(to_numbers(column, role).to_numpy(dtype=float).copy()))
    return torch.stack(columns, 1)
