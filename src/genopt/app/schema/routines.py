"""The types of the routines' options; each has a file of its name in conf/routine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING


@dataclass
class ConditionSchema:
    """The routine of the mixture."""

    _target_: str = MISSING
    _partial_: bool = True
    samples: int = MISSING
    targets: int = MISSING
    highest_density: float = MISSING
    abstain: Any = None
    constraints: Any = None
    constraint_method: str = MISSING
    constraint_tries: int = MISSING


@dataclass
class GenerateSchema:
    """The routine of the flow."""

    _target_: str = MISSING
    _partial_: bool = True
    samples: int = MISSING
    targets: int = MISSING
    guidance: float = MISSING
    highest_density: float = MISSING
    abstain: Any = None
    constraints: Any = None
    constraint_method: str = MISSING
    constraint_tries: int = MISSING
    trajectory: bool = MISSING


@dataclass
class OptimizeLatentSchema:
    """The routine of the multi-task model."""

    _target_: str = MISSING
    _partial_: bool = True
    starts: int = MISSING
    restarts: int = MISSING
    steps: int = MISSING
    optimizer: str = MISSING
    lr: float = MISSING
    perturbation_std: float = MISSING
    space: str = MISSING
    ae_task_name: str | None = None
    density_penalty: float = MISSING
    density: str = MISSING
    spread_penalty: float = MISSING
    diverse: float | None = None
    trajectory: bool = MISSING


@dataclass
class HybridSchema:
    """Draws of a flow or mixture, finished on a surrogate."""

    _target_: str = MISSING
    _partial_: bool = True
    surrogate: Any = None
    polish: int = MISSING
    samples: int = MISSING
    radius: float = MISSING
    steps: int = MISSING
    optimizer: str = MISSING
    lr: float = MISSING
    diverse: float | None = None
    keep: int | None = None


@dataclass
class NearestSchema:
    """The nearest measured rows."""

    _target_: str = MISSING
    _partial_: bool = True
    rows: int = MISSING


@dataclass
class StationarySchema:
    """All stationary points."""

    _target_: str = MISSING
    _partial_: bool = True
    engine: str = MISSING
    samples: int = MISSING
    rounds: int = MISSING
    rows: int = MISSING
    constraints: Any = None
    bounds: bool = MISSING
    multipliers: list[str] = MISSING
    barrier: float = MISSING
    steps: int = MISSING
    tolerance: float = MISSING
    distinct: float = MISSING


@dataclass
class RefineSchema:
    """The routine that improves proposals on the simulator."""

    _target_: str = MISSING
    _partial_: bool = True
    proposals: int = MISSING
    method: str = MISSING
    steps: int = MISSING
    tolerance: float = MISSING
    difference: float | None = None
    constraints: Any = None
    distance: float = MISSING


@dataclass
class MultistartSchema:
    """The classical baseline."""

    _target_: str = MISSING
    _partial_: bool = True
    starts: int = MISSING
    method: str = MISSING
    steps: int = MISSING
    tolerance: float = MISSING
    difference: float | None = None
    distance: float = MISSING


@dataclass
class SpaceMapSchema:
    """A region of outputs mapped back to designs."""

    _target_: str = MISSING
    _partial_: bool = True
    region: Any = None
    samples: int = MISSING
    draws: int = MISSING
    abstain: Any = None
    refine: bool = MISSING


@dataclass
class SpaceMappingSchema:
    """A learned model corrected to the simulator."""

    _target_: str = MISSING
    _partial_: bool = True
    method: str = MISSING
    calls: int = MISSING
    tolerance: float = MISSING


@dataclass
class ParetoSchema:
    """A front of trade-offs."""

    _target_: str = MISSING
    _partial_: bool = True
    method: str = MISSING
    n: int = MISSING
    budget: int | None = None
    directions: int | None = None
    starts: int = MISSING
    steps: int = MISSING
    lr: float = MISSING
    caution: float = MISSING
    stretch: float = MISSING
    guidance: float = MISSING
    reference: Any = None


@dataclass
class ActiveSchema:
    """The loop of learning and simulating."""

    _target_: str = MISSING
    _partial_: bool = True
    batch: int = MISSING
    budget: int = MISSING
    acquisition: str = MISSING
    optimism: float = MISSING
    surrogate: str = MISSING
    proposals: Any = MISSING
    retrain: int | None = None
    trust_region: Any = MISSING
    explore: float = MISSING
    keep: int = MISSING


@dataclass
class OfflineRoutineSchema:
    """Designs beyond the data."""

    _target_: str = MISSING
    _partial_: bool = True
    proposals: int | None = None
    surrogate: str = MISSING
    pessimism: float = MISSING
    beyond: float = MISSING
