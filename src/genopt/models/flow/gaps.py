"""Gaps in designs: rows that hold some columns of x teach a flow these.

The loss counts the entries that are there, as for diffusion models of tables with gaps (Ouyang et
al., MissDiff, arXiv 2307.00467). Here the condition says which are not: a gap alone would look like
a value of zero. Designs are drawn without gaps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.flow.given import GivenColumns


def filled(x: Tensor, columns: GivenColumns, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Designs whose gaps hold values of other rows, and which units of x they lack.

    Each column keeps its law that way, which scales are learned from; what was filled is not
    learned. A simplex lacks one fraction at most, which the others tell, or all of it.

    Args:
        x: designs (N, P), float64; NaN where an entry is missing.
        columns: the units of x.
        generator: source of randomness of the choice of rows.

    Returns:
        Designs (N, P) without NaN, and a mask of units (N, G), bool.

    Raises:
        GenoptError: if a column has no value at all.
    """
    x = x.clone()
    for group in columns.space.simplex_indices:
        index = list(group)
        gaps = torch.isnan(x[:, index])
        rest = (1.0 - x[:, index].nansum(1)).clamp_min(0.0)[:, None]
        x[:, index] = torch.where(gaps & (gaps.sum(1, keepdim=True) == 1), rest, x[:, index])
    absent = torch.stack([torch.isnan(x[:, list(unit)]).any(1) for unit in columns.units], 1)
    for unit, lost in zip(columns.units, absent.unbind(1), strict=True):
        there = (~lost).nonzero().flatten()
        if not len(there):
            names = ", ".join(columns.space.names[i] for i in unit)
            raise GenoptError(f"x column {names} has no value: all {len(x)} entries are missing")
        chosen = there[torch.randint(len(there), (int(lost.sum()),), generator=generator)]
        for i in unit:
            x[lost, i] = x[chosen, i]
    return x, absent
