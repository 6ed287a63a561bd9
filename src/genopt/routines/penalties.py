"""Penalties that keep a gradient search where the model knows something; all off by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.nn.heads import AutoencoderHead
from genopt.routines.objective import Objective
from genopt.routines.surrogate import Surrogate, heads_of_kind, members

_DRAWS = 8


class Penalties:
    """Weighted penalties of a search.

    Args:
        model: the model that is searched.
        objective: what is minimised; its units and weights are those of the disagreement.
        ae_task_name: the reconstruction head of the density penalty; None for the model's only one.
        density_weight: weight of minus the log density, or of the reconstruction error.
        density: log density of designs (M, P) -> (M,), or an object with ``of_wide``,
            ``torch_density`` or ``log_prob(x, y)``; None for the reconstruction error.
        spread_weight: weight of the disagreement.
        spread: disagreement on designs (M, P) -> (M,); None for the variance over the members of an
            ensemble, or under dropout.
        generator: source of the seeds of dropout.

    Raises:
        GenoptError: if a weight is negative or there is nothing to work a penalty out from.
    """

    def __init__(
        self,
        model: Surrogate,
        objective: Objective,
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
        self.objective = objective
        self.density_weight = density_weight
        self.spread_weight = spread_weight
        self.density = density.torch_density() if hasattr(density, "torch_density") else density
        self.spread = spread
        self.generator = generator
        heads = heads_of_kind(model, "design")
        self.decoder = ae_task_name or (heads[0] if len(heads) == 1 else None)
        if density_weight and density is None and self.decoder is None:
            raise GenoptError(
                "density_penalty needs density= (a log density of designs; density: mixture in a "
                "study) or a model with a reconstruction head, named by ae_task_name"
            )
        self.members = members(model)
        self.dropouts = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]
        if spread_weight and spread is None and self.members == 1 and not self.dropouts:
            raise GenoptError(
                "spread_penalty needs an ensemble, a model with dropout, or spread= (a "
                "disagreement on designs)"
            )

    @property
    def active(self) -> bool:
        """Whether any weight is positive."""
        return self.density_weight > 0 or self.spread_weight > 0

    def __call__(self, wide: Tensor, latent: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """The weighted penalties of each row.

        Args:
            wide: wide designs (B, R, E).
            latent: their latent vectors (B, R, H), or (M, B, R, H) of an ensemble.
            outputs: the wanted heads' outputs (B, R, T) each.

        Returns:
            Penalties (B, R), float64.
        """
        total = torch.zeros(wide.shape[:-1], dtype=torch.float64, device=wide.device)
        if self.density_weight:
            total = total + self.density_weight * self._density(wide, latent)
        if self.spread_weight:
            total = total + self.spread_weight * self._spread(wide, latent, outputs)
        return total

    def _called(self, function: Callable[[Tensor], Tensor], wide: Tensor, name: str) -> Tensor:
        raw = self.model.scaler.raw(wide)
        value = function(raw.reshape(-1, raw.shape[-1]))
        if value.numel() != wide.shape[:-1].numel():
            raise GenoptError(
                f"{name} returned shape {tuple(value.shape)}; expected ({wide.shape[:-1].numel()},)"
            )
        if not value.requires_grad:
            raise GenoptError(f"{name} is not differentiable in the design: use torch functions")
        return value.reshape(wide.shape[:-1]).to(torch.float64)

    def _density(self, wide: Tensor, latent: Tensor) -> Tensor:
        if self.density is None:
            return self._reconstruction_error(wide, latent)
        if hasattr(self.density, "of_wide"):
            return -self.density.of_wide(wide).to(torch.float64)
        return -self._called(self._log_density, wide, "density")

    def _reconstruction_error(self, wide: Tensor, latent: Tensor) -> Tensor:
        """Mean squared error of the decoded features."""
        scaler = self.model.scaler
        head = self.model.task_heads[str(self.decoder)]
        if self.members == 1 and isinstance(head, AutoencoderHead):
            decoded = head.wide(latent)
        else:
            decoded = scaler.wide(self.model.head_output(str(self.decoder), latent))
        return (scaler(decoded) - scaler(wide)).square().mean(-1).to(torch.float64)

    def _log_density(self, x: Tensor) -> Tensor:
        if not hasattr(self.density, "log_prob"):
            return self.density(x)
        free = torch.full((len(x), self.model.y_space.dim), torch.nan, dtype=x.dtype)
        return self.density.log_prob(x, free.to(x.device))

    def _spread(self, wide: Tensor, latent: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Variance of the wanted outputs, in the squared units of their misses."""
        if self.spread is not None:
            return self._called(self.spread, wide, "spread")
        if self.members > 1:
            variances = {}
            for name in outputs:
                spread = self.model.head_spread(name, latent, torch.float64, noise=False)
                if spread is not None:
                    variances[name] = spread.square()
        else:
            variances = self._under_dropout(wide, outputs)
        return self.objective.variance(variances)

    def _under_dropout(self, wide: Tensor, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        seed = int(torch.randint(2**31, (), generator=self.generator, device=self.generator.device))
        draws: dict[str, list[Tensor]] = {name: [] for name in outputs}
        try:
            for module in self.dropouts:
                module.training = True
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                for _ in range(_DRAWS):
                    latent = self.model.latent_of_wide(wide)
                    for name in outputs:
                        draws[name].append(self.model.head_output(name, latent, torch.float64))
        finally:
            for module in self.dropouts:
                module.training = False
        return {name: torch.stack(values).var(0) for name, values in draws.items()}
