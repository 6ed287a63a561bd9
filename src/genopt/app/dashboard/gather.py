"""Folders to studies: what each was told, how far it is and what it found.

Nothing heavy is imported and no result is loaded, so that a thousand folders are read in seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from genopt.app.folder import FAILED, FINISHED, MISSING, QUEUED, RUNNING, StudyFolder
from genopt.app.jobs import MANIFEST, read_jobs
from genopt.errors import GenoptError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ENGINES = ("ensemble", "multitask", "flow", "mixture")


@dataclass(frozen=True)
class Study:
    """One study, or a job of a sweep that is planned.

    Args:
        folder: where it lies.
        name: its folder as seen from the folder that was asked for.
        state: one of `genopt.app.folder.STATES`.
        problem: the problem's name.
        model: the engine.
        routine: what searched for designs.
        started: when it began, in ISO format; empty if it has not.
        seconds: from its start to its end, or to now; None if it has not begun.
        overrides: what its command line said.
        config: its resolved configuration; empty where it has not come so far.
        metrics: its numbers.
        verdict: its outcome in words.
        error: why it failed.
    """

    folder: Path
    name: str
    state: str
    problem: str = ""
    model: str = ""
    routine: str = ""
    started: str = ""
    seconds: float | None = None
    overrides: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    verdict: str = ""
    error: str = ""

    @cached_property
    def id(self) -> str:
        """What names the study in addresses, the same for every report."""
        return hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:10]

    @property
    def seed(self) -> int | None:
        """The seed, as far as it is known."""
        if "seed" in self.config:
            return int(self.config["seed"])
        said = said_of(self.overrides).get("seed")
        return said if isinstance(said, int) else None

    @property
    def question(self) -> str:
        """What is asked: studies with the same problem and goal can be compared."""
        asked = {name: self.config.get(name) for name in ("problem", "goal")}
        return json.dumps(asked, sort_keys=True, default=str) if self.config else ""


class Gatherer:
    """Reads folders again and again; what cannot have changed is read once."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Any, Study]] = {}

    def studies(self, roots: Sequence[Path]) -> list[Study]:
        """All studies below folders, planned ones too.

        Args:
            roots: folders of studies, of sweeps, or of many.

        Returns:
            In the order in which they began, then those that have not.

        Raises:
            GenoptError: if a folder is not there.
        """
        found: dict[Path, Study] = {}
        for root in roots:
            if not root.is_dir():
                raise GenoptError(f"{root} is no folder: give the folder of a sweep or a study")
            shown = root.name if len(roots) > 1 else ""
            for path in _study_folders(root):
                found.setdefault(path.resolve(), self._study(path, _name(path, root, shown)))
            for job in _planned(root):
                name = _name(job.path, root, shown)
                new = _from_overrides(job.path, name, job.overrides)
                study = found.setdefault(job.path.resolve(), new)
                if job.state == QUEUED:
                    found[job.path.resolve()] = replace(study, state=QUEUED)
        # a stable sort: those without a start keep the order of the plan
        return sorted(found.values(), key=lambda study: study.started or "~")

    def _study(self, path: Path, name: str) -> Study:
        stamp = (name, *(stamp_of(path / file) for file in ("status.json", "config.yaml")))
        known = self._known.get(path)
        if known is not None and known[0] == stamp and known[1].state in (FINISHED, FAILED):
            return known[1]
        study = read_study(path, name)
        self._known[path] = (stamp, study)
        return study


def gather_studies(roots: Sequence[Path]) -> list[Study]:
    """All studies below folders, planned ones too.

    Args:
        roots: folders of studies, of sweeps, or of many.

    Returns:
        In the order in which they began, then those that have not.
    """
    return Gatherer().studies(roots)


