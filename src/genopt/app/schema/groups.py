"""Schemas: the types of our own configuration groups, so that errors are found before any work.

A YAML file of a group names its schema first in its defaults and adds values. Classes of other
projects (trainer, loggers, callbacks) keep their own signatures and are checked against those.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from genopt.app.schema.launch import LAUNCHERS
from genopt.app.schema.routines import (
    ActiveSchema,
    ConditionSchema,
    GenerateSchema,
    HybridSchema,
    MultistartSchema,
    NearestSchema,
    OfflineRoutineSchema,
    OptimizeLatentSchema,
    ParetoSchema,
    RefineSchema,
    SpaceMappingSchema,
    SpaceMapSchema,
    StationarySchema,
)


@dataclass
class ConfigSchema:
    """Top level of a study."""

    problem: Any = MISSING
    data: Any = MISSING
    model: Any = MISSING
    encoder: Any = MISSING
    heads: Any = MISSING
    network: Any = MISSING
    path: Any = MISSING
    coupling: Any = MISSING
    time_sampling: Any = MISSING
    sampler: Any = MISSING
    judge: Any = None
    routine: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = MISSING
    logger: Any = MISSING
    paths: Any = MISSING
    goal: Any = field(default_factory=dict)
    held_out_goals: int | None = None
    reach: int = 4000
    calibration: int | None = None
    seed: int = 0
    checkpoint: str | None = None
    top: int = 5
    threads: int = 1
    figures: bool = True
    progress: bool = True
    rerun: bool = False


@dataclass
class PathsSchema:
    """Where results go."""

    outputs: str = MISSING
    sweeps: str = MISSING
    study: str = MISSING


@dataclass
class DataSchema:
    """Rows and splits."""

    rows: int | None = None
    validation: float = MISSING
    test: float = MISSING
    folds: int | None = None


@dataclass
class AdaptiveSchema(DataSchema):
    """Rows of a simulator close to the goal."""

    near: Any = MISSING
    rounds: int = MISSING
    share: float = MISSING
    plain: float = MISSING
    unbiased: str = MISSING


@dataclass
class TableProblemSchema:
    """A user's own file."""

    _target_: str = MISSING
    path: str = MISSING
    x: list[str] = MISSING
    y: list[str] = MISSING
    goal: Any = None
    bounds: Any = None
    kinds: Any = None
    labels: Any = None
    units: Any = None
    simplexes: list[list[str]] | None = None
    row_id: str | None = None
    incomplete: str = "learn"


@dataclass
class BigTableSchema:
    """A user's own file that may be larger than memory."""

    _target_: str = MISSING
    path: str = MISSING
    x: list[str] = MISSING
    y: list[str] = MISSING
    goal: Any = None
    bounds: Any = None
    kinds: Any = None
    labels: Any = None
    units: Any = None
    simplexes: list[list[str]] | None = None


@dataclass
class AutoSchema:
    """An engine that is chosen when the table is known."""

    _target_: str = MISSING
    engines: list[str] = MISSING
    overrides: list[str] = MISSING


@dataclass
class MixtureSchema:
    """The Gaussian mixture."""

    _target_: str = MISSING
    _partial_: bool = True
    y_columns: list[str] | None = None
    max_components: int = MISSING
    min_components: int = MISSING
    criterion: str = MISSING
    folds: int | None = None
    patience: int | None = None
    covariance: str = MISSING
    n_factors: int | None = None
    members: int = MISSING
    n_init: int = MISSING
    regularization: float = MISSING
    interpolated_rows: int = MISSING
    n_jobs: int = MISSING


@dataclass
class MultitaskSchema:
    """The multi-task model."""

    _target_: str = MISSING
    _partial_: bool = True
    encoder: Any = MISSING
    heads: Any = MISSING
    task_weights: Any = None
    balance: str = MISSING
    conservative: Any = None
    frozen: list[str] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)
    pretrained: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    patience: int | None = None
    learning_rate: float = MISSING
    weight_decay: float = MISSING
    clip: float = MISSING
    schedule: str = MISSING
    warmup: float = MISSING


