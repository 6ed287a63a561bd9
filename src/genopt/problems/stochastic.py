"""Stochastic problems: simulators with noise whose posterior p(x | y) is known exactly.

They are what a conditional model is judged by: its draws and its density have a truth to stand
beside.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.problems.base import Problem

# a stream of its own, so that the noise does not depend on the designs
_NOISE = 1_000_003


class StochasticProblem(Problem):
    """A problem whose properties are drawn, not computed.

    `simulate` is the expectation, which makes verified values repeatable; `observe` draws, and
    `table` holds what was observed. `design` draws from the prior.
    """

    def observe(self, x: Tensor, seed: int = 0) -> Tensor:
        """One noisy observation of each design.

        Args:
            x: designs (..., P).
            seed: seed of the noise.

        Returns:
            Properties (..., K), float64.
        """
        generator = torch.Generator().manual_seed(seed + _NOISE)
        return self.respond(self.x_space.check(x).to(torch.float64), generator)

    def respond(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Noisy properties of designs; each problem brings its own.

        Args:
            x: designs (..., P), float64.
            generator: source of the noise.

        Returns:
            Properties (..., K).

        Raises:
            GenoptError: if the class does not say how.
        """
        raise GenoptError(f"{type(self).__name__} must define respond(x, generator)")

    def table(self, n: int | None = None, seed: int = 0) -> Table:
        """Draws from the prior with one observation each.

        Args:
            n: number of rows; None for `default_rows`.
            seed: seed of the designs and of the noise.

        Returns:
            The Table.
        """
        x = self.design(self._row_count(n), seed)
        return Table(x, self.observe(x, seed), self.x_space, self.y_space)

    def posterior(self, y: Tensor, n: int = 1000, seed: int = 0) -> Tensor:
        """Exact draws from p(x | y).

        Args:
            y: one observation (K,), or several (C, K).
            n: number of draws for each.
            seed: seed of the draws.

        Returns:
            Designs (n, P), or (C, n, P).

        Raises:
            GenoptError: if the class does not say how.
        """
        raise GenoptError(f"{type(self).__name__} must define posterior(y, n, seed)")

    def log_posterior(self, x: Tensor, y: Tensor) -> Tensor:
        """Exact log p(x | y), normalised over the x Space.

        Args:
            x: designs (N, P).
            y: observations (N, K) or (1, K).

        Returns:
            Log densities (N,), float64; -inf outside the x Space.

        Raises:
            GenoptError: if the class does not say how.
        """
        raise GenoptError(f"{type(self).__name__} must define log_posterior(x, y)")

    def check_pairs(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Designs and observations row by row, or the message that says what is wrong.

        Args:
            x: designs (N, P).
            y: observations (N, K) or (1, K).

        Returns:
            Both with N rows, float64.

        Raises:
            GenoptError: if the shapes do not fit.
        """
        if x.ndim != 2 or y.ndim != 2 or len(y) not in (1, len(x)):
            raise GenoptError(
                f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected "
                f"(N, {self.x_space.dim}) and (N, {self.y_space.dim}) or (1, {self.y_space.dim})"
            )
        x = self.x_space.check(x, "x").to(torch.float64)
        return x, self.y_space.check(y, "y").to(torch.float64).expand(len(x), -1)
