"""Selection: draws are made until enough of them lie within the shells, a bounded number of times.

What is kept follows p(x | y) inside thin shells around the equalities and where the inequalities
hold; rows that are missing when the tries are spent are the nearest ones seen, so the shells become
as wide as they have to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.routines.constraints.shell import SHELL, Shell
from genopt.routines.constraints.source import Draws, Source

_AT_ONCE = 2**17
_LEAST_CHUNK = 64
_LAST = 1e6


@dataclass(frozen=True)
class Selected:
    """Draws near the constraints.

    Args:
        draws: n draws of each condition, moved onto the linearised equalities.
        inside: how many of them lie within the narrow shells (C,); they come first.
        width: the shell that holds them all (C,); large where some are no true draws.
        tries: how many draws were made in all.
    """

    draws: Draws
    inside: Tensor
    width: Tensor
    tries: int


def select(
    source: Source, shell: Shell, rows: Tensor, n: int, most: int, pool: Draws | None = None
) -> Selected:
    """The first n draws of each condition that lie within the shells.

    Args:
        source: where draws come from.
        shell: the shells of these conditions.
        rows: their numbers (C',).
        n: draws of each that are wanted.
        most: most draws for each condition.
        pool: draws that are there already; they do not count as tries.

    Returns:
        The draws; a condition with too few is filled with the nearest of the others.
    """
    taken = _Taken(len(rows), n, source)
    made = torch.zeros(len(rows), dtype=torch.long)
    hits, seen = torch.zeros(len(rows)), torch.zeros(len(rows))
    tries = 0
    todo = torch.arange(len(rows))
    while len(todo):
        if pool is None:
            share = float(((hits + 0.5) / (seen + 1.0))[todo].min())
            short = n - int(taken.count[todo].min())
            chunk = max(_LEAST_CHUNK, int(1.2 * short / max(share, 1e-4)))
            chunk = min(chunk, max(1, _AT_ONCE // len(todo)), most - int(made[todo].min()))
            if chunk < 1:
                break
            found = source.draws(rows[todo], chunk)
            made[todo] += chunk
            tries += chunk * len(todo)
        else:
            found, pool = pool, None
        part = shell.at(todo)
        measured = part.measure(found.x)
        kept = measured.shell <= SHELL
        hits[todo] += kept.sum(1)
        seen[todo] += kept.shape[1]
        # one that breaks an inequality comes after all that keep them
        order = torch.where(torch.isinf(measured.shell), _LAST + measured.distance, measured.shell)
        taken.add(todo, Draws(measured.foot, found.noise), kept, order)
        todo = ((taken.count < n) & (made < most)).nonzero()[:, 0]
    return Selected(taken.filled(), taken.count, taken.width(), tries)


class _Taken:
    """Accepted draws of each condition, and the nearest of the others."""

    def __init__(self, conditions: int, n: int, source: Source) -> None:
        self.n = n
        self.count = torch.zeros(conditions, dtype=torch.long)
        self.x = torch.full((conditions, n, source.space.dim), torch.nan, dtype=torch.float64)
        self.noise = (
            None if source.transport is None else self.x.new_zeros(conditions, n, source.width)
        )
        self.spare = Draws(
            self.x.clone(), None if self.noise is None else torch.zeros_like(self.noise)
        )
        self.far = torch.full((conditions, n), torch.inf, dtype=torch.float64)

    def add(self, rows: Tensor, found: Draws, holds: Tensor, distance: Tensor) -> None:
        """Keep what is accepted, as far as there is room, and the nearest of the rest."""
        place = self.count[rows, None] + holds.long().cumsum(1) - 1
        row, column = (holds & (place < self.n)).nonzero(as_tuple=True)
        self.x[rows[row], place[row, column]] = found.x[row, column]
        if self.noise is not None and found.noise is not None:
            self.noise[rows[row], place[row, column]] = found.noise[row, column]
        self.count[rows] = (self.count[rows] + holds.sum(1)).clamp_max(self.n)
        far = torch.cat([self.far[rows], torch.where(holds, torch.inf, distance)], 1)
        self.far[rows], nearest = far.topk(self.n, 1, largest=False)
        both = self.spare.of(rows).join(found).take(nearest)
        self.spare.x[rows] = both.x
        if self.spare.noise is not None and both.noise is not None:
            self.spare.noise[rows] = both.noise

    def width(self) -> Tensor:
        """The shell of the farthest row that is returned (C,)."""
        last = (self.n - self.count - 1).clamp_min(0)
        far = self.far.gather(1, last[:, None])[:, 0]
        return torch.where(self.count < self.n, far, SHELL)

    def filled(self) -> Draws:
        """All rows: the accepted ones first, then the nearest others."""
        place = torch.arange(self.n) - self.count[:, None]
        missing = (place >= 0)[..., None]
        other = self.spare.take(place.clamp_min(0))
        noise = self.noise
        if noise is not None and other.noise is not None:
            noise = torch.where(missing, other.noise, noise)
        return Draws(torch.where(missing, other.x, self.x), noise)
