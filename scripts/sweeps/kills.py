"""kill -9 at random moments: of a job, of the launcher, of a step of Slurm.

Each sweep is compared with one that nobody disturbed: the same metrics, losses and designs, each
study once. A sweep that was killed is continued by the same command or by `genopt-report --failed`
and killed again, until enough kills have hit.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sweeps.trials import (
    FITS,
    QUICK,
    Study,
    again,
    command,
    jobs_below,
    kill,
    start,
    studies,
    wait_until_gone,
)

_HERE = ("launcher=joblib", "hydra.launcher.n_jobs=2")
_SLURM = ("launcher=slurm", "hydra.launcher.wait=true")
_MOST_ROUNDS = 60
# kills of jobs while one command runs
_AT_ONCE = 4
_STAGES = ("before the study", "in the fit", "after the fit")

Disturb = Callable[[subprocess.Popen[bytes], Path, random.Random, float, Counter[str]], None]


class Lost(AssertionError):
    """A study was lost, repeated or came out differently."""


def section(kills: int = 20) -> str:
    """Markdown of the three kinds of kills; without a cluster the third is left out."""
    kinds: dict[str, tuple[tuple[str, ...], Disturb]] = {
        "a job": (_HERE, kill_jobs),
        "the launcher": (_HERE, kill_launcher),
    }
    note = "No Slurm answered here, so the third kind of kill was left out."
    if shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True).returncode == 0:
        kinds["the Slurm step"] = (_SLURM, kill_steps)
        note = ""
    lines = [
        "## kill -9 at random moments\n",
        "Sweeps of four studies (two multi-task models and two flows that train for ten seconds, "
        "or four mixtures), killed at moments drawn evenly over the time that an undisturbed sweep "
        "takes, continued by the same command or by `genopt-report --failed`, and killed again.\n",
        "| killed | kills | " + " | ".join(_STAGES) + " | sweeps | studies | as undisturbed | "
        "went on | repeated | lost |",
        "|---" * 11 + "|",
    ]
    for name, (launcher, disturb) in kinds.items():
        found = campaign(launcher, disturb, kills, seed=len(lines))
        cells = [found["kills"], *(found[stage] for stage in _STAGES)]
        words = ("sweeps", "studies", "equal", "went on", "repeated", "lost")
        cells += [found[word] for word in words]
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    lines.append(
        "\n*As undisturbed*: metrics, losses of every epoch and all designs are those of the sweep "
        "that nobody killed, to nine digits. *Went on*: studies whose training went on in its "
        "middle, from a checkpoint. *Repeated*: finished studies whose results were written a "
        f"second time. {note}"
    )
    return "\n".join(lines)


def campaign(launcher: tuple[str, ...], disturb: Disturb, kills: int, seed: int) -> Counter[str]:
    """Sweeps that are killed until enough kills have hit."""
    rng, found = random.Random(seed), Counter[str]()
    with _room() as room:
        number = 0
        while found["kills"] < kills:
            words = (FITS, QUICK)[number % 2]
            truth, seconds = _undisturbed(room, words)
            sweep = room / f"sweep{number}"
            disturbed(launcher, words, disturb, sweep, (truth, seconds), rng, found, kills)
            number += 1
    return found


def disturbed(
    launcher: tuple[str, ...],
    words: tuple[str, ...],
    disturb: Disturb,
    sweep: Path,
    undisturbed: tuple[dict[str, Study], float],
    rng: random.Random,
    found: Counter[str],
    kills: int,
) -> None:
    """One sweep, killed and continued until all of its studies are finished."""
    truth, seconds = undisturbed
    for round_ in range(_MOST_ROUNDS):
        before = studies(sweep)
        known = before and rng.random() < 0.5
        line = again(sweep, launcher) if known else command(sweep, words, launcher)
        process = start(line, sweep.with_suffix(".log"))
        if found["kills"] < kills and round_ < _MOST_ROUNDS - 2:
            disturb(process, sweep, rng, seconds, found)
        process.wait()
        after = studies(sweep)
        _compare(before, after, truth, found, sweep)
        states = Counter(study.state for study in after.values())
        _say(f"{found['kills']} kills; {dict(states)}; exit {process.returncode}")
        if after and set(states) == {"finished"}:
            found["sweeps"] += 1
            found["studies"] += len(after)
            found["went on"] += sum(study.went_on for study in after.values())
            found["equal"] += sum(study.like(truth[name]) for name, study in after.items())
            if set(after) != set(truth) or list(sweep.rglob("previous")):
                raise Lost(f"{sweep}: {sorted(after)} instead of {sorted(truth)}")
            return
    raise Lost(f"{sweep} is not finished after {_MOST_ROUNDS} rounds: {studies(sweep)}")


def _compare(
    before: dict[str, Study],
    after: dict[str, Study],
    truth: dict[str, Study],
    found: Counter[str],
    sweep: Path,
) -> None:
    """Finished studies stay as they are, and are what they would have been."""
    for name, study in before.items():
        if study.state != "finished":
            continue
        if name not in after or after[name].state != "finished":
            found["lost"] += 1
            _say(f"LOST {sweep / name}: {after.get(name)}")
        elif after[name].written != study.written:
            found["repeated"] += 1
            _say(f"REPEATED {sweep / name}")
    for name, study in after.items():
        if study.state == "finished" and not study.like(truth[name]):
            _say(f"DIFFERS {sweep / name}")
        if study.state == "running":
            _say(f"STILL RUNNING {sweep / name}")


# -- the three kinds -------------------------------------------------------------------------------
def kill_launcher(
    process: subprocess.Popen[bytes],
    sweep: Path,
    rng: random.Random,
    seconds: float,
    found: Counter[str],
) -> None:
    """Kill the command itself; its jobs must end with it."""
    if not _sleep(process, rng.uniform(0, seconds)):
        return
    jobs = jobs_below(process.pid)
    found[_stage(sweep)] += 1
    found["kills"] += 1
    kill(process.pid)
    process.wait()
    alive = wait_until_gone(jobs)
    if alive:
        raise Lost(f"jobs outlive their launcher: {alive}")


def kill_jobs(
    process: subprocess.Popen[bytes],
    sweep: Path,
    rng: random.Random,
    seconds: float,
    found: Counter[str],
) -> None:
    """Kill jobs, now one and now another, while their launcher lives."""
    hits = 0
    while hits < _AT_ONCE and _sleep(process, rng.uniform(0, seconds / _AT_ONCE)):
        jobs = jobs_below(process.pid)
        if jobs:
            hits += 1
            found[_stage(sweep)] += 1
            found["kills"] += 1
            kill(rng.choice(jobs))


def kill_steps(
    process: subprocess.Popen[bytes],
    sweep: Path,
    rng: random.Random,
    seconds: float,
    found: Counter[str],
) -> None:
    """Kill steps of the array in Slurm, now one and now another, while the launcher waits."""
    hits = 0
    while hits < _AT_ONCE and _sleep(process, rng.uniform(0, seconds / _AT_ONCE)):
        running = _array_tasks(sweep)
        if running:
            hits += 1
            found[_stage(sweep)] += 1
            found["kills"] += 1
            subprocess.run(["scancel", "--signal=KILL", rng.choice(running)], check=False)


def _array_tasks(sweep: Path) -> list[str]:
    """The jobs of a sweep that Slurm runs now."""
    from genopt.app.jobs import MANIFEST, read_jobs
    from genopt.app.lock import slurm_states

    if not (sweep / MANIFEST).exists():
        return []
    states = slurm_states() or {}
    ours = [job.slurm for job in read_jobs(sweep).jobs if job.slurm]
    return sorted(number for number in ours if states.get(number) == "RUNNING")


def _stage(sweep: Path) -> str:
    """How far the running studies are, the farthest counts."""
    from genopt.app.folder import StudyFolder

    found = 0
    for path in sweep.glob("*/status.json"):
        status = StudyFolder(path.parent).status
        if status.get("state") == "running":
            found = max(found, 2 if "fit" in status else 1)
    return _STAGES[found]


# -- around it -------------------------------------------------------------------------------------
_TRUTH: dict[tuple[str, ...], tuple[dict[str, Study], float]] = {}


def _undisturbed(room: Path, words: tuple[str, ...]) -> tuple[dict[str, Study], float]:
    """The sweep that nobody kills, and how long it takes; worked out once."""
    if words not in _TRUTH:
        sweep = room / f"undisturbed{len(_TRUTH)}"
        began = time.monotonic()
        process = start(command(sweep, words, _HERE), sweep.with_suffix(".log"))
        if process.wait() != 0:
            raise Lost(f"the undisturbed sweep failed:\n{sweep.with_suffix('.log').read_text()}")
        _TRUTH[words] = studies(sweep), time.monotonic() - began
        _say(f"undisturbed: {_TRUTH[words][1]:.0f} s")
    return _TRUTH[words]


@contextmanager
def _room() -> Iterator[Path]:
    """A folder for the sweeps; what went wrong stays there."""
    room = Path(tempfile.mkdtemp(prefix="genopt-kills-"))
    yield room
    shutil.rmtree(room)


def _sleep(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait; false where the command ended meanwhile."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _say(text: str) -> None:
    if os.environ.get("GENOPT_KILLS_VERBOSE"):
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
