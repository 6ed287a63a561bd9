"""The plan of a sweep that has no ``sweep.json``: read off the files that Hydra leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genopt.app.jobs import PlannedJob, Sweep

_PLAN = "multirun.yaml"
_GRIDS = ("BasicSweeper", "GridSweeper")


def read_hydra_files(sweep_dir: Path) -> Sweep | None:
    """The jobs whose folders are there, and those that a grid still lacks.

    Args:
        sweep_dir: the sweep's folder.

    Returns:
        The sweep; None where the folder is not one.
    """
    path = sweep_dir / _PLAN
    if not path.exists():
        return None
    plan: Any = OmegaConf.load(path)
    begun = {tuple(sorted(job.overrides)): job for job in _begun(sweep_dir)}
    jobs = []
    for number, overrides in enumerate(_grid(plan)):
        job = begun.pop(tuple(sorted(overrides)), None)
        folder = job.folder if job else _folder(overrides)
        jobs.append(PlannedJob(number, folder, tuple(overrides)))
    words = [*plan.hydra.overrides.hydra, *plan.hydra.overrides.task]
    own = [s.path for s in plan.hydra.runtime.config_sources if s.provider == "command-line"]
    return Sweep(
        sweep_dir,
        (*jobs, *begun.values()),
        (*(f"--config-dir={path}" for path in own), *map(str, words)),
        str(plan.hydra.runtime.cwd),
    )


def _begun(sweep_dir: Path) -> list[PlannedJob]:
    found: list[PlannedJob] = []
    for path in sorted(sweep_dir.rglob(".hydra/overrides.yaml")):
        folder = path.parents[1].relative_to(sweep_dir)
        if "previous" in folder.parts:
            continue
        hydra: Any = OmegaConf.load(path.with_name("hydra.yaml"))
        number = int(OmegaConf.select(hydra, "hydra.job.num", default=len(found)))
        overrides = tuple(map(str, OmegaConf.load(path)))
        found.append(PlannedJob(number, folder.as_posix(), overrides))
    return sorted(found, key=lambda job: (job.number, job.folder))


def _grid(plan: DictConfig) -> list[list[str]]:
    """All jobs of a grid; none where a sweeper thought them up as it went."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not str(plan.hydra.sweeper.get("_target_", "")).endswith(_GRIDS):
        return []
    params = plan.hydra.sweeper.get("params") or {}
    words = [f"{k}={v}" for k, v in params.items()] + list(map(str, plan.hydra.overrides.task))
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), None)
    return batch


def _folder(overrides: list[str]) -> str:
    """Where a job's study goes, as Hydra would say."""
    from genopt.app.compose import compose_all

    return str(compose_all(overrides).hydra.sweep.subdir)
