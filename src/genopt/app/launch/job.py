"""One job of a sweep, in the process that runs it."""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction

from genopt.app.launch.shared import Job, Outcome, failed
from genopt.errors import GenoptError

_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def run_one(job: Job, context: HydraContext, task: TaskFunction) -> Outcome:
    """Run a job as Hydra does.

    Args:
        job: the job.
        context: Hydra's own.
        task: what it runs.

    Returns:
        How it ended; an error is an outcome too.
    """
    try:
        done = run_job(
            hydra_context=context,
            task_function=task,
            config=job.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except Exception as error:
        return failed(job, error)
    value = done._return_value
    if done.status == JobStatus.FAILED:
        value = sendable(value)
    return Outcome(
        overrides=done.overrides,
        cfg=done.cfg,
        hydra_cfg=done.hydra_cfg,
        working_dir=done.working_dir,
        task_name=done.task_name,
        status=done.status,
        _return_value=value,
    )


def run_elsewhere(
    job: Job, context: HydraContext, task: TaskFunction, state: Mapping[Any, Any]
) -> Outcome:
    """Run a job in a process that Hydra has not prepared.

    Args:
        job: the job.
        context: Hydra's own.
        task: what it runs.
        state: Hydra's singletons of the process that launches.

    Returns:
        How it ended.
    """
    be_prepared(state)
    alone_in_slurm()
    outcome = run_one(job, context, task)
    # the configuration is known where the job comes from, and is most of what would be sent
    outcome.cfg = outcome.hydra_cfg = None
    return outcome


def be_prepared(state: Mapping[Any, Any]) -> None:
    """Give this process what Hydra knows in the one that launches.

    Args:
        state: Hydra's singletons there.
    """
    from genopt.app.compose import prepare

    Singleton.set_state(dict(state))
    setup_globals()
    prepare()


def sendable(error: BaseException) -> BaseException:
    """An error that another process can read.

    Args:
        error: any.

    Returns:
        The error itself, or its text.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return GenoptError(f"{type(error).__name__}: {error}")
    return error


def print_to(log: Path) -> None:
    """Send all that this process prints to a file, also what libraries print.

    Args:
        log: the file; what is there stays.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def limit_threads(threads: int) -> None:
    """Let the numerical libraries of this process use so many threads, and its children too.

    Args:
        threads: how many.
    """
    os.environ.update(dict.fromkeys(_POOLS, str(threads)))
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)


def thread_variables(threads: int) -> dict[str, str]:
    """The variables that libraries read when they are loaded, where the user has not set them.

    Args:
        threads: how many.

    Returns:
        Name to value.
    """
    return {name: str(threads) for name in _POOLS if name not in os.environ}


def alone_in_slurm() -> None:
    """Keep Lightning from taking a job of one process for a rank of several, and from warning.

    Where it sees Slurm it would take over the signals by which submitit sends a job back to the
    queue, and it warns in every process of a machine that has ``srun``.
    """
    if int(os.environ.get("SLURM_NTASKS", "1")) == 1:
        os.environ.pop("SLURM_NTASKS", None)
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
