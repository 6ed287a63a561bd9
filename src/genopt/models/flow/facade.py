"""The flow in five lines: arrays in, arrays out, no Space and no Table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.flow.conditional import ConditionalFlow
from genopt.space import Space, Variable


class ConditionalFlowMatching:
    """p(x | c) from pairs of arrays, by a `ConditionalFlow`.

    Numpy arrays come back for numpy arrays and tensors for tensors; lists follow what `fit` was
    given. A NaN in a condition leaves it free.

    Args:
        x_dim: number of columns of x.
        c_dim: number of columns of the conditions c.
        hidden_dim: width of the network.
        n_layers: number of its residual blocks.
        bounds: a pair (lower, upper) for each column of x; samples never leave them.
        given_x: share of training rows that are told some columns of x, so that `sample` may hold
            columns fixed; 0 for a flow that cannot.
        seed: seed of the weights, the training and the samples.

    Raises:
        GenoptError: if a size is not positive or the bounds do not fit.

    Example:
        >>> x = np.random.default_rng(0).uniform(-1, 1, (200, 1))
        >>> flow = ConditionalFlowMatching(x_dim=1, c_dim=1, bounds=[(-1, 1)])
        >>> flow.fit(x, abs(x), epochs=2).sample([[0.75]], n_samples=7).shape
        (7, 1)
    """

    def __init__(
        self,
        x_dim: int = 2,
        c_dim: int = 1,
        hidden_dim: int = 64,
        n_layers: int = 3,
        bounds: Sequence[tuple[float, float]] | None = None,
        given_x: float = 0.0,
        seed: int = 0,
    ) -> None:
        for name, value in (("x_dim", x_dim), ("c_dim", c_dim)):
            if value < 1:
                raise GenoptError(f"{name} must be positive, got {value}")
        if bounds is None:
            x_space = Space(tuple(Variable(f"x{i}") for i in range(1, x_dim + 1)))
        else:
            box = np.asarray(bounds, dtype=float)
            if box.shape != (x_dim, 2):
                raise GenoptError(
                    f"bounds has shape {box.shape}; expected ({x_dim}, 2): one pair (lower, upper) "
                    "for each column of x"
                )
            x_space = Space.from_bounds([(float(low), float(high)) for low, high in box])
        self.x_dim = x_dim
        self.c_dim = c_dim
        self.model = ConditionalFlow(
            x_space,
            Space(tuple(Variable(f"c{i}") for i in range(1, c_dim + 1))),
            network={"kind": "adaln", "width": hidden_dim, "depth": n_layers},
            given_x=given_x,
            seed=seed,
        )
        self._tensors = False

    def fit(
        self,
        x: Any,
        c: Any,
        epochs: int | None = None,
        batch_size: int | None = None,
        verbose: bool = False,
    ) -> Self:
        """Learn from pairs.

        Args:
            x: points (N, x_dim); (N,) where x_dim is 1.
            c: their conditions (N, c_dim); (N,) where c_dim is 1. NaN where one is missing.
            epochs: passes over the rows; None for as many as suit rows and columns.
            batch_size: rows of a mini-batch; None to choose by the number of rows.
            verbose: whether to show a progress bar.

        Returns:
            The object itself.

        Raises:
            GenoptError: if the shapes do not fit.
        """
        points, given = _matrix(x, self.x_dim, "x", "x_dim"), _matrix(c, self.c_dim, "c", "c_dim")
        if len(points) != len(given):
            raise GenoptError(
                f"x has shape {tuple(points.shape)} and c {tuple(given.shape)}; expected the same "
                "number of rows"
            )
        self._tensors = isinstance(x, Tensor)
        self.model.fit(points, given, epochs=epochs, batch_size=batch_size, verbose=verbose)
        return self

    def log_prob(self, x: Any, c: Any) -> Any:
        """Log density of points given conditions.

        Args:
            x: points (N, x_dim); (N,) where x_dim is 1.
            c: conditions (N, c_dim), or one condition for all points.

        Returns:
            Log densities (N,), in raw units.

        Raises:
            GenoptError: if the shapes do not fit or `fit` was not called.
        """
        points, given = _matrix(x, self.x_dim, "x", "x_dim"), _matrix(c, self.c_dim, "c", "c_dim")
        if len(given) not in (1, len(points)):
            raise GenoptError(
                f"c has shape {tuple(given.shape)}; expected ({len(points)}, {self.c_dim}) for x "
                f"of shape {tuple(points.shape)}, or one condition (1, {self.c_dim})"
            )
        return self._like(x, self.model.log_prob(points, given))

    def sample(
        self,
        c_values: Any,
        n_samples: int = 1000,
        n_steps: int | None = None,
        fixed: Mapping[int, float] | None = None,
        guidance: float = 1.0,
    ) -> Any:
        """Points drawn from p(x | c), all conditions in one solve.

        Args:
            c_values: conditions (C, c_dim); (C,) where c_dim is 1.
            n_samples: draws a condition.
            n_steps: steps of the sampler; None for its own 31.
            fixed: values of columns of x, by their number, that all points are to have; takes
                ``given_x`` above 0.
            guidance: weight of the conditions; above 1 the points are sharper than p(x | c).

        Returns:
            Points (n_samples, x_dim) for one condition, (C, n_samples, x_dim) for several.

        Raises:
            GenoptError: if the shape does not fit, `fit` was not called or the flow was not made
                for fixed columns.
        """
        given = _matrix(c_values, self.c_dim, "c_values", "c_dim")
        drawn = self.model.sample(given, n_samples, n_steps=n_steps, fixed=fixed, guidance=guidance)
        return self._like(c_values, drawn[0] if len(given) == 1 else drawn)

    def _like(self, given: Any, result: Tensor) -> Any:
        tensors = isinstance(given, Tensor) or (
            self._tensors and not isinstance(given, np.ndarray | np.generic)
        )
        return result if tensors else result.cpu().numpy()


def _matrix(values: Any, dim: int, argument: str, dim_argument: str) -> Tensor:
    try:
        tensor = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenoptError(f"{argument} must be an array of numbers: {error}") from error
    shape = tuple(tensor.shape)
    if tensor.ndim == 1 and dim == 1:
        tensor = tensor.unsqueeze(-1)
    elif tensor.ndim == 1 and len(tensor) == dim and argument != "x":
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 2 or tensor.shape[1] != dim:
        raise GenoptError(
            f"{argument} has shape {shape}; expected (N, {dim}), as {dim_argument} is {dim}"
        )
    return tensor
