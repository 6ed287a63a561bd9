"""Jobs as tasks of Ray, straight on its own interface: on this machine, or on a cluster of Ray.

The plugin `hydra-ray-launcher` asks for a cloudpickle older than joblib's, so the two cannot be
installed together.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import env_override

from genopt.app.launch.job import limit_threads, print_to, run_elsewhere
from genopt.app.launch.screen import JobTable
from genopt.app.launch.shared import Job, Outcome, failed
from genopt.errors import GenoptError

if TYPE_CHECKING:
    from genopt.app.launch.shared import CheckedLauncher

# Ray would send figures of its use over the network, and warns of what the next version changes
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


def check_ray() -> None:
    """Refuse to begin without Ray.

    Raises:
        GenoptError: if it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise GenoptError(
            "launcher=ray needs Ray: pip install 'genopt[ray]', or choose launcher=joblib"
        )


def run_on_ray(
    launcher: CheckedLauncher, jobs: Sequence[Job], options: Mapping[str, Any]
) -> list[Outcome]:
    """Run jobs as tasks of Ray.

    Args:
        launcher: which has them.
        jobs: what to run.
        options: see `genopt.app.schema.launch.RayLauncherSchema`.

    Returns:
        How each ended, in the order of the jobs.

    Raises:
        GenoptError: if no cluster is at the address, or this machine can never run such a job.
    """
    import ray

    if not ray.is_initialized():
        # it stays until this process ends: a search launches many batches
        with env_override(_SETTINGS):
            _begin(ray, options)
    # a process of its own for each job with a card: torch keeps the cards that it saw first
    task = ray.remote(
        num_cpus=options["cpus_per_job"],
        num_gpus=options["gpus_per_job"],
        max_retries=options["max_retries"],
        max_calls=1 if options["gpus_per_job"] else 0,
    )(_job_task)
    common = ray.put((launcher.context, launcher.task, Singleton.get_state()))
    running = {task.remote(job, common, os.getcwd()): job for job in jobs}
    outcomes: dict[int, Outcome] = {}
    with JobTable(jobs) as table:
        for job in jobs:
            table.show(job, "in Ray")
        while running:
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(done)
            outcomes[job.number] = launcher.ended(job, _outcome(ray, done, job), table)
    return [outcomes[job.number] for job in jobs]


def _begin(ray: Any, own: Mapping[str, Any]) -> None:
    """Connect to a cluster, or start one that only this machine can reach."""
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if own["address"] is None:
        options |= {
            "num_cpus": own["num_cpus"],
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        options["address"] = own["address"]
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = own["address"] or "this machine"
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise GenoptError(f"Ray does not answer at {where}: {said[0]}") from error
    if own["address"] is None:
        try:
            _check_room(ray, own)
        except GenoptError:
            ray.shutdown()
            raise


def _check_room(ray: Any, own: Mapping[str, Any]) -> None:
    """Refuse what this machine could never run: Ray would wait for ever."""
    there = ray.cluster_resources()
    for name, key in (("CPU", "cpus_per_job"), ("GPU", "gpus_per_job")):
        if own[key] > there.get(name, 0):
            raise GenoptError(
                f"hydra.launcher.{key}={own[key]:g}, but there are "
                f"{there.get(name, 0):g}: no job could start"
            )


def _outcome(ray: Any, done: Any, job: Job) -> Outcome:
    try:
        outcome: Outcome = ray.get(done)
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        return failed(job, GenoptError(f"its process died: {said[0]}"))
    outcome.cfg = job.config
    return outcome


def _job_task(job: Job, common: Any, folder: str) -> Outcome:
    """What a process of Ray does."""
    os.chdir(folder)
    print_to(job.log)
    limit_threads(job.threads)
    context, task, state = common
    return run_elsewhere(job, context, task, state)
