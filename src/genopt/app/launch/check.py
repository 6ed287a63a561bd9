"""All jobs of a sweep composed and checked before the first one starts."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from genopt.app.launch.shared import Job, varied_words
from genopt.app.messages import explain
from genopt.errors import GenoptError

if TYPE_CHECKING:
    from genopt.app.launch.shared import CheckedLauncher

_SHOWN = 10
# what does not decide whether a study can be built
_FREE = (
    "seed",
    "trainer",
    "callbacks",
    "logger",
    "paths",
    "threads",
    "figures",
    "progress",
    "rerun",
    "top",
    "reach",
)


def checked_jobs(
    launcher: CheckedLauncher,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
) -> list[Job]:
    """Compose and check all jobs.

    Args:
        launcher: which runs them.
        config: the sweep's configuration.
        job_overrides: what the command line of each job says.
        first: number of the first one.

    Returns:
        The jobs.

    Raises:
        GenoptError: if any cannot be run; it names all of them, with their reasons.
    """
    before = HydraConfig.instance().cfg
    labels = varied_words(job_overrides)
    jobs: list[Job] = []
    wrong: dict[tuple[int, str], str] = {}
    try:
        for number, (overrides, label) in enumerate(zip(job_overrides, labels, strict=True), first):
            try:
                job = composed(launcher, config, number, list(overrides), label)
                _check_settings(job, launcher.ranks)
            except Exception as error:
                reason = explain(error, overrides)
                if reason is None:
                    raise
                wrong[number, label] = reason
                continue
            jobs.append(job)
            if len(jobs) == 1:
                launcher.prepare()
    finally:
        HydraConfig.instance().cfg = before
    for job, other in _sharing(jobs):
        wrong[job.number, job.label] = (
            f"has the folder {job.folder} of job {other.number}: they differ only in keys that do "
            "not name a folder; leave one out, or set hydra.sweep.subdir"
        )
    if not wrong and launcher.check == "study":
        found = launcher.check_studies([job for job in jobs if not _is_finished(job)])
        wrong = {(job.number, job.label): found[job.number] for job in jobs if job.number in found}
    if wrong:
        raise GenoptError(_in_words(wrong, len(job_overrides)))
    return jobs


def composed(
    launcher: CheckedLauncher, config: DictConfig, number: int, overrides: list[str], label: str
) -> Job:
    """One job of a sweep.

    Args:
        launcher: which runs it.
        config: the sweep's configuration.
        number: its place.
        overrides: what its command line says.
        label: what tells it from the others.

    Returns:
        The job; its folder is fixed, wherever it runs.
    """
    loader = launcher.context.config_loader
    own = loader.load_sweep_config(config, overrides)
    with open_dict(own):
        own.hydra.job.id = str(number)
        own.hydra.job.num = number
        # not by set_config, whose copy would not see what follows
        known: Any = HydraConfig.instance()
        known.cfg = own
        folder = str(own.hydra.sweep.subdir)
        with read_write(own.hydra):
            own.hydra.sweep.subdir = folder
            # known early: paths of the study hang on it
            own.hydra.runtime.output_dir = os.path.abspath(f"{own.hydra.sweep.dir}/{folder}")
    return Job(number, tuple(overrides), own, folder, label)


def _check_settings(job: Job, ranks: int) -> None:
    """Find what is wrong with a job without building anything."""
    from genopt.app.compose import used_parts
    from genopt.app.distributed import check_strategy
    from genopt.app.early import check_early

    used = used_parts(job.config, list(job.overrides))
    with open_dict(used):
        used.paths.study = str(job.path)
    OmegaConf.to_container(used, resolve=True)
    if ranks == 1:
        check_strategy(used, multirun=True)
    check_early(used)


def studies_wrong(jobs: Sequence[Job]) -> dict[int, str]:
    """Build what each study needs before its work, and throw it away.

    Args:
        jobs: the jobs; those that differ in their seeds alone are built once.

    Returns:
        Reasons by number of the job; empty where all can be built.
    """
    reasons: dict[str, str | None] = {}
    wrong: dict[int, str] = {}
    for job in jobs:
        HydraConfig.instance().set_config(job.config)
        key = _key(job)
        if key not in reasons:
            reasons[key] = _study_wrong(job)
        reason = reasons[key]
        if reason is not None:
            wrong[job.number] = reason
    return wrong


def _study_wrong(job: Job) -> str | None:
    from genopt.app.compose import is_auto, used_parts
    from genopt.app.parts import make
    from genopt.app.setting import Setting
    from genopt.app.training import check_folds, new_model
    from genopt.routines.checks import check_routine

    config = used_parts(job.config, list(job.overrides))
    with open_dict(config):
        config.paths.study = str(job.path)
    if "near" in config.data:
        # such rows cost simulations
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setting = Setting.of(config)
            if is_auto(config) or config.checkpoint is not None:
                return None
            model = new_model(config.model, setting, "model")
            if config.data.folds is not None:
                check_folds(config, model)
            routine = make(config.routine, "routine")
            check_routine(routine, model, setting.goal, False, setting.problem)
    except Exception as error:
        return explain(error, job.overrides) or f"{type(error).__name__}: {error}"
    return None


def _key(job: Job) -> str:
    plain: Any = OmegaConf.to_container(job.config, resolve=False)
    kept = {k: v for k, v in plain.items() if k not in (*_FREE, "hydra")}
    return json.dumps(kept, sort_keys=True, default=str)


def _is_finished(job: Job) -> bool:
    from genopt.app.folder import FINISHED, StudyFolder

    return StudyFolder(job.path).state == FINISHED


def _sharing(jobs: Sequence[Job]) -> list[tuple[Job, Job]]:
    """Jobs whose folder belongs to an earlier one."""
    owners: dict[str, Job] = {}
    out = []
    for job in jobs:
        other = owners.setdefault(job.folder, job)
        if other is not job:
            out.append((job, other))
    return out


def _in_words(wrong: Mapping[tuple[int, str], str], count: int) -> str:
    """All reasons, each once with the jobs that have it."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for job, reason in sorted(wrong.items()):
        groups.setdefault(reason, []).append(job)
    lines = []
    for reason, jobs in list(groups.items())[:_SHOWN]:
        number, label = jobs[0]
        more = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
        lines.append(f"  job {number}{more} ({label}): {reason}")
    if len(groups) > _SHOWN:
        lines.append(f"  and {len(groups) - _SHOWN} other reasons")
    head = f"{len(wrong)} of {count} jobs cannot run; none has started:"
    return "\n".join([head, *lines])
