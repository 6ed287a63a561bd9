"""Schemas of the launchers: where the jobs of a sweep run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class BasicLauncherSchema:
    """One job after another."""

    _target_: str = MISSING
    check: str = MISSING


@dataclass
class JoblibLauncherSchema:
    """On the cores of this machine."""

    _target_: str = MISSING
    n_jobs: int | None = None
    check: str = MISSING


@dataclass
class SubmititLocalSchema:
    """On this machine, as on a cluster."""

    _target_: str = MISSING
    cluster: str = MISSING
    n_jobs: int | None = None
    timeout_min: int = MISSING
    requeue: int = MISSING
    wait: bool = True
    check: str = MISSING


@dataclass
class SlurmSchema:
    """As an array of Slurm."""

    _target_: str = MISSING
    cluster: str = MISSING
    partition: str | None = None
    timeout_min: int = MISSING
    requeue: int = MISSING
    signal_delay_s: int = MISSING
    array_parallelism: int = MISSING
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    nodes: int = MISSING
    tasks_per_node: int = MISSING
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    setup: list[str] = field(default_factory=list)
    wait: bool | None = None
    poll_s: float = MISSING
    check: str = MISSING


@dataclass
class RayLauncherSchema:
    """As tasks of Ray."""

    _target_: str = MISSING
    address: str | None = None
    num_cpus: int | None = None
    cpus_per_job: float = MISSING
    gpus_per_job: float = MISSING
    max_retries: int = MISSING
    check: str = MISSING


LAUNCHERS: dict[str, tuple[str | None, type]] = {
    "base_basic": ("hydra/launcher", BasicLauncherSchema),
    "base_joblib": ("hydra/launcher", JoblibLauncherSchema),
    "base_submitit_local": ("hydra/launcher", SubmititLocalSchema),
    "base_slurm": ("hydra/launcher", SlurmSchema),
    "base_ray": ("hydra/launcher", RayLauncherSchema),
}
