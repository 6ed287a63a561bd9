"""How many labels of a mini-batch are in a process's own rows, head by head.

A head's loss is a mean over its labels, and gaps lie anywhere. So the losses of a process's rows
become parts of the losses of all rows by the share of the labels that they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genopt.models.share import Share


class Split(NamedTuple):
    """How a mini-batch is split between the processes of a fit.

    Args:
        share: the place of this process.
        part: share of each head's labels that its rows hold (heads,); over the processes they sum
            to one.
        known: whether any process has a label of the head (heads,).
    """

    share: Share
    part: Tensor
    known: Tensor


class LabelMasses:
    """What the losses of heads divide by: the number of their labels, or the sum of their weights.

    Args:
        heads: the heads by name.
        widths: label columns of each head, in the order in which the labels lie side by side.
        names: the heads that are asked for, in the order of the result.
    """

    def __init__(
        self, heads: Mapping[str, nn.Module], widths: Mapping[str, int], names: Sequence[str]
    ) -> None:
        start = 0
        owner = torch.zeros(sum(widths.values()), len(names))
        self._own: list[tuple[int, slice, Callable[[Tensor], Tensor]]] = []
        for name, width in widths.items():
            place = slice(start, start + width)
            start += width
            if name not in names:
                continue
            i = list(names).index(name)
            mass: Callable[[Tensor], Tensor] | None = getattr(heads[name], "mass", None)
            if mass is None:
                owner[place, i] = 1.0
            else:
                self._own.append((i, place, mass))
        self._owner = owner

    def __call__(self, targets: Tensor) -> Tensor:
        """The masses of rows.

        Args:
            targets: scaled labels (N, L) of all heads side by side; NaN where there is none.

        Returns:
            Masses (heads,).
        """
        counts = (~torch.isnan(targets)).sum(0).to(self._owner.dtype)
        self._owner = self._owner.to(targets.device)
        masses = list((counts @ self._owner).unbind())
        for i, place, mass in self._own:
            masses[i] = mass(targets[:, place]).to(counts)
        return torch.stack(masses)

    def split(self, targets: Tensor, share: Share) -> Split:
        """How the labels of a mini-batch are split.

        Args:
            targets: scaled labels (N, L) of the whole mini-batch.
            share: the place of this process.

        Returns:
            The split.
        """
        whole = self(targets)
        rows = targets[share.rows(len(targets))]
        own = self(rows) if share.weight(len(targets)) else torch.zeros_like(whole)
        known = whole > 0.0
        return Split(share, torch.where(known, own / torch.where(known, whole, 1.0), 0.0), known)
