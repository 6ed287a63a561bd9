"""What an ensemble answers: means over its members, and how far these lie apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from genopt.errors import UnknownNameError
from genopt.models.multitask.labels import as_tensor
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.multitask.spread import FLOOR, calibrated
from genopt.models.multitask.stacking import Members
from genopt.space import Space

_CHUNK = 65_536
# no head has such a name
_ALL = "."
_PARTS = ("total", "disagreement", "noise")


class EnsembleAnswers(FlexibleMultiTaskModel):
    """The answering half of a `MultiTaskEnsemble`, which stacks the parameters."""

    members = 1
    _as_member = False

    def head_output(self, name: str, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """What the members say on average, in raw units.

        Args:
            name: the head.
            latent: latent vectors (M, ..., H).
            dtype: dtype of the result; None for that of the latent vectors.

        Returns:
            Properties (..., T), probabilities (..., C) or designs (..., P).
        """
        if self._as_member:
            return super().head_output(name, latent, dtype)
        if self.head_kind(name) == "design":
            head = self.heads[name]
            wide = self._of_head(name, latent, lambda z: head.wide(z, dtype)).mean(0)
            raw: Tensor = head.scaler.raw(wide)
            return raw
        return self._answers(name, latent, dtype).mean(0)

    def head_log_probability(self, name: str, latent: Tensor) -> Tensor:
        """Log of the members' mean class probabilities.

        Args:
            name: the head.
            latent: latent vectors (M, ..., H).

        Returns:
            Log probabilities (..., C).
        """
        if self._as_member:
            return super().head_log_probability(name, latent)
        said = super().head_log_probability
        each = self._of_head(name, latent, lambda z: said(name, z))
        return each.logsumexp(0) - math.log(self.members)

    def head_spread(
        self, name: str, latent: Tensor, dtype: torch.dtype | None = None, noise: bool = True
    ) -> Tensor | None:
        """How far a label may lie from what the members say on average.

        The variance of the mixture of the members: that of their answers, plus the mean of the
        noise variances that they see.

        Args:
            name: the head.
            latent: latent vectors (M, ..., H).
            dtype: dtype of the result; None for that of the network.
            noise: whether the heads' own noise counts, beside the members' disagreement.

        Returns:
            Standard deviations (..., T) in raw units, calibrated; None for a reconstruction.
        """
        if self._as_member:
            return super().head_spread(name, latent, dtype, noise)
        if self.head_kind(name) == "design":
            return None
        variance = self._answers(name, latent, dtype).var(0, unbiased=False)
        head = self.heads[name]
        if noise and getattr(head, "has_noise", False):
            own = self._of_head(name, latent, lambda z: head.noise(z, dtype))
            variance = variance + own.square().mean(0)
        return calibrated(head, variance, floor=noise)

    @property
    def has_spread(self) -> bool:
        """Whether `spread_y` says anything: some column is a number."""
        return any(w is not None and self.head_kind(w[0]) == "number" for w in self.columns)

    def predict_spread(self, x: Any, part: str = "total") -> dict[str, Any]:
        """Standard deviation around what `predict` says, in raw units, by head.

        Args:
            x: designs (N, P), or one design (P,).
            part: ``disagreement`` of the members, ``noise`` that the heads see in the labels, or
                ``total`` of both (their squares add up).

        Returns:
            By head: (N,) for a scalar property, (N, T) for a vector, (N, C) for the probabilities
            of classes. Tensors for a tensor, else numpy arrays. No entry for a reconstruction nor,
            under ``noise``, for a head that sees none.

        Raises:
            GenoptError: if x has the wrong shape or is not finite.
            UnknownNameError: if there is no such part.
        """
        if part not in _PARTS:
            raise UnknownNameError("part", part, _PARTS)
        mean = self.predict(x)
        designs = as_tensor(x, "x")
        out: dict[str, Any] = {}
        flat = designs.reshape(-1, self.x_space.dim)
        with self.evaluating(), torch.no_grad():
            latents = [self.encoder(chunk.to(self.home))[1] for chunk in flat.split(_CHUNK)]
            for name, value in mean.items():
                if part == "noise" and not self._knows_noise(name):
                    continue
                pieces = [self._part(name, z, designs.dtype, part) for z in latents]
                known = [piece for piece in pieces if piece is not None]
                if known:
                    spread = torch.cat(known).to(designs.device).reshape(value.shape)
                    if name in self.untrained_heads:
                        spread = torch.full_like(spread, torch.nan)
                    out[name] = spread if isinstance(x, Tensor) else spread.numpy()
        return out

    def _knows_noise(self, name: str) -> bool:
        head = self.heads[name]
        return getattr(head, "has_noise", False) or bool((head.get_buffer(FLOOR) > 0).any())

    def _part(self, name: str, latent: Tensor, dtype: torch.dtype, part: str) -> Tensor | None:
        total = self.head_spread(name, latent, dtype)
        if total is None or part == "total":
            return total
        apart = self.head_spread(name, latent, dtype, noise=False)
        if apart is None or part == "disagreement":
            return apart
        return (total.square() - apart.square()).clamp_min(0.0).sqrt()

    def _answers(self, name: str, latent: Tensor, dtype: torch.dtype | None) -> Tensor:
        """What each member says: (M, ..., T)."""
        said = super().head_output
        return self._of_head(name, latent, lambda z: said(name, z, dtype))

    def _of_head(self, name: str, latent: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """A question to a head, with each member's parameters and latent vectors (M, ..., H)."""
        if name not in self._stacks:
            self._stacks[name] = Members(self.task_heads[name])
        with self._as_members():
            result: Tensor = self._stacks[name].each(lambda _, z: ask(z), own=(latent,))
        return result

    def _each(
        self, method: Callable[..., Any], shared: Sequence[Tensor], own: Sequence[Tensor] = ()
    ) -> Any:
        """A method of the single model, with each member's parameters: results (M, ...)."""
        if _ALL not in self._stacks:
            # weights of the tasks, where they are learned, are common to all members
            self._stacks[_ALL] = Members(self, self.balance.parameters())
        with self._as_members():
            return self._stacks[_ALL].each(
                method, shared, own, batched=self.hparams["balance"] != "pcgrad"
            )

    @contextmanager
    def _as_members(self) -> Iterator[None]:
        """Inside the block all methods are those of a single model."""
        self._as_member = True
        try:
            yield
        finally:
            self._as_member = False

    def _set_heads(self, specs: dict[str, dict[str, Any]], y_space: Space) -> None:
        super()._set_heads(specs, y_space)
        self._stacks: dict[str, Members] = {}
