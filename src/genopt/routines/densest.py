"""Draws of highest density: what strays from where a model puts its designs is left out.

A generative model that has seen few rows carries some of its noise to designs that it thinks
improbable itself. Of more draws than are wanted those of the highest density are kept: the region
of highest density with a given share of the model's probability (Hyndman 1996), so the answers that
the model thinks rarest go as well.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError


def check_highest_density(share: float, constraints: Any = None) -> None:
    """Refuse a share that is none, or constraints beside one.

    Args:
        share: share of the model's probability that is kept.
        constraints: rules that every design keeps.

    Raises:
        GenoptError: if the share is not in (0, 1], or is below 1 beside constraints.
    """
    if not 0.0 < share <= 1.0:
        raise GenoptError(
            f"routine.highest_density={share:g} is the share of the draws to keep: give a number "
            "above 0, and 1 to keep all"
        )
    if share < 1.0 and constraints:
        raise GenoptError(
            f"routine.highest_density={share:g} does not go with routine.constraints, which choose "
            "among the draws as well: drop one of them"
        )


def surplus(n: int, share: float) -> int:
    """How many draws leave n after all but this share of them are dropped.

    Args:
        n: draws that are wanted.
        share: share that is kept.

    Returns:
        The number of draws.
    """
    return math.ceil(n / share - 1e-9)


def densest(log_density: Tensor, n: int) -> Tensor:
    """The draws of highest density, in the order in which they were drawn.

    Args:
        log_density: log densities of m draws for C conditions (C, m).
        n: how many are kept.

    Returns:
        Positions (C, n) along m.
    """
    order = torch.nan_to_num(log_density, nan=-torch.inf).argsort(
        dim=1, descending=True, stable=True
    )
    return order[:, :n].sort(1).values


def density_of(model: Any, x: Tensor, conditions: Tensor, held: dict[str, Any]) -> Tensor:
    """The model's own log density of its draws.

    Args:
        model: has ``log_prob``.
        x: draws (C, m, P).
        conditions: what they were drawn for (C, K).
        held: ``fixed``, where columns of x are held.

    Returns:
        Log densities (C, m); of the columns that are not held, given those that are.
    """
    given = {"given": list(held["fixed"])} if held else {}
    pairs = conditions.repeat_interleave(x.shape[1], 0)
    found: Tensor = model.log_prob(x.reshape(-1, x.shape[-1]), pairs, **given)
    return found.reshape(x.shape[:2])
