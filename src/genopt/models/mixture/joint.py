"""What a fitted mixture over x and y answers: designs, properties, densities, any columns."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.mixture.answers import Conditionals
from genopt.models.mixture.columns import JointColumns
from genopt.models.mixture.conditions import as_numbers, conditions, held_values
from genopt.models.mixture.density import JointDensity
from genopt.models.mixture.designs import draw_designs
from genopt.models.mixture.draws import generator_of
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.moments import ConditionalMoments
from genopt.models.mixture.reconstruction import lost_by_column
from genopt.models.mixture.selection import MixtureFit
from genopt.models.mixture.torch_density import TorchDensity
from genopt.space import Space

logger = logging.getLogger(__name__)


class JointMixture:
    """A mixture over the columns of two Spaces, conditioned exactly.

    Args:
        x_space: the columns of x.
        y_space: the columns of y.
        seed: seed of draws without a generator.
    """

    def __init__(self, x_space: Space, y_space: Space, seed: int = 0) -> None:
        self.x_space = x_space
        self.y_space = y_space
        self.seed = seed
        self._parts: tuple[MixtureFit, JointDensity, ConditionalMoments] | None = None

    def _install(self, fit: MixtureFit, columns: JointColumns, y_seen: Tensor) -> None:
        density = JointDensity(fit.gmm, columns, y_seen)
        self._parts = fit, density, ConditionalMoments(fit.gmm, columns, self.y_space.dim)

    @property
    def _fitted(self) -> tuple[MixtureFit, JointDensity, ConditionalMoments]:
        if self._parts is None:
            raise GenoptError("the mixture has not been fitted: call fit(x, y) first")
        return self._parts

    @property
    def selection(self) -> MixtureFit:
        """The fitted mixture over the joint columns with the scores of all sizes tried."""
        return self._fitted[0]

    @property
    def gmm(self) -> GaussianMixture:
        """The joint mixture, columns as in ``columns.fitted_names``."""
        return self.selection.gmm

    @property
    def density(self) -> JointDensity:
        """The joint density with its columns."""
        return self._fitted[1]

    @property
    def columns(self) -> JointColumns:
        """The columns of the joint mixture."""
        return self.density.columns

    # -- designs given properties ------------------------------------------------------------------
    def sample(
        self,
        y: Tensor,
        n: int,
        generator: torch.Generator | None = None,
        *,
        fixed: Mapping[int, Any] | Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Designs drawn from p(x | y), all conditions of one pattern in one pass.

        Draws outside the x Space are drawn again, a bounded number of times; what is still outside
        is projected and its share is logged.

        Args:
            y: conditions (C, K) in raw units; NaN for a free entry.
            n: draws for each condition.
            generator: source of randomness; the seed of the object if None.
            fixed: values of x columns that are held, by number or name: one value or (C,) of them,
                a class by label or code.

        Returns:
            Designs (C, n, P), float64, inside the x Space.

        Raises:
            GenoptError: if a condition or a fixed value cannot be used.
        """
        y = conditions(y, self.y_space, self.columns)
        held = held_values(fixed or {}, len(y), self.x_space)
        rng = generator_of(generator, self.seed)
        out, outside = draw_designs(self.density, self.x_space, y, held, n, rng)
        if outside:
            logger.info("%.3g %% of the draws left the x Space and were projected", 100 * outside)
        return out

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Log density of x given the known entries of y, in raw units.

        It is the density before draws are kept inside the bounds; a simplex counts by all but its
        last column, a class by its probability given the other columns.

        Args:
            x: designs (N, P); NaN for an entry that does not count.
            y: properties (N, K); NaN for a free entry.

        Returns:
            (N,) float64.

        Raises:
            GenoptError: if the shapes do not fit.
        """
        y = conditions(y, self.y_space, self.columns)
        x = self.x_space.check(as_numbers(x, "x"), "x")
        if x.ndim != 2 or len(x) != len(y):
            raise GenoptError(
                f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected "
                f"(N, {self.x_space.dim}) and (N, {self.y_space.dim}) with the same N"
            )
        return self.density.log_prob(x, y)

    def ood_score(self, y: Tensor) -> Tensor:
        """How unusual conditions are among the training outputs.

        The measure is the negative log density of the known entries. Inside what was seen the score
        is log(tail) / log(1 / N) with the share ``tail`` of training rows that are at least as
        unusual: 0 for the most typical, 1 for the most unusual row; beyond that it grows with the
        logarithm of the excess. So of fresh rows of the same law a share of about N^-s scores above
        s, one in N above 1; of tables with fewer than some 200 rows a few times as many.

        Args:
            y: conditions (C, K); NaN for a free entry.

        Returns:
            Scores (C,), finite; 0 where everything is free.
        """
        return self.density.ood_score(conditions(y, self.y_space, self.columns))

    def torch_density(self) -> TorchDensity:
        """The density of designs alone, differentiable: a penalty for searches."""
        return TorchDensity(self.gmm, self.columns)

    # -- anything given anything -------------------------------------------------------------------
    def condition(
        self, given: Mapping[str, Any], wanted: Sequence[str] | None = None
    ) -> Conditionals:
        """The laws of any columns given any others, all queries at once.

        Args:
            given: known columns of x and y by name: one value for all queries, or C of them, in raw
                units, a class by label; None or NaN where a query does not know it.
            wanted: the columns that are asked for; None for all that some query does not know.

        Returns:
            The C laws: means, covariances, quantiles, class probabilities, modes, draws, densities.

        Raises:
            GenoptError: if a column or a value cannot be used; the message names it.
        """
        return Conditionals.of(self.density, self.x_space, self.y_space, given, wanted, self.seed)

    # -- properties given designs ------------------------------------------------------------------
    def predict_y(self, x: Tensor) -> Tensor:
        """Expected properties of designs, differentiable in x.

        Args:
            x: designs (..., P).

        Returns:
            E[y | x] (..., K) of the dtype of x, the likeliest code of a class column, NaN in a
            column that is not modelled.
        """
        return self._fitted[2].mean(self.x_space.check(x))

    def predict_spread(self, x: Tensor) -> Tensor:
        """Standard deviation of the properties of designs.

        Args:
            x: designs (..., P).

        Returns:
            (..., K); for a class column the probability of another class.
        """
        return self._fitted[2].spread(self.x_space.check(x))

    def reconstruction_error(self, x: Any = None, y: Any = None) -> dict[str, float]:
        """The share of each column's variance that is lost when factors rebuild rows.

        Args:
            x: designs (N, P) of other rows; None for those of the fit.
            y: their properties (N, K); NaN where an entry is missing.

        Returns:
            Shares by column, one for each class but the last; empty without factors.
        """
        return lost_by_column(self.selection, self.columns, x, y)
