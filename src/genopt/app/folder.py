"""The study's folder: what it holds, whether it is finished, how a killed study goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import genopt
from genopt.app.lock import held, in_words, lives, this_process
from genopt.files import write_whole

logger = logging.getLogger(__name__)

FINISHED = "finished"
FAILED = "failed"
RUNNING = "running"
INTERRUPTED = "interrupted"
MISSING = "missing"
QUEUED = "queued"
PRUNED = "pruned"
STATES = (FINISHED, FAILED, RUNNING, INTERRUPTED, QUEUED, MISSING, PRUNED)
_PACKAGES = (
    "torch",
    "pytorch-lightning",
    "hydra-core",
    "omegaconf",
    "torchdiffeq",
    "gmr",
    "scikit-learn",
    "numpy",
    "scipy",
    "pandas",
    "wandb",
)
NOT_FINGERPRINTED = ("rerun", "progress", "threads", "figures", "logger", "paths", "top")
_LOCK = ".lock"
_STATUS = "status.json"
_STAYS = (".hydra", "study.log", "previous", _LOCK)
_OWNER = ("host", "pid", "slurm")
# a job that is started again may meet the end of its first process
_PATIENCE = 5.0


@dataclass(frozen=True)
class StudyFolder:
    """One folder with everything that is needed to look at a study, go on with it, or repeat it.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def status(self) -> dict[str, Any]:
        """What `status.json` says; empty where there is none."""
        try:
            return dict(json.loads((self.path / _STATUS).read_text()))
        except (OSError, ValueError):
            return {}

    @property
    def state(self) -> str:
        """How far the study is: one of `STATES`.

        A study whose process was killed still says that it runs; it is ``interrupted``.
        """
        return self.state_of(self.status)

    def state_of(self, status: Mapping[str, Any]) -> str:
        """The same as `state`, where `status` is already read.

        Args:
            status: as from `status`.

        Returns:
            One of `STATES`.
        """
        said = str(status.get("state", MISSING))
        if said != RUNNING:
            return said
        owner = {name: status[name] for name in _OWNER if name in status}
        return RUNNING if lives(self.path / _LOCK, owner) else INTERRUPTED

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes from running the same study while this one does.

        Yields:
            Nothing.

        Raises:
            GenoptError: if another process runs it.
        """
        with held(self.path / _LOCK, f"the study in {self.path}", _PATIENCE):
            yield

    def write(self, name: str, data: Any) -> None:
        """Write a JSON file in one step, so that a kill leaves the old or the new one whole.

        Args:
            name: the file's name.
            data: plain data.
        """
        write_whole(self.path / name, json.dumps(data, indent=2) + "\n")

    def read(self, name: str) -> Any:
        """A JSON file of the folder.

        Args:
            name: the file's name.

        Returns:
            Plain data.
        """
        return json.loads((self.path / name).read_text())

    def mark(self, **facts: Any) -> None:
        """Add facts to `status.json`.

        Args:
            **facts: plain data, for example ``state="finished"``; None removes a fact.
        """
        merged = {**self.status, **facts}
        self.write(_STATUS, {k: v for k, v in merged.items() if v is not None})

    def end(self, error: BaseException | None = None) -> None:
        """Mark the study as finished, failed, or interrupted by its user or its cluster.

        Args:
            error: what ended it; None where it came to its end.
        """
        nobody = dict.fromkeys(_OWNER)
        if error is None:
            self.mark(state=FINISHED, finished=_now(), error=None, **nobody)
        elif isinstance(error, Exception):
            self.mark(state=FAILED, finished=_now(), error=str(error), **nobody)
        else:
            self.mark(state=INTERRUPTED, **nobody)

    def refuse(self, error: Exception) -> None:
        """Keep why a study of a sweep could not begin; what another run left here stays.

        Args:
            error: what ended it.
        """
        status = self.status
        told = status.get("state") == FAILED and status.get("error") == str(error)
        if not told and self.state_of(status) in (MISSING, FAILED, INTERRUPTED):
            logger.info("the study failed: %s", error, exc_info=error)
            self.end(error)

    def finished(self, fingerprint: str) -> bool:
        """Whether the same study is already finished here.

        Args:
            fingerprint: of the study that is asked for.

        Returns:
            True if there is nothing left to do.
        """
        status = self.status
        return status.get("state") == FINISHED and status.get("fingerprint") == fingerprint

    def open(self, fingerprint: str, rerun: bool) -> bool:
        """Get the folder ready: keep what an interrupted run of the same study left, else clear it.

        Results of another study, or of a finished one that is repeated, move to
        ``previous/<time>``. Call it while the folder is `claimed`.

        Args:
            fingerprint: of the study that is asked for.
            rerun: whether to start anew in any case.

        Returns:
            Whether an interrupted run goes on.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        status, owner = self.status, this_process()
        if "fingerprint" not in status:
            # it never began
            status = {}
            (self.path / _STATUS).unlink(missing_ok=True)
        same = status.get("fingerprint") == fingerprint
        # a job that Slurm starts again goes on, or a limit of time would repeat it for ever
        again = same and "slurm" in owner and owner["slurm"] == status.get("slurm")
        nobody = dict.fromkeys(_OWNER)
        if same and (not rerun or again) and status.get("state") not in (None, FINISHED):
            if status.get("state") == RUNNING:
                logger.info("the %s that ran this study is gone; going on", in_words(status))
            self.mark(**{**nobody, **owner}, state=RUNNING, error=None, finished=None)
            return True
        old = [p for p in self.path.iterdir() if p.name not in _STAYS]
        if status and old:
            kept = _fresh(self.path / "previous", time.strftime("%Y-%m-%d_%H-%M-%S"))
            # what says whose files these are goes last: after a kill the rest follows
            for p in sorted(old, key=lambda p: p.name == _STATUS):
                shutil.move(str(p), kept / p.name)
        self.mark(**owner, state=RUNNING, fingerprint=fingerprint, started=_now())
        return False


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def _fresh(parent: Path, name: str) -> Path:
    """A new folder; numbered where one of that name is there."""
    number = 0
    while True:
        path = parent / (f"{name}_{number}" if number else name)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def fingerprint(config: Mapping[str, Any], data: bytes) -> str:
    """A text that changes when the result of a study may change.

    Args:
        config: the resolved configuration.
        data: the bytes of the user's own files, if there are any.

    Returns:
        Hexadecimal digits.
    """
    kept = {k: v for k, v in config.items() if k not in NOT_FINGERPRINTED}
    text = json.dumps(kept, sort_keys=True, default=str) + genopt.__version__
    return hashlib.sha256(text.encode() + data).hexdigest()[:16]


def environment() -> dict[str, Any]:
    """Versions and git state, for whoever repeats the study; nothing of the user's environment."""
    versions = {"genopt": genopt.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "versions": versions,
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
        "git": _git(),
    }


def _git() -> dict[str, Any]:
    source = Path(genopt.__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return {}

    def ask(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(source), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return done.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}
