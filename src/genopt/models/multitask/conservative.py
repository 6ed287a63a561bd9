"""Conservative training: what a search would find beyond the data is held down while learning.

A search ends where a model errs in its favour. Conservative objective models (Trabucco et al. 2021,
arXiv 2107.06882) play that search against the model in every step: from the rows of the mini-batch
a few steps uphill, and what is claimed there beyond the rows' own claim is part of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError, UnknownNameError
from genopt.nn.scalers import InputScaler
from genopt.simplex import project_simplex
from genopt.space import Space

_SIGNS = {"max": 1.0, "min": -1.0}


@dataclass(frozen=True)
class ConservativeOptions:
    """What conservative training holds down, and how strongly.

    Args:
        goals: ``max`` or ``min`` by head, one search for each: the direction in which it would
            exploit the model.
        weight: weight of the overestimation, in training spreads, beside the mean loss.
        steps: steps of the search against the model.
        lr: length of a step, root mean square over the features in training spreads.

    Raises:
        GenoptError: if there is no goal or a number is out of range.
    """

    goals: Mapping[str, Literal["max", "min"]]
    weight: float = 0.1
    steps: int = 5
    lr: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.goals, Mapping) or not self.goals:
            raise GenoptError(
                "conservative.goals names no head: for example conservative={'goals': {'density': "
                "'max'}}"
            )
        for name, direction in self.goals.items():
            if direction not in _SIGNS:
                raise UnknownNameError(f"conservative.goals.{name}", str(direction), _SIGNS)
        if self.weight <= 0 or self.steps < 1 or self.lr <= 0:
            raise GenoptError(
                f"conservative.weight={self.weight} and conservative.lr={self.lr} must be positive "
                f"and conservative.steps={self.steps} at least 1"
            )

    @classmethod
    def read(
        cls, options: Mapping[str, Any] | ConservativeOptions | None
    ) -> ConservativeOptions | None:
        """Options from plain data.

        Args:
            options: a mapping with ``goals`` and maybe ``weight``, ``steps`` and ``lr``; None for
                no conservative training.

        Returns:
            The options, or None.

        Raises:
            UnknownNameError: if a key is unknown.
        """
        if options is None or isinstance(options, ConservativeOptions):
            return options
        known = list(cls.__dataclass_fields__)
        for key in options:
            if key not in known:
                raise UnknownNameError("key of conservative", str(key), known)
        return cls(**{"goals": {}, **options})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `read` takes it."""
        return {**asdict(self), "goals": dict(self.goals)}


