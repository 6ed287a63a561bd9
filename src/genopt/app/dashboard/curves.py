"""Learning curves, thinned so that a thousand of them fit on one page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from genopt.app.dashboard.gather import Study, read_json
from genopt.app.folder import FINISHED

_LOSSES = ("validation/loss", "train/loss")
_EPOCH = "epoch"
_UNASKED = (_EPOCH, "step", "learning_rate", "seconds")
# of all curves of a page, and of one curve
_POINTS, _FEWEST, _MOST = 120_000, 40, 160
# with more studies than these only the losses are kept
_MANY_STUDIES, _SERIES = 200, 8


def curves_of(studies: Sequence[Study]) -> dict[str, dict[str, list[Any]]]:
    """The learning curves of studies.

    Args:
        studies: the studies.

    Returns:
        For each series, such as ``validation/loss``, the epochs and the values by study.
    """
    found = {study.id: thinned(history(study), _MOST) for study in studies}
    names = dict.fromkeys(name for series in found.values() for name in series)
    ordered = sorted(names, key=lambda name: (*(name != loss for loss in _LOSSES), name))
    kept = ordered[: len(_LOSSES) if len(studies) > _MANY_STUDIES else _SERIES]
    count = sum(name in series for series in found.values() for name in kept)
    most = min(_MOST, max(_FEWEST, _POINTS // max(count, 1)))
    out: dict[str, dict[str, list[Any]]] = {}
    for name in kept:
        out[name] = {
            key: _even(*series[name], most) for key, series in found.items() if name in series
        }
    return out


def history(study: Study) -> Sequence[Mapping[str, float]]:
    """The numbers of every epoch, as far as a study has come.

    Args:
        study: the study.

    Returns:
        A mapping for each epoch; none where nothing was kept.
    """
    kept = read_json(study.folder / "history.json")
    if isinstance(kept, list):
        return kept
    if study.state == FINISHED or not any(study.folder.glob("csv/version_*/metrics.csv")):
        return ()
    from genopt.analysis.plots.learning import read_history
    from genopt.errors import GenoptError

    try:
        return read_history(study.folder)
    except (GenoptError, OSError):
        return ()


def thinned(
    epochs: Sequence[Mapping[str, float]], most: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Each series with at most so many points, its last and its smallest among them.

    Args:
        epochs: a mapping for each epoch.
        most: points that are kept, and the smallest.

    Returns:
        Epochs and values by name.
    """
    out: dict[str, tuple[list[float], list[float]]] = {}
    names = dict.fromkeys(name for entry in epochs for name in entry if name not in _UNASKED)
    for name in names:
        points = [
            (float(entry.get(_EPOCH, i)), float(entry[name]))
            for i, entry in enumerate(epochs)
            if isinstance(entry.get(name), int | float) and math.isfinite(entry[name])
        ]
        if points:
            x, y = _even([p[0] for p in points], [p[1] for p in points], most)
            out[name] = (x, y)
    return out


def _even(x: Sequence[float], y: Sequence[float], most: int) -> list[list[float]]:
    last = len(x) - 1
    if last < most:
        return [list(x), list(y)]
    kept = {round(i * last / (most - 1)) for i in range(most)}
    kept.add(min(range(last + 1), key=y.__getitem__))
    chosen = sorted(kept)
    return [[x[i] for i in chosen], [y[i] for i in chosen]]
