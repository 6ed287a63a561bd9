"""Thinning a pool of designs to a wanted density without clumps.

Systematic resampling along a space-filling curve keeps the evenness of the pool: its counts vary
less than those of independent draws (Gerber, Chopin and Whiteley 2019, doi 10.1214/18-AOS1746).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.space import Space

_BITS = 62


def along_curve(unit: Tensor) -> Tensor:
    """The order in which a Morton curve passes points: near on the curve is near in space.

    Args:
        unit: points of the unit box (M, E).

    Returns:
        Positions (M,).
    """
    # more columns than bits: the first ones decide
    columns = unit[:, :_BITS].numpy()
    bits = max(1, _BITS // columns.shape[1])
    cells = (columns.clip(0.0, 1.0) * (2**bits - 1)).astype(np.uint64)
    code = np.zeros(len(cells), dtype=np.uint64)
    for bit in reversed(range(bits)):
        for column in cells.T:
            code = (code << np.uint64(1)) | ((column >> np.uint64(bit)) & np.uint64(1))
    return torch.from_numpy(np.argsort(code, kind="stable"))


def thin(x: Tensor, share: Tensor, n: int, space: Space, seed: int = 0) -> Tensor:
    """Some designs of a pool, each taken with a probability in proportion to its share.

    Args:
        x: the pool (M, P).
        share: what each is to be taken in proportion to (M,), not negative.
        n: how many.
        space: the Space of the designs.
        seed: seed of where the systematic draw begins.

    Returns:
        Positions (n,) along M, all different where no design is due more than once.

    Raises:
        GenoptError: if no share is positive.
    """
    order = along_curve(space.encode(x))
    sums = share[order].to(torch.float64).cumsum(0)
    if not bool(sums[-1] > 0) or not bool(torch.isfinite(sums[-1])):
        raise GenoptError("no design of the pool has a positive share")
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(1, dtype=torch.float64, generator=generator)
    ticks = (torch.arange(n, dtype=torch.float64) + start) / n * sums[-1]
    return order[torch.searchsorted(sums, ticks, right=True).clamp_max(len(sums) - 1)]
