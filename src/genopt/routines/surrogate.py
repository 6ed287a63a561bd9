"""What a gradient search asks of a model: a single multi-task model or an ensemble of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from genopt.nn.heads import HeadKind
from genopt.nn.scalers import InputScaler
from genopt.space import Space


class Surrogate(Protocol):
    """A differentiable model of y given x with a latent vector between encoder and heads.

    An ensemble of M members gives latent vectors (M, ..., H), and takes them back; what its heads
    say is the mean over the members.
    """

    x_space: Space
    y_space: Space
    columns: tuple[tuple[str, int] | None, ...]

    @property
    def disabled(self) -> tuple[str, ...]:
        """The heads that are not predicted."""
        ...

    @property
    def task_heads(self) -> nn.ModuleDict:
        """The heads by name."""
        ...

    @property
    def scaler(self) -> InputScaler:
        """How designs become features."""
        ...

    @property
    def home(self) -> torch.device:
        """The device of the weights."""
        ...

    @property
    def has_spread(self) -> bool:
        """Whether `spread_y` says anything."""
        ...

    def evaluating(self) -> AbstractContextManager[None]:
        """Eval mode inside the block."""
        ...

    def check_spaces(self, x_space: Space, y_space: Space) -> None:
        """Refuse a problem with other columns than the model's."""
        ...

    def require_heads(self, *names: str) -> None:
        """Refuse heads that have nothing to say."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """All parts."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""
        ...

    def latent_of_wide(self, wide: Tensor) -> Tensor:
        """Latent vectors of designs whose classes are relaxed one-hot blocks."""
        ...

    def head_kind(self, name: str) -> HeadKind:
        """Whether a head gives numbers, classes or a design."""
        ...

    def head_unit(self, name: str) -> Tensor:
        """Training spread of a head's outputs."""
        ...

    def head_output(self, name: str, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """What a head says."""
        ...

    def head_log_probability(self, name: str, latent: Tensor) -> Tensor:
        """Log class probabilities."""
        ...

    def head_spread(
        self, name: str, latent: Tensor, dtype: torch.dtype | None = None, noise: bool = True
    ) -> Tensor | None:
        """Standard deviation of what a head says."""
        ...

    def predict_y(self, x: Tensor) -> Tensor:
        """The columns of the y Space."""
        ...

    def spread_y(self, x: Tensor) -> Tensor:
        """Standard deviations of the columns of the y Space."""
        ...


def is_surrogate(model: Any) -> bool:
    """Whether a model can be searched by its gradients.

    Args:
        model: any model.

    Returns:
        Whether it has what `Surrogate` names.
    """
    return all(hasattr(model, name) for name in ("latent_of_wide", "head_output", "task_heads"))


def heads_of_kind(model: Surrogate, kind: HeadKind) -> list[str]:
    """The enabled heads of one kind.

    Args:
        model: the model.
        kind: ``number``, ``class`` or ``design``.

    Returns:
        Their names.
    """
    names = (name for name in model.task_heads if name not in model.disabled)
    return [name for name in names if model.head_kind(name) == kind]


def members(model: Surrogate) -> int:
    """How many members a model has.

    Args:
        model: the model.

    Returns:
        M of an ensemble, 1 of a single model.
    """
    lower = torch.where(torch.isfinite(model.x_space.lower), model.x_space.lower, 0.0)
    with torch.no_grad():
        latent = model.latent_of_wide(model.scaler.wide(lower[None].to(model.home)))
    return len(latent) if latent.ndim > 2 else 1


@contextmanager
def frozen(model: Surrogate) -> Iterator[None]:
    """No gradients of the weights inside the block, so that no activation is kept for them.

    Args:
        model: the model.

    Yields:
        Nothing.
    """
    wanting = [p for p in model.parameters() if p.requires_grad]
    try:
        for p in wanting:
            p.requires_grad_(False)
        yield
    finally:
        for p in wanting:
            p.requires_grad_(True)
