"""A mixture as a torch distribution: batched, and differentiable through conditioning.

Densities and conditionals carry gradients to the points and to the values given, so the exact
density can be a penalty or the oracle of another model. The parameters themselves are constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from genopt.errors import GenoptError
from genopt.models.mixture.conditioning import Array, factorize
from genopt.models.mixture.names import Columns, checked_names, column_numbers, picked

_LOG_2PI = math.log(2.0 * math.pi)
_LARGEST_VALUE = 1e150


class TorchMixture(MixtureSameFamily):
    """Gaussian mixtures with batch shape (...), whose components share their covariances.

    Args:
        log_weights: logarithms of the weights (..., k), normalised or not.
        means: (..., k, m).
        lower: Cholesky factors of the covariances (k, m, m).
        whiten: their inverses (k, m, m).
        seed: seed of the draws for which no generator is given.
        names: names of the m columns; None for none.

    Example:
        >>> import numpy as np
        >>> joint = TorchMixture.of(np.ones(1), np.zeros((1, 2)), [[[1.0, 0.5], [0.5, 1.0]]])
        >>> x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        >>> joint.condition([1], x).mean.backward()
        >>> x.grad
        tensor([0.5000], dtype=torch.float64)
    """

    def __init__(
        self,
        log_weights: Tensor,
        means: Tensor,
        lower: Tensor,
        whiten: Tensor,
        seed: int = 0,
        names: Sequence[str] | None = None,
    ) -> None:
        k, m = means.shape[-2:]
        super().__init__(
            Categorical(logits=log_weights, validate_args=False),
            MultivariateNormal(
                means, scale_tril=lower.expand(*means.shape, m), validate_args=False
            ),
            validate_args=False,
        )
        self.log_weights = log_weights.log_softmax(-1)
        self.means = means
        self.lower = lower
        self.whiten = whiten
        self.seed = seed
        self.names = checked_names(names, m)
        self._generator = torch.Generator().manual_seed(seed)
        # densities are worked out around the center: beside it no digits are lost
        self._center = (self.log_weights.exp().unsqueeze(-1) * means).sum(-2)
        self._flat = whiten.permute(2, 0, 1).reshape(m, k * m)
        self._offset = torch.einsum("kij,...kj->...ki", whiten, means - self._center.unsqueeze(-2))
        log_scale = lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        self._log_coefficient = self.log_weights - log_scale - 0.5 * m * _LOG_2PI

    @classmethod
    def of(
        cls,
        priors: ArrayLike,
        means: ArrayLike,
        covariances: ArrayLike,
        seed: int = 0,
        names: Sequence[str] | None = None,
    ) -> TorchMixture:
        """One mixture from its parameters; components without weight are left out.

        Args:
            priors: (k,), positive or zero.
            means: (k, p).
            covariances: (k, p, p).
            seed: seed of the draws for which no generator is given.
            names: names of the p columns; None for none.

        Returns:
            The distribution, float64.
        """
        weights, centers, matrices = (
            np.asarray(value, dtype=np.float64) for value in (priors, means, covariances)
        )
        alive = weights > 0
        weights = weights[alive] / weights.sum()
        factors = factorize(matrices[alive], centers[alive], weights)
        parts = (np.log(weights), centers[alive], *factors)
        log_weights, locations, lower, whiten = (torch.from_numpy(part.copy()) for part in parts)
        return cls(log_weights, locations, lower, whiten, seed, names)

    @property
    def n_components(self) -> int:
        """Number of components k that have a weight."""
        return int(self.means.shape[-2])

    def component_log_prob(self, points: Tensor) -> Tensor:
        """Log of weight times density of each component.

        Args:
            points: (..., m); leading dimensions broadcast against the batch shape.

        Returns:
            (..., k), float64, finite for every finite point.
        """
        home = points.device
        k, m = self.means.shape[-2:]
        centered = points.to(torch.float64) - self._center.to(home)
        whitened = (centered @ self._flat.to(home)).unflatten(-1, (k, m)) - self._offset.to(home)
        squares = whitened.clamp(-_LARGEST_VALUE, _LARGEST_VALUE).square().sum(-1)
        return self._log_coefficient.to(home) - 0.5 * squares

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, differentiable.

        Args:
            value: points (..., m).

        Returns:
            (...), float64, finite.

        Raises:
            GenoptError: if the last dimension is not m.
        """
        m = self.means.shape[-1]
        if value.ndim == 0 or value.shape[-1] != m:
            raise GenoptError(f"value has shape {tuple(value.shape)}; expected (..., {m})")
        return self.component_log_prob(value).logsumexp(-1)

    def sample(
        self,
        sample_shape: torch.Size | list[int] | tuple[int, ...] = (),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Independent draws; torch's global generator is left alone.

        Args:
            sample_shape: shape of the draws, put before the batch shape.
            generator: source of randomness; the object's own if None.

        Returns:
            (*sample_shape, ..., m), without gradient.
        """
        rng = self._generator if generator is None else generator
        shape = (*sample_shape, *self.means.shape[:-2])
        k, m = self.means.shape[-2:]
        with torch.no_grad():
            cumulative = self.log_weights.exp().cumsum(-1)
            uniform = torch.rand(*shape, 1, generator=rng, dtype=torch.float64)
            chosen = (uniform >= cumulative[..., :-1]).sum(-1)
            noise = torch.randn(*shape, m, generator=rng, dtype=torch.float64)
            index = chosen[..., None, None].expand(*shape, 1, m)
            means = self.means.expand(*shape, k, m).gather(-2, index).squeeze(-2)
            return means + torch.einsum("...ij,...j->...i", self.lower[chosen], noise)

    def condition(self, indices: Columns, x: Tensor) -> TorchMixture:
        """The conditionals of the other columns, differentiable in the values given.

        Args:
            indices: the q given columns, numbers or names.
            x: their values (..., q); leading dimensions broadcast against the batch shape.

        Returns:
            Mixtures over the other m - q columns in ascending order, with that batch shape.

        Raises:
            GenoptError: if a column does not exist or x has another width.
        """
        m = self.means.shape[-1]
        given = column_numbers(indices, m, self.names)
        if x.ndim == 0 or x.shape[-1] != len(given):
            raise GenoptError(f"x has shape {tuple(x.shape)}; expected (..., {len(given)})")
        q, free = len(given), [i for i in range(m) if i not in given]
        lower, inverse = self._ordered(given + free)
        whiten = inverse[:, :q, :q]
        away = x.to(torch.float64).unsqueeze(-2) - self.means[..., given]
        away = away.clamp(-_LARGEST_VALUE, _LARGEST_VALUE)
        whitened = torch.einsum("kij,...kj->...ki", whiten, away)
        log_scale = lower.diagonal(dim1=-2, dim2=-1)[:, :q].log().sum(-1)
        log_weights = self.log_weights - log_scale - _half_squares(whitened)
        pull = torch.einsum("kij,...kj->...ki", lower[:, q:, :q], whitened)
        return TorchMixture(
            log_weights.log_softmax(-1),
            self.means[..., free] + pull,
            lower[:, q:, q:],
            inverse[:, q:, q:],
            self.seed,
            picked(self.names, free),
        )

    def _ordered(self, order: list[int]) -> tuple[Tensor, Tensor]:
        """Factors (k, m, m) and their inverses with the columns in another order."""
        covariances: Array = (self.lower @ self.lower.transpose(-1, -2)).numpy()
        k, m = self.means.shape[-2:]
        means: Array = self.means.detach().reshape(-1, k, m).mean(0).numpy()[:, order]
        parts = factorize(covariances[:, order][:, :, order], means, np.full(k, 1.0 / k))
        return torch.from_numpy(parts[0].copy()), torch.from_numpy(parts[1].copy())


def _half_squares(whitened: Tensor) -> Tensor:
    """Half squared lengths (..., k), less the smallest, without overflow far from the data."""
    if whitened.shape[-1] == 0:
        return whitened.sum(-1)
    size = whitened.detach().abs().amax((-2, -1)).clamp_min(1.0)[..., None]
    square = (whitened / size.unsqueeze(-1)).square().sum(-1)
    excess = square - square.detach().amin(-1, keepdim=True)
    return (0.5 * (size * excess) * size).clamp_max(1e300)
