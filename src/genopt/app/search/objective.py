"""What a search optimises: numbers of finished studies, read from their folders, and which way.

A study's folder says the same whatever launched it and however often it was interrupted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genopt.app.folder import StudyFolder
from genopt.errors import GenoptError, UnknownNameError

DIRECTIONS = ("minimize", "maximize")
AUTO = "auto"
_LESS, _MORE, _ASK = "minimize", "maximize", None
_COLUMN = "<column>"
# numbers that are worked out here, from what a study leaves in its folder
_OWN = {
    AUTO: _LESS,
    "best_loss": _LESS,
    "held_out_error": _LESS,
    "validation_loss": _LESS,
    "fit_cpu_seconds": _LESS,
}
# names of metrics.json and the better direction, where there is one
_METRICS: dict[str, str | None] = {
    **_OWN,
    "fit_seconds": _LESS,
    "routine_seconds": _LESS,
    "candidates": _MORE,
    "abstained": _LESS,
    "inside_space": _MORE,
    "converged": _MORE,
    "diversity": _MORE,
    "goals_unreached": _LESS,
    "ood/outside": _LESS,
    "claimed/best_loss": _LESS,
    "claimed/satisfied": _MORE,
    "verified/best_loss": _LESS,
    "verified/loss_of_best_claim": _LESS,
    "verified/median_loss": _LESS,
    "verified/satisfied": _MORE,
    "baseline/best_row_loss": _ASK,
    "mode_recall": _MORE,
    "mode_precision": _MORE,
    "x_rmse": _LESS,
    "weight_tv": _LESS,
    "residual/<column>": _LESS,
    "round_trip_rmse/<column>": _LESS,
    "held_out/r2/<column>": _MORE,
    "held_out/rmse/<column>": _LESS,
    "held_out/accuracy/<column>": _MORE,
    "held_out/miscalibration_area/<column>": _LESS,
    "held_out/sharpness/<column>": _LESS,
    "held_out/nll/<column>": _LESS,
    "held_out/coverage_50/<column>": _ASK,
    "held_out/coverage_90/<column>": _ASK,
    "judge_held_out/<column>": _ASK,
    "resimulation/<column>": _LESS,
    "calibration/kl": _LESS,
    "calibration/<column>": _ASK,
    "constraints/<column>": _ASK,
    "reconstruction_error/<column>": _LESS,
    "folds/r2/<column>": _MORE,
    "folds/<column>": _ASK,
    "routine/<column>": _ASK,
}


@dataclass(frozen=True)
class Objective:
    """One number of a study and the better direction.

    Args:
        name: its name, as in ``metrics.json``, or one of ``auto``, ``best_loss``,
            ``held_out_error``, ``validation_loss`` and ``fit_cpu_seconds``.
        direction: one of `DIRECTIONS`.
    """

    name: str
    direction: str

    def value(self, folder: StudyFolder) -> float:
        """The number of a finished study.

        Args:
            folder: its folder.

        Returns:
            A finite number.

        Raises:
            GenoptError: if the study does not have it, or it is not a number.
        """
        metrics = folder.read("metrics.json")
        found = _value(self.name, metrics, folder)
        if found is None:
            raise _missing(self.name, metrics)
        if not math.isfinite(found):
            raise GenoptError(f"{self.name} is {found}")
        return found


class MissingMetricError(GenoptError):
    """A finished study does not have the number that a search wants."""


def read_objectives(names: Any, directions: Any) -> tuple[Objective, ...]:
    """What a search optimises, checked before any job.

    Args:
        names: one name or several.
        directions: as many directions, or None for the better one of each name.

    Returns:
        The objectives.

    Raises:
        GenoptError: if there are none, one comes twice, or their directions do not fit.
        UnknownNameError: if a name or a direction is unknown.
    """
    wanted = [names] if isinstance(names, str) else list(names or ())
    if not wanted or len(set(wanted)) < len(wanted):
        raise GenoptError(
            f"hydra.sweeper.objective needs different metrics, got {wanted}: for example "
            "verified/best_loss, or [held_out_error, fit_seconds]"
        )
    if AUTO in wanted and len(wanted) > 1:
        raise GenoptError(
            "hydra.sweeper.objective: auto stands alone; beside other metrics say best_loss or "
            "held_out_error"
        )
    ways: Sequence[Any] = [directions] if isinstance(directions, str) else list(directions or ())
    if ways and len(ways) != len(wanted):
        raise GenoptError(
            f"hydra.sweeper.direction has {len(ways)} entries and hydra.sweeper.objective "
            f"{len(wanted)}: give one direction for each metric, or null"
        )
    for way in ways:
        if way not in DIRECTIONS:
            raise UnknownNameError("hydra.sweeper.direction", str(way), DIRECTIONS)
    return tuple(
        Objective(str(name), str(ways[i]) if ways else _better(str(name)))
        for i, name in enumerate(wanted)
        if _known(str(name))
    )


def _pattern(name: str) -> str | None:
    """The entry of the catalogue that a name belongs to."""
    fits = [
        entry
        for entry in _METRICS
        if re.fullmatch(re.escape(entry).replace(re.escape(_COLUMN), ".+"), name)
    ]
    return max(fits, key=len) if fits else None


def _known(name: str) -> bool:
    if _pattern(name) is None:
        raise UnknownNameError("metric in hydra.sweeper.objective", name, _METRICS)
    return True


def _better(name: str) -> str:
    pattern = _pattern(name)
    if pattern is None:
        raise UnknownNameError("metric in hydra.sweeper.objective", name, _METRICS)
    way = _METRICS[pattern]
    if way is None:
        raise GenoptError(
            f"{name} has no better direction of its own: say hydra.sweeper.direction=minimize or "
            "maximize"
        )
    return way


def _value(name: str, metrics: dict[str, float], folder: StudyFolder) -> float | None:
    if name == AUTO:
        # what a surrogate claims is no measure of it
        best = metrics.get("verified/best_loss")
        return _held_out_error(metrics) if best is None else best
    if name == "best_loss":
        return metrics.get("verified/best_loss", metrics.get("claimed/best_loss"))
    if name == "held_out_error":
        return _held_out_error(metrics)
    if name == "fit_cpu_seconds":
        return folder.status.get("fit", {}).get("cpu_seconds")
    if name == "validation_loss":
        if not (folder.path / "history.json").exists():
            return None
        losses = [entry.get("validation/loss") for entry in folder.read("history.json")]
        return min((loss for loss in losses if loss is not None), default=None)
    return metrics.get(name)


def _held_out_error(metrics: dict[str, float]) -> float | None:
    """Mean over the columns of the share that predictions of unseen rows leave unexplained."""
    scores = [v for k, v in metrics.items() if re.match(r"held_out/(r2|accuracy)/", k)]
    return sum(1.0 - score for score in scores) / len(scores) if scores else None


def _missing(name: str, metrics: dict[str, float]) -> MissingMetricError:
    if name in (AUTO, "held_out_error"):
        return MissingMetricError(
            f"{name} needs a simulator, or a model that predicts y: choose "
            "hydra.sweeper.objective=validation_loss, or one of " + ", ".join(sorted(metrics))
        )
    return MissingMetricError(
        str(UnknownNameError("metric of this study", name, sorted({*metrics, *_OWN})))
    )
