"""The page of a suite: one table a problem, made from the folders of its studies."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from genopt.app.bench import way_folder
from genopt.app.folder import StudyFolder
from genopt.app.suite import Case, Suite, Way
from genopt.problems.base import Answer, Problem

_WORDS = {
    "output_error": "output error",
    "output_rmse": "output RMSE",
    "median_output_error": "median output error",
    "mode_recall": "recall",
    "mode_precision": "precision",
    "weight_tv": "TV",
    "x_bias": "bias",
    "x_std": "std",
    "x_rmse": "x RMSE, unit box",
    "x_error": "x error",
    "x_largest": "largest x error",
    "resimulation/r_1": "r_1",
    "resimulation/r_10": "r_10",
    "resimulation/r_50": "r_50",
    "best_loss": "best loss",
    "routine/hypervolume_share": "hypervolume of the true front's",
}
# so many that their spacing is no error
_FRONT = 1001
_COSTS = ("simulator calls", "fit, CPU s", "search, s")


@dataclass(frozen=True)
class Row:
    """Medians of one way.

    Args:
        way: the way.
        figures: name to median.
        calls: designs simulated for the table and by the routine.
        fit: CPU seconds of the fit.
        search: seconds of the routine, on the clock.
        seeds: how many seeds are finished.
    """

    way: Way
    figures: Mapping[str, float]
    calls: float
    fit: float
    search: float
    seeds: int


def page(suite: Suite, root: Path, seeds: int) -> str:
    """The whole page.

    Args:
        suite: the suite.
        root: the folder of its studies.
        seeds: how many seeds are looked at.

    Returns:
        Markdown.
    """
    parts = [
        f"# {suite.title}\n",
        f"Written by `genopt-bench {suite.name} --write`; {os.cpu_count()} cores "
        f"({platform.machine()}). Medians "
        f"over the seeds, of all designs that a way returns, not of their mean. *Asked* is the "
        "largest value, or the smallest where it says so; bold: as good as asked. *Simulator "
        "calls* count the rows that were learnt from and what the routine simulated; checking the "
        "result is not counted. A fit is measured in seconds of the processor, a search on the "
        "clock, other work of the machine included. A way that goes on with another's model shows "
        "no time of a fit. "
        "Quoted figures are those that the source published for its own implementation.\n",
    ]
    for case in suite.cases:
        rows = [row for way in case.ways if (row := _row(case, way, root, seeds)) is not None]
        parts.append(f"## {case.name}\n")
        parts.append(_table(case, rows, seeds) if rows else "Not run yet.")
        if case.note:
            parts.append(f"\n{case.note}")
        parts.append("")
    return "\n".join(parts)


def _row(case: Case, way: Way, root: Path, seeds: int) -> Row | None:
    """The medians of the seeds that are finished; None where none is."""
    import numpy as np

    found = []
    for seed in range(seeds):
        folder = StudyFolder(way_folder(root, case, way) / f"seed-{seed}")
        if folder.status.get("state") == "finished":
            found.append(_figures(case, way, folder))
    if not found:
        return None
    # a figure that a seed does not have does not count as a good one
    names = list(dict.fromkeys(name for one in found for name in one))
    middle = {name: float(np.median([one.get(name, math.nan) for one in found])) for name in names}
    return Row(way, middle, middle["calls"], middle["fit"], middle["search"], len(found))


def _figures(case: Case, way: Way, folder: StudyFolder) -> dict[str, float]:
    import pyarrow.parquet as parquet

    from genopt.analysis.design_figures import design_figures
    from genopt.app.parts import make
    from genopt.candidates import Candidates

    config: Any = OmegaConf.load(folder.path / "config.yaml")
    metrics = folder.read("metrics.json")
    problem = make(config.problem, "problem")
    candidates = Candidates.load(folder.path / "candidates.parquet")
    own = dict(candidates.goal) == dict(problem.default_goal)
    answers = _answers(problem) if own else ()
    figures = design_figures(candidates, answers, case.tolerance, case.radius)
    rows = parquet.read_metadata(folder.path / "data.parquet").num_rows
    learnt = 0 if "nothing" in str(config.model.get("_target_")) and not _asks(config) else rows
    return {
        **metrics,
        **figures,
        "calls": learnt + metrics.get("routine/calls", 0.0),
        "fit": math.nan if way.after else folder.status["fit"]["cpu_seconds"],
        "search": metrics["routine_seconds"],
    }


def _answers(problem: Problem) -> Sequence[Answer]:
    """The exact answers; many designs of a front that is known."""
    designs = getattr(problem, "front_designs", None)
    if problem.answers or designs is None:
        return problem.answers
    x = designs(_FRONT)
    return [Answer(*pair) for pair in zip(x, problem.simulate(x), strict=True)]


def _asks(config: Any) -> bool:
    """Whether a routine without a model still looks at the rows."""
    return "nearest" in str(config.routine.get("_target_"))


def _table(case: Case, rows: Sequence[Row], seeds: int) -> str:
    head = ["way", *(_WORDS.get(f, f.replace("/", " ")) for f in case.figures), "inside", *_COSTS]
    some = any(row.seeds < seeds for row in rows)
    lines = [_line([*head, "seeds"] if some else head)]
    lines.append(_line(["---"] * (len(head) + some)))

    def tail(row: Row) -> list[str]:
        cells = [
            f"{row.figures['inside']:.0%}",
            f"{row.calls:,.0f}",
            _number(row.fit),
            _number(row.search),
        ]
        return [*cells, str(row.seeds)] if some else cells

    empty = [""] * (len(_COSTS) + 1 + some)
    for words, aims in (("asked", case.aim), ("asked after refinement", case.refined)):
        if aims:
            lines.append(
                _line([f"*{words}*", *(_asked(aims.get(f)) for f in case.figures), *empty])
            )
    for name, known in case.published.items():
        cells = [_quoted(known.get(f)) for f in case.figures]
        lines.append(_line([f"{name}, quoted", *cells, *empty]))
    for row in rows:
        aims = {**case.aim, **case.refined} if row.way.refined else case.aim
        cells = []
        for figure in case.figures:
            value = row.figures.get(figure, math.nan)
            cell = _number(value)
            good = figure in aims and not row.way.baseline and _reached(value, aims[figure])
            cells.append(f"**{cell}**" if good else cell)
        name = row.way.name if row.way.baseline else f"genopt, {row.way.name}"
        lines.append(_line([name, *cells, *tail(row)]))
    return "\n".join(lines)


def _reached(value: float, aim: Any) -> bool:
    if isinstance(aim, Mapping):
        return value >= float(aim["at_least"])
    return abs(value) <= float(aim)


def _asked(aim: Any) -> str:
    if aim is None:
        return ""
    return f"at least {aim['at_least']:g}" if isinstance(aim, Mapping) else f"{float(aim):g}"


def _quoted(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