def read_study(path: Path, name: str) -> Study:
    """One folder.

    Args:
        path: the study's folder.
        name: what it is called.

    Returns:
        The study, as far as it has come.
    """
    folder = StudyFolder(path)
    status = folder.status
    overrides = tuple(map(str, read_yaml(path / ".hydra" / "overrides.yaml") or ()))
    planned = _from_overrides(path, name, overrides)
    config = read_yaml(path / "config.yaml") if status else None
    if not isinstance(config, dict):
        config = {}
    state = folder.state_of(status)
    numbers = read_json(path / "metrics.json") if state == FINISHED else None
    metrics = {str(k): float(v) for k, v in (numbers or {}).items() if isinstance(v, int | float)}
    spent = (status.get("fit") or {}).get("cpu_seconds")
    if metrics and spent is not None:
        metrics["fit_cpu_seconds"] = float(spent)
    said = said_of(overrides)
    return Study(
        folder=path,
        name=name,
        state=state,
        problem=str(status.get("problem") or planned.problem),
        model=_engine(config, said) if config else planned.model,
        routine=_last(config.get("routine")) or planned.routine,
        started=str(status.get("started", "")),
        seconds=_seconds(status, state),
        overrides=overrides,
        config=config,
        metrics=metrics,
        verdict=str(status.get("verdict", "")),
        error=str(status.get("error", "")) if state != FINISHED else "",
    )


def said_of(overrides: Iterable[str]) -> dict[str, Any]:
    """What a command line said, by key.

    Args:
        overrides: such as ``model=flow`` or ``+goal={a: 1}``.

    Returns:
        Values, read as YAML; keys that are removed, and Hydra's own, are left out.
    """
    out: dict[str, Any] = {}
    for override in overrides:
        key, sign, text = override.lstrip("+").partition("=")
        if not sign or key.startswith(("~", "hydra.", "hydra/")):
            continue
        try:
            out[key] = yaml.load(text, _LOADER)
        except yaml.YAMLError:
            out[key] = text
    return out


def read_json(path: Path) -> Any:
    """A JSON file.

    Args:
        path: the file.

    Returns:
        Plain data; None where it is missing or cut short.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def read_yaml(path: Path) -> Any:
    """A YAML file.

    Args:
        path: the file.

    Returns:
        Plain data; None where it is missing or cut short.
    """
    try:
        return yaml.load(path.read_text(), _LOADER)
    except (OSError, yaml.YAMLError):
        return None


def stamp_of(path: Path) -> tuple[int, int]:
    """What changes when a file does.

    Args:
        path: the file.

    Returns:
        Its time of change and its size; zeros where it is missing.
    """
    try:
        facts = path.stat()
    except OSError:
        return (0, 0)
    return facts.st_mtime_ns, facts.st_size


# -- folders ---------------------------------------------------------------------------------------
def _study_folders(root: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(root):
        if "status.json" in files or ".hydra" in folders:
            yield Path(path)
            # a study keeps checkpoints, logs and old results below itself, but no other study
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


@dataclass(frozen=True)
class _Planned:
    """A job of a sweep's plan."""

    path: Path
    overrides: tuple[str, ...]
    state: str


def _planned(root: Path) -> Iterator[_Planned]:
    for path, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if MANIFEST in files:
            sweep = read_jobs(Path(path))
            states = sweep.states()
            for job in sweep.jobs:
                yield _Planned(Path(path) / job.folder, job.overrides, states[job.folder])
            folders.clear()
        elif "status.json" in files:
            folders.clear()


def _name(path: Path, root: Path, shown: str) -> str:
    name = path.relative_to(root).as_posix()
    return path.resolve().name if name == "." else f"{shown}/{name}".lstrip("/")


def _from_overrides(path: Path, name: str, overrides: tuple[str, ...]) -> Study:
    said = said_of(overrides)
    problem, model, routine = (str(said.get(k) or "") for k in ("problem", "model", "routine"))
    problem = problem or str(said.get("experiment") or "")
    return Study(path, name, MISSING, problem, model, routine, overrides=overrides)


def _engine(config: dict[str, Any], said: dict[str, Any]) -> str:
    node = config.get("model")
    target = str(node.get("_target_", "model")) if isinstance(node, dict) else "model"
    chosen = said.get("model")
    # a choice by the table says less than what was chosen
    if isinstance(chosen, str) and chosen != "auto":
        return chosen
    return next((word for word in _ENGINES if word in target.lower()), target.rpartition(".")[2])


def _last(node: Any) -> str:
    return str(node.get("_target_", "")).rpartition(".")[2] if isinstance(node, dict) else ""


def _seconds(status: dict[str, Any], state: str) -> float | None:
    try:
        start = datetime.fromisoformat(status["started"])
        end = status.get("finished")
        if end is None and state != RUNNING:
            return None
        return ((datetime.fromisoformat(end) if end else datetime.now()) - start).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None
