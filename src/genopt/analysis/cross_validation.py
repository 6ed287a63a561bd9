"""K-fold evaluation: every row is predicted once by a model that did not see its design.

One held-out tenth of a small table says little; folds use all of it, and their scatter shows how
far a score can be trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genopt.analysis.calibration import calibration_scores
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.options import FitOptions
from genopt.variable import Variable

if TYPE_CHECKING:
    import pandas as pd

_SPREAD = ("coverage_50", "coverage_90", "miscalibration_area")
_COLUMNS = ("fold", "column", "rows", "r2", "rmse", "mae", "accuracy", "f1", *_SPREAD)


def fold_of_rows(table: Table, folds: int, seed: int = 0) -> Tensor:
    """The fold that holds each row out; rows of the same design share it.

    Args:
        table: the rows.
        folds: number of folds.
        seed: seed of the draw.

    Returns:
        Fold numbers (N,), 0 to folds - 1; the folds differ by one design at most.

    Raises:
        GenoptError: if there are fewer than two folds, or fewer designs than folds.
    """
    _, group = np.unique(table.x.numpy().round(12), axis=0, return_inverse=True)
    group = group.reshape(-1)
    designs = int(group.max()) + 1
    if not 2 <= folds <= designs:
        raise GenoptError(
            f"folds={folds} must lie between 2 and the number of distinct designs, {designs}"
        )
    order = np.random.default_rng(seed).permutation(designs)
    fold = np.empty(designs, dtype=np.int64)
    fold[order] = np.arange(designs) % folds
    return torch.from_numpy(fold[group])


def cross_validate(
    new_model: Callable[[], Any],
    table: Table,
    folds: int = 5,
    options: FitOptions | None = None,
    seed: int = 0,
    progress: bool = False,
    validation: float = 0.1,
) -> pd.DataFrame:
    """Fit a new model for each fold on the other folds and score it on this one.

    With ``options.folder`` the scores of a fold are written to ``fold_<i>/scores.json`` as soon as
    they are there; the same call finds them and goes on, in a fold that was cut off from its last
    checkpoint.

    Args:
        new_model: makes an untrained model with ``fit_table`` and ``predict_y``; one with
            ``spread_y`` is also scored on the intervals that it claims.
        table: the rows; its split labels are not looked at.
        folds: number of folds.
        options: how each fit is run.
        seed: seed of the folds and of the validation rows.
        progress: whether to show a progress bar over the folds, in place of each fit's own.
        validation: share of the other designs that watch the training.

    Returns:
        One row for each fold and column of y: ``fold``, ``column``, ``rows`` (labels), ``r2``,
        ``rmse``, ``mae`` for numbers, ``accuracy`` and ``f1`` (mean over classes) for classes,
        ``coverage_50``, ``coverage_90`` and ``miscalibration_area`` where the model claims a
        spread; NaN where a score does not apply.

    Raises:
        GenoptError: if the model does not predict y, the folds do not fit the table, or the folder
            holds another cross-validation.
    """
    import pandas as pd

    options = options or FitOptions()
    model = new_model()
    for method in ("fit_table", "predict_y"):
        if not hasattr(model, method):
            raise GenoptError(
                f"cross_validate needs a model that predicts y: {type(model).__name__} has no "
                f"{method}"
            )
    part = fold_of_rows(table, folds, seed)
    if options.folder is not None:
        _claim(Path(options.folder), _mark(model, table, folds, options.seed, seed, validation))
    records: list[dict[str, Any]] = []
    with _bar(folds, progress) as step:
        for fold in range(folds):
            home = None if options.folder is None else Path(options.folder) / f"fold_{fold}"
            found = _read(home)
            if found is None:
                own = replace(options, folder=home, progress=options.progress and not progress)
                train = table.rows(part != fold).with_split(validation, 0.0, seed)
                model = model if model is not None else new_model()
                model.fit_table(train, own)
                found = _fold_scores(model, table.rows(part == fold), fold)
                _write(home, found)
                model = None
            records += found
            step()
    return pd.DataFrame(records, columns=list(_COLUMNS))


def summarise_folds(scores: pd.DataFrame) -> pd.DataFrame:
    """Means and standard deviations over the folds.

    Args:
        scores: of `cross_validate`.

    Returns:
        One row for each column of y: ``rows`` (labels in all folds), then each score's mean and its
        standard deviation over the folds as ``<score>_std``; scores that do not apply are left out.
    """
    import pandas as pd

    groups = scores.groupby("column", sort=False)
    table: dict[str, Any] = {"rows": groups["rows"].sum()}
    for name in _COLUMNS[3:]:
        if bool(scores[name].notna().any()):
            table[name] = groups[name].mean()
            table[f"{name}_std"] = groups[name].std()
    return pd.DataFrame(table).reset_index()


# -- one fold --------------------------------------------------------------------------------------
def _fold_scores(model: Any, held: Table, fold: int) -> list[dict[str, Any]]:
    with torch.no_grad():
        predicted = model.predict_y(held.x).detach().cpu().to(torch.float64)
        spread = None
        if hasattr(model, "spread_y") and getattr(model, "has_spread", True):
            spread = model.spread_y(held.x).detach().cpu().to(torch.float64)
    claims = {} if spread is None else calibration_scores(held.y, predicted, spread, held.y_space)
    records = []
    for i, variable in enumerate(held.y_space):
        known = torch.isfinite(held.y[:, i]) & torch.isfinite(predicted[:, i])
        record: dict[str, Any] = {"fold": fold, "column": variable.name, "rows": int(known.sum())}
        record |= _column_scores(held.y[known, i], predicted[known, i], variable)
        for name in _SPREAD:
            if f"{name}/{variable.name}" in claims:
                record[name] = claims[f"{name}/{variable.name}"]
        records.append(record)
    return records


def _column_scores(y: Tensor, predicted: Tensor, variable: Variable) -> dict[str, float]:
    from sklearn.metrics import f1_score, mean_absolute_error, r2_score, root_mean_squared_error

    true, guess = y.numpy(), predicted.numpy()
    if len(true) == 0:
        return {}
    if variable.labels:
        return {
            "accuracy": float((true == guess).mean()),
            "f1": float(f1_score(true, guess, average="macro", zero_division=0.0)),
        }
    scores = {
        "rmse": float(root_mean_squared_error(true, guess)),
        "mae": float(mean_absolute_error(true, guess)),
    }
    if len(true) > 1:
        scores["r2"] = float(r2_score(true, guess))
    return scores


# -- files -----------------------------------------------------------------------------------------
def _mark(model: Any, table: Table, *numbers: float) -> str:
    """What the scores in a folder belong to: rows, columns, model options and seeds."""
    digest = hashlib.sha256()
    x, y, _ = table.with_incomplete()
    digest.update(x.numpy().tobytes())
    digest.update(y.numpy().tobytes())
    described = [
        f"{type(model).__module__}.{type(model).__qualname__}",
        str(dict(getattr(model, "hparams", {})) or _plain(model)),
        str(table.x_space.to_dict()),
        str(table.y_space.to_dict()),
        str(numbers),
    ]
    digest.update("\n".join(described).encode())
    return digest.hexdigest()


def _plain(model: Any) -> dict[str, Any]:
    """The options that a model without hyperparameters holds as plain attributes."""
    kinds = (bool, int, float, str, tuple, type(None))
    return {name: value for name, value in vars(model).items() if isinstance(value, kinds)}


def _claim(folder: Path, mark: str) -> None:
    """Take a folder for these folds, or find that it is theirs."""
    path = folder / "folds.json"
    if path.exists():
        if json.loads(path.read_text())["mark"] != mark:
            raise GenoptError(
                f"folder {folder} holds the cross-validation of another table, model or seed: name "
                "another folder, or remove it"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    _replace(path, {"mark": mark})


def _read(home: Path | None) -> list[dict[str, Any]] | None:
    path = None if home is None else home / "scores.json"
    if path is None or not path.exists():
        return None
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def _write(home: Path | None, records: list[dict[str, Any]]) -> None:
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
        _replace(home / "scores.json", records)


def _replace(path: Path, content: Any) -> None:
    """Write in one step, so that a kill leaves no half a file."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1))
    os.replace(part, path)


# -- progress --------------------------------------------------------------------------------------
def _bar(folds: int, shown: bool) -> AbstractContextManager[Callable[[], None]]:
    if not shown:
        return nullcontext(lambda: None)
    return _FoldBar(folds)


class _FoldBar(AbstractContextManager[Callable[[], None]]):
    """A progress bar over the folds."""

    def __init__(self, folds: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.bar = Progress(
            TextColumn("[bold]cross-validation"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("folds"),
        )
        self.task = self.bar.add_task("", total=folds)

    def __enter__(self) -> Callable[[], None]:
        self.bar.start()
        return lambda: self.bar.advance(self.task)

    def __exit__(self, *error: object) -> None:
        self.bar.stop()
