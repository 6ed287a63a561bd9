"""The jobs of a sweep: what was planned, how far each is, and running again what did not finish.

The plan lies in ``sweep.json`` in the sweep's folder, so that a job that never began is known too.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from genopt.app.folder import FAILED, INTERRUPTED, MISSING, QUEUED, StudyFolder
from genopt.app.lock import held, lives, owner_of, slurm_states, this_process
from genopt.errors import GenoptError
from genopt.files import write_whole

MANIFEST = "sweep.json"
_FORMAT = "genopt sweep 1"
_LOCK = ".sweep.lock"
_RUNNING = ".running.lock"
_PATIENCE = 2.0
_PLACE = "hydra.sweep.subdir="
_SET_HERE = ("hydra/sweeper", "hydra.sweeper", "hydra.sweep.", "hydra.mode", "hydra.run.")
_CONFIG_FLAGS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")
_REPEATED = (FAILED, INTERRUPTED, MISSING)
# keys that do not change what a study is; more may follow --failed than these and Hydra's own
FREE = ("progress", "threads", "figures", "logger", "top")


@dataclass(frozen=True)
class PlannedJob:
    """One job of a sweep.

    Args:
        number: its place in the sweep.
        folder: of its study, relative to the sweep's.
        overrides: what its command line says, without Hydra's own settings.
        slurm: its number in Slurm, such as ``7_0``, where it was submitted.
    """

    number: int
    folder: str
    overrides: tuple[str, ...]
    slurm: str | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was planned.

    Args:
        folder: of the sweep.
        jobs: in the order of their plan.
        command: the words that began it; empty where they are not known.
        cwd: where it was begun; empty where that is not known.
    """

    folder: Path
    jobs: tuple[PlannedJob, ...]
    command: tuple[str, ...] = ()
    cwd: str = ""

    def study(self, job: PlannedJob) -> StudyFolder:
        """The folder of a job's study.

        Args:
            job: one of the sweep's.

        Returns:
            The folder, which need not be there yet.
        """
        return StudyFolder(self.folder / job.folder)

    @property
    def alive(self) -> bool:
        """Whether another command runs the sweep, and starts what has not begun."""
        path = self.folder / _RUNNING
        owner = owner_of(path)
        mine = {**owner, **this_process()} == owner
        return not mine and lives(path, owner)

    def states(self) -> dict[str, str]:
        """How far each job is.

        Returns:
            The state by folder: one of `genopt.app.folder.STATES`; ``queued`` where the sweep's
            command or Slurm has yet to start it, or Slurm to start it again.
        """
        states = {job.folder: self.study(job).state for job in self.jobs}
        if MISSING in states.values() and self.alive:
            states = {k: QUEUED if state == MISSING else state for k, state in states.items()}
        waiting = {job.folder: job.slurm for job in self.jobs if states[job.folder] in _REPEATED}
        known = (slurm_states() or {}) if any(waiting.values()) else {}
        for folder, number in waiting.items():
            if number in known:
                states[folder] = QUEUED
        return states

    def unfinished(self) -> tuple[PlannedJob, ...]:
        """The jobs that failed, were interrupted, or never began and wait for nothing.

        Returns:
            In the order of the plan.
        """
        states = self.states()
        return tuple(job for job in self.jobs if states[job.folder] in _REPEATED)


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep.

    Args:
        folder: any.

    Returns:
        True where it holds a plan, ours or Hydra's.
    """
    return any((folder / name).exists() for name in (MANIFEST, "multirun.yaml"))


def record_jobs(sweep_dir: Path, jobs: Sequence[PlannedJob], *, command: Sequence[str]) -> None:
    """Write the plan of a sweep, or add to it; a job that is known keeps its place.

    Args:
        sweep_dir: the sweep's folder.
        jobs: what is about to start.
        command: the words that begin it.
    """
    sweep_dir = Path(sweep_dir)
    with held(sweep_dir / _LOCK, f"the plan of {sweep_dir}", wait=60.0):
        old = _read_manifest(sweep_dir)
        merged = {job.folder: job for job in (old.jobs if old else ())}
        for job in jobs:
            own = tuple(word for word in job.overrides if not word.startswith(_PLACE))
            known = merged.get(job.folder)
            if known is None or _settings(known.overrides) != _settings(own):
                merged[job.folder] = replace(job, overrides=own)
            elif job.slurm:
                merged[job.folder] = replace(known, slurm=job.slurm)
        _write_manifest(
            Sweep(
                sweep_dir,
                tuple(merged.values()),
                old.command if old else tuple(command),
                old.cwd if old else os.getcwd(),
            )
        )


@contextmanager
def sweeping(sweep_dir: Path) -> Iterator[None]:
    """Keep other commands from running the same sweep while this one does.

    Args:
        sweep_dir: the sweep's folder.

    Yields:
        Nothing.

    Raises:
        GenoptError: if another command runs it.
    """
    with held(Path(sweep_dir) / _RUNNING, f"the sweep in {sweep_dir}", _PATIENCE):
        yield


def record_submitted(sweep_dir: Path, numbers: Mapping[str, str]) -> None:
    """Note under which numbers Slurm knows the jobs of a sweep.

    Args:
        sweep_dir: the sweep's folder.
        numbers: folder of a job, relative to the sweep's, to its number such as ``7_0``.

    Raises:
        GenoptError: if there is no plan.
    """
    sweep = read_jobs(sweep_dir)
    jobs = [replace(j, slurm=numbers[j.folder]) for j in sweep.jobs if j.folder in numbers]
    record_jobs(sweep_dir, jobs, command=sweep.command)


def read_jobs(sweep_dir: Path) -> Sweep:
    """The plan of a sweep.

    Args:
        sweep_dir: the sweep's folder.

    Returns:
        The sweep; without ``sweep.json`` what can be read off Hydra's files.

    Raises:
        GenoptError: if the folder holds no sweep.
    """
    from genopt.app.jobs_of_hydra import read_hydra_files

    sweep_dir = Path(sweep_dir)
    found = _read_manifest(sweep_dir) or read_hydra_files(sweep_dir)
    if found is None:
        raise GenoptError(
            f"{sweep_dir} is not the folder of a sweep: it holds neither {MANIFEST} nor "
            "multirun.yaml"
        )
    return found


def rerun(sweep_dir: Path, words: Sequence[str] = ()) -> int:
    """Run the jobs of a sweep again that failed, were interrupted or never began.

    They get their own settings again and their own folders, where interrupted ones go on.

    Args:
        sweep_dir: the sweep's folder.
        words: further words of a command line: a launcher, Hydra's own settings, or keys that do
            not change a study, for example ``launcher=joblib`` or ``progress=false``.

    Returns:
        How many jobs were started; 0 where all are finished, running or queued.

    Raises:
        GenoptError: if the folder holds no sweep, or a word would change the studies.
    """
    sweep_dir = Path(sweep_dir).resolve()
    sweep = read_jobs(sweep_dir)
    for word in words:
        if not (_is_launching(word) or _key(word) in FREE):
            raise GenoptError(
                f"{word} would change the studies, which are to run with their own settings: after "
                f"--failed only launcher=..., launcher....=..., {', '.join(FREE)} and Hydra's "
                "own settings can follow"
            )
    with sweeping(sweep_dir):
        # nobody else runs it
        pass
    jobs = sweep.unfinished()
    if not jobs:
        return 0
    record_jobs(sweep_dir, sweep.jobs, command=sweep.command)

    from genopt.app.main import main

    given = [
        "--multirun",
        *_of_hydra(sweep.command, {_key(word) for word in words}),
        *words,
        "hydra/sweeper=recorded",
        f"hydra.sweeper.folder={quoted(str(sweep_dir))}",
        f"hydra.sweep.dir={quoted(str(sweep_dir))}",
    ]
    # relative paths of the studies mean what they meant
    there = Path(sweep.cwd) if sweep.cwd else None
    with chdir(there) if there and there.is_dir() else nullcontext(), _command_line(given):
        main()
    return len(jobs)


def repeated(job: PlannedJob, more: Sequence[str] = ()) -> list[str]:
    """The overrides that run a job again in its own folder.

    Args:
        job: the job.
        more: further overrides; they replace the job's own for the same key.

    Returns:
        What a launcher of Hydra is given.
    """
    newer = {_key(word) for word in more}
    own = [word for word in job.overrides if _key(word) not in newer]
    return [*own, *more, f"{_PLACE}{quoted(job.folder)}"]


def quoted(text: str) -> str:
    """A text as Hydra reads it whole.

    Args:
        text: for example a path with spaces.

    Returns:
        The text in quotes.
    """
    # Hydra takes a backslash as it is, but before a quote
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (found[2] and "\\'"), text)
    return f"'{escaped}'"


def _settings(overrides: Sequence[str]) -> list[str]:
    return sorted(word for word in overrides if _key(word) not in FREE)


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _is_launching(word: str) -> bool:
    key = _key(word)
    launching = key.startswith(("hydra/", "hydra.", "launcher.")) or key == "launcher"
    return launching and not key.startswith(_SET_HERE)


def _of_hydra(command: Sequence[str], newer: set[str]) -> list[str]:
    """Where the sweep's configuration lies and what its command line told Hydra, for another one.

    Its launcher is not kept: it may have been the wrong one.
    """
    kept, rest = [], iter(command)
    for word in rest:
        if word in _CONFIG_FLAGS:
            kept += [word, next(rest, "")]
        elif word.startswith(tuple(f"{flag}=" for flag in _CONFIG_FLAGS)):
            kept.append(word)
        elif _is_launching(word) and _key(word) not in newer:
            kept += [] if "launcher" in _key(word) else [word]
    return kept


@contextmanager
def _command_line(words: Sequence[str]) -> Iterator[None]:
    """What Hydra finds on the command line."""
    before = sys.argv
    sys.argv = ["genopt", *words]
    try:
        yield
    finally:
        sys.argv = before


# -- the file --------------------------------------------------------------------------------------
def _read_manifest(sweep_dir: Path) -> Sweep | None:
    try:
        said: dict[str, Any] = json.loads((sweep_dir / MANIFEST).read_text())
    except FileNotFoundError:
        return None
    jobs = [PlannedJob(**{**job, "overrides": tuple(job["overrides"])}) for job in said["jobs"]]
    return Sweep(sweep_dir, tuple(jobs), tuple(said["command"]), said["cwd"])


def _write_manifest(sweep: Sweep) -> None:
    jobs = [{k: v for k, v in asdict(job).items() if v is not None} for job in sweep.jobs]
    said = {
        "format": _FORMAT,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "command": sweep.command,
        "cwd": sweep.cwd,
        "jobs": jobs,
    }
    write_whole(sweep.folder / MANIFEST, json.dumps(said, indent=1) + "\n")
