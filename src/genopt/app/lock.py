"""One process at a time in a folder: who holds it, and whether that process still lives.

The operating system's lock decides: it ends with its process, whatever kills that, and holds across
the machines of a network file system. Where a file system has no locks the name of the owner
decides: a process of this machine, or a Slurm job.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genopt.errors import GenoptError

_BUSY = (errno.EACCES, errno.EAGAIN)
_PAUSE = 0.1


def this_process() -> dict[str, Any]:
    """Who is asking: machine, process and, below Slurm, the job.

    Returns:
        Plain data.
    """
    owner: dict[str, Any] = {"host": platform.node(), "pid": os.getpid()}
    job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    number = f"{job}_{task}" if job and task else os.environ.get("SLURM_JOB_ID")
    return {**owner, "slurm": number} if number else owner


def in_words(owner: Mapping[str, Any]) -> str:
    """An owner for messages.

    Args:
        owner: as from `this_process`.

    Returns:
        For example ``process 12 on node3, Slurm job 7_0``.
    """
    said = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    return said + (f", Slurm job {owner['slurm']}" if owner.get("slurm") else "")


def lives(path: Path, owner: Mapping[str, Any]) -> bool:
    """Whether a process still holds a lock.

    Args:
        path: the lock's file.
        owner: the process that is said to hold it.

    Returns:
        False where it is gone for certain.
    """
    if not path.exists():
        return False
    with path.open("rb") as file:
        # readers share, so that many may look at once
        free = _locked(file.fileno(), shared=True)
    if free is None:
        return not _gone(owner)
    return not free


@contextmanager
def held(path: Path, what: str, wait: float) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: the lock's file; it stays, because removing it would let two processes in.
        what: what is locked, for the message.
        wait: seconds to wait for another process to end.

    Yields:
        Nothing.

    Raises:
        GenoptError: if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        deadline = time.monotonic() + wait
        while not _taken(file.fileno(), path):
            if time.monotonic() >= deadline:
                owner = owner_of(path)
                raise GenoptError(
                    f"{what} is already running in {in_words(owner)}: wait for it or stop it. If "
                    f"it is gone for certain, delete {path}"
                )
            time.sleep(_PAUSE)
        file.truncate(0)
        file.write(json.dumps(this_process()).encode())
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def owner_of(path: Path) -> dict[str, Any]:
    """The process that wrote its name into a lock's file.

    Args:
        path: the lock's file.

    Returns:
        Plain data; empty where it says nothing.
    """
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return {}


def _taken(file: int, path: Path) -> bool:
    free = _locked(file, shared=False)
    # without locks of the file system the word of the last owner is all there is
    return _gone(owner_of(path)) if free is None else free


def _locked(file: int, shared: bool) -> bool | None:
    """Try to lock an open file; None where the file system or the system knows no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _BUSY else None
    return True


def _gone(owner: Mapping[str, Any]) -> bool:
    """Whether an owner is certainly dead: no process of this machine, no job that runs in Slurm."""
    if not owner:
        return True
    mine = this_process()
    if owner.get("host") == mine["host"]:
        return not _process_lives(int(owner["pid"]))
    if owner.get("slurm"):
        if owner["slurm"] == mine.get("slurm"):
            # a job that Slurm starts again has ended before
            return True
        known = slurm_states()
        return known is not None and known.get(str(owner["slurm"]), "PENDING") == "PENDING"
    return False


def _process_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def slurm_states() -> dict[str, str] | None:
    """What Slurm says of the user's jobs that it has not done with.

    Returns:
        For example PENDING or RUNNING, by number such as ``7`` or ``7_0``; None where there is no
        Slurm to ask.
    """
    # asked for by number, a job that Slurm has forgotten would be an error
    command = ["squeue", "--me", "--noheader", "--array", "--format", "%i %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip())
