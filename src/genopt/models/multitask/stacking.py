"""M models of one shape as one: their parameters get a leading dimension M and are mapped over.

One batched operation replaces M small ones, so an ensemble of small networks costs less than its
members one by one. `torch.func` does the mapping; the parts themselves know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from genopt.nn.encoders import TabularEncoder
from genopt.nn.scalers import InputScaler


class Members:
    """A part whose parameters are stacked, called with those of each member.

    Args:
        part: a module; its parameters have a leading dimension M.
        common: parameters of the part that are not stacked.
    """

    def __init__(self, part: nn.Module, common: Iterable[nn.Parameter] = ()) -> None:
        self.part = part
        apart = set(map(id, common))
        # looked up once: walking through the modules costs as much as a small network
        self._places = [
            (module._parameters, name)
            for module in part.modules()
            for name, value in module._parameters.items()
            if value is not None and id(value) not in apart
        ]

    def each(
        self,
        method: Callable[..., Any],
        shared: Sequence[Any] = (),
        own: Sequence[Tensor] = (),
        batched: bool = True,
    ) -> Any:
        """What a method of the part gives for each member.

        Args:
            method: called as ``method(part, *shared, *own)``; it returns a tensor or several.
            shared: arguments that all members take.
            own: arguments (M, ...) of which each member takes its own.
            batched: whether in one batched pass; one by one for methods that ask autograd for
                gradients.

        Returns:
            The members' results (M, ...); random numbers in them differ between the members.
        """

        def one(parameters: list[Tensor], *own: Tensor) -> Any:
            with self._holding(parameters):
                return method(self.part, *shared, *own)

        stacked = [cast(Tensor, store[name]) for store, name in self._places]
        if batched:
            # fused attention cannot be mapped over: each member would be computed by itself
            with sdpa_kernel(SDPBackend.MATH):
                return vmap(one, randomness="different")(stacked, *own)
        results = [
            one([value[i] for value in stacked], *(part[i] for part in own))
            for i in range(len(stacked[0]))
        ]
        return tree_map(lambda *parts: torch.stack(parts), *results)

    @contextmanager
    def _holding(self, parameters: Sequence[Tensor]) -> Iterator[None]:
        """The part with other parameters inside the block."""
        before = [store[name] for store, name in self._places]
        try:
            for (store, name), value in zip(self._places, parameters, strict=True):
                store[name] = cast(nn.Parameter, value)
            yield
        finally:
            for (store, name), old in zip(self._places, before, strict=True):
                store[name] = old


def stack_parameters(first: nn.Module, others: Sequence[nn.Module]) -> None:
    """Give a module the parameters of several, stacked; buffers stay its own.

    Args:
        first: the module, changed in place; it becomes member 0.
        others: further modules of the same shape.
    """
    for path, old in list(first.named_parameters()):
        owner, _, name = path.rpartition(".")
        values = [old, *(other.get_parameter(path) for other in others)]
        stacked = torch.stack([value.detach() for value in values])
        new = nn.Parameter(stacked, requires_grad=old.requires_grad)
        setattr(first.get_submodule(owner), name, new)


@torch.no_grad()
def clip_by_member(gradients: Sequence[Tensor], largest: float) -> None:
    """Scale each member's gradient down to a largest norm.

    Args:
        gradients: of stacked parameters (M, ...), changed in place.
        largest: the norm that no member's gradient exceeds.
    """
    squares = [g.flatten(1).square().sum(1) for g in gradients]
    norm = torch.stack(squares).sum(0).sqrt()
    # the same guard against a zero norm as torch.nn.utils.clip_grad_norm_
    factor = (largest / (norm + 1e-6)).clamp_max(1.0)
    for gradient in gradients:
        gradient.mul_(factor.reshape(-1, *[1] * (gradient.ndim - 1)))


class StackedEncoder(TabularEncoder):
    """The encoders of all members: one scaler, latent vectors with a leading dimension M.

    Its ``network`` has stacked parameters and is only to be called by `Members`.

    Args:
        scaler: raw designs to features.
        network: features to latent vectors, stacked.
    """

    def __init__(self, scaler: InputScaler, network: nn.Module) -> None:
        super().__init__(scaler, network)
        self._members = Members(network)

    def from_wide(self, wide: Tensor) -> tuple[Tensor, Tensor]:
        """Features and latent vectors of designs.

        Args:
            wide: wide designs (..., E).

        Returns:
            Features (..., E) and latent vectors (M, ..., H).
        """
        features = self.scaler(wide)
        return features, self._members.each(nn.Module.__call__, (features,))


def draw_designs(features: Tensor, members: int, share: float, seed: int) -> Tensor:
    """Which members learn from which rows: a share of the designs for each.

    Args:
        features: scaled designs (N, E); equal rows are one design and stay together.
        members: number of members M.
        share: share of the designs for each member.
        seed: seed of the draw.

    Returns:
        Bool (N, M).
    """
    design = torch.unique(features, dim=0, return_inverse=True)[1]
    count = int(design.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(count, members, generator=generator).argsort(0).argsort(0)
    return (order < max(1, round(share * count))).to(features.device)[design]
