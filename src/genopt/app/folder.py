"""The study's folder: what it holds, whether it is finished, how a killed study goes on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import genopt

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
_NOT_FINGERPRINTED = ("rerun", "progress", "threads", "figures", "logger", "paths", "top")
_HYDRA_FILES = (".hydra", "study.log")


@dataclass(frozen=True)
class StudyFolder:
    """One folder with everything that is needed to look at a study, go on with it, or repeat it.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def status(self) -> dict[str, Any]:
        """What `status.json` says; empty where there is none or a kill cut it short."""
        try:
            return dict(json.loads((self.path / "status.json").read_text()))
        except (OSError, ValueError):
            return {}

    def write(self, name: str, data: Any) -> None:
        """Write a JSON file in one step, so that a kill leaves the old or the new one whole.

        Args:
            name: the file's name.
            data: plain data.
        """
        target = self.path / name
        part = target.with_suffix(".part")
        part.write_text(json.dumps(data, indent=2) + "\n")
        os.replace(part, target)

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
        self.write("status.json", {k: v for k, v in merged.items() if v is not None})

    def finished(self, fingerprint: str) -> bool:
        """Whether the same study is already finished here.

        Args:
            fingerprint: of the study that is asked for.

        Returns:
            True if there is nothing left to do.
        """
        status = self.status
        return status.get("state") == "finished" and status.get("fingerprint") == fingerprint

    def open(self, fingerprint: str, rerun: bool) -> bool:
        """Get the folder ready: keep what an interrupted run of the same study left, else clear it.

        Results of another study, or of a finished one that is repeated, move to
        ``previous/<time>``.

        Args:
            fingerprint: of the study that is asked for.
            rerun: whether to start anew in any case.

        Returns:
            Whether an interrupted run goes on.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        status = self.status
        same = status.get("fingerprint") == fingerprint
        if same and not rerun and status.get("state") in ("running", "failed"):
            self.mark(state="running")
            return True
        old = [p for p in self.path.iterdir() if p.name not in (*_HYDRA_FILES, "previous")]
        if status and old:
            kept = self.path / "previous" / time.strftime("%Y-%m-%d_%H-%M-%S")
            kept.mkdir(parents=True, exist_ok=True)
            for p in old:
                shutil.move(str(p), kept / p.name)
        self.mark(
            state="running", fingerprint=fingerprint, started=time.strftime("%Y-%m-%dT%H:%M:%S")
        )
        return False


def fingerprint(config: Mapping[str, Any], data: bytes) -> str:
    """A text that changes when the result of a study may change.

    Args:
        config: the resolved configuration.
        data: the bytes of the user's own files, if there are any.

    Returns:
        Hexadecimal digits.
    """
    kept = {k: v for k, v in config.items() if k not in _NOT_FINGERPRINTED}
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
