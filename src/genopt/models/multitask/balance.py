"""How the losses of several heads become one training step: three balances of tasks.

Properties are learned at different speeds and some pull the shared encoder in opposite directions.
The weights that a user gives always count; a balance multiplies or rearranges what they give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from genopt.errors import UnknownNameError
from genopt.models.multitask.masses import Split

Losses = Callable[[Tensor], Tensor]

_PRIOR_SPREAD = 3.0
_SCALE = 10.0


class Balanced(NamedTuple):
    """What a balance makes of a mini-batch.

    Args:
        objective: the scalar that is differentiated.
        losses: the heads' losses (heads,), detached.
    """

    objective: Tensor
    losses: Tensor


class FixedBalance(nn.Module):
    """The weighted mean of the losses.

    Args:
        heads: the heads by name.
    """

    def __init__(self, heads: Mapping[str, Any]) -> None:
        super().__init__()
        self.all_heads = tuple(heads)

    def forward(
        self,
        losses: Losses,
        latent: Tensor,
        weights: Tensor,
        names: Sequence[str],
        shared: Sequence[Tensor],
        split: Split | None = None,
    ) -> Balanced:
        """One scalar for all heads.

        Args:
            losses: latent vectors (N, H) to the heads' losses (heads,).
            latent: latent vectors (N, H) of the mini-batch.
            weights: weights (heads,) of the losses, summing to one.
            names: the heads whose losses these are.
            shared: trained parameters of the encoder.
            split: how the mini-batch is split between processes, whose objectives then add up; None
                for one process.

        Returns:
            What is differentiated, and the losses.
        """
        values = losses(latent)
        return Balanced((weights * values).sum(), values.detach())

    def factors(self) -> dict[str, float]:
        """By head, what multiplies the given weight; empty where nothing is learned."""
        return {}

    def for_heads(self, heads: Mapping[str, Any]) -> Self:
        """The same balance for other heads; what was learned of those that stay is kept.

        Args:
            heads: the heads by name.

        Returns:
            A new balance.
        """
        return type(self)(heads)


class UncertaintyBalance(FixedBalance):
    """Weights learned as the noise of each property (Kendall, Gal and Cipolla, arXiv 1705.07115).

    The log variance s of a head minimises exp(-s) L / 2 + s / 2 (without the first half for
    classes), so its weight exp(-s) follows 1 / L. Two things differ from the paper. A normal prior
    on s (spread 3) keeps a property without noise from taking all of the weight. The weights that
    the network sees sum to one, so that clipping and learning rate mean the same as without.
    Heads that learn the noise of their labels themselves keep the factor one.

    Args:
        heads: the heads by name.
    """

    def __init__(self, heads: Mapping[str, Any]) -> None:
        super().__init__(heads)
        # AdamW moves a parameter by about its rate a step, and s has several units to go
        self.scaled_log_variance = nn.Parameter(torch.zeros(len(heads)))
        kinds = [getattr(head, "kind", "number") for head in heads.values()]
        self._doubled = tuple(2.0 if kind == "class" else 1.0 for kind in kinds)
        self._free = tuple(float(not getattr(h, "has_noise", False)) for h in heads.values())

    def _log_variance(self) -> Tensor:
        free = self.scaled_log_variance.new_tensor(self._free)
        return _SCALE * self.scaled_log_variance * free

    def forward(
        self,
        losses: Losses,
        latent: Tensor,
        weights: Tensor,
        names: Sequence[str],
        shared: Sequence[Tensor],
        split: Split | None = None,
    ) -> Balanced:
        """The reweighted loss, and s through its own likelihood.

        Args:
            losses: latent vectors (N, H) to the heads' losses (heads,).
            latent: latent vectors (N, H) of the mini-batch.
            weights: weights (heads,) of the losses, summing to one.
            names: the heads whose losses these are.
            shared: trained parameters of the encoder.
            split: how the mini-batch is split between processes, whose objectives then add up; None
                for one process.

        Returns:
            What is differentiated (its value is the reweighted loss), and the losses.
        """
        values = losses(latent)
        index = [self.all_heads.index(name) for name in names]
        s = self._log_variance()[index]
        doubled = values.new_tensor([self._doubled[i] for i in index])
        precision = (-s).exp()
        share = (weights * precision).detach()
        reweighted = (share * values).sum() / share.sum()
        prior = s + (s / _PRIOR_SPREAD).square()
        # a mini-batch without labels of a head has the loss zero and says nothing of its noise
        silent = values.detach() == 0.0
        if split is not None:
            prior, silent = prior / split.share.count, ~split.known
        noise = 0.5 * (precision * doubled * values.detach() + prior)
        likelihood = (weights * torch.where(silent, 0.0, noise)).sum()
        return Balanced(reweighted + likelihood - likelihood.detach(), values.detach())

    def for_heads(self, heads: Mapping[str, Any]) -> Self:
        """The same balance for other heads; s of those that stay is kept, on its device.

        Args:
            heads: the heads by name.

        Returns:
            A new balance.
        """
        new = type(self)(heads).to(self.scaled_log_variance.device)
        with torch.no_grad():
            for i, name in enumerate(new.all_heads):
                if name in self.all_heads:
                    old = self.scaled_log_variance[self.all_heads.index(name)]
                    new.scaled_log_variance[i] = old
        return new

    def factors(self) -> dict[str, float]:
        """By head, exp(-s) in units of the mean over the heads."""
        with torch.no_grad():
            precision = (-self._log_variance()).exp()
            values = (precision / precision.mean()).tolist()
        return dict(zip(self.all_heads, values, strict=True))


class PCGradBalance(FixedBalance):
    """Conflicts between tasks removed from the encoder's gradient (Yu et al., arXiv 2001.06782).

    Each head's gradient loses its part against every other head's, in random order. Heads learn
    from their own loss as ever. A step costs one more backward pass of the encoder for each head.

    Args:
        heads: the heads by name.
    """

    def forward(
        self,
        losses: Losses,
        latent: Tensor,
        weights: Tensor,
        names: Sequence[str],
        shared: Sequence[Tensor],
        split: Split | None = None,
    ) -> Balanced:
        """A scalar whose gradient is the sum of the projected ones.

        Args:
            losses: latent vectors (N, H) to the heads' losses (heads,).
            latent: latent vectors (N, H) of the mini-batch.
            weights: weights (heads,) of the losses, summing to one.
            names: the heads whose losses these are.
            shared: trained parameters of the encoder.
            split: how the mini-batch is split between processes, whose objectives then add up; None
                for one process.

        Returns:
            What is differentiated (its value means nothing), and the losses.
        """
        if not shared or len(names) == 1:
            return super().forward(losses, latent, weights, names, shared, split)
        here = latent.detach().requires_grad_()
        values = losses(here)
        weighted = weights * values
        each = torch.eye(len(names), dtype=weighted.dtype, device=weighted.device)
        (pull,) = torch.autograd.grad(
            weighted, here, each, retain_graph=True, is_grads_batched=True
        )
        gradients = torch.autograd.grad(latent, shared, pull, is_grads_batched=True)
        flat = torch.cat([gradient.flatten(1) for gradient in gradients], 1)
        if split is not None:
            # conflicts are those of all rows; each process then gives its part of what is left
            flat = split.share.total(flat) / split.share.count
        orders = torch.rand(len(names), len(names)).argsort(1).to(flat.device)
        kept = without_conflicts(flat @ flat.mT, orders) @ flat
        # linear in the encoder's parameters, with the wanted gradient; heads keep their own
        parts = kept.split([p.numel() for p in shared])
        linear = [(p * g.view_as(p)).sum() for p, g in zip(shared, parts, strict=True)]
        return Balanced(weighted.sum() + torch.stack(linear).sum(), values.detach())


def without_conflicts(gram: Tensor, orders: Tensor) -> Tensor:
    """PCGrad written for the weights of the tasks: all tasks are projected at once.

    Args:
        gram: inner products (T, T) of the tasks' gradients.
        orders: for each task the order (T, T) in which it meets the others, itself included.

    Returns:
        Weights (T,) whose combination of the gradients is the sum of the projected gradients.
    """
    rows = torch.arange(len(gram), device=gram.device)
    size = gram.diagonal().clamp_min(torch.finfo(gram.dtype).tiny)
    combined = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for other in orders.mT:
        inner = (combined * gram[other]).sum(1).clamp_max(0.0)
        inner = torch.where(other == rows, 0.0, inner)
        combined = combined.index_put((rows, other), -inner / size[other], accumulate=True)
    return combined.sum(0)


BALANCES: dict[str, type[FixedBalance]] = {
    "fixed": FixedBalance,
    "uncertainty": UncertaintyBalance,
    "pcgrad": PCGradBalance,
}


def new_balance(name: str, heads: Mapping[str, Any]) -> FixedBalance:
    """A balance of heads.

    Args:
        name: ``fixed``, ``uncertainty`` or ``pcgrad``.
        heads: the heads by name.

    Returns:
        The balance.

    Raises:
        UnknownNameError: if the name is unknown.
    """
    if name not in BALANCES:
        raise UnknownNameError("balance", str(name), BALANCES)
    return BALANCES[name](heads)
