"""Small sweeps run from outside, as a user runs them: started, looked at, killed."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_SCRIPTS = Path(__file__).resolve().parents[1]
_TINY = (
    "problem=plug_flow", "data.rows=120", "figures=false", "logger=csv", "progress=false",
)  # fmt: skip
# four studies whose training takes some ten seconds of sleep, and two that are over at once
FITS = (
    "model=multitask,flow", "seed=0,1", "model.epochs=20", "+callbacks.slow.seconds=0.5",
    "+callbacks.slow._target_=sweeps.slow.Slow", *_TINY,
)  # fmt: skip
QUICK = ("model=mixture", "seed=0,1,2,3", "model.max_components=4", *_TINY)
_GONE = 20.0
_SAME = 1e-9


def command(sweep: Path, words: tuple[str, ...], launcher: tuple[str, ...]) -> list[str]:
    """The command line of a sweep."""
    main = [sys.executable, "-m", "genopt.app.main", "-m"]
    return [*main, *launcher, *words, f"hydra.sweep.dir={sweep}"]


def again(sweep: Path, launcher: tuple[str, ...]) -> list[str]:
    """The command line that runs what did not finish."""
    report = "import sys; from genopt.app.report import main; sys.exit(main())"
    return [sys.executable, "-c", report, str(sweep), "--failed", *launcher]


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command; what it prints goes to a file."""
    path = os.pathsep.join([str(_SCRIPTS), os.environ.get("PYTHONPATH", "")])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            words,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )


def descendants(pid: int) -> dict[int, list[int]]:
    """The processes below one, each with its children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found: dict[int, list[int]] = {}
    waiting = [pid]
    while waiting:
        own = children.get(waiting.pop(), [])
        for child in own:
            found[child] = children.get(child, [])
        waiting += own
    return found


def jobs_below(pid: int) -> list[int]:
    """The processes of the jobs: the children of the fork server."""
    below = descendants(pid)
    servers = [p for p in below if b"forkserver" in _words_of(p)]
    forked = {child for server in servers for child in below[server]}
    return sorted(p for p in forked if p in below)


def _words_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def kill(*pids: int) -> None:
    """Kill processes that were found below one of ours."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until_gone(pids: list[int]) -> list[int]:
    """Those of the processes that outlive some seconds."""
    deadline = time.monotonic() + _GONE
    alive = list(pids)
    while alive and time.monotonic() < deadline:
        alive = [pid for pid in alive if _lives(pid)]
        time.sleep(0.05)
    return alive


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


@dataclass(frozen=True)
class Study:
    """What a study's folder says of its result.

    Args:
        state: how far it is.
        result: metrics without times, losses by epoch, and all designs; empty before its end.
        written: when its result was written; a study that is repeated writes another one.
        went_on: whether its training was begun anew, and not from the first epoch.
    """

    state: str
    result: tuple[float, ...]
    written: int
    went_on: bool = False

    def like(self, other: Study) -> bool:
        """Whether the results are the same but for the order in which a processor adds."""
        ours, theirs = np.array(self.result), np.array(other.result)
        same = ours.shape == theirs.shape
        return same and bool(np.allclose(ours, theirs, rtol=_SAME, atol=_SAME, equal_nan=True))


def studies(sweep: Path) -> dict[str, Study]:
    """The studies of a sweep by folder, read with no more than what their files hold."""
    from genopt.app.jobs import MANIFEST, read_jobs

    if not (sweep / MANIFEST).exists():
        return {}
    plan = read_jobs(sweep)
    found = {}
    for job in plan.jobs:
        folder, state = plan.folder / job.folder, plan.study(job).state
        result, written, went_on = (), 0, False
        if state == "finished":
            result = _result(folder)
            written = (folder / "metrics.json").stat().st_mtime_ns
            went_on = _first_epoch(folder) > 0
        found[job.folder] = Study(state, result, written, went_on)
    return found


def _result(folder: Path) -> tuple[float, ...]:
    import pandas as pd

    metrics = json.loads((folder / "metrics.json").read_text())
    numbers = [v for k, v in sorted(metrics.items()) if not k.endswith("_seconds")]
    past = folder / "history.json"
    for epoch in json.loads(past.read_text()) if past.exists() else []:
        numbers += [value for _, value in sorted(epoch.items())]
    designs = pd.read_parquet(folder / "candidates.parquet").to_numpy(dtype=float).flatten()
    return (*map(float, numbers), *map(float, designs))


def _first_epoch(folder: Path) -> int:
    """Where the last piece of a study's training began."""
    logs = sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda p: p.stat().st_mtime_ns)
    if not logs:
        return 0
    with logs[-1].open() as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row.get("epoch")]
    return min(epochs, default=0)
