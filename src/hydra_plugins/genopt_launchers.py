"""Where the jobs of a sweep run; Hydra finds launchers in this package only.

Each class holds its options and hands the jobs to a module of `genopt.app` that is imported when
they start: this file is read whenever Hydra starts, also for ``genopt --help``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genopt.app.launch.shared import CheckedLauncher, Job, Outcome


class BasicLauncher(CheckedLauncher):
    """One job after another, in this process.

    Args:
        check: how far jobs are checked before the first one starts.
    """

    def check_studies(self, jobs: Sequence[Job]) -> dict[int, str]:
        """Build what the studies need before their work, in this process.

        Args:
            jobs: the jobs.

        Returns:
            Reasons by number of the job; empty where all can be built.
        """
        from genopt.app.launch.check import studies_wrong

        return studies_wrong(jobs)

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Run jobs.

        Args:
            jobs: what to run.

        Returns:
            How each ended, in the order of the jobs.
        """
        from genopt.app.launch.job import run_one

        return [self.ended(job, run_one(job, self.context, self.task)) for job in jobs]


class JoblibLauncher(CheckedLauncher):
    """Several jobs at a time on the cores of this machine, each in a process of its own.

    Args:
        n_jobs: how many at a time; None for as many as there are cores (or graphics cards, where
            the jobs ask for one).
        check: how far jobs are checked before the first one starts.
    """

    def __init__(self, n_jobs: int | None, check: str) -> None:
        super().__init__(check)
        self.n_jobs = n_jobs

    def prepare(self) -> None:
        """Begin to import what the jobs need."""
        from genopt.app.launch.local import warm_up

        warm_up()

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Run jobs.

        Args:
            jobs: what to run.

        Returns:
            How each ended, in the order of the jobs.
        """
        from genopt.app.launch.local import run_side_by_side

        return run_side_by_side(self, jobs, self.n_jobs)


class SubmititLauncher(CheckedLauncher):
    """Jobs through submitit on this machine, or on a cluster with Slurm.

    Args:
        cluster: ``local`` or ``slurm``.
        check: how far jobs are checked before the first one starts.
        **options: see `genopt.app.schema.launch`.
    """

    def __init__(self, cluster: str, check: str, **options: Any) -> None:
        super().__init__(check)
        self.cluster, self.options = cluster, options

    @property
    def ranks(self) -> int:
        """How many processes a job has."""
        return int(self.options.get("tasks_per_node") or 1) * int(self.options.get("nodes") or 1)

    def require(self) -> None:
        """Refuse to begin without what the launcher needs."""
        from genopt.app.launch.submitit_jobs import check_cluster

        check_cluster(self.cluster)

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Run jobs.

        Args:
            jobs: what to run.

        Returns:
            How each ended, in the order of the jobs.
        """
        if self.cluster == "local":
            from genopt.app.launch.submitit_jobs import run_here

            return run_here(self, jobs, self.options)
        from genopt.app.launch.slurm import run_on_slurm

        return run_on_slurm(self, jobs, self.options)


class RayLauncher(CheckedLauncher):
    """Jobs as tasks of Ray, on this machine or on a cluster of Ray.

    Args:
        check: how far jobs are checked before the first one starts.
        **options: see `genopt.app.schema.launch`.
    """

    def __init__(self, check: str, **options: Any) -> None:
        super().__init__(check)
        self.options = options

    def require(self) -> None:
        """Refuse to begin without what the launcher needs."""
        from genopt.app.launch.ray_jobs import check_ray

        check_ray()

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Run jobs.

        Args:
            jobs: what to run.

        Returns:
            How each ended, in the order of the jobs.
        """
        from genopt.app.launch.ray_jobs import run_on_ray

        return run_on_ray(self, jobs, self.options)
