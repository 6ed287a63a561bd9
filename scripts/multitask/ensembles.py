"""Section: spread of single models and ensembles against held-out errors, and what members cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from genopt import FlexibleMultiTaskModel, Table
from genopt.analysis.calibration import calibration_scores
from genopt.analysis.metrics import regression_scores
from genopt.models.multitask.ensemble import MultiTaskEnsemble
from genopt.models.multitask.spread import add_calibration
from genopt.models.options import FitOptions
from genopt.problems.measured import Hplc, Photostability

EPOCHS = 120
MEMBERS = 4
TABLES = {"photostability": Photostability, "hplc": Hplc}
SCORES = ("r2", "coverage_50", "coverage_90", "miscalibration_area", "nll")


def section(seeds: int) -> str:
    """The Markdown of the section.

    Args:
        seeds: seeds of the split and of the training.

    Returns:
        Tables with medians over the seeds.
    """
    parts = [
        "## Ensembles: is the claimed spread the true one?\n",
        "Held-out tenth of each table, mean over its properties: the share of values inside the "
        "intervals that claim 50 and 90 %; the area between claimed and observed coverage (0 is "
        "perfect, .5 the worst); negative log likelihood in nats, properties in units of their "
        f"training spread. {EPOCHS} epochs, {MEMBERS} members.\n",
        "| table | model | R2 | 50 % | 90 % | area | NLL | CPU s of a fit |",
        "|---|---|---|---|---|---|---|---|",
        "| | *asked* | | *.50* | *.90* | *0* | | |",
    ]
    for name, problem in TABLES.items():
        runs = [_one_seed(problem().table(None, seed=seed), seed) for seed in range(seeds)]
        for row in runs[0]:
            values = [statistics.median(run[row][i] for run in runs) for i in range(6)]
            shown = [f"{value:.3f}" for value in values[:4]] + [f"{values[4]:.2f}"]
            parts.append(f"| {name} | {row} | {' | '.join(shown)} | {values[5]:.1f} |")
    return "\n".join([*parts, "", *_costs()])


def _one_seed(table: Table, seed: int) -> dict[str, list[float]]:
    """By model: the scores and the CPU seconds of its fit."""
    table = table.with_split(0.1, 0.1, seed)
    noisy = {v.name: "heteroscedastic" for v in table.y_space}
    rows: dict[str, list[float]] = {}
    single, spent = _fitted(FlexibleMultiTaskModel, table, noisy, seed)
    rows["one, heteroscedastic"] = [*_scores(single, table), spent]
    for words, heads in (("", "auto"), (", heteroscedastic", noisy)):
        ensemble, spent = _fitted(MultiTaskEnsemble, table, heads, seed, members=MEMBERS)
        calibrated = _scores(ensemble, table)
        for head in ensemble.heads.values():
            add_calibration(head)
        rows[f"ensemble{words}, not calibrated"] = [*_scores(ensemble, table), spent]
        rows[f"ensemble{words}"] = [*calibrated, spent]
    return rows


def _fitted(
    kind: Any, table: Table, heads: Any, seed: int, epochs: int = EPOCHS, **options: Any
) -> tuple[Any, float]:
    model = kind.for_spaces(
        table.x_space, table.y_space, heads, epochs=epochs, seed=seed, **options
    )
    start = time.process_time()
    model.fit_table(table, FitOptions(seed=seed))
    return model, time.process_time() - start


def _scores(model: Any, table: Table) -> list[float]:
    """Means over the columns on the held-out rows, in units of each column's training spread."""
    rows, train = table.part("test"), table.part("train")
    with torch.no_grad():
        mean, std = model.predict_y(rows.x), model.spread_y(rows.x)
    unit = train.y.nan_to_num().std(0)
    found = regression_scores(rows.y, mean, table.y_space)
    found |= calibration_scores(rows.y / unit, mean / unit, std / unit, table.y_space)
    names = table.y_space.names
    return [statistics.fmean(found[f"{score}/{name}"] for name in names) for score in SCORES]


def _costs() -> list[str]:
    """Training and prediction of the members at once against one by one."""
    table = Photostability().table(None, seed=0).with_split(0.1, 0.1, 0)
    x = table.x[:256]
    lines = [
        f"{MEMBERS} members in one batched pass against one by one: CPU time of the batched pass, "
        "as a share of the other; photostability, default sizes, median of three. A share of .25 "
        "would be members for nothing; matrices that fill the processor alone (transformer) gain "
        "nothing.\n",
        "| encoder | training | prediction of 256 designs |",
        "|---|---|---|",
    ]
    for encoder, epochs in (("mlp", 20), ("residual", 12), ("transformer", 3)):
        fits, predictions = [], []
        for seed in range(3):
            ensemble, at_once = _fitted(
                MultiTaskEnsemble, table, "auto", seed, epochs, members=MEMBERS, encoder=encoder
            )
            alone = [
                _fitted(FlexibleMultiTaskModel, table, "auto", i, epochs, encoder=encoder)[1]
                for i in range(MEMBERS)
            ]
            members = [ensemble.member(i) for i in range(MEMBERS)]
            fits.append(at_once / sum(alone))
            predictions.append(_share(ensemble.predict, [m.predict for m in members], x))
        lines.append(
            f"| {encoder} | {statistics.median(fits):.2f} | {statistics.median(predictions):.2f} |"
        )
    return lines


def _share(
    at_once: Callable[[Any], Any], alone: list[Callable[[Any], Any]], x: torch.Tensor
) -> float:
    """CPU time of one call against that of several, interleaved."""
    spent = [0.0, 0.0]
    for _ in range(20):
        for i, calls in enumerate(([at_once], alone)):
            start = time.process_time()
            for call in calls:
                call(x)
            spent[i] += time.process_time() - start
    return spent[0] / spent[1]
