"""The processes of one fit: the first one has the model and the study, the others only help.

Lightning's launchers run the user's command, or the fit, once more in every process. A study must
not be run twice: there would be two searches, two tables and two W&B runs, and in a sweep each copy
would start the sweep anew. Here the process that asks for a fit stays what it is, rank 0, and
trains its model in place. The others wait to be told: they receive the module and the rows, take
part in the fit and forget both. They are started once for all fits of a study (`one_team`) by this
process, or they are the other tasks of a Slurm step, see `genopt.models.helper`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import distributed

from genopt.errors import GenoptError
from genopt.models.job import FitJob
from genopt.models.processes import Place, Tasks, count_of, gpus_of, tasks_of_slurm
from genopt.models.share import Share
from genopt.models.strategy import SharedWork, wait_for_all

FIT, END = "fit", "end"
_WAIT = timedelta(minutes=10)
# no fit is that long, and no search between two fits
FOREVER = timedelta(days=365)
_PATIENCE = 10.0
# torch's stubs leave the stores out
_TORCH: Any = distributed
_OPEN: ContextVar[list[Team] | None] = ContextVar("team", default=None)


def run_job(job: FitJob) -> pl.Trainer:
    """Run a fit in as many processes as its options ask for.

    Args:
        job: the fit.

    Returns:
        The trainer of this process, after the fit.

    Raises:
        GenoptError: if the options cannot be used, the fit fails or a process is lost.
    """
    tasks = tasks_of_slurm(job.options.trainer)
    count = count_of(job.options.trainer, tasks)
    if count == 1:
        return job.run()
    with one_team() as kept:
        if kept and kept[0].count != count:
            kept.pop().close()
        if not kept:
            kept.append(Team(count, gpus_of(job.options.trainer, count), tasks))
        try:
            return kept[0].run(job)
        except BaseException:
            # the others may be anywhere in the fit
            kept.clear()
            raise


@contextmanager
def one_team() -> Iterator[list[Team]]:
    """Keep the processes of the first fit inside the block for the next ones.

    Yields:
        The team; an empty list where none has been needed yet.
    """
    outer = _OPEN.get()
    if outer is not None:
        yield outer
        return
    kept: list[Team] = []
    token = _OPEN.set(kept)
    try:
        yield kept
    finally:
        _OPEN.reset(token)
        while kept:
            kept.pop().close()


def call_tasks(trainer: Mapping[str, Any]) -> None:
    """Meet the other tasks of a Slurm step now, so that they learn if the study fails early.

    Args:
        trainer: keywords of the trainer.
    """
    tasks = tasks_of_slurm(trainer)
    with one_team() as kept:
        if tasks is not None and tasks.rank == 0 and not kept:
            kept.append(Team(tasks.count, gpus_of(trainer, tasks.count), tasks))


class Team:
    """The other processes of a fit, and the way to tell them what to do.

    Args:
        count: how many processes there are, this one included.
        gpus: numbers of the devices, one a process; empty for the processor.
        tasks: the step of Slurm whose tasks they are; None for processes of our own.

    Raises:
        GenoptError: if they do not come.
    """

    def __init__(self, count: int, gpus: Sequence[int], tasks: Tasks | None = None) -> None:
        if distributed.is_initialized():
            raise GenoptError(
                "trainer.strategy=ddp: this process already belongs to a torch.distributed group; "
                "end it first, or leave the strategy out"
            )
        self.count = count
        self.share = Share(0, count)
        self.gpus = tuple(gpus)
        self._jobs = 0
        self._helpers: list[subprocess.Popen[bytes]] = []
        self._logs = tempfile.TemporaryDirectory(prefix="genopt-")
        host, port = ("127.0.0.1", 0) if tasks is None else (tasks.host, tasks.port)
        self._store = new_store(host, port, first=True)
        try:
            if tasks is None:
                self._start()
            self._tell()
            self._meet()
        except BaseException:
            self._stop()
            raise

    def run(self, job: FitJob) -> pl.Trainer:
        """Run a fit.

        Args:
            job: the fit.

        Returns:
            The trainer of this process.

        Raises:
            GenoptError: if the fit fails or a process is lost; the team is over then.
        """
        payload = packed(job.for_others())
        try:
            self._store.set(f"job/{self._jobs}", FIT)
            self._jobs += 1
            distributed.broadcast_object_list([payload], src=0)
            trainer = job.run(self.share, **placed(self.share, self.gpus))
            # the others may still be in their last callbacks
            wait_for_all()
            return trainer
        except BaseException as error:
            lost = self._lost(_PATIENCE) if _is_of_a_connection(error) else None
            self._stop()
            if lost is not None:
                raise GenoptError(lost) from error
            raise

    def close(self) -> None:
        """Let the others go."""
        try:
            self._store.set(f"job/{self._jobs}", END)
            distributed.destroy_process_group()
            deadline = time.monotonic() + _PATIENCE
            for helper in self._helpers:
                helper.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, RuntimeError):
            pass
        finally:
            self._stop()

    # -- the others --------------------------------------------------------------------------------
    def _start(self) -> None:
        names = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment = {**os.environ, "PYTHONPATH": names}
        for rank in range(1, self.count):
            place = ("127.0.0.1", str(self._store.port), str(rank), str(self.count))
            with self._log(rank).open("wb") as log:
                self._helpers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "genopt.models.helper", *place],
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )

    def _tell(self) -> None:
        place = Place(tuple(sys.path), torch.get_num_threads(), self.gpus, bool(self._helpers))
        self._store.set("place", place.to_text())

    def _meet(self) -> None:
        names = [f"ready/{rank}" for rank in range(1, self.count)]
        deadline = time.monotonic() + _WAIT.total_seconds()
        while not self._store.check(names):
            if (lost := self._lost(0.0)) is not None:
                raise GenoptError(lost)
            if time.monotonic() > deadline:
                raise GenoptError(
                    f"trainer.strategy=ddp: not all {self.count} processes came within "
                    f"{_WAIT.total_seconds():.0f} s; under Slurm start genopt by srun, so that "
                    "every task runs it"
                )
            time.sleep(0.05)
        join(self._store, self.share, self.gpus, bool(self._helpers))

    def _log(self, rank: int) -> Path:
        return Path(self._logs.name) / f"{rank}.log"

    def _lost(self, seconds: float) -> str | None:
        """What became of a process that ended by itself, if one does within some seconds."""
        if seconds and not self._helpers:
            return f"one of the {self.count} tasks of this fit ended early: see what it printed"
        deadline = time.monotonic() + seconds
        while True:
            for rank, helper in enumerate(self._helpers, 1):
                if (code := helper.poll()) is not None:
                    lines = self._log(rank).read_text(errors="replace").strip().splitlines()
                    why = lines[-1] if lines else f"exit code {code}"
                    return f"process {rank} of the {self.count} of this fit ended early: {why}"
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.05)

    def _stop(self) -> None:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for helper in self._helpers:
            if helper.poll() is None:
                helper.kill()
            helper.wait()
        self._helpers = []
        self._logs.cleanup()


def _is_of_a_connection(error: BaseException) -> bool:
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        w in words for w in ("gloo", "nccl", "connection")
    )


def new_store(host: str, port: int, first: bool) -> Any:
    """Where the processes of a fit meet.

    Args:
        host: where the first process runs.
        port: where it listens; 0 for any.
        first: whether this process is the first one.

    Returns:
        torch's store of small texts.
    """
    return _TORCH.TCPStore(host, port, is_master=first, wait_for_workers=False, timeout=_WAIT)


def packed(job: FitJob) -> bytes:
    """A fit as bytes; parts that were defined in a script or a notebook travel with it.

    Args:
        job: the fit.

    Returns:
        What `pickle.loads` reads.

    Raises:
        GenoptError: if a part cannot be sent.
    """
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(job))
    except Exception as error:
        raise GenoptError(
            f"trainer.strategy=ddp: the model or a callback cannot be sent to other processes "
            f"({error}); train in one process, or leave that part out"
        ) from error


def placed(share: Share, gpus: Sequence[int]) -> dict[str, Any]:
    """The trainer's keywords that say where a process works.

    Args:
        share: the place of the process.
        gpus: numbers of the devices, one a process; empty for the processor.

    Returns:
        Keyword arguments.
    """
    where = {"devices": [gpus[share.rank]]} if gpus else {"accelerator": "cpu", "devices": 1}
    return {**where, "num_nodes": 1, "strategy": SharedWork(share)}


def join(store: Any, share: Share, gpus: Sequence[int], one_machine: bool) -> None:
    """Open the group through which the processes of a fit add up what they found.

    Args:
        store: where they meet.
        share: the place of this process.
        gpus: numbers of the devices, one a process; empty for the processor.
        one_machine: whether all processes run on this machine.
    """
    before, hook = os.environ.get("GLOO_SOCKET_IFNAME"), sys.excepthook
    if one_machine and sys.platform.startswith("linux"):
        # the name of a machine without a network may not be known to anybody
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        if gpus:
            torch.cuda.set_device(gpus[share.rank])
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=_TORCH.PrefixStore("group", store),
            rank=share.rank,
            world_size=share.count,
            timeout=timedelta(minutes=30),
        )
    finally:
        # torch's own would write the rank before each line of any later error
        sys.excepthook = hook
        if before is None:
            os.environ.pop("GLOO_SOCKET_IFNAME", None)
