"""Scaling inside a model: what a network sees is standardised, what a user sees is in raw units.

Means and scales are buffers, so they travel in the checkpoint. Values are shifted in the dtype they
come in and only then rounded to the network's, so a float64 column of small relative spread keeps
its digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Standardiser(nn.Module):
    """Column-wise (values - mean) / scale, learned from data with gaps.

    Args:
        dim: number of columns.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @torch.no_grad()
    def learn(self, values: Tensor, skip: Sequence[int] = ()) -> None:
        """Take mean and standard deviation from data.

        A constant column keeps scale 1, or its own size where that is larger.

        Args:
            values: data (N, dim); NaN where an entry is missing.
            skip: columns that keep mean 0 and scale 1.
        """
        values = values.to(torch.float64)
        known = ~torch.isnan(values)
        count = known.sum(0).clamp_min(1)
        mean = torch.where(known, values, 0.0).sum(0) / count
        # the rounded mean is what is subtracted later, so the spread is taken around it
        mean = mean.to(self.mean.dtype).to(torch.float64)
        spread = (torch.where(known, values - mean, 0.0).square().sum(0) / count).sqrt()
        flat = spread <= 1e-6 * mean.abs().clamp_min(1e-30)
        scale = torch.where(flat, mean.abs().clamp_min(1.0), spread)
        for i in skip:
            mean[i], scale[i] = 0.0, 1.0
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, values: Tensor) -> Tensor:
        """Raw to scaled.

        Args:
            values: raw values (..., dim).

        Returns:
            Scaled values (..., dim) in the dtype of the buffers.
        """
        return ((values - self.mean.to(values)) / self.scale.to(values)).to(self.mean.dtype)

    def inverse(self, scaled: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Scaled to raw.

        Args:
            scaled: scaled values (..., dim).
            dtype: dtype of the result, in which the mean is added; None for that of ``scaled``.

        Returns:
            Raw values (..., dim).
        """
        scaled = scaled.to(dtype or scaled.dtype)
        return self.mean.to(scaled) + self.scale.to(scaled) * scaled


class InputScaler(Standardiser):
    """Designs to features: class columns become one-hot blocks, numbers are standardised.

    Three forms of a design occur: raw (P columns, classes as codes), wide (E columns: raw numbers,
    one-hot blocks, which a search relaxes) and features (E scaled columns, what a network sees).

    Args:
        classes: for each of the P columns the number of its classes; 0 for a number.
    """

    def __init__(self, classes: Sequence[int]) -> None:
        super().__init__(sum(max(1, c) for c in classes))
        self.classes = tuple(int(c) for c in classes)
        slices, start = [], 0
        for c in self.classes:
            slices.append(slice(start, start + max(1, c)))
            start += max(1, c)
        self.slices = tuple(slices)
        self.wide_dim = start

    @property
    def has_classes(self) -> bool:
        """Whether any column is a class."""
        return any(self.classes)

    def wide(self, x: Tensor) -> Tensor:
        """Raw to wide.

        Args:
            x: designs (..., P).

        Returns:
            Wide designs (..., E).
        """
        if not self.has_classes:
            return x
        parts = []
        for i, c in enumerate(self.classes):
            if c:
                codes = x[..., i].round().long().clamp(0, c - 1)
                parts.append(nn.functional.one_hot(codes, c).to(x))
            else:
                parts.append(x[..., i : i + 1])
        return torch.cat(parts, -1)

    def raw(self, wide: Tensor) -> Tensor:
        """Wide to raw: the most likely class of each block.

        Args:
            wide: wide designs (..., E).

        Returns:
            Designs (..., P).
        """
        if not self.has_classes:
            return wide
        columns = [
            wide[..., part].argmax(-1).to(wide) if c else wide[..., part.start]
            for c, part in zip(self.classes, self.slices, strict=True)
        ]
        return torch.stack(columns, -1)

    @torch.no_grad()
    def learn_designs(self, x: Tensor) -> None:
        """Take means and scales of the numbers from designs.

        Args:
            x: designs (N, P).
        """
        blocks = [
            i
            for c, part in zip(self.classes, self.slices, strict=True)
            if c
            for i in range(part.start, part.stop)
        ]
        self.learn(self.wide(x), skip=blocks)
