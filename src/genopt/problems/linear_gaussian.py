"""Linear-Gaussian: smeared readings of a hidden Gaussian vector; everything about it is exact.

The first test of any posterior, in as many dimensions as wanted: what fails here fails everywhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.stochastic import StochasticProblem
from genopt.space import Space, Variable

_BOUND = 6.0
_SMEAR = 0.5


class LinearGaussian(StochasticProblem):
    """x from y = A x + noise, with A_ij = .5^abs(i - j): each reading sees its neighbours, too.

    Prior: x ~ N(0, I); the bounds lie at six standard deviations. The joint density is one
    Gaussian, and so is the posterior.

    Args:
        dimension: number of columns of x and of y.
        noise: standard deviation of a reading.

    Raises:
        GenoptError: if the dimension or the noise is not positive.
    """

    def __init__(self, dimension: int = 5, noise: float = 0.5) -> None:
        if dimension < 1 or not 0.0 < noise < math.inf:
            raise GenoptError(f"dimension={dimension} and noise={noise} must be positive")
        self.noise = noise
        place = torch.arange(dimension, dtype=torch.float64)
        self.matrix = _SMEAR ** (place[:, None] - place).abs()
        spread = (self.matrix.square().sum(-1) + noise**2).sqrt()
        y_space = Space(
            tuple(
                Variable(f"y{i}", -_BOUND * s, _BOUND * s)
                for i, s in enumerate(spread.tolist(), start=1)
            )
        )
        super().__init__(
            "linear_gaussian",
            Space(tuple(Variable(f"x{i}", -_BOUND, _BOUND) for i in range(1, dimension + 1))),
            y_space,
            {v.name: {"equals": 1.0, "tolerance": 4.0 * noise} for v in y_space},
            default_rows=10_000,
            description="A hidden Gaussian vector from smeared, noisy readings.",
            citation="textbook; see Lueckmann et al. (2021), arXiv 2101.04653, Gaussian linear",
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The readings without noise.

        Args:
            x: vectors (..., P).

        Returns:
            Readings (..., P).
        """
        return self.x_space.check(x).to(torch.float64) @ self.matrix.T

    def design(self, n: int, seed: int = 0) -> Tensor:
        """Draws from the prior, clipped to the bounds (which touches one value in 5e8).

        Args:
            n: number of vectors.
            seed: seed of the draw.

        Returns:
            Vectors (n, P).
        """
        generator = torch.Generator().manual_seed(seed)
        draws = torch.randn(n, len(self.matrix), dtype=torch.float64, generator=generator)
        return draws.clamp(-_BOUND, _BOUND)

    def respond(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Readings with noise.

        Args:
            x: vectors (..., P).
            generator: source of the noise.

        Returns:
            Readings (..., P).
        """
        noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        return self.simulate(x) + self.noise * noise

    def moments(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of p(x | y).

        Args:
            y: readings (C, P); NaN for one that was not taken.

        Returns:
            Means (C, P) and covariances (C, P, P).
        """
        y = self.y_space.check(y, "y").to(torch.float64)
        # a reading that was not taken is one of infinite noise
        worth = torch.isfinite(y).to(torch.float64) / self.noise**2
        precision = (
            torch.eye(len(self.matrix), dtype=torch.float64)
            + (self.matrix.T * worth.unsqueeze(-2)) @ self.matrix
        )
        covariance = torch.linalg.inv(precision)
        pull = (worth * y.nan_to_num(0.0)) @ self.matrix
        return (covariance @ pull.unsqueeze(-1)).squeeze(-1), covariance

    def posterior(self, y: Tensor, n: int = 1000, seed: int = 0) -> Tensor:
        """Exact draws from p(x | y).

        Args:
            y: one vector of readings (P,), or several (C, P); NaN for a reading that was not taken.
            n: number of draws for each.
            seed: seed of the draws.

        Returns:
            Vectors (n, P), or (C, n, P), clipped to the bounds.

        Raises:
            GenoptError: if y has another shape.
        """
        dim = len(self.matrix)
        if y.ndim not in (1, 2):
            raise GenoptError(f"y has shape {tuple(y.shape)}; expected ({dim},) or (C, {dim})")
        mean, covariance = self.moments(y.reshape(-1, y.shape[-1]))
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(len(mean), n, dim, dtype=torch.float64, generator=generator)
        draws = mean.unsqueeze(1) + normal @ torch.linalg.cholesky(covariance).mT
        return draws.clamp(-_BOUND, _BOUND).reshape(*y.shape[:-1], n, dim)

    def log_posterior(self, x: Tensor, y: Tensor) -> Tensor:
        """Exact log p(x | y); what the bounds cut off is below 1e-7.

        Args:
            x: vectors (N, P).
            y: readings (N, P) or (1, P); NaN for a reading that was not taken.

        Returns:
            Log densities (N,); -inf outside the bounds.

        Raises:
            GenoptError: if a shape does not fit.
        """
        x, y = self.check_pairs(x, y)
        observed, owner = torch.unique(y.nan_to_num(torch.inf), dim=0, return_inverse=True)
        mean, covariance = self.moments(observed.where(observed.isfinite(), torch.nan))
        factor = torch.linalg.cholesky(covariance)[owner]
        normal = torch.distributions.MultivariateNormal(mean[owner], scale_tril=factor)
        possible = (x.abs() <= _BOUND).all(-1)
        return torch.where(possible, normal.log_prob(x), -torch.inf)
