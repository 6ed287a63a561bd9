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

from genopt.data.frames import columns_of, read_frame
from genopt.data.incomplete import Incomplete, set_apart
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
        incomplete: training rows beside these whose designs have gaps, see `with_gaps`.

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
    incomplete: Incomplete | None = None

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
                "such rows): designs must be complete; drop or fill these rows, or read the Table "
                "by Table.with_gaps"
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

    @classmethod
    def with_gaps(
        cls,
        x: Tensor,
        y: Tensor,
        x_space: Space,
        y_space: Space,
        row_ids: Sequence[str] = (),
        split: Sequence[str] = (),
        weight: Tensor | None = None,
    ) -> Table:
        """A Table of rows some of whose designs have gaps.

        These are kept apart, in `incomplete`: a mixture and a flow learn from what they hold, and
        nothing else sees them. They are training rows; those of another split are left out.

        Args:
            x: designs (N, P); NaN where an entry is missing.
            y: properties (N, K); NaN where an entry is missing.
            x_space: the Space of x.
            y_space: the Space of y.
            row_ids: a name for each row; numbered when empty.
            split: a split label for each row; all ``train`` when empty.
            weight: how many rows each row counts for (N,), or None.

        Returns:
            The Table of the complete rows with the others beside them.

        Raises:
            GenoptError: if no row is complete, or as for the Table itself.
        """
        x, y = (torch.as_tensor(values).to(torch.float64) for values in (x, y))
        gaps = torch.isnan(x_space.check(x, "x")).any(1)
        # the same checks of shapes, split and weights with and without gaps
        filled = cls(
            torch.where(gaps[:, None], 0.0, x),
            y,
            x_space,
            y_space,
            tuple(row_ids),
            tuple(split),
            weight,
        )
        return filled if not bool(gaps.any()) else set_apart(filled, x, gaps)

    def with_incomplete(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """All rows to learn from: these, and after them those whose designs have gaps.

        Returns:
            Designs (N + M, P) and properties (N + M, K) with NaN for gaps, and weights (N + M,) or
            None.
        """
        more = self.incomplete
        if more is None:
            return self.x, self.y, self.weight
        weight = None
        if self.weight is not None and more.weight is not None:
            weight = torch.cat([self.weight, more.weight])
        return torch.cat([self.x, more.x]), torch.cat([self.y, more.y]), weight

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
        rows = self.rows(torch.tensor([label == split for label in self.split], dtype=torch.bool))
        return rows if split == "train" else replace(rows, incomplete=None)

    def complete(self) -> Table:
        """The rows without a missing entry."""
        return replace(self.rows(~torch.isnan(self.y).any(1)), incomplete=None)

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
            x_space: the Space of x; its columns must be there. Rows with gaps are kept apart, see
                `with_gaps`.
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
        y = columns_of(frame, y_space, "y")
        for i in torch.isnan(y).all(0).nonzero().flatten().tolist():
            raise GenoptError(
                f"y column {y_space.names[i]!r} has no label: all {len(frame)} entries are missing"
            )
        names = tuple(frame[row_id].astype(str)) if row_id else ()
        return cls.with_gaps(
            columns_of(frame, x_space, "x"), y, x_space, y_space, names, split, weight
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
        """A data frame: row ids, x, y (classes as labels), split labels, weights if there are.

        Rows whose designs have gaps come last.
        """
        import pandas as pd

        x, y, weight = self.with_incomplete()
        more = () if self.incomplete is None else self.incomplete.row_ids
        columns: dict[str, Any] = {"row_id": [*self.row_ids, *more]}
        for space, values in ((self.x_space, x), (self.y_space, y)):
            for i, v in enumerate(space):
                column = values[:, i].tolist()
                columns[v.name] = (
                    [None if math.isnan(c) else v.labels[int(c)] for c in column]
                    if v.labels
                    else column
                )
        columns["split"] = [*self.split, *("train" for _ in more)]
        if weight is not None:
            columns[WEIGHT] = weight.tolist()
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
