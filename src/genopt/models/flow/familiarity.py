"""Familiarity: how far a condition is from those that a flow was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genopt.models.flow.given import Given, GivenColumns
from genopt.space import Space

_QUANTILE = 0.99
_ENOUGH = 100
_LEAST_SCALE = 1e-6


class Familiarity(nn.Module):
    """Distance of conditions from those of training: at most 1 is typical.

    The distance is the mean one to the five nearest training conditions, in standard deviations,
    over the entries that are known. A score of 1 is the 99 % quantile of the distances of
    conditions that training did not see: the validation rows where at least a hundred of them know
    the same entries, otherwise these together with the training rows, each left out of its own
    neighbours. So about one fresh condition in a hundred from the same source scores above 1. A
    fixed number of rows is kept.

    Where columns of x may be given, they are part of the condition, as their latent values.

    Args:
        space: the Space of the properties.
        given: the columns of x that may be given, or None.
        keep: training rows, and validation rows, that are kept.
        neighbours: how many nearest rows count.
    """

    values: Tensor
    mask: Tensor
    held_values: Tensor
    held_mask: Tensor
    source: Tensor

    def __init__(
        self,
        space: Space,
        given: GivenColumns | None = None,
        keep: int = 1024,
        neighbours: int = 5,
    ) -> None:
        super().__init__()
        self.neighbours = neighbours
        source = [
            i for i, part in enumerate(space.encoded_slices) for _ in range(part.stop - part.start)
        ]
        self.units = 0 if given is None else len(given.units)
        if given is not None:
            source += (given.source + space.dim).tolist()
        self.register_buffer("source", torch.tensor(source), persistent=False)
        for name in ("", "held_"):
            self.register_buffer(f"{name}values", torch.zeros(keep, len(source)))
            self.register_buffer(f"{name}mask", torch.zeros(keep, space.dim + self.units))

    def fit(
        self, train: Sequence[Tensor], held: Sequence[Tensor], generator: torch.Generator
    ) -> None:
        """Keep rows.

        Args:
            train: encoded values of training rows (N, E), their known columns (N, K) and, where
                columns of x may be given, the latents that name designs (N, U).
            held: the same for the validation rows, of which there may be none.
            generator: source of randomness of the choice.
        """
        for rows, into, into_mask in (
            (train, self.values, self.mask),
            (held, self.held_values, self.held_mask),
        ):
            chosen = torch.randperm(len(rows[0]), generator=generator)[: len(into)]
            values, mask, *known = (part[chosen] for part in rows)
            # rows that are not filled know nothing, so no query ever meets them
            into.zero_()
            into_mask.zero_()
            into[: len(chosen)] = torch.cat([values, *known], -1)
            units = mask.new_ones(len(mask), self.units)
            into_mask[: len(chosen)] = torch.cat([mask, units], -1)

    def score(self, values: Tensor, mask: Tensor, given: Given | None = None) -> Tensor:
        """Scores of conditions.

        Args:
            values: encoded values (C, E).
            mask: known columns (C, K).
            given: held columns of x.

        Returns:
            Scores (C,); zero where nothing is known, infinite where no training row knows the same
            columns.
        """
        if self.units:
            latent = values.new_zeros(len(values), len(self.source) - values.shape[-1])
            units = mask.new_zeros(len(mask), self.units)
            if given is not None:
                latent, units = given.latent.to(values), given.mask.to(mask)
            values, mask = torch.cat([values, latent], -1), torch.cat([mask, units], -1)
        scores = torch.zeros(len(values), device=values.device)
        patterns, which = torch.unique(mask, dim=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            if not bool(pattern.any()):
                continue
            columns = pattern[self.source].bool()
            reference = self.values[(self.mask >= pattern).all(-1)][:, columns]
            query = values[which == number][:, columns]
            if len(reference) < 2:
                scores[which == number] = math.inf
                continue
            fresh = self.held_values[(self.held_mask >= pattern).all(-1)][:, columns]
            k = min(self.neighbours, len(reference) - 1)
            typical = _distances(fresh, reference, k)
            if len(fresh) < _ENOUGH:
                own = torch.cdist(reference, reference).topk(k + 1, largest=False).values[:, 1:]
                typical = torch.cat([typical, own.mean(-1)])
            scores[which == number] = _distances(query, reference, k) / _scale(typical)
        return scores


def _scale(typical: Tensor) -> Tensor:
    """The distance that one fresh condition in a hundred exceeds."""
    # the rank that makes this true for any distribution, also for few rows
    rank = min(len(typical), math.ceil(_QUANTILE * (len(typical) + 1)))
    return typical.kthvalue(rank).values.clamp_min(_LEAST_SCALE)


def _distances(points: Tensor, reference: Tensor, k: int) -> Tensor:
    """Mean distance of points to their k nearest references."""
    return torch.cdist(points, reference).topk(k, largest=False).values.mean(-1)
