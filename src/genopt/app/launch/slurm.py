"""Jobs as one array of Slurm: submitted and left, or watched until the last has ended."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobStatus

from genopt.app.launch.screen import JobTable, tell
from genopt.app.launch.shared import Job, Outcome, waits
from genopt.app.launch.submitit_jobs import LOGS, died, new_executor, result_of, submissions
from genopt.errors import GenoptError

if TYPE_CHECKING:
    from genopt.app.launch.shared import CheckedLauncher

# looks at the queue in which a job is neither there nor has left a result, before it counts as dead
_PATIENCE = 3


def run_on_slurm(
    launcher: CheckedLauncher, jobs: Sequence[Job], options: Mapping[str, Any]
) -> list[Outcome]:
    """Submit jobs as one array.

    Args:
        launcher: which has them.
        jobs: what to run.
        options: see `genopt.app.schema.launch.SlurmSchema`.

    Returns:
        How each ended, in the order of the jobs; of jobs that are only submitted nothing is known.
    """
    assert launcher.config is not None
    root, stay = jobs[0].root, waits(launcher.config)
    outcomes = {job.number: _unknown(job) for job in jobs}
    new = _not_there(root, jobs)
    if len(new) < len(jobs):
        tell(f"{len(jobs) - len(new)} jobs are queued or running already: they are left alone")
    if new:
        submitted = _submitted(launcher, new, options)
        array = submitted[0].job_id.partition("_")[0]
        if stay:
            try:
                outcomes |= _watched(launcher, new, submitted, float(options["poll_s"]))
            except KeyboardInterrupt:
                sys.exit(f"genopt: stopped waiting; the jobs go on, `scancel {array}` stops them")
        else:
            tell(_what_now(root, array, len(new), int(options["array_parallelism"])))
    return [outcomes[job.number] for job in jobs]


def _unknown(job: Job) -> Outcome:
    return Outcome(overrides=list(job.overrides), cfg=job.config, status=JobStatus.UNKNOWN)


def _not_there(root: Path, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that neither run nor wait from an earlier command."""
    from genopt.app.folder import RUNNING
    from genopt.app.jobs import read_jobs

    sweep, queue = read_jobs(root), queued() or {}
    there = {
        planned.folder
        for planned in sweep.jobs
        if planned.slurm in queue or sweep.study(planned).state == RUNNING
    }
    return [job for job in jobs if job.folder not in there]


def _submitted(
    launcher: CheckedLauncher, jobs: Sequence[Job], options: Mapping[str, Any]
) -> list[Any]:
    """Give Slurm the jobs, and write down their numbers."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from genopt.app.jobs import record_submitted

    root = jobs[0].root
    own = ("partition", "account", "qos", "constraint", "exclude", "array_parallelism")
    try:
        executor = new_executor(
            "slurm",
            root,
            options["requeue"],
            name="genopt",
            timeout_min=options["timeout_min"],
            cpus_per_task=options["cpus_per_task"],
            gpus_per_node=options["gpus_per_node"],
            mem_gb=options["mem_gb"],
            nodes=options["nodes"],
            tasks_per_node=options["tasks_per_node"],
            slurm_signal_delay_s=options["signal_delay_s"],
            slurm_additional_parameters=dict(options["additional_parameters"]),
            slurm_setup=list(options["setup"]),
            **{f"slurm_{name}": options[name] for name in own},
        )
        submitted: list[Any] = executor.submit_array(submissions(launcher, jobs))
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        said = str(error).strip().splitlines() or ["no reason given"]
        raise GenoptError(f"Slurm refused the jobs: {said[-1]}") from error
    record_submitted(root, {j.folder: s.job_id for j, s in zip(jobs, submitted, strict=True)})
    return submitted


def _what_now(root: Path, array: str, count: int, parallelism: int) -> str:
    at_once = f", at most {parallelism} at a time" if parallelism < count else ""
    return "\n".join(
        [
            f"submitted {count} jobs to Slurm as {array}{at_once}",
            f"  squeue -j {array}    how far they are",
            f"  genopt-report {root} --watch    what they find, as they go",
            f"  scancel {array}    stops them; the same command goes on, or genopt-report --failed",
            f"  logs: {root / LOGS}/{array}*",
        ]
    )


# -- waiting ---------------------------------------------------------------------------------------
def _watched(
    launcher: CheckedLauncher, jobs: Sequence[Job], submitted: Sequence[Any], pause: float
) -> dict[int, Outcome]:
    """Wait for all jobs; one that Slurm no longer knows and that left no result has died."""
    waiting = {job.number: (job, own) for job, own in zip(jobs, submitted, strict=True)}
    missed = dict.fromkeys(waiting, 0)
    outcomes: dict[int, Outcome] = {}
    with JobTable(jobs) as table:
        while waiting:
            queue = queued()
            for number, (job, own) in list(waiting.items()):
                outcome = result_of(own, job)
                there = queue is None or own.job_id in queue
                missed[number] = 0 if there else missed[number] + 1
                if outcome is None and missed[number] >= _PATIENCE:
                    outcome = died(own, job, f"Slurm ended job {own.job_id}{_why(own.job_id)}")
                if outcome is None:
                    table.show(job, (queue or {}).get(own.job_id, "?").lower())
                    continue
                del waiting[number]
                outcomes[number] = launcher.ended(job, outcome, table)
            if waiting:
                time.sleep(pause)
    return outcomes


def queued() -> dict[str, str] | None:
    """The jobs of this user that Slurm has not done with.

    Returns:
        States such as RUNNING by number such as ``7_0``; None where Slurm does not answer.
    """
    said = _asked("squeue", "--me", "--noheader", "--array", "--format", "%i %T")
    if said is None:
        return None
    return dict(line.split(maxsplit=1) for line in said.splitlines() if line.strip())


def _why(number: str) -> str:
    """What the accounts say of a job's end; nothing on a cluster that keeps none."""
    said = _asked("sacct", "--noheader", "--allocations", "--jobs", number, "--format", "State%30")
    return f" ({said.strip().splitlines()[0].strip()})" if said and said.strip() else ""


def _asked(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
