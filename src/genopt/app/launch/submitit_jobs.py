"""Jobs through submitit: what is submitted, and running it on this machine."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.types import HydraContext, TaskFunction

from genopt.app.launch.job import limit_threads, run_elsewhere
from genopt.app.launch.screen import RUNNING, JobTable
from genopt.app.launch.shared import Job, Outcome, failed
from genopt.errors import GenoptError

if TYPE_CHECKING:
    from genopt.app.launch.shared import CheckedLauncher

LOGS = ".submitit"
_PAUSE = 0.2
_SHOWN = 300


@dataclass
class Submitted:
    """What a process of submitit runs: one job, as often as the cluster starts it.

    Args:
        job: the job.
        context: Hydra's own.
        task: what it runs.
        state: Hydra's singletons of the process that launches.
    """

    job: Job
    context: HydraContext
    task: TaskFunction
    state: Mapping[Any, Any]

    def __call__(self) -> Outcome:
        """Run the job.

        Returns:
            How it ended.
        """
        limit_threads(self.job.threads)
        _let_requeue_finish()
        return run_elsewhere(self.job, self.context, self.task, self.state)

    def checkpoint(self) -> Any:
        """What goes back to the queue when the time is over: the same, for a study goes on itself.

        Returns:
            A new submission.
        """
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _let_requeue_finish() -> None:
    """Keep the command that sends this job back to the queue from being ended by its own effect.

    Slurm answers it by SIGTERM to all processes of the job, which may meet the command before it
    has returned: to submitit, and so to the study, that would be an error.
    """
    number = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
    theirs = signal.getsignal(number)
    if not callable(theirs):
        return

    def ours(signum: int, frame: FrameType | None) -> None:
        # a program inherits what is ignored, but no handler
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        theirs(signum, frame)

    signal.signal(number, ours)


def submissions(launcher: CheckedLauncher, jobs: Sequence[Job]) -> list[Submitted]:
    """What submitit is given.

    Args:
        launcher: which has the jobs.
        jobs: what to run.

    Returns:
        One callable a job.
    """
    state = Singleton.get_state()
    return [Submitted(job, launcher.context, launcher.task, state) for job in jobs]


def check_cluster(cluster: str) -> None:
    """Refuse to begin without submitit, or without Slurm where it is asked for.

    Args:
        cluster: ``local`` or ``slurm``.

    Raises:
        GenoptError: if something is missing; it says what.
    """
    if importlib.util.find_spec("submitit") is None:
        raise GenoptError(
            "this launcher needs submitit: pip install 'genopt[slurm]', or choose launcher=joblib"
        )
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise GenoptError(
            "launcher=slurm needs Slurm, but there is no sbatch on this machine: run the command "
            "where jobs are submitted, or choose launcher=joblib"
        )


def new_executor(cluster: str, root: Path, requeue: int, **options: Any) -> Any:
    """An executor of submitit.

    Args:
        cluster: ``local`` or ``slurm``.
        root: the sweep's folder.
        requeue: how often a job that ran out of time goes on.
        **options: under the names of submitit; None is left out.

    Returns:
        The executor.
    """
    import submitit

    folder = root.absolute() / LOGS / "%j"
    counts = {f"{cluster}_max_num_timeout": requeue}
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, **counts)
    executor.update_parameters(**{k: v for k, v in options.items() if v is not None})
    return executor


def result_of(submitted: Any, job: Job) -> Outcome | None:
    """How a job ended, if it has left its result.

    Args:
        submitted: submitit's own.
        job: the job.

    Returns:
        The outcome; None where there is none yet.
    """
    path = submitted.paths.result_pickle
    if not path.exists():
        return None
    with path.open("rb") as file:
        how, what = pickle.load(file)
    if how != "success":
        return failed(job, GenoptError(str(what).strip().splitlines()[-1]))
    outcome: Outcome = what
    outcome.cfg = job.config
    return outcome


def died(submitted: Any, job: Job, why: str) -> Outcome:
    """The outcome of a job that left no result.

    Args:
        submitted: submitit's own.
        job: the job.
        why: what is known about it.

    Returns:
        The outcome, with the end of the job's log.
    """
    log = submitted.paths.stderr
    try:
        end = log.read_text(errors="replace").strip()[-_SHOWN:].splitlines()
    except OSError:
        end = []
    last = f", which ends: {end[-1].strip()}" if end else ""
    return failed(job, GenoptError(f"{why}; see {log}{last}"))


def run_here(
    launcher: CheckedLauncher, jobs: Sequence[Job], options: Mapping[str, Any]
) -> list[Outcome]:
    """Run jobs on this machine, so many at a time as it has room for.

    Args:
        launcher: which has them.
        jobs: what to run.
        options: see `genopt.app.schema.launch.SubmititLocalSchema`.

    Returns:
        How each ended, in the order of the jobs.
    """
    from genopt.app.launch.local import places

    count = places(jobs, options["n_jobs"], 0)
    executor = new_executor(
        "local", jobs[0].root, options["requeue"], timeout_min=options["timeout_min"]
    )
    waiting = list(zip(jobs, submissions(launcher, jobs), strict=True))
    running: list[tuple[Job, Any]] = []
    outcomes: dict[int, Outcome] = {}
    try:
        with JobTable(jobs) as table:
            while waiting or running:
                while waiting and len(running) < count:
                    job, what = waiting.pop(0)
                    running.append((job, executor.submit(what)))
                    table.show(job, RUNNING)
                time.sleep(_PAUSE)
                for job, submitted in list(running):
                    if submitted.done():
                        outcome = result_of(submitted, job)
                        outcome = outcome or died(submitted, job, "its process died")
                        running.remove((job, submitted))
                        outcomes[job.number] = launcher.ended(job, outcome, table)
    finally:
        for _, submitted in running:
            submitted.cancel()
    return [outcomes[job.number] for job in jobs]