@dataclass
class EnsembleSchema(MultitaskSchema):
    """An ensemble of multi-task models."""

    members: int = MISSING
    bootstrap: float | None = None
    calibrate: bool = MISSING


@dataclass
class FlowSchema:
    """The conditional flow."""

    _target_: str = MISSING
    _partial_: bool = True
    network: Any = MISSING
    path: Any = MISSING
    coupling: Any = MISSING
    time_sampling: Any = MISSING
    sampler: Any = MISSING
    condition_dropout: float = MISSING
    given_x: float = MISSING
    x_pca: bool = MISSING
    reflow: bool = MISSING
    draws: int | None = None
    ema: float = MISSING
    epochs: int | None = None
    batch_size: int | None = None
    patience: int | None = None
    learning_rate: float = MISSING
    weight_decay: float = MISSING
    clip: float = MISSING
    schedule: str = MISSING
    warmup: float = MISSING
    compile: Any = MISSING


@dataclass
class NoneSchema:
    """No model."""

    _target_: str = MISSING
    _partial_: bool = True


@dataclass
class WandbSchema:
    """Weights & Biases."""

    _target_: str = MISSING
    save_dir: str = MISSING
    project: str = MISSING
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    offline: bool = MISSING
    checkpoints: bool = MISSING
    system_metrics: bool = MISSING
    summary: bool = MISSING


@dataclass
class MlflowSchema:
    """MLflow."""

    _target_: str = MISSING
    save_dir: str = MISSING
    tracking_uri: str | None = None
    experiment: str = MISSING
    name: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    checkpoints: bool = MISSING


@dataclass
class OfflineSchema:
    """Rows of a simulator without the best ones."""

    _target_: str = MISSING
    of: Any = MISSING
    draw: int = MISSING
    drop_best: float = MISSING
    proposals: int = MISSING


SCHEMAS: dict[str, tuple[str | None, type]] = {
    **LAUNCHERS,
    "base_config": (None, ConfigSchema),
    "base_active": ("routine", ActiveSchema),
    "base_offline_routine": ("routine", OfflineRoutineSchema),
    "base_offline": ("problem", OfflineSchema),
    "base_paths": ("paths", PathsSchema),
    "base_data": ("data", DataSchema),
    "base_adaptive": ("data", AdaptiveSchema),
    "base_table": ("problem", TableProblemSchema),
    "base_big_table": ("problem", BigTableSchema),
    "base_auto": ("model", AutoSchema),
    "base_mixture": ("model", MixtureSchema),
    "base_multitask": ("model", MultitaskSchema),
    "base_ensemble": ("model", EnsembleSchema),
    "base_optimize_latent": ("routine", OptimizeLatentSchema),
    "base_flow": ("model", FlowSchema),
    "base_condition": ("routine", ConditionSchema),
    "base_generate": ("routine", GenerateSchema),
    "base_pareto": ("routine", ParetoSchema),
    "base_none": ("model", NoneSchema),
    "base_wandb": ("logger", WandbSchema),
    "base_mlflow": ("logger", MlflowSchema),
    "base_refine": ("routine", RefineSchema),
    "base_multistart": ("routine", MultistartSchema),
    "base_stationary": ("routine", StationarySchema),
    "base_space_map": ("routine", SpaceMapSchema),
    "base_space_mapping": ("routine", SpaceMappingSchema),
    "base_hybrid": ("routine", HybridSchema),
    "base_nearest": ("routine", NearestSchema),
}


def register(store: ConfigStore) -> None:
    """Make the schemas known to Hydra.

    Args:
        store: Hydra's store of structured configurations.
    """
    for name, (group, node) in SCHEMAS.items():
        store.store(name=name, group=group, node=node)
