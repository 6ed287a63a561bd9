"""Penalties that keep a gradient search where the model knows something; all off by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.nn.encoders import TabularEncoder
from genopt.nn.heads import AutoencoderHead
from genopt.routines.objective import head_scale, reconstruction_heads

_DRAWS = 8


class Penalties:
    """Weighted penalties of a search.

    Args:
        model: the model that is searched.
        ae_task_name: the reconstruction head of the density penalty; None for the model's only one.
        density_weight: weight of minus the log density, or of the reconstruction error.
        density: log density of designs (M, P) -> (M,), or an object with ``log_prob(x, y)``; None
            for the reconstruction error.
        spread_weight: weight of the disagreement.
        spread: disagreement on designs (M, P) -> (M,); None for the variance under dropout.
        generator: source of the seeds of dropout.

    Raises:
        GenoptError: if a weight is negative or there is nothing to work a penalty out from.
    """

    def __init__(
        self,
        model: FlexibleMultiTaskModel,
        ae_task_name: str | None,
        density_weight: float,
        density: Any,
        spread_weight: float,
        spread: Callable[[Tensor], Tensor] | None,
        generator: torch.Generator,
    ) -> None:
        if density_weight < 0 or spread_weight < 0:
            raise GenoptError(
                f"density_penalty={density_weight} and spread_penalty={spread_weight} must not be "
                "negative"
            )
        self.model = model
        self.density_weight = density_weight
        self.spread_weight = spread_weight
        self.density = density
        self.spread = spread
        self.generator = generator
        heads = reconstruction_heads(model)
        self.decoder = ae_task_name or (heads[0] if len(heads) == 1 else None)
        if density_weight and density is None and self.decoder is None:
            raise GenoptError(
                "density_penalty needs density= (a log density of designs) or a model with a "
                "reconstruction head, named by ae_task_name"
            )
        self.dropouts = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]
        if spread_weight and spread is None and not self.dropouts:
            raise GenoptError(
                "spread_penalty needs spread= (a disagreement on designs) or a model with dropout"
            )

    @property
    def active(self) -> bool:
        """Whether any weight is positive."""
        return self.density_weight > 0 or self.spread_weight > 0

    def __call__(self, wide: Tensor, latent: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """The weighted penalties of each row.

        Args:
            wide: wide designs (B, R, E).
            latent: their latent vectors (B, R, H).
            outputs: the wanted heads' outputs (B, R, T) each.

        Returns:
            Penalties (B, R), float64.
        """
        total = torch.zeros(wide.shape[:-1], dtype=torch.float64, device=wide.device)
        if self.density_weight:
            total = total + self.density_weight * self._density(wide, latent)
        if self.spread_weight:
            total = total + self.spread_weight * self._spread(wide, outputs)
        return total

    def _raw(self, wide: Tensor) -> Tensor:
        encoder = self.model.encoder
        raw = encoder.scaler.raw(wide) if isinstance(encoder, TabularEncoder) else wide
        return raw.reshape(-1, raw.shape[-1])

    def _called(self, function: Callable[[Tensor], Tensor], wide: Tensor, name: str) -> Tensor:
        value = function(self._raw(wide))
        if value.numel() != wide.shape[:-1].numel():
            raise GenoptError(
                f"{name} returned shape {tuple(value.shape)}; expected ({wide.shape[:-1].numel()},)"
            )
        if not value.requires_grad:
            raise GenoptError(f"{name} is not differentiable in the design: use torch functions")
        return value.reshape(wide.shape[:-1]).to(torch.float64)

    def _density(self, wide: Tensor, latent: Tensor) -> Tensor:
        if self.density is not None:
            return -self._called(self._log_density, wide, "density")
        head = self.model.task_heads[str(self.decoder)]
        encoder = self.model.encoder
        if isinstance(head, AutoencoderHead) and isinstance(encoder, TabularEncoder):
            error = head.network(latent) - encoder.scaler(wide)
        else:
            error = head(latent) - wide
        return error.square().mean(-1).to(torch.float64)

    def _log_density(self, x: Tensor) -> Tensor:
        if not hasattr(self.density, "log_prob"):
            return self.density(x)
        free = torch.full((len(x), self.model.y_space.dim), torch.nan, dtype=x.dtype)
        return self.density.log_prob(x, free.to(x.device))

    def _spread(self, wide: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        if self.spread is not None:
            return self._called(self.spread, wide, "spread")
        seed = int(torch.randint(2**31, (), generator=self.generator, device=self.generator.device))
        draws: dict[str, list[Tensor]] = {name: [] for name in outputs}
        encoder: Any = self.model.encoder
        try:
            for module in self.dropouts:
                module.training = True
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                for _ in range(_DRAWS):
                    from_wide = getattr(encoder, "from_wide", encoder)
                    latent = from_wide(wide)[1]
                    for name in outputs:
                        draws[name].append(self.model.head_output(name, latent, torch.float64))
        finally:
            for module in self.dropouts:
                module.training = False
        parts = [
            (torch.stack(values).var(0) / head_scale(self.model, name).square().to(wide)).mean(-1)
            for name, values in draws.items()
        ]
        return torch.stack(parts).mean(0)