class ConservativePenalty:
    """How far claims rise above those of the data when a search is let loose on the model.

    Args:
        options: heads, directions and strength.
        heads: the model's heads by name.

    Raises:
        UnknownNameError: if a goal is no head.
        GenoptError: if a goal is no number.
    """

    def __init__(self, options: ConservativeOptions, heads: Mapping[str, Any]) -> None:
        for name in options.goals:
            if name not in heads:
                raise UnknownNameError("head in conservative.goals", str(name), heads)
            if getattr(heads[name], "kind", "number") != "number":
                raise GenoptError(
                    f"conservative.goals names head {name!r}, which is no number: only numbers "
                    "have a max or min"
                )
        self.options = options
        self.scale = self.mean = torch.ones(0)
        self.lower = self.upper = self.free = torch.ones(0)
        self.simplexes: tuple[list[int], ...] = ()

    def learn_bounds(self, space: Space, scaler: InputScaler) -> None:
        """Where the search may go: inside the bounds, with classes as they are.

        Args:
            space: the Space of x.
            scaler: raw designs to features, fitted.
        """
        wide = scaler.wide_dim
        free = torch.ones(wide)
        lower, upper = torch.full((wide,), -torch.inf), torch.full((wide,), torch.inf)
        starts = []
        for v, part in zip(space, scaler.slices, strict=True):
            starts.append(part.start)
            if v.labels:
                free[part] = 0.0
            else:
                lower[part], upper[part] = v.lower, v.upper
        self.mean, self.scale = scaler.mean.detach(), scaler.scale.detach()
        self.lower, self.upper = lower.to(self.mean), upper.to(self.mean)
        self.free = free.to(self.mean)
        self.simplexes = tuple([starts[i] for i in group] for group in space.simplex_indices)

    def __call__(
        self, network: nn.Module, heads: Mapping[str, Any], features: Tensor, latent: Tensor
    ) -> Tensor:
        """The weighted overestimation of a mini-batch.

        Args:
            network: features (..., E) to latent vectors (..., H).
            heads: the model's heads by name.
            features: scaled designs (N, E).
            latent: their latent vectors (N, H).

        Returns:
            Scalar: the weight times the mean, over rows and goals, of how much better the designs
            found are claimed to be than those that they come from, in training spreads.
        """
        found = self.search(network, heads, features)
        there = self._claims(heads, network(found).unbind(0))
        here = self._claims(heads, [latent] * len(self.options.goals))
        return self.options.weight * (there - here).mean().to(latent.dtype)

    def search(self, network: nn.Module, heads: Mapping[str, Any], features: Tensor) -> Tensor:
        """The designs that a short search against the model finds, for each goal by itself.

        Args:
            network: features (..., E) to latent vectors (..., H).
            heads: the model's heads by name.
            features: scaled designs (N, E) to start from.

        Returns:
            Scaled designs (goals, N, E), without gradients.
        """

        def claimed(designs: Tensor) -> Tensor:
            return self._claims(heads, network(designs).unbind(0)).sum().to(designs.dtype)

        uphill = torch.func.grad(claimed)
        designs = features.detach().expand(len(self.options.goals), *features.shape)
        free = self.free.to(features.device)
        step = self.options.lr * free.sum().sqrt()
        with torch.no_grad():
            for _ in range(self.options.steps):
                way = self._open(designs, uphill(designs) * free)
                size = way.norm(dim=-1, keepdim=True).clamp_min(1e-12)
                designs = self._inside(designs + step * way / size)
            return designs.detach()

    def _claims(self, heads: Mapping[str, Any], latents: Any) -> Tensor:
        """What is claimed (goals, N), upwards and in training spreads."""
        claims = []
        for (name, direction), z in zip(self.options.goals.items(), latents, strict=True):
            head = heads[name]
            value = head(z, torch.float64) / head.unit
            claims.append(_SIGNS[direction] * value.mean(-1))
        return torch.stack(claims)

    def _open(self, designs: Tensor, way: Tensor) -> Tensor:
        """Steps (..., E) without what bounds and simplexes would take back."""
        lower, upper = self._bounds(designs)
        for _ in range(2):
            shut = ((designs >= upper) & (way > 0.0)) | ((designs <= lower) & (way < 0.0))
            way = torch.where(shut, 0.0, way)
            for group in self.simplexes:
                # the sum of the open columns, in raw units, must not change
                normal = self.scale[group].to(way) * ~shut[..., group]
                part, size = way[..., group], normal.square().sum(-1, keepdim=True)
                along = (part * normal).sum(-1, keepdim=True) / size.clamp_min(1e-30)
                way = _with_columns(way, group, part - along * normal)
        return way

    def _inside(self, designs: Tensor) -> Tensor:
        lower, upper = self._bounds(designs)
        designs = torch.minimum(torch.maximum(designs, lower), upper)
        for group in self.simplexes:
            mean, scale = self.mean[group].to(designs), self.scale[group].to(designs)
            raw = designs[..., group] * scale + mean
            low, high = self.lower[group].to(designs), self.upper[group].to(designs)
            exact = (project_simplex(raw, low, high) - mean) / scale
            designs = _with_columns(designs, group, exact)
        return designs

    def _bounds(self, designs: Tensor) -> tuple[Tensor, Tensor]:
        lower = (self.lower - self.mean) / self.scale
        upper = (self.upper - self.mean) / self.scale
        return lower.to(designs), upper.to(designs)


def _with_columns(values: Tensor, columns: list[int], new: Tensor) -> Tensor:
    return values.index_copy(-1, torch.tensor(columns, device=values.device), new)
