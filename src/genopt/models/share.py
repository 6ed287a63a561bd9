"""Which rows of a mini-batch a process works out, and how the parts become one again.

In a fit by several processes every process sees the same mini-batches and draws the same random
numbers. It works out the loss of its own rows alone, as a part of the whole loss, and the gradients
of all parts are added in one message. So every row counts once, the last mini-batch of an epoch
included, and everything after the gradient (clipping, optimiser, schedule, averaged weights) is the
same in each process without a further word. `batch_size` is that of all processes together, and a
fit by two is the fit by one, up to the order of additions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """The place of a process among those of a fit.

    Args:
        rank: its number, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    def rows(self, n: int) -> slice:
        """The rows of a mini-batch that this process works out; shares differ by one row at most.

        Args:
            n: rows of the mini-batch.

        Returns:
            Its rows; where there are fewer rows than processes the first one, which then counts
            nothing, because a loss of no rows is not a number.
        """
        start, stop = self._ends(n)
        return slice(start, stop) if stop > start else slice(0, 1)

    def weight(self, n: int) -> float:
        """What share of a mini-batch's rows they are.

        Args:
            n: rows of the mini-batch.

        Returns:
            A number from 0 to 1; those of all processes sum to 1.
        """
        start, stop = self._ends(n)
        return (stop - start) / n

    def _ends(self, n: int) -> tuple[int, int]:
        return self.rank * n // self.count, (self.rank + 1) * n // self.count

    def total(self, part: Tensor) -> Tensor:
        """The sum of what the processes found, the same in each of them to the last digit.

        Args:
            part: what this one found, of any shape.

        Returns:
            The sum, detached; with one process its own part.
        """
        if self.count == 1:
            return part
        whole = part.detach().clone()
        torch.distributed.all_reduce(whole)
        return whole

    def add_gradients(self, parameters: Iterable[Tensor], mean: bool = False) -> None:
        """Put the sum of all processes' gradients in the place of each one's own.

        Args:
            parameters: what the gradients belong to; those without one are skipped.
            mean: whether to take their mean, for processes that each worked out all rows.
        """
        if self.count == 1:
            return
        owners = [p for p in parameters if p.grad is not None]
        if not owners:
            return
        # one message: dozens of small ones cost more than the copy
        flat = torch.cat([p.grad.flatten() for p in owners if p.grad is not None])
        torch.distributed.all_reduce(flat)
        if mean:
            flat /= self.count
        for p, part in zip(owners, flat.split([p.numel() for p in owners]), strict=True):
            p.grad = part.view_as(p)


ALONE = Share()
