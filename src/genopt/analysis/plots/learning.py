"""Learning curves: the losses and the learning rate of every epoch, the density now and then."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genopt.analysis.plots.style import BLUE, GREEN, GREY, ORANGE, legend, panels
from genopt.errors import GenoptError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_LOG_RATIO = 10.0
_LOSSES = {"train/loss": BLUE, "validation/loss": ORANGE}
_NLL = "validation/nll"
# of a flow it is the density, where it was measured, that chooses the weights
_KEPT = "validation/kept_epoch"
_RATE = "learning_rate"


def plot_learning_curves(
    history: Sequence[Mapping[str, float]] | str | Path | Any, title: str = ""
) -> Figure:
    """Training and validation loss over epochs, and the learning rate where it was kept.

    Of a flow also minus the log density of validation designs, which chooses its weights.

    Args:
        history: a fitted model, a mapping for each epoch (a model's ``history``), a ``metrics.csv``
            of Lightning's CSV logger, or the folder of a study that was run with ``logger=csv``.
        title: title of the figure.

    Returns:
        The figure; the best epoch is marked.

    Raises:
        GenoptError: if there is no loss in it.
    """
    if isinstance(history, str | Path):
        epochs: Sequence[Mapping[str, float]] = read_history(history)
    else:
        epochs = getattr(history, "history", history)
    curves = {
        name: [(entry["epoch"] + 1, entry[name]) for entry in epochs if name in entry]
        for name in (*_LOSSES, _NLL, _KEPT, _RATE)
    }
    losses = [value for name in _LOSSES for _, value in curves[name]]
    if not losses:
        raise GenoptError("history holds no loss: fit the model first")
    best = 0.0
    if curves["validation/loss"]:
        lowest = min(curves["validation/loss"], key=lambda point: point[1])[0]
        best = curves[_KEPT][-1][1] if curves[_KEPT] else lowest
    extra = [name for name in (_NLL, _RATE) if curves[name]]
    figure, (axes, *others) = panels(1 + len(extra), size=3.6, title=title)
    for name, color in _LOSSES.items():
        points = curves[name]
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), color=color, linewidth=1.2, label=name.split("/")[0])
        if name == "validation/loss":
            axes.axvline(best, color=GREY, linewidth=1.0, label=f"best, epoch {best:.0f}")
    if min(losses) > 0 and max(losses) > _LOG_RATIO * min(losses):
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel="loss")
    for other, name in zip(others, extra, strict=True):
        points = curves[name]
        if name == _NLL:
            style: dict[str, Any] = {"color": ORANGE, "marker": "o", "markersize": 3}
            other.plot(*zip(*points, strict=True), linewidth=1.2, **style)
            other.axvline(best, color=GREY, linewidth=1.0)
            other.set(xlabel="epoch", ylabel="-log p of validation designs, nats")
        else:
            other.plot(*zip(*points, strict=True), color=GREEN, linewidth=1.2)
            other.set(xlabel="epoch", ylabel="learning rate")
            other.set_ylim(bottom=0.0)
    legend(figure, axes)
    return figure


def read_history(path: str | Path) -> list[dict[str, float]]:
    """The losses of every epoch that Lightning's CSV logger wrote.

    A study that was interrupted wrote several files; they are joined, and of an epoch that was
    repeated the later one counts.

    Args:
        path: a ``metrics.csv``, or a folder: a study's, or one with ``version_0/metrics.csv``.

    Returns:
        A mapping for each epoch, in their order.

    Raises:
        GenoptError: if there is no such file, or it holds no epoch.
    """
    path = Path(path).expanduser()
    files = [path] if path.is_file() else sorted(path.rglob("metrics.csv"), key=_version)
    if not files:
        raise GenoptError(
            f"history: no metrics.csv in {path} (looked from {Path.cwd()}); run the study with "
            "logger=csv"
        )
    epochs: dict[float, dict[str, float]] = {}
    for file in files:
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                numbers = {name: _number(text) for name, text in row.items() if name is not None}
                found = {name: number for name, number in numbers.items() if number is not None}
                if "epoch" in found:
                    epochs.setdefault(found["epoch"], {}).update(found)
    if not epochs:
        raise GenoptError(f"history: {files[0]} has no column epoch: it is not of a CSVLogger")
    return [epochs[epoch] for epoch in sorted(epochs)]


def _version(file: Path) -> tuple[int, str]:
    """Files of the CSV logger by their number: ``version_10`` after ``version_9``."""
    number = file.parent.name.removeprefix("version_")
    return (int(number) if number.isdigit() else -1, str(file))


def _number(text: str | None) -> float | None:
    """A cell as a finite number; None where it is empty or a word."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
