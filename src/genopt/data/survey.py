"""One look through a file larger than memory: bounds, labels, gaps, and a sample of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt.data.arrow_file import ArrowFile, is_text, numbers, words
from genopt.data.infer import infer_space
from genopt.errors import GenoptError
from genopt.space import Kind, Space

_MOST_LABELS = 1000
_ROUNDING = 0.02
_SLACK = 1e-6

Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Survey:
    """What one look through a file found.

    Args:
        x_space: the Space of x.
        y_space: the Space of y.
        x: sampled designs (N, P).
        y: their properties (N, K); NaN where an entry is missing.
        places: row numbers of the sample in the file (N,).
        total: rows of the file.
    """

    x_space: Space
    y_space: Space
    x: Tensor
    y: Tensor
    places: list[int]
    total: int


def survey(
    file: ArrowFile,
    x: Sequence[str],
    y: Sequence[str],
    rows: int,
    *,
    bounds: Mapping[str, Sequence[float]] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    units: Mapping[str, str] | None = None,
    simplexes: Sequence[Sequence[str]] = (),
    seed: int = 0,
) -> Survey:
    """Look once through a file and refuse what cannot be learned from.

    Args:
        file: the file.
        x: names of the design columns.
        y: names of the property columns.
        rows: rows of the sample.
        bounds: ``{column: [lower, upper]}`` instead of the observed range.
        kinds: ``{column: kind}`` instead of the inferred kind.
        labels: ``{column: [labels]}`` of columns of classes.
        units: ``{column: unit}``.
        simplexes: groups of x columns that sum to one.
        seed: seed of the sample.

    Returns:
        The Spaces and the sample.

    Raises:
        GenoptError: if a column cannot be used; the message names it.
    """
    if rows < 1:
        raise GenoptError(f"rows of the sample must be at least 1, got {rows}")
    names = [*x, *y]
    _, total = file.names_and_rows()
    if not total:
        raise GenoptError("the table has no row")
    classes = _classes(file, names, labels or {}, kinds or {})
    chosen = np.random.default_rng(seed).choice(total, min(rows, total), replace=False)
    places = np.sort(chosen)
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    missing = np.zeros(len(names), dtype=int)
    sampled, start = [], 0
    for batch in file.chunks(names):
        part = numbers(batch, names, classes)
        gaps = np.isnan(part)
        _refuse_gaps(part, gaps, x, start)
        missing += gaps.sum(0)
        low = np.minimum(low, np.where(gaps, np.inf, part).min(0))
        high = np.maximum(high, np.where(gaps, -np.inf, part).max(0))
        for group in simplexes:
            _refuse_sums(part[:, [names.index(c) for c in group]], group, start)
        here = places[(places >= start) & (places < start + len(part))] - start
        sampled.append(part[here])
        start += len(part)
    for name, count in zip(names, missing, strict=True):
        if count == total:
            raise GenoptError(
                f"column {name!r} has no entry: all {total} values are missing; leave it out"
            )
    seen = {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}
    spaces = _spaces(x, y, seen, classes, bounds or {}, kinds, units, simplexes)
    _refuse_outside(spaces[0], seen)
    sample = torch.from_numpy(np.concatenate(sampled))
    designs = spaces[0].project(sample[:, : len(x)]) if simplexes else sample[:, : len(x)]
    return Survey(*spaces, designs, sample[:, len(x) :], places.tolist(), total)


def _classes(
    file: ArrowFile,
    names: Sequence[str],
    labels: Mapping[str, Sequence[str]],
    kinds: Mapping[str, Kind],
) -> dict[str, list[str]]:
    """Labels of the columns of classes; those that are not given are collected from the file."""
    first = next(iter(file.chunks(names)), None)
    found = {name: set(map(str, labels[name])) for name in names if name in labels}
    wanted = [
        name
        for name in names
        if name not in labels
        and first is not None
        and (kinds.get(name) == "categorical" or is_text(first, name))
    ]
    found |= {name: set() for name in wanted}
    for batch in file.chunks(wanted) if wanted else _nothing():
        for name in wanted:
            found[name] |= words(batch, name)
            if len(found[name]) > _MOST_LABELS:
                raise GenoptError(
                    f"column {name!r} holds text with more than {_MOST_LABELS} different values: a "
                    "number is needed, or list its classes under labels"
                )
    return {
        name: list(map(str, labels[name])) if name in labels else sorted(values)
        for name, values in found.items()
    }


def _nothing() -> Iterator[Any]:
    return iter(())


def _spaces(
    x: Sequence[str],
    y: Sequence[str],
    seen: Mapping[str, tuple[float, float]],
    classes: Mapping[str, Sequence[str]],
    bounds: Mapping[str, Sequence[float]],
    kinds: Mapping[str, Kind] | None,
    units: Mapping[str, str] | None,
    simplexes: Sequence[Sequence[str]],
) -> tuple[Space, Space]:
    """The Spaces, by the rules for tables in memory, from what the look found."""
    import pandas as pd

    # a frame of the extremes has the kinds and bounds of the whole file
    frame = pd.DataFrame(
        {
            name: [classes[name][0], classes[name][-1]] if name in classes else list(seen[name])
            for name in (*x, *y)
        }
    )
    x_space, y_space = (
        infer_space(
            frame,
            names,
            bounds=bounds,
            kinds=kinds,
            labels=classes,
            units=units,
            simplexes=groups,
            role=role,
        )
        for names, groups, role in ((x, simplexes, "x"), (y, (), "y"))
    )
    return x_space, y_space


def _refuse_gaps(part: Matrix, gaps: Any, x: Sequence[str], start: int) -> None:
    bad = gaps[:, : len(x)] | np.isinf(part[:, : len(x)])
    if bad.any():
        row, column = (int(i[0]) for i in np.nonzero(bad))
        raise GenoptError(
            f"x column {x[column]!r} has no finite value in row {start + row}: designs must be "
            "complete, drop or fill these rows"
        )
    if np.isinf(part).any():
        row = int(np.nonzero(np.isinf(part))[0][0])
        raise GenoptError(f"row {start + row} holds an infinite y: leave missing entries empty")


def _refuse_sums(part: Matrix, group: Sequence[str], start: int) -> None:
    total = part.sum(1)
    wrong = (np.abs(total - 1.0) > _ROUNDING) | (part < 0.0).any(1)
    if wrong.any():
        row = int(np.nonzero(wrong)[0][0])
        raise GenoptError(
            f"simplex {', '.join(group)}: row {start + row} has the sum {total[row]:.6g}; "
            "fractions must be >= 0 and sum to one"
        )


def _refuse_outside(space: Space, seen: Mapping[str, tuple[float, float]]) -> None:
    for v in space:
        low, high = seen[v.name]
        slack = _SLACK * (v.upper - v.lower)
        if not v.labels and (low < v.lower - slack or high > v.upper + slack):
            raise GenoptError(
                f"problem.bounds.{v.name}: the file holds values from {low:.6g} to {high:.6g}, "
                f"outside [{v.lower:.6g}, {v.upper:.6g}]: widen the bounds or drop these rows"
            )
