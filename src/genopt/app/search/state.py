"""`search.json`: what a search has tried, for the people who read it and for its own jobs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genopt.app.folder import RUNNING
from genopt.errors import GenoptError

FILE = "search.json"
DATABASE = "search.db"
# a study lies in the folder of its sweep, or a few folders below it
_DEPTH = 4


class PrunedError(GenoptError):
    """A fit was stopped because others were better at the same point of their training."""


@dataclass(frozen=True)
class Watch:
    """What a job needs to know to report its losses.

    Args:
        database: where the search keeps them.
        curves: the name under which comparable fits are kept.
        trial: the number of this fit among them.
        pruner: the rule that stops a fit, as a node with ``_target_``.
    """

    database: Path
    curves: str
    trial: int
    pruner: dict[str, Any]


def watch_of(study: Path) -> Watch | None:
    """Whether a study is a running trial of a search that may stop its fit.

    Args:
        study: the study's folder.

    Returns:
        What it has to know; None where nobody watches it.
    """
    study = study.resolve()
    for folder in list(study.parents)[:_DEPTH]:
        try:
            found = json.loads((folder / FILE).read_text())
        except (OSError, ValueError):
            continue
        inside = study.relative_to(folder).as_posix()
        for trial in found["trials"]:
            curve = trial.get("curve")
            if trial["folder"] == inside and trial["state"] == RUNNING and curve:
                return Watch(folder / DATABASE, curve["study"], curve["number"], found["pruning"])
        return None
    return None
