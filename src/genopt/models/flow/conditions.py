"""Conditions: properties with gaps as network inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.space import Space

_FARTHEST = 10.0
_LEAST_STD = 1e-12


class ConditionEncoder(nn.Module):
    """Properties as standardised numbers and one-hot classes, with a mask of what is known.

    Standardised numbers are held within ten standard deviations, so that a network sees a finite
    input however far a condition lies from the data.

    Args:
        space: the Space of the properties.
    """

    mean: Tensor
    std: Tensor
    source: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space
        self.register_buffer("mean", torch.zeros(space.dim, dtype=torch.float64))
        self.register_buffer("std", torch.ones(space.dim, dtype=torch.float64))
        source = [
            i for i, part in enumerate(space.encoded_slices) for _ in range(part.stop - part.start)
        ]
        self.register_buffer("source", torch.tensor(source), persistent=False)

    @property
    def dim(self) -> int:
        """Width D of the network input: encoded values and one mask entry a column."""
        return self.space.encoded_dim + self.space.dim

    def fit(self, y: Tensor) -> None:
        """Learn means and scales.

        Args:
            y: properties (N, K); NaN where an entry is missing.

        Raises:
            GenoptError: if a column has no entry.
        """
        known = ~torch.isnan(y)
        for i in (~known.any(0)).nonzero().flatten().tolist():
            raise GenoptError(
                f"y column {self.space.names[i]!r} has no label: all {len(y)} entries are missing; "
                "drop the column or add labels"
            )
        count = known.sum(0)
        mean = torch.nan_to_num(y).sum(0) / count
        variance = torch.where(known, (y - mean) ** 2, 0.0).sum(0) / count
        std = torch.sqrt(variance)
        # a column of one value says nothing; its scale only has to be harmless
        std = torch.where(std > _LEAST_STD * mean.abs().clamp_min(1e-290), std, 1.0)
        self.mean.copy_(mean)
        self.std.copy_(std)

    def check(self, y: Tensor, argument: str = "y") -> Tensor:
        """Conditions, after a check of their shape and values.

        Args:
            y: conditions (..., K); NaN for a free entry.
            argument: the caller's name for it, for the message.

        Returns:
            Conditions, float64, on this module's device.

        Raises:
            GenoptError: if the shape does not fit, an entry is infinite or a class does not exist.
        """
        self.space.check(y, argument)
        y = y.to(self.mean)
        if bool(torch.isinf(y).any()):
            column = int(torch.isinf(y).reshape(-1, self.space.dim).any(0).nonzero()[0])
            raise GenoptError(
                f"{argument} column {self.space.names[column]!r} is infinite: use NaN for a free "
                "entry"
            )
        for i in self.space.categorical:
            codes, classes = y[..., i], len(self.space.variables[i].labels)
            wrong = ((codes < 0) | (codes > classes - 1) | (codes != codes.round())) & ~torch.isnan(
                codes
            )
            if bool(wrong.any()):
                raise GenoptError(
                    f"{argument} column {self.space.names[i]!r} holds {float(codes[wrong][0]):g}; "
                    f"expected a class code from 0 to {classes - 1} "
                    f"({', '.join(self.space.variables[i].labels)}) or NaN"
                )
        return y

    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Values and mask of conditions.

        Args:
            y: conditions (..., K); NaN for a free entry.

        Returns:
            Encoded values (..., E), zero where unknown, and the mask (..., K), float32.
        """
        known = ~torch.isnan(y)
        filled = torch.nan_to_num(y)
        parts = []
        for i, v in enumerate(self.space):
            if v.kind == "categorical":
                parts.append(
                    nn.functional.one_hot(filled[..., i].round().long(), len(v.labels)).to(y)
                )
            else:
                scaled = (filled[..., i : i + 1] - self.mean[i]) / self.std[i]
                parts.append(scaled.clamp(-_FARTHEST, _FARTHEST))
        mask = known.to(torch.float32)
        return torch.cat(parts, -1).to(torch.float32) * self.widen(mask), mask

    def widen(self, mask: Tensor) -> Tensor:
        """A mask of columns as a mask of encoded values.

        Args:
            mask: (..., K).

        Returns:
            (..., E).
        """
        return mask[..., self.source]

    def join(self, values: Tensor, mask: Tensor) -> Tensor:
        """The network input.

        Args:
            values: encoded values (..., E).
            mask: known columns (..., K).

        Returns:
            Condition vectors (..., D).
        """
        return torch.cat([values * self.widen(mask), mask], -1)


def drop_conditions(
    mask: Tensor, share: float | Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """A mask with some entries taken away, so that a model learns partial conditions.

    A row is chosen with probability ``share``; it then keeps each column with a probability of its
    own, uniform in [0, 1], so that few and many known columns are equally common.

    Args:
        mask: known columns (N, K).
        share: share of rows that lose columns, or how likely each row does (N, 1).
        generator: source of randomness, on the mask's device.

    Returns:
        The thinner mask (N, K).
    """
    rand = torch.rand(
        len(mask), mask.shape[1] + 2, generator=generator, dtype=mask.dtype, device=mask.device
    )
    keep = (rand[:, 2:] < rand[:, 1:2]) | (rand[:, :1] >= share)
    return mask * keep.to(mask)
