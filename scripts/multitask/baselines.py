"""What multi-task is compared with on the same rows: one model a target, boosted trees."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.models.multitask.ensemble import MultiTaskEnsemble
from genopt.models.multitask.labels import batch_size_for
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.options import FitOptions
from genopt.nn.scalers import InputScaler
from genopt.space import Space


@dataclass(frozen=True)
class Scores:
    """Held-out R2 of each target (K,) and the CPU seconds of fits and predictions."""

    r2: np.ndarray
    seconds: float

    @property
    def mean(self) -> float:
        """Mean over the targets."""
        return float(np.nanmean(self.r2))


def r2(predicted: Tensor, measured: Tensor) -> np.ndarray:
    """R2 of each column over the labels that are there; NaN below ten labels."""
    found = []
    for guess, truth in zip(predicted.T, measured.T, strict=True):
        known = ~torch.isnan(truth)
        guess, truth = guess[known], truth[known]
        rest = (guess - truth).square().sum() / (truth - truth.mean()).square().sum()
        found.append(float(1.0 - rest) if int(known.sum()) >= 10 else np.nan)
    return np.array(found)


def without_labels(table: Table, share: float | Tensor, seed: int) -> Table:
    """The Table with a share of its labels, (K,) or one for all, taken from all rows but test."""
    draw = torch.rand(
        table.y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    learned = torch.tensor([part != "test" for part in table.split])
    gone = (draw < share) & learned[:, None]
    return replace(table, y=torch.where(gone, torch.nan, table.y))


def multitask(table: Table, seed: int, steps: int | None = None, **options: Any) -> Scores:
    """One network for all targets; an ensemble of them where ``members`` is given."""
    kind = MultiTaskEnsemble if "members" in options else FlexibleMultiTaskModel
    if steps is not None:
        rows = len(table.part("train"))
        options["epochs"] = math.ceil(steps / math.ceil(rows / batch_size_for(rows)))
    start = time.process_time()
    model = kind.for_spaces(table.x_space, table.y_space, seed=seed, **options)
    model.fit_table(table, FitOptions(seed=seed))
    test = table.part("test")
    with torch.no_grad():
        predicted = model.predict_y(test.x).to(torch.float64)
    return Scores(r2(predicted, test.y), time.process_time() - start)


def single_task(table: Table, seed: int, **options: Any) -> Scores:
    """The same network, one for each target, on the rows that have its label."""
    with warnings.catch_warnings():
        # a rare element may never occur among the rows that have one label
        warnings.filterwarnings("ignore", message=".*is constant in the training rows.*")
        targets = range(table.y_space.dim)
        parts = [multitask(_one_target(table, k), seed, **options) for k in targets]
    return Scores(np.concatenate([part.r2 for part in parts]), sum(part.seconds for part in parts))


def boosting(table: Table, seed: int, **options: Any) -> Scores:
    """scikit-learn's histogram gradient boosting, one for each target.

    It learns from training and validation rows: it takes its own for early stopping.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    settings: dict[str, Any] = {
        "max_iter": 500,
        "early_stopping": True,
        "n_iter_no_change": 20,
    }
    start = time.process_time()
    x = InputScaler([len(v.labels) for v in table.x_space]).wide(table.x).numpy()
    test = np.array([part == "test" for part in table.split])
    predicted = torch.full_like(table.y, torch.nan)
    for k, labels in enumerate(table.y.numpy().T):
        rows = ~np.isnan(labels) & ~test
        trees = HistGradientBoostingRegressor(random_state=seed, **{**settings, **options})
        trees.fit(x[rows], labels[rows])
        predicted[test, k] = torch.from_numpy(trees.predict(x[test]))
    return Scores(r2(predicted[test], table.y[test]), time.process_time() - start)


def rows_of(runs: Mapping[str, list[Scores]]) -> list[str]:
    """Table rows: name, median of the mean R2 over seeds, smallest and largest, CPU seconds."""
    rows = []
    for name, scores in runs.items():
        means = [score.mean for score in scores]
        seconds = np.median([score.seconds for score in scores])
        rows.append(
            f"| {name} | {np.median(means):.3f} | {min(means):.3f} to {max(means):.3f} | "
            f"{seconds:.1f} |"
        )
    return rows


def _one_target(table: Table, k: int) -> Table:
    rows = table.rows(~torch.isnan(table.y[:, k]))
    return replace(rows, y=rows.y[:, k : k + 1], y_space=Space((table.y_space.variables[k],)))
