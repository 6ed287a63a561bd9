"""Rejection: exact draws from a posterior, collected over rounds of proposals.

Problems whose answers form a curve or a surface bring such a sampler in place of a list of answers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.space import Space

_PROBE_ROUNDS = 40
_MOST_ROUNDS = 2000


def copies(weight: Tensor, generator: torch.Generator) -> Tensor:
    """How often each proposal is kept: its weight on average.

    Weights below one are plain acceptance probabilities; a weight w above one gives floor(w) or
    floor(w) + 1 copies, so the distribution stays exact whatever the scale of the weights.

    Args:
        weight: non-negative weights (N,).
        generator: source of the draws.

    Returns:
        Counts (N,), integer.
    """
    uniform = torch.rand(weight.shape, dtype=torch.float64, generator=generator)
    return torch.floor(weight + uniform).long()


def collect(accepted: Callable[[torch.Generator], Tensor], n: int, seed: int, what: str) -> Tensor:
    """Draws of many rounds, until there are enough.

    Args:
        accepted: one round of rejection; returns what was kept (M, P), M random.
        n: number of draws.
        seed: seed of all rounds.
        what: what is conditioned on, for the message.

    Returns:
        Draws (n, P).

    Raises:
        GenoptError: if the prior allows them too rarely.
    """
    generator = torch.Generator().manual_seed(seed)
    kept: list[Tensor] = []
    count = 0
    for done in range(1, _MOST_ROUNDS + 1):
        kept.append(accepted(generator))
        count += len(kept[-1])
        if count >= n:
            return torch.cat(kept)[:n]
        if done == _PROBE_ROUNDS and count * _MOST_ROUNDS < n * done:
            break
    raise GenoptError(
        f"{what} is too rare under the prior: {count} of {n} draws after {done} rounds; ask for "
        "fewer draws or another value"
    )


def posterior_rows(
    y: Tensor, y_space: Space, n: int, x_dim: int, draw: Callable[[Tensor, int], Tensor], seed: int
) -> Tensor:
    """Draws for one wanted y or for each of several.

    Args:
        y: wanted properties (K,) or (C, K).
        y_space: the Space of the properties.
        n: number of draws for each.
        x_dim: number of design columns P.
        draw: from one wanted y (K,) and a seed to draws (n, P).
        seed: seed of the first row; the others follow.

    Returns:
        Draws (n, P), or (C, n, P).

    Raises:
        GenoptError: if y has another shape.
    """
    y_space.check(y, "y")
    if y.ndim == 1:
        return draw(y, seed)
    if y.ndim > 2:
        raise GenoptError(
            f"y has shape {tuple(y.shape)}; expected ({y_space.dim},) or (C, {y_space.dim})"
        )
    drawn = [draw(row, seed + i) for i, row in enumerate(y)]
    return torch.stack(drawn) if drawn else torch.empty(0, n, x_dim, dtype=torch.float64)
