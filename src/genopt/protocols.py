"""The two protocols at the edges: what a routine asks of a model.

Any class with these methods will do.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from genopt.space import Space


@runtime_checkable
class ForwardModel(Protocol):
    """A model of y given x."""

    x_space: Space
    y_space: Space

    def predict_y(self, x: Tensor) -> Tensor:
        """Properties of designs, in raw units; NaN in a column that the model does not predict.

        Args:
            x: designs (..., P).

        Returns:
            Properties (..., K), differentiable in x where the model is.
        """
        ...


@runtime_checkable
class ConditionalModel(Protocol):
    """A model of the density of x given y."""

    x_space: Space
    y_space: Space

    def fit(self, x: Any, y: Any) -> Any:
        """Learn from pairs.

        Args:
            x: designs (N, P).
            y: properties (N, K); NaN where an entry is missing.

        Returns:
            The fitted model.
        """
        ...

    def sample(self, y: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Designs drawn from p(x | y), all conditions in one pass.

        Args:
            y: conditions (C, K); NaN for a free entry.
            n: draws a condition.
            generator: source of randomness.

        Returns:
            Designs (C, n, P) in raw units, inside the x Space.
        """
        ...

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Log density of designs given properties, in raw units.

        Args:
            x: designs (N, P).
            y: properties (N, K); NaN for a free entry.

        Returns:
            Log densities (N,).
        """
        ...

    def ood_score(self, y: Tensor) -> Tensor:
        """How far conditions are from the training outputs.

        Args:
            y: conditions (C, K).

        Returns:
            Scores (C,): at most 1 inside what was seen, larger the farther outside.
        """
        ...
