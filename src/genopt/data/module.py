"""The Lightning data module that feeds tensors from memory, or rows from a file."""

from __future__ import annotations

import pytorch_lightning as pl
from torch import Tensor

from genopt.data.batches import BatchLoader
from genopt.data.stream_loader import EncodedStream, StreamLoader
from genopt.errors import GenoptError


class TensorDataModule(pl.LightningDataModule):
    """Training and validation tensors as block loaders.

    Each process of a distributed run reads its own share of the training rows.

    Args:
        train: tensors (N, ...) to learn from, or a stream of such rows.
        validation: tensors (M, ...) that watch the training, or None.
        batch_size: rows of a mini-batch.
        block: mini-batches of a block.
        seed: seed of the permutations.
    """

    def __init__(
        self,
        train: tuple[Tensor, ...] | EncodedStream,
        validation: tuple[Tensor, ...] | None,
        batch_size: int,
        block: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train_tensors = train
        self.validation_tensors = validation
        self.batch_size = batch_size
        self.block = block
        self.seed = seed

    def _processes(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def train_loader(self) -> BatchLoader | StreamLoader:
        """The shuffled loader of this process.

        Returns:
            The loader.

        Raises:
            GenoptError: if several processes would read one stream.
        """
        rank, world_size = self._processes()
        if isinstance(self.train_tensors, EncodedStream):
            if world_size > 1:
                raise GenoptError("trainer.devices: rows are streamed to one device only")
            return self.train_tensors.loader(self.batch_size, self.block, self.seed)
        return BatchLoader(
            self.train_tensors,
            self.batch_size,
            self.block,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )

    def train_dataloader(self) -> BatchLoader | StreamLoader:
        """Lightning's hook."""
        return self.train_loader()

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Lightning's hook; every process validates on all rows, so that all see the same loss."""
        if self.validation_tensors is None:
            return []
        return BatchLoader(self.validation_tensors, 4096, block=1, shuffle=False)
