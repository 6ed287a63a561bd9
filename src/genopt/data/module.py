"""The Lightning data module that feeds tensors from memory, or rows from a file."""

from __future__ import annotations

import pytorch_lightning as pl
from torch import Tensor

from genopt.data.batches import BatchLoader
from genopt.data.stream_loader import EncodedStream, StreamLoader


class TensorDataModule(pl.LightningDataModule):
    """Training and validation tensors as block loaders.

    Every process of a distributed run reads the same mini-batches, of a stream, too.

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

    def train_loader(self) -> BatchLoader | StreamLoader:
        """The shuffled loader.

        Returns:
            The loader.
        """
        if isinstance(self.train_tensors, EncodedStream):
            return self.train_tensors.loader(self.batch_size, self.block, self.seed)
        return BatchLoader(self.train_tensors, self.batch_size, self.block, seed=self.seed)

    def train_dataloader(self) -> BatchLoader | StreamLoader:
        """Lightning's hook."""
        return self.train_loader()

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Lightning's hook."""
        if self.validation_tensors is None:
            return []
        return BatchLoader(self.validation_tensors, 4096, block=1, shuffle=False)
