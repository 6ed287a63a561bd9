"""Designs one column beside the best rows, where the model is least sure.

A model that is wrong about a direction that none of its best rows has taken never proposes it: all
trade-offs of a hollow front may then lie behind one column. Such designs cost a few simulations and
tell it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.goal import Goal
from genopt.routines.active_pool import Room
from genopt.routines.active_progress import best_buffer

_PARENTS = 64
_CHILDREN = 64
_STRATA = 8


def doubtful(
    model: Any, goal: Goal, known: Table, room: Room, count: int, generator: torch.Generator
) -> Tensor:
    """The designs of which the model is least sure, each in another eighth of a column.

    Args:
        model: predicts y, and says how sure it is by ``spread_y``.
        goal: what is wanted, B goals.
        known: the rows so far.
        room: where designs may lie.
        count: designs for each goal, at most eight for each free column.
        generator: source of randomness.

    Returns:
        Designs (B, M, P).
    """
    parents, _ = best_buffer(goal, known, _PARENTS)
    free = [i for i in range(goal.x_space.dim) if i not in goal.fixed]
    columns, each = torch.tensor(free).repeat_interleave(_CHILDREN), len(free) * _CHILDREN
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    # other values of one column of one of the best rows, strata of them in order
    row = torch.randint(parents.shape[1], (each,), generator=generator)
    at = torch.arange(each)
    other = room.anywhere(each, seed)[:, at, columns].reshape(len(parents), len(free), -1)
    x = parents[:, row].clone()
    x[:, at, columns] = other.sort(-1).values.flatten(1).to(x)
    x = room.inside(x)
    named = [term.index for term in goal.terms]
    with torch.no_grad():
        spread = model.spread_y(x).to(torch.float64)[..., named]
    doubt = torch.nan_to_num((spread / goal.scale[named]).sum(-1))
    largest, child = doubt.reshape(len(x), -1, _CHILDREN // _STRATA).max(-1)
    order = largest.argsort(dim=1, descending=True)[:, :count]
    place = order * (_CHILDREN // _STRATA) + child.gather(1, order)
    return x.gather(1, place[..., None].expand(*place.shape, x.shape[-1]))
