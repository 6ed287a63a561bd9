"""The jobs of a sweep: composed and checked all together, written down, then run somewhere.

What differs between launchers is `CheckedLauncher.run` alone. Nothing here imports torch: a command
that only submits jobs stays light.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from genopt.errors import GenoptError, UnknownNameError

if TYPE_CHECKING:
    from genopt.app.launch.screen import JobTable

CHECKS = ("composition", "study")
# sweepers that have no use for the results of jobs
_PLAIN = ("BasicSweeper", "GridSweeper", "RecordedSweeper")
_SHOWN = 10


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Args:
        number: its place in the sweep.
        overrides: what its command line says.
        config: the composed configuration, with Hydra's own node.
        folder: of its study, relative to the sweep's.
        label: what tells it from the other jobs, for people.
    """

    number: int
    overrides: tuple[str, ...]
    config: DictConfig
    folder: str
    label: str = ""

    @property
    def root(self) -> Path:
        """The folder of its sweep."""
        return Path(str(self.config.hydra.sweep.dir))

    @property
    def path(self) -> Path:
        """The folder of its study."""
        return self.root / self.folder

    @property
    def log(self) -> Path:
        """What it prints, where it does not print to the terminal."""
        return self.root / "logs" / f"{self.folder.replace('/', '-')}.log"

    @property
    def threads(self) -> int:
        """How many threads it computes with."""
        return max(int(self.config.threads), 1)


class Outcome(JobReturn):
    """How a job ended; a failed one has no value, and says why in `error`.

    Hydra's own class raises the error of the first failed job at whoever asks for its value, which
    would end the sweep and its report.
    """

    @property
    def return_value(self) -> Any:
        """What the job returned; not a number where it failed, or has only been submitted."""
        return self._return_value if self.status == JobStatus.COMPLETED else float("nan")

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value

    @property
    def error(self) -> BaseException | None:
        """Why it failed."""
        return self._return_value if self.status == JobStatus.FAILED else None


def failed(job: Job, error: BaseException) -> Outcome:
    """The outcome of a job that could not be run to its end.

    Args:
        job: the job.
        error: why.

    Returns:
        The outcome.
    """
    return Outcome(
        overrides=list(job.overrides), cfg=job.config, status=JobStatus.FAILED, _return_value=error
    )


class CheckedLauncher(Launcher):
    """What all launchers share.

    Args:
        check: how far jobs are checked before the first one starts: ``composition`` reads their
            settings; ``study`` also builds their problem, goal, table and model.
    """

    def __init__(self, check: str = "composition") -> None:
        super().__init__()
        if check not in CHECKS:
            raise UnknownNameError("hydra.launcher.check", check, CHECKS)
        self.check = check
        self.config: DictConfig | None = None
        self.planned: dict[int, Job] = {}

    @property
    def ranks(self) -> int:
        """How many processes a job has."""
        return 1

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        """Remember what Hydra gives.

        Args:
            hydra_context: loader and callbacks.
            task_function: what a job runs.
            config: the sweep's configuration.
        """
        self.context, self.task, self.config = hydra_context, task_function, config

    def require(self) -> None:
        """Refuse to begin without what the launcher needs, such as a package."""

    def prepare(self) -> None:
        """Begin what takes time while the jobs are being composed."""

    def check_studies(self, jobs: Sequence[Job]) -> dict[int, str]:
        """Build what the studies need before their work, in a process that imports torch for it.

        Args:
            jobs: the jobs.

        Returns:
            Reasons by number of the job; empty where all can be built.
        """
        from genopt.app.launch.check import studies_wrong
        from genopt.app.launch.local import where_torch_is

        return dict(where_torch_is(studies_wrong, list(jobs)) if jobs else {})

    @abstractmethod
    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Run jobs.

        Args:
            jobs: what to run.

        Returns:
            How each ended, in the order of the jobs.
        """

    def plan(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Job]:
        """Compose and check jobs and write them down; what is known from before is kept.

        Args:
            job_overrides: what the command line of each job says.
            initial_job_idx: number of the first one.

        Returns:
            The jobs.

        Raises:
            GenoptError: if a job cannot be run; none has started then.
        """
        from genopt.app.jobs import PlannedJob, record_jobs
        from genopt.app.launch.check import checked_jobs

        assert self.config is not None
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        known = [self.planned.get(number) for number in numbers]
        found = [job for job in known if job is not None]
        if [job.overrides for job in found] == [tuple(words) for words in job_overrides]:
            return found
        setup_globals()
        self.require()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        jobs = checked_jobs(self, self.config, job_overrides, initial_job_idx)
        root = Path(str(self.config.hydra.sweep.dir))
        root.mkdir(parents=True, exist_ok=True)
        planned = [PlannedJob(job.number, job.folder, job.overrides) for job in jobs]
        record_jobs(root, planned, command=sys.argv)
        self.planned |= {job.number: job for job in jobs}
        return jobs

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Plan jobs and run them.

        Args:
            job_overrides: what the command line of each job says.
            initial_job_idx: number of the first one.

        Returns:
            How each ended.

        Raises:
            GenoptError: if a job cannot be run; none has started then.
        """
        from genopt.app.jobs import sweeping

        assert self.config is not None
        jobs = self.plan(job_overrides, initial_job_idx)
        with sweeping(Path(str(self.config.hydra.sweep.dir))):
            outcomes = self.run(jobs)
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return outcomes

    def ended(self, job: Job, outcome: Outcome, table: JobTable | None = None) -> Outcome:
        """Say that a job has ended, where that is worth a line.

        Args:
            job: the job.
            outcome: how it ended.
            table: where the job is shown.

        Returns:
            The outcome.
        """
        from genopt.app.launch.screen import FAILED, FINISHED, tell

        if table is not None:
            table.show(job, FINISHED if outcome.error is None else FAILED)
        if outcome.error is not None:
            tell(f"job {job.number} ({job.label}) failed: {in_a_line(outcome.error)}")
        return outcome


