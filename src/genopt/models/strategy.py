"""Lightning's view of a fit by several processes: ranks, checkpoints by the first, joint decisions.

Lightning's own DDP wraps the module so that a backward pass averages gradients. That mean is right
where each process has as many rows, and as many labels of each property, as any other. Here gaps,
weights and the last mini-batch make shares differ, and a balance of tasks needs the gradients of
all rows before they are used. So the module adds gradients itself (`genopt.models.share`). The rest
of Lightning's strategy stays: only the first process writes and logs, all decide together when to
stop.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric.plugins import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy

from genopt.models.share import Share


def wait_for_all() -> None:
    """Go on when every process of the group is here."""
    # a sum of nothing works for every backend
    torch.distributed.all_reduce(torch.zeros(()))


class Ranks(ClusterEnvironment):
    """Tells the trainer which process this is; who started the processes is no matter of its own.

    Args:
        share: the place of this process.
    """

    def __init__(self, share: Share) -> None:
        super().__init__()
        self._share = share

    @property
    def creates_processes_externally(self) -> bool:
        """The processes are there when the trainer comes."""
        return True

    @property
    def main_address(self) -> str:
        """Not asked for: the processes know one another already."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Not asked for, like the address."""
        return 0

    @staticmethod
    def detect() -> bool:
        """It is only used where it is given."""
        return False

    def world_size(self) -> int:
        """How many processes there are."""
        return self._share.count

    def set_world_size(self, size: int) -> None:
        """The number is given.

        Args:
            size: what the trainer takes it for.
        """

    def global_rank(self) -> int:
        """The number of this process."""
        return self._share.rank

    def set_global_rank(self, rank: int) -> None:
        """The number is given.

        Args:
            rank: what the trainer takes it for.
        """

    def local_rank(self) -> int:
        """The same number: the trainer of each process knows one device, its own."""
        return self._share.rank

    def node_rank(self) -> int:
        """The trainer of each process knows one machine, its own."""
        return 0


class SharedWork(DDPStrategy):
    """Data-parallel training in which the module adds the gradients.

    Args:
        share: the place of this process.
    """

    def __init__(self, share: Share) -> None:
        super().__init__(cluster_environment=Ranks(share))

    @property
    def root_device(self) -> torch.device:
        """The device of this process."""
        return (self.parallel_devices or [torch.device("cpu")])[0]

    def _configure_launcher(self) -> None:
        """The processes are there already."""

    def setup_distributed(self) -> None:
        """They are connected already, too."""
        self.set_world_ranks()

    def configure_ddp(self) -> None:
        """No wrapper: see above."""

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the others.

        Args:
            *args: a name, not used.
            **kwargs: not used.
        """
        wait_for_all()
