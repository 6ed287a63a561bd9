"""What a gradient search minimises: wanted values of heads as one loss a row.

Targets by head are missed in units of the head's training spread, so that properties of different
size weigh alike; a Goal's terms in the units of `Goal.loss`, by which Candidates are ranked.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.routines.surrogate import Surrogate
from genopt.routines.wants import MODES, Wanted

_STRICT_FACTOR = 100.0
_STRICTEST_FACTOR = 10_000.0
_STRICT_MARGIN = 0.01


class Objective:
    """The loss of latent vectors: mean over an output's dimensions, weighted mean over the wants.

    Args:
        model: the model whose heads are asked.
        wants: what is wanted.
    """

    def __init__(self, model: Surrogate, wants: list[Wanted]) -> None:
        self.model = model
        self.wants = wants
        self.heads = list(dict.fromkeys(want.head for want in wants))
        self._units = {name: model.head_unit(name).to(torch.float64) for name in self.heads}
        self._factors = [want.weight * self._factor(want) for want in wants]

    def outputs(self, latent: Tensor, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """What the wanted heads say, in raw units.

        Args:
            latent: latent vectors (..., H), or (M, ..., H) of an ensemble.
            dtype: dtype of the result.

        Returns:
            By head, (..., T).
        """
        return {name: self.model.head_output(name, latent, dtype) for name in self.heads}

    def loss(
        self, latent: Tensor, outputs: Mapping[str, Tensor], rows: Tensor | None = None
    ) -> Tensor:
        """The loss of each row.

        Args:
            latent: latent vectors (B, R, H), or (M, B, R, H) of an ensemble.
            outputs: what `outputs` gave for them, (B, R, T) each.
            rows: to which start each of the B rows belongs; None for all starts in order.

        Returns:
            Losses (B, R), float64.
        """
        parts = [
            factor * self._miss(want, latent, outputs[want.head], rows)
            for want, factor in zip(self.wants, self._factors, strict=True)
        ]
        return torch.stack(parts).sum(0) / sum(want.weight for want in self.wants)

    def variance(self, variances: Mapping[str, Tensor]) -> Tensor:
        """What scatter of the outputs adds to the mean of squared misses, weighed as these are.

        Args:
            variances: variance of each head's outputs (B, R, T), raw units; those of heads that
                are not wanted have no part.

        Returns:
            (B, R), float64.
        """
        total, weight = [], 0.0
        for want in self.wants:
            if want.head not in variances:
                continue
            scatter = variances[want.head].to(torch.float64)
            if want.output is not None:
                scatter = scatter[..., want.output : want.output + 1]
            total.append(want.weight * (scatter / self._unit(want).square()).mean(-1))
            weight += want.weight
        return torch.stack(total).sum(0) / weight

    def _unit(self, want: Wanted) -> Tensor:
        """The unit of a miss, (T,) or (1,)."""
        scale = self._units[want.head]
        if want.unit is not None:
            return torch.full((1,), want.unit, dtype=torch.float64, device=scale.device)
        if want.output is not None and scale.numel() > 1:
            return scale[want.output : want.output + 1]
        return scale

    def _factor(self, want: Wanted) -> float:
        """How much more a strict miss counts than a wish.

        A wish of slope g shifts a value of weight w by g/(2 w): with w = 2/slack by a quarter of
        the slack where g is 1.
        """
        if not want.strict:
            return 1.0
        if want.slack is None or want.kind != "equals":
            return _STRICT_FACTOR
        unit = float(self._unit(want)[0])
        return min(max(_STRICT_FACTOR, 2.0 * unit / max(want.slack, 1e-12)), _STRICTEST_FACTOR)

    def _miss(self, want: Wanted, latent: Tensor, output: Tensor, rows: Tensor | None) -> Tensor:
        value, high = (_of_rows(v, rows, output) for v in (want.value, want.upper))
        if want.kind == "label":
            log_p = self.model.head_log_probability(want.head, latent)
            codes = (torch.zeros_like(output[:1, :1, :1]) if value is None else value).long()
            picked = log_p.gather(-1, codes.expand(*log_p.shape[:-1], 1))
            return -picked.squeeze(-1).to(torch.float64)
        scale = self._unit(want)
        y = output.to(torch.float64)
        if want.output is not None:
            y = y[..., want.output : want.output + 1]
        if want.kind in MODES:
            return ((y if want.kind == "min" else -y) / scale).mean(-1)
        if value is None:
            raise GenoptError(f"head {want.head!r}: {want.kind} needs a value")
        margin = _STRICT_MARGIN * scale if want.strict else torch.zeros_like(scale)
        if want.kind == "at_least":
            miss = (value + margin - y).clamp_min(0.0)
        elif want.kind == "at_most":
            miss = (y - value + margin).clamp_min(0.0)
        elif want.kind == "between":
            high = value if high is None else high
            margin = torch.minimum(margin, 0.25 * (high - value))
            miss = (value + margin - y).clamp_min(0.0) + (y - high + margin).clamp_min(0.0)
        else:
            miss = y - value
        return (miss / scale).square().mean(-1)


def _of_rows(value: Tensor | None, rows: Tensor | None, like: Tensor) -> Tensor | None:
    """Wanted values (B, 1, T) of the rows that are looked at."""
    if value is None:
        return None
    value = value.to(device=like.device, dtype=torch.float64)
    if rows is not None and len(value) > 1:
        value = value[rows]
    return value[:, None]
