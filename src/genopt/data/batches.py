"""Batches from memory: one permutation an epoch and slices of it.

For small networks a `DataLoader` over a `TensorDataset` costs more than the mathematics; slicing
tensors does not.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from genopt.errors import GenoptError


class BatchLoader:
    """Blocks of several mini-batches, shuffled anew each epoch.

    A block holds up to ``block`` mini-batches of rows; `genopt.models.training.TabularModule` cuts
    it into mini-batches, so that the trainer's bookkeeping is paid once a block. In a fit by
    several processes all read the same blocks, and `genopt.models.share` says whose rows are whose.

    Args:
        tensors: tensors (N, ...) with the same number of rows.
        batch_size: rows of a mini-batch.
        block: mini-batches of a block.
        shuffle: whether to permute the rows.
        seed: seed of the permutations.

    Raises:
        GenoptError: if there is no row or a size is not positive.
    """

    def __init__(
        self,
        tensors: tuple[Tensor, ...],
        batch_size: int,
        block: int = 64,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        rows = {len(t) for t in tensors}
        if len(rows) != 1 or 0 in rows:
            raise GenoptError(
                f"batches need tensors of one, positive number of rows, got {sorted(rows)}"
            )
        if batch_size < 1 or block < 1:
            raise GenoptError(
                f"batch_size and block must be positive, got {batch_size} and {block}"
            )
        self.tensors = tensors
        self.rows = rows.pop()
        self.batch_size = min(batch_size, self.rows)
        self.block = block
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    @property
    def steps(self) -> int:
        """Mini-batches an epoch; the last one may be smaller."""
        return -(-self.rows // self.batch_size)

    def __len__(self) -> int:
        return -(-self.steps // self.block)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.rows, generator=generator)
        else:
            order = torch.arange(self.rows)
        self.epoch += 1
        size = self.batch_size * self.block
        for start in range(0, self.rows, size):
            index = order[start : start + size]
            yield tuple(t[index] for t in self.tensors)
