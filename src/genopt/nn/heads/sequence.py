"""A property along a grid t, such as a heat capacity over temperature.

As in DeepONet (Lu et al. 2021, arXiv 1910.03193) a branch turns the latent vector into
coefficients, a trunk turns t into basis functions, and the curve is their scalar product; so rows
may be measured on grids of different length, and the curve is asked for anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.nn.blocks import mlp
from genopt.nn.heads.base import Head, masked_mean
from genopt.nn.labels import read_labels, refuse_infinite
from genopt.nn.scalers import Standardiser


class SequenceHead(Head):
    """Values on a grid; elsewhere with `at`.

    Args:
        latent_dim: width of the latent vector H.
        grid: the G values of t at which the head speaks to goals, columns and ``predict``, or
            {column of y: t}.
        basis: number of basis functions.
        trunk_dims: widths of the layers between t and the basis functions.
        hidden_dims: widths of layers between latent vector and coefficients.
        activation: the activation of these layers.
        dropout: share of units of the branch's layers that are dropped in training.

    Raises:
        GenoptError: if the grid is empty, not finite, or names a value of t twice.
    """

    grid: Tensor

    def __init__(
        self,
        latent_dim: int,
        grid: Sequence[float] | Mapping[str, float],
        basis: int = 16,
        trunk_dims: Sequence[int] = (32, 32),
        hidden_dims: Sequence[int] = (),
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        numbers = grid.values() if isinstance(grid, Mapping) else grid
        points = _checked(list(numbers))
        if len(points.unique()) < len(points):
            raise GenoptError(f"grid holds a value twice: {points.tolist()}")
        self.dim = self.label_width = len(points)
        self.per_row = False
        self.basis = int(basis)
        self.branch = mlp([latent_dim, *hidden_dims, self.basis + 1], activation, dropout)
        self.trunk = mlp([1, *trunk_dims, self.basis], activation, linear_output=False)
        self.scaler = Standardiser(1)
        self.t_scaler = Standardiser(1)
        self.register_buffer("grid", points, persistent=False)
        self.t_scaler.learn(points[:, None])

    @property
    def unit(self) -> Tensor:
        """Training spread (G,) of the values, the same at every t, float64."""
        return self.scaler.scale.to(torch.float64).expand(self.dim)

    def curve(self, latent: Tensor, t: Tensor) -> Tensor:
        """Scaled values at scaled t.

        Args:
            latent: latent vectors (..., H).
            t: scaled grid (G,), or one grid for each row (..., G).

        Returns:
            Scaled values (..., G).
        """
        branch = self.branch(latent)
        coefficients, offset = branch[..., :-1], branch[..., -1:]
        waves = self.trunk(t.unsqueeze(-1))
        if t.ndim == 1:
            return offset + coefficients @ waves.mT
        return offset + (waves @ coefficients.unsqueeze(-1)).squeeze(-1)

    def at(self, latent: Tensor, t: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Values at any t, in raw units.

        Args:
            latent: latent vectors (..., H).
            t: grid (G,), or one grid for each row (..., G); outside the range of the training grids
                the curve is extrapolated.
            dtype: dtype of the result; None for that of the network.

        Returns:
            Values (..., G).
        """
        return self.scaler.inverse(self.curve(latent, self.t_scaler(t)), dtype)

    def forward(self, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Values on the head's own grid, in raw units.

        Args:
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.

        Returns:
            Values (..., G).
        """
        return self.at(latent, self.grid, dtype)

    @contextmanager
    def on(self, grid: Tensor) -> Iterator[None]:
        """Inside the block the head speaks on another grid.

        Args:
            grid: the values of t (G,).

        Yields:
            Nothing.

        Raises:
            GenoptError: if the grid is not a list of finite numbers.
        """
        own = self.grid
        try:
            self.grid = _checked(grid).to(own)
            yield
        finally:
            self.grid = own

    def read(self, labels: Any, n: int, name: str) -> Tensor:
        """Labels on the head's grid, or on grids of each row's own.

        The head remembers which of both it was given; then ``label_width`` is that of the result.

        Args:
            labels: values (N, G) on the head's grid, or a pair of tensors (t, values), (N, L) each,
                padded with NaN.
            n: number of rows N.
            name: the caller's name for them, for messages.

        Returns:
            Values (N, G), or t and values side by side (N, 2L), float64; NaN where there is none.

        Raises:
            GenoptError: if t and values do not fit each other.
        """
        self.per_row = isinstance(labels, tuple)
        if not isinstance(labels, tuple):
            self.label_width = self.dim
            return read_labels(labels, n, self.dim, name)
        t, values = labels
        for part, what in ((t, "t"), (values, "values")):
            if part.ndim != 2 or len(part) != n or part.shape[1] == 0:
                raise GenoptError(
                    f"{name} {what} has shape {tuple(part.shape)}; expected ({n}, L), or {n} lists "
                    "of numbers"
                )
        if t.shape != values.shape:
            raise GenoptError(
                f"{name}: the longest row of t has {t.shape[1]} entries, that of the values "
                f"{values.shape[1]}"
            )
        lost = torch.isnan(t) & ~torch.isnan(values)
        if bool(lost.any()):
            row = int(lost.nonzero()[0, 0])
            raise GenoptError(
                f"{name} row {row}: t has {int((~torch.isnan(t[row])).sum())} entries for "
                f"{int((~torch.isnan(values[row])).sum())} values; each value needs its t"
            )
        for part in (t, values):
            refuse_infinite(part, name)
        both = torch.cat([torch.where(torch.isnan(values), torch.nan, t), values], 1)
        self.label_width = both.shape[1]
        return both

    def check(self, labels: Tensor, name: str) -> None:
        """Warn of curves that are all one constant.

        Args:
            labels: what `read` gave (N, L).
            name: the caller's name for them, for messages.
        """
        super().check(self._parts(labels)[1].reshape(-1, 1), name)

    def learn(self, labels: Tensor) -> None:
        """Take the scales of t and of the values from labels.

        Args:
            labels: what `read` gave (N, L).
        """
        t, values = self._parts(labels)
        self.scaler.learn(values.reshape(-1, 1))
        self.t_scaler.learn(t.reshape(-1, 1))

    def targets(self, labels: Tensor) -> Tensor:
        """What the loss compares with: scaled values, after the scaled t of each row's own grid.

        Args:
            labels: what `read` gave (N, L).

        Returns:
            Scaled labels (N, L); NaN stays NaN.
        """
        t, values = self._parts(labels)
        scaled = self.scaler(values)
        return torch.cat([self.t_scaler(t), scaled], 1) if self.per_row else scaled

    def loss(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """Mean squared scaled error over the known values.

        Args:
            latent: latent vectors (N, H).
            targets: what `targets` gave (N, L); NaN where an entry is missing.
            features: scaled designs (N, E), not used.

        Returns:
            Scalar.
        """
        t, values = self._parts(targets)
        known = ~torch.isnan(values)
        where = torch.where(known, t, 0.0) if self.per_row else self.t_scaler(self.grid)
        error = self.curve(latent, where) - torch.where(known, values, 0.0)
        return masked_mean(error.square(), known)

    def mass(self, targets: Tensor) -> Tensor:
        """What the loss divides by.

        Args:
            targets: what `targets` gave (N, L); NaN where an entry is missing.

        Returns:
            Scalar: the number of known values.
        """
        return (~torch.isnan(self._parts(targets)[1])).sum()

    def _parts(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Grids, (N, L) or the head's own (G,), and values (N, L) of labels side by side."""
        if not self.per_row:
            return self.grid.to(labels), labels
        t, values = labels.chunk(2, -1)
        return t, values


def _checked(grid: Any) -> Tensor:
    try:
        points = torch.as_tensor(grid, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise GenoptError(f"grid must be a list of numbers, got {grid}: {error}") from error
    if points.ndim != 1 or len(points) == 0 or not bool(torch.isfinite(points).all()):
        raise GenoptError(f"grid must be a list of finite numbers, got {grid}")
    return points
