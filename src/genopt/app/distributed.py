"""A study whose models are trained by several processes: what is allowed, and who does what.

One process has the study: it alone searches, verifies, draws, logs and writes. The others take part
in fits and know nothing else, whether this process started them or Slurm did.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genopt.errors import GenoptError
from genopt.models.processes import is_shared, slurm_tasks, tasks_of_slurm


def check_strategy(config: DictConfig, multirun: bool) -> None:
    """Refuse a strategy that this way of starting studies cannot do; nothing heavy is imported.

    Args:
        config: a composed configuration.
        multirun: whether the study is a job of a sweep.

    Raises:
        GenoptError: if the strategy is unknown, or the processes of a job would have to come from
            outside and do not.
    """
    trainer = _trainer(config)
    if not is_shared(trainer) or trainer["strategy"] != "ddp":
        return
    if multirun and slurm_tasks() == 1:
        raise GenoptError(
            "trainer.strategy=ddp in a sweep needs jobs that are several tasks of Slurm "
            "(hydra/launcher=slurm hydra.launcher.tasks_per_node=2); with trainer=ddp_spawn each "
            "job starts its processes itself"
        )


def check_machine(config: DictConfig) -> None:
    """Refuse a device that this machine does not have, before any work.

    Args:
        config: a composed configuration.

    Raises:
        GenoptError: if there is no GPU, or fewer than asked for.
    """
    trainer = _trainer(config)
    if trainer.get("accelerator") in ("gpu", "cuda"):
        import torch

        if not torch.cuda.is_available():
            built = "" if torch.version.cuda else f", and torch {torch.__version__} is without CUDA"
            raise GenoptError(
                f"trainer.accelerator={trainer['accelerator']}: this machine has no GPU that torch "
                f"can use{built}; say trainer=cpu or trainer=default"
            )
    if is_shared(trainer):
        from genopt.models.processes import count_of

        count_of(trainer, tasks_of_slurm(trainer))


def helps(config: DictConfig) -> bool:
    """Take part in the fits of a study that another task of the same Slurm step runs.

    Args:
        config: a composed configuration.

    Returns:
        False for a process that runs the study itself; True when the study is done.
    """
    tasks = tasks_of_slurm(_trainer(config))
    if tasks is None or tasks.rank == 0:
        return False
    from genopt.models.helper import serve

    serve(tasks.host, tasks.port, tasks.rank, tasks.count)
    return True


@contextmanager
def together(config: DictConfig) -> Iterator[None]:
    """Inside the block all fits of a study have the same helpers, which are started once.

    Args:
        config: a composed configuration.

    Yields:
        Nothing.
    """
    trainer = _trainer(config)
    if not is_shared(trainer):
        yield
        return
    from genopt.models.team import call_tasks, one_team

    with one_team():
        call_tasks(trainer)
        yield


def _trainer(config: DictConfig) -> dict[str, Any]:
    node = config.get("trainer")
    if node is None:
        return {}
    plain: Any = OmegaConf.to_container(node, resolve=True)
    return dict(plain)
