"""The losses of all heads at once: heads that are alike become one computation.

Twenty scalar heads called one by one cost more than the encoder. Linear regression heads become one
matrix product and one masked loss over all their columns; other heads of the same class and shape
are stacked and evaluated under `torch.func.vmap`. The losses are those of the heads one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from genopt.nn.heads import RegressionHead

_INTERNAL = frozenset(vars(nn.Module()))


class _Group(Protocol):
    """Heads that are evaluated together."""

    def losses(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """The loss (G,) of each head of the group."""
        ...


class GroupedLosses:
    """The losses of heads, grouped by what is alike.

    Which heads are alike is decided when it is made, so make it anew when heads come, go or are
    frozen. Weights are looked up in each call, which therefore also works under
    `torch.func.functional_call` and `torch.func.vmap`.

    Args:
        heads: the heads by name.
        widths: label columns of each head, in the order in which the labels lie side by side.
        names: the heads whose losses are wanted, in the order of the result.
    """

    def __init__(
        self, heads: Mapping[str, nn.Module], widths: Mapping[str, int], names: Sequence[str]
    ) -> None:
        columns, start = {}, 0
        for name, width in widths.items():
            columns[name] = range(start, start + width)
            start += width
        alike: dict[Any, list[str]] = {}
        for name in names:
            alike.setdefault(_kind_of(name, heads[name]), []).append(name)
        self._groups: list[_Group] = []
        order: list[str] = []
        for members in alike.values():
            modules = [heads[name] for name in members]
            places = [columns[name] for name in members]
            order += members
            if len(members) == 1:
                self._groups.append(_Single(modules[0], places[0]))
            elif _is_linear(modules[0]):
                self._groups.append(_Linear(modules, places))
            else:
                self._groups.append(_Stacked(modules, places))
        self._order = None if order == list(names) else [order.index(name) for name in names]
        #: How many computations are made of the heads.
        self.number = len(self._groups)

    def __call__(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """The losses of a mini-batch.

        Args:
            latent: latent vectors (N, H).
            targets: scaled labels (N, L) of all heads side by side; NaN where there is none.
            features: scaled designs (N, E).

        Returns:
            Losses (heads,), in the order of the names.
        """
        parts = [group.losses(latent, targets, features) for group in self._groups]
        losses = parts[0] if len(parts) == 1 else torch.cat(parts)
        return losses if self._order is None else losses[self._order]


class _Single:
    def __init__(self, head: nn.Module, place: range) -> None:
        self.head: Any = head
        self.place = slice(place.start, place.stop)

    def losses(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        return self.head.loss(latent, targets[:, self.place], features)[None]


class _Linear:
    """Regression heads without hidden layers, of any widths: one product, one masked loss."""

    def __init__(self, heads: Sequence[Any], places: Sequence[range]) -> None:
        self.layers = [head.network[0] for head in heads]
        self.columns = _index([i for place in places for i in place])
        self.heads = len(places)
        self.owner = None
        if any(len(place) > 1 for place in places):
            self.owner = [g for g, place in enumerate(places) for _ in place]

    def losses(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        weight = torch.cat([layer.weight for layer in self.layers])
        bias = torch.cat([layer.bias for layer in self.layers])
        targets = targets[:, self.columns]
        known = ~torch.isnan(targets)
        error = nn.functional.linear(latent, weight, bias) - torch.where(known, targets, 0.0)
        total = torch.where(known, error.square(), 0.0).sum(0)
        count = known.sum(0)
        if self.owner is not None:
            owner = torch.tensor(self.owner, device=total.device)
            total = total.new_zeros(self.heads).index_add(0, owner, total)
            count = count.new_zeros(self.heads).index_add(0, owner, count)
        return total / count.clamp_min(1)


class _Stacked:
    """Heads of one class and shape: their tensors are stacked and one of them is mapped over."""

    def __init__(self, heads: Sequence[nn.Module], places: Sequence[range]) -> None:
        self.call = _Loss(heads[0])
        self.tensors = {
            f"head.{name}": [_owner(head, name) for head in heads]
            for name, _ in [*heads[0].named_parameters(), *heads[0].named_buffers()]
        }
        self.columns = [i for place in places for i in place]
        self.shape = (len(places), len(places[0]))

    def losses(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        stacked = {
            name: torch.stack([getattr(module, leaf) for module, leaf in where])
            for name, where in self.tensors.items()
        }
        parts = targets[:, self.columns].unflatten(1, self.shape)

        def loss(tensors: dict[str, Tensor], part: Tensor) -> Tensor:
            return functional_call(self.call, tensors, (latent, part, features))

        return vmap(loss, in_dims=(0, 1), randomness="different")(stacked, parts)


class _Loss(nn.Module):
    """A head whose call is its loss, which is what `functional_call` needs."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head: Any = head

    def forward(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        return self.head.loss(latent, targets, features)


def _is_linear(head: nn.Module) -> bool:
    return type(head) is RegressionHead and len(head.network) == 1


def _kind_of(name: str, head: nn.Module) -> Any:
    """Equal for heads that can be evaluated together.

    That are heads of our own (they keep to what vmap allows) with the same layers, the same plain
    options, tensors of the same shape, and the same parts frozen or in eval mode.
    """
    if not type(head).__module__.startswith("genopt.nn.heads"):
        return name
    if _is_linear(head):
        return "linear"
    modules = tuple(
        (path, type(module), module.training, repr(sorted(_plain(module).items())))
        for path, module in head.named_modules()
    )
    tensors = tuple(
        (path, tuple(tensor.shape), tensor.dtype, tensor.device, tensor.requires_grad)
        for path, tensor in [*head.named_parameters(), *head.named_buffers()]
    )
    return modules, tensors


def _plain(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in _INTERNAL}


def _owner(head: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, leaf = path.rpartition(".")
    return head.get_submodule(parent), leaf


def _index(columns: Sequence[int]) -> slice | list[int]:
    """Columns as a slice where they lie side by side: a view costs nothing."""
    run = range(columns[0], columns[0] + len(columns))
    return slice(run.start, run.stop) if list(columns) == list(run) else list(columns)
