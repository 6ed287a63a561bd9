"""Data frames: read from files, and their columns as numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.data.infer import to_numbers
from genopt.errors import GenoptError, UnknownNameError
from genopt.space import Space

if TYPE_CHECKING:
    import pandas as pd


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


def columns_of(frame: pd.DataFrame, space: Space, role: str) -> Tensor:
    """The columns of a Space as numbers.

    Args:
        frame: the data; class columns hold labels.
        space: the Space; its columns must be there.
        role: ``x`` or ``y``, for messages.

    Returns:
        (N, number of columns), float64; classes as codes, NaN where an entry is missing.

    Raises:
        UnknownNameError: if a column or a class is not there.
    """
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