def varied_words(job_overrides: Sequence[Sequence[str]]) -> list[str]:
    """What tells jobs apart, for people.

    Args:
        job_overrides: what the command line of each job says.

    Returns:
        For each job the words that not all of them have; all of its words where there is only one.
    """
    shared = set.intersection(*(set(words) for words in job_overrides))
    shared = shared if len(job_overrides) > 1 else set()
    return [
        " ".join(word for word in words if word not in shared and not word.startswith("hydra"))
        for words in job_overrides
    ]


def in_a_line(error: BaseException) -> str:
    """An error for people.

    Args:
        error: what a job raised.

    Returns:
        One line.
    """
    from genopt.app.messages import explain

    lines = (explain(error) or f"{type(error).__name__}: {error}").strip().splitlines()
    return lines[0] if lines else type(error).__name__


def waits(config: DictConfig) -> bool:
    """Whether a sweep stays until its jobs have ended.

    Args:
        config: the sweep's configuration.

    Returns:
        False for jobs that are only submitted.

    Raises:
        GenoptError: if the sweeper needs results that it would not get.
    """
    wait = config.hydra.launcher.get("wait", True)
    target = str(config.hydra.sweeper.get("_target_", ""))
    plain = target.endswith(_PLAIN)
    if wait is False and not plain:
        raise GenoptError(
            f"the sweeper {target.rpartition('.')[2]} chooses jobs by the results of others: "
            "hydra.launcher.wait=false cannot be; leave it out"
        )
    return not plain if wait is None else bool(wait)


class SweepEnd(Callback):
    """Hydra's callback that ends a sweep with an error where jobs did not finish."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the states of the jobs, and leave with a message where some are not finished.

        Args:
            config: the sweep's configuration.
            **kwargs: whatever else Hydra passes.
        """
        root = Path(str(config.hydra.sweep.dir))
        # a search goes on past trials that fail or are pruned, and has said so itself
        if not waits(config) or (root / "search.json").exists():
            return
        message = unfinished(root)
        if message:
            sys.exit(f"genopt: {message}")


def unfinished(root: Path) -> str:
    """Which jobs of a sweep did not finish, and what to do about it.

    Args:
        root: the sweep's folder.

    Returns:
        Lines of text; empty where all are finished.
    """
    from genopt.app.jobs import read_jobs

    sweep = read_jobs(root)
    left = sweep.unfinished()
    if not left:
        return ""
    states = sweep.states()
    lines = []
    labels = dict(zip(sweep.jobs, varied_words([j.overrides for j in sweep.jobs]), strict=True))
    for job in left[:_SHOWN]:
        why = str(sweep.study(job).status.get("error") or "").strip().splitlines()
        said = states[job.folder] + (f": {why[0]}" if why else "")
        lines.append(f"  job {job.number} ({labels[job]}) {said}")
    if len(left) > _SHOWN:
        lines.append(f"  and {len(left) - _SHOWN} more")
    return "\n".join(
        [
            f"{len(left)} of {len(sweep.jobs)} jobs did not finish:",
            *lines,
            f"genopt-report {root} --failed runs them again with the same settings",
        ]
    )
