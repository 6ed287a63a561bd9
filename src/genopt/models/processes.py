"""How many processes a fit asks for, where they run, and who started them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genopt.errors import GenoptError, UnknownNameError

SHARED = ("ddp", "ddp_spawn")
ALONE = ("auto", "single_device")
_ON_A_PROCESSOR = 2
_PORTS = range(20_000, 32_000)
_PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16")


@dataclass(frozen=True)
class Place:
    """What a process is told before it can read anything else.

    Args:
        path: where modules are imported from.
        threads: threads of torch.
        gpus: numbers of the devices, one a process; empty for the processor.
        one_machine: whether all processes run on one machine.
    """

    path: tuple[str, ...]
    threads: int
    gpus: tuple[int, ...]
    one_machine: bool

    def to_text(self) -> str:
        """The place as a text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str | bytes) -> Place:
        """The place that a text says.

        Args:
            text: as from `to_text`.

        Returns:
            The place.
        """
        found = json.loads(text)
        return cls(**{**found, "path": tuple(found["path"]), "gpus": tuple(found["gpus"])})


@dataclass(frozen=True)
class Tasks:
    """The tasks of a Slurm step, of which each runs the same command.

    Args:
        rank: the number of this task.
        count: how many there are.
        host: the machine of the first task.
        port: where the first task listens.
    """

    rank: int
    count: int
    host: str
    port: int


def is_shared(trainer: Mapping[str, Any]) -> bool:
    """Whether a fit is one by several processes.

    Args:
        trainer: keywords of the trainer.

    Returns:
        True for ``strategy=ddp`` and ``ddp_spawn``.

    Raises:
        GenoptError: if the strategy is none that tables are trained with.
    """
    strategy = trainer.get("strategy") or "auto"
    if not isinstance(strategy, str):
        raise GenoptError(
            f"trainer.strategy must be one of {', '.join((*ALONE, *SHARED))}, got an object of "
            f"{type(strategy).__name__}"
        )
    if strategy not in (*ALONE, *SHARED):
        raise UnknownNameError("trainer.strategy", strategy, (*ALONE, *SHARED))
    return strategy in SHARED


def slurm_tasks() -> int:
    """How many tasks of Slurm run this command side by side; 1 outside of Slurm."""
    if "SLURM_PROCID" not in os.environ:
        return 1
    # the step's own number: a job may have more tasks than the step that runs this
    return int(os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or 1)


def tasks_of_slurm(trainer: Mapping[str, Any]) -> Tasks | None:
    """The step of Slurm whose tasks train together.

    Args:
        trainer: keywords of the trainer.

    Returns:
        The step; None where there is one task, or the processes are our own.
    """
    count = slurm_tasks()
    if count == 1 or not is_shared(trainer) or trainer.get("strategy") == "ddp_spawn":
        return None
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    job, step, nodes = (
        os.environ.get(f"SLURM_STEP_{name}") or os.environ.get(f"SLURM_{name}") or default
        for name, default in (("JOB_ID", "0"), ("ID", "0"), ("NODELIST", "127.0.0.1"))
    )
    # jobs and steps that share a machine must not meet
    port = _PORTS.start + (31 * int(job) + int(step)) % len(_PORTS)
    return Tasks(
        int(os.environ["SLURM_PROCID"]),
        count,
        SLURMEnvironment.resolve_root_node_address(nodes),
        int(os.environ.get("MASTER_PORT", port)),
    )


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuse what no machine can do.

    Args:
        trainer: keywords of the trainer.

    Raises:
        GenoptError: if several devices are asked for without a strategy that uses them, or a
            precision that the models are not made for.
    """
    precision = trainer.get("precision") or "32-true"
    if str(precision) not in _PRECISIONS:
        raise GenoptError(
            f"trainer.precision={precision}: weights are float32; give 32-true, or bf16-mixed for "
            "matrix products in bfloat16"
        )
    devices = trainer.get("devices", 1)
    wanted = _number(devices)
    if not is_shared(trainer) and wanted not in (1, None):
        raise GenoptError(
            f"trainer.devices={devices}: a study trains on one device; say trainer=ddp for a fit "
            "by several processes, or run several studies side by side with -m"
        )


def count_of(trainer: Mapping[str, Any], tasks: Tasks | None = None) -> int:
    """How many processes a fit asks for.

    Args:
        trainer: keywords of the trainer.
        tasks: the step of Slurm whose tasks they are, or None.

    Returns:
        The number, this process included.

    Raises:
        GenoptError: if the devices do not go with the strategy or are not there, or the precision
            cannot be used.
    """
    check_trainer(trainer)
    if not is_shared(trainer):
        return 1
    devices = trainer.get("devices", 1)
    wanted = _number(devices)
    if tasks is not None:
        if wanted not in (None, tasks.count):
            raise GenoptError(
                f"trainer.devices={devices}, but Slurm started {tasks.count} tasks, each of them "
                "one process of the fit: set trainer.devices=auto"
            )
        return tasks.count
    if _on_gpus(trainer):
        import torch

        there = torch.cuda.device_count()
        if wanted is not None and wanted > there:
            raise GenoptError(f"trainer.devices={devices}: this machine has {there} GPUs")
        return wanted or there
    return wanted or _ON_A_PROCESSOR


def gpus_of(trainer: Mapping[str, Any], count: int) -> tuple[int, ...]:
    """The devices of the processes of a fit.

    Args:
        trainer: keywords of the trainer.
        count: how many processes there are.

    Returns:
        Their numbers; empty for the processor.
    """
    if not _on_gpus(trainer):
        return ()
    devices = trainer.get("devices", 1)
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return tuple(int(d) for d in devices)
    import torch

    # tasks of several machines: each counts the devices of its own
    return tuple(rank % torch.cuda.device_count() for rank in range(count))


def usable_precision(trainer: Mapping[str, Any]) -> Any:
    """The precision of a fit: float32 where bfloat16 is asked for and the GPU does not have it.

    Args:
        trainer: keywords of the trainer.

    Returns:
        What the trainer is given.
    """
    precision = trainer.get("precision", "32-true")
    if not str(precision).startswith("bf16") or not _on_gpus(trainer):
        return precision
    import torch

    # an emulation is slower than float32
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return precision
    warnings.warn(
        f"trainer.precision={precision}: {torch.cuda.get_device_name()} has no bfloat16; training "
        "in 32-true",
        stacklevel=2,
    )
    return "32-true"


def _on_gpus(trainer: Mapping[str, Any]) -> bool:
    accelerator = trainer.get("accelerator", "auto")
    if accelerator not in ("auto", "gpu", "cuda"):
        return False
    import torch

    return torch.cuda.is_available()


def _number(devices: Any) -> int | None:
    """How many devices are meant; None for as many as there are."""
    if isinstance(devices, str):
        if devices in ("auto", "-1"):
            return None
        if not devices.isdigit():
            raise GenoptError(f"trainer.devices={devices} must be auto, a number or a list of GPUs")
        devices = int(devices)
    if isinstance(devices, int):
        if devices == -1:
            return None
        if devices < 1:
            raise GenoptError(f"trainer.devices={devices} must be at least 1, or auto")
        return devices
    return len(devices)
