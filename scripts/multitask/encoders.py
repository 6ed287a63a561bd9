"""Section: the encoders on measured tables and on functions that are smooth, or rise and fall."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from genopt import FlexibleMultiTaskModel, Problem, Table
from genopt.analysis.metrics import regression_scores
from genopt.models.options import FitOptions
from genopt.problems.branin import Branin
from genopt.problems.measured import Hplc, Photostability
from genopt.problems.pymoo_problem import PymooProblem
from genopt.problems.rastrigin_value import RastriginValue

ENCODERS = ("mlp", "residual", "periodic")
# problem and its rows; None for all that were measured
TABLES: dict[str, tuple[Callable[[], Problem], int | None]] = {
    "photostability": (Photostability, None),
    "hplc": (Hplc, None),
    "branin": (Branin, 500),
    "zdt3, 30 columns": (lambda: PymooProblem("zdt3", {"n_var": 30}), 2000),
    "rastrigin, 2 columns": (lambda: RastriginValue(2), 2000),
    "rastrigin, 5 columns": (lambda: RastriginValue(5), 5000),
}


def section(seeds: int) -> str:
    """The Markdown of the section.

    Args:
        seeds: seeds of the rows, the split and the training.

    Returns:
        The table, medians over the seeds.
    """
    lines = [
        "## Encoders\n",
        "R2 on a held-out fifth of the rows, mean over the properties; default settings, CPU "
        "seconds of a fit in brackets. Rastrigin's function has ten waves in each column, zdt3 "
        f"five in one of thirty. Medians over {seeds} seed(s).\n",
        f"| table | rows | {' | '.join(ENCODERS)} |",
        "|---|---" + "|---" * len(ENCODERS) + "|",
    ]
    for name, (problem, count) in TABLES.items():
        cells, rows = [], 0
        for encoder in ENCODERS:
            runs = []
            for seed in range(seeds):
                table = problem().table(count, seed).with_split(0.1, 0.2, seed)
                rows = len(table)
                runs.append(_one(table, encoder, seed))
            score, spent = (statistics.median(column) for column in zip(*runs, strict=True))
            cells.append(f"{score:.4f} ({spent:.0f})")
        lines.append(f"| {name} | {rows:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _one(table: Table, encoder: str, seed: int) -> tuple[float, float]:
    """R2 and the CPU seconds of a fit."""
    model = FlexibleMultiTaskModel.for_spaces(
        table.x_space, table.y_space, encoder=encoder, seed=seed
    )
    start = time.process_time()
    model.fit_table(table, FitOptions(seed=seed))
    spent = time.process_time() - start
    test = table.part("test")
    with torch.no_grad():
        found = model.predict_y(test.x)
    scores = regression_scores(test.y, found, table.y_space)
    return statistics.fmean(scores[f"r2/{name}"] for name in table.y_space.names), spent
