"""Mini-batches from a stream of rows: a pool in memory that the file keeps filling."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from genopt.data.arrow_file import CHUNK
from genopt.data.streaming import RowStream
from genopt.errors import GenoptError

_POOL = 131_072
_BLOCK = 65_536

Encode = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class EncodedStream:
    """A stream of rows as the tensors that a model trains on.

    Args:
        stream: the rows.
        encode: designs (N, P) and properties (N, K) to the tensors of a mini-batch.
        rows: rows of an epoch; the next epoch goes on where this one ended.
    """

    stream: RowStream
    encode: Encode
    rows: int

    def loader(self, batch_size: int, block: int, seed: int) -> StreamLoader:
        """A loader of blocks of mini-batches.

        Args:
            batch_size: rows of a mini-batch.
            block: mini-batches of a block.
            seed: seed of the order.

        Returns:
            The loader.
        """
        return StreamLoader(self, batch_size, block, seed)


class StreamLoader:
    """Blocks of mini-batches drawn from a pool of rows that a stream keeps filling.

    Half of the pool is handed out in random order before the file is read on, so each row meets
    rows from elsewhere in the file. An epoch takes ``source.rows`` rows.

    Args:
        source: the rows and how they become tensors.
        batch_size: rows of a mini-batch.
        block: mini-batches of a block.
        seed: seed of the order.

    Raises:
        GenoptError: if a size is not positive.
    """

    def __init__(
        self, source: EncodedStream, batch_size: int, block: int = 64, seed: int = 0
    ) -> None:
        if batch_size < 1 or block < 1 or source.rows < 1:
            raise GenoptError(
                f"batch_size={batch_size}, block={block} and rows={source.rows} must be positive"
            )
        self.source = source
        self.batch_size = min(batch_size, source.rows)
        # a block is in memory at once, several times over while it is encoded
        self.block = max(1, min(block, _BLOCK // self.batch_size))
        self.seed = seed
        self._pool: Pool | None = None

    @property
    def steps(self) -> int:
        """Mini-batches an epoch; the last one may be smaller."""
        return -(-self.source.rows // self.batch_size)

    def __len__(self) -> int:
        return -(-self.steps // self.block)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if self._pool is None:
            self._pool = Pool(self.source.stream, self.seed)
        left = self.source.rows
        while left:
            size = min(self.batch_size * self.block, left)
            left -= size
            _give_memory_back()
            yield self.source.encode(*self._pool.take(size))


class Pool:
    """Rows in random order, pass after pass without end: half of a full pool, all at a pass's end.

    Its memory is taken once: chunks of ever other sizes would tear the heap to pieces, and a long
    training would need more and more of it.

    Args:
        stream: the rows.
        seed: seed of the order.
    """

    def __init__(self, stream: RowStream, seed: int) -> None:
        self.stream = stream
        self._order = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        widths = stream.x_space.dim, stream.y_space.dim
        self._rows = tuple(torch.empty(_POOL + CHUNK, w, dtype=torch.float64) for w in widths)
        self._ready = torch.empty(0, dtype=torch.long)
        self._kept = torch.empty(0, dtype=torch.long)
        self._pass: Iterator[tuple[Tensor, Tensor]] | None = None

    def take(self, size: int) -> tuple[Tensor, Tensor]:
        """The next rows.

        Args:
            size: how many.

        Returns:
            Designs (size, P) and properties (size, K).

        Raises:
            GenoptError: if no row of the file is for training.
        """
        taken = tuple(rows.new_empty(size, rows.shape[1]) for rows in self._rows)
        done = 0
        while done < size:
            if len(self._ready) == 0:
                self._fill()
            now = self._ready[: size - done]
            self._ready = self._ready[len(now) :]
            for out, rows in zip(taken, self._rows, strict=True):
                out[done : done + len(now)] = rows[now]
            done += len(now)
        return taken[0], taken[1]

    def _fill(self) -> None:
        for rows in self._rows:
            rows[: len(self._kept)] = rows[self._kept]
        count = len(self._kept)
        started = self._pass is None
        if self._pass is None:
            self._pass = self.stream.one_pass(self._order)
        while count < _POOL:
            chunk = next(self._pass, None)
            if chunk is None:
                self._pass = None
                break
            for rows, part in zip(self._rows, chunk, strict=True):
                rows[count : count + len(part)] = part
            count += len(chunk[0])
        if started and count == 0:
            raise GenoptError(
                f"{self.stream.file.path.name} has no training row: lower data.validation and "
                "data.test"
            )
        order = torch.randperm(count, generator=self._generator)
        share = count if self._pass is None else count // 2
        self._ready, self._kept = order[:share], order[share:]


@lru_cache
def _trim() -> Callable[[int], int] | None:
    """The GNU C library's call that gives free pages back, where there is one."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def _give_memory_back() -> None:
    # the heap of a long training is torn by buffers of many sizes and would grow with the file
    trim = _trim()
    if trim is not None:
        trim(0)
