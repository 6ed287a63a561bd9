"""Mixture: one Gaussian mixture over x and y, conditioned exactly on whatever is known.

It is a conditional model (designs given properties) and a forward model (properties given designs)
at once, trained in seconds; `genopt.models.mixture.gmm` holds its mathematics.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.models.mixture.answers import Conditionals
from genopt.models.mixture.class_score import criterion_options
from genopt.models.mixture.columns import JointColumns
from genopt.models.mixture.conditions import as_numbers, conditions, held_values
from genopt.models.mixture.density import JointDensity
from genopt.models.mixture.designs import draw_designs
from genopt.models.mixture.draws import generator_of
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.kinds import check_kind, hint_at_factors
from genopt.models.mixture.moments import ConditionalMoments
from genopt.models.mixture.reconstruction import log_lost, lost_by_column
from genopt.models.mixture.rows import check_columns, usable_rows
from genopt.models.mixture.selection import CRITERIA, MixtureFit, best_gmm
from genopt.models.mixture.storage import read, write
from genopt.models.mixture.torch_density import TorchDensity
from genopt.space import Space

if TYPE_CHECKING:
    from genopt.data.table import Table
    from genopt.models.options import FitOptions

logger = logging.getLogger(__name__)


class Mixture:
    """A Gaussian mixture over x and y.

    Columns are standardised inside; classes become one-hot blocks; a simplex is modelled without
    its last column. A row with gaps in y counts by the entries that it has. A y column with too few
    labels is not modelled, with a warning.

    What was never measured together is not learned together: where no row has both of two columns
    of y, their covariance within a component, beyond what x explains, is not identified and stays
    near zero. Each column given x is sound then, a condition on both at once is a guess that takes
    their errors as independent.

    Args:
        x_space: the columns of x.
        y_space: the columns of y.
        y_columns: the columns of y that are modelled; None for all that have enough labels.
        max_components: largest number of components that is tried.
        min_components: smallest number of components that is tried.
        criterion: what chooses the number of components: ``heldout``, the log density of held-out
            rows, which a table with classes or few rows needs; ``conditional``, that of held-out
            designs given their properties alone, which leaves the density of the properties, and so
            `ood_score`, coarse; ``bic`` or ``aic``, which are faster and follow noiseless data more
            closely.
        folds: parts of the table that are held out in turn; None for ten of a small table to three
            of a large one.
        patience: larger numbers are not tried after so many that do not improve the criterion;
            None to try all.
        covariance: ``full``, ``tied``, ``diag``, ``factors`` or ``auto``, as in `best_gmm`.
        n_factors: rank of the covariances with ``factors``; None to choose it too.
        members: so many mixtures of the chosen size, each from another start, are averaged, as in
            `best_gmm`.
        n_init: EM runs for each number of components.
        regularization: variance added to each component, relative to the columns' variances.
        seed: seed of EM, and of draws without a generator.

    Raises:
        GenoptError: if there is no member.
        UnknownNameError: if the criterion or the kind of covariance is unknown.

    Example:
        >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]
        >>> model = Mixture(Space.of(x=(-1.0, 1.0)), Space.of(y=(0.0, 2.0)), max_components=3)
        >>> draws = model.fit(x, x + 1).sample(torch.tensor([[1.5]]), n=100)
        >>> abs(float(draws.mean()) - 0.5) < 0.05
        True
    """

    def __init__(
        self,
        x_space: Space,
        y_space: Space,
        *,
        y_columns: Sequence[str] | None = None,
        max_components: int = 20,
        min_components: int = 1,
        criterion: str = "heldout",
        folds: int | None = None,
        patience: int | None = 6,
        covariance: str = "full",
        n_factors: int | None = None,
        members: int = 1,
        n_init: int = 1,
        regularization: float = 1e-6,
        seed: int = 0,
    ) -> None:
        criteria = (*CRITERIA, "conditional")
        if criterion not in criteria:
            raise UnknownNameError("criterion", criterion, criteria)
        check_kind(covariance, n_factors)
        if members < 1:
            raise GenoptError(f"members={members} must be at least 1")
        self.x_space = x_space
        self.y_space = y_space
        self.y_columns = None if y_columns is None else [y_space[name].name for name in y_columns]
        self.seed = seed
        self._options: dict[str, Any] = {
            "max_components": max_components,
            "min_components": min_components,
            "criterion": criterion,
            "folds": folds,
            "patience": patience,
            "covariance": covariance,
            "n_factors": n_factors,
            "members": members,
            "n_init": n_init,
            "regularization": regularization,
        }
        self._parts: tuple[MixtureFit, JointDensity, ConditionalMoments] | None = None

    # -- learning ----------------------------------------------------------------------------------
    def fit(
        self,
        x: Any,
        y: Any,
        *,
        weights: Any = None,
        warm_start: bool = False,
        progress: bool = False,
    ) -> Mixture:
        """Learn the joint density from pairs.

        Args:
            x: designs (N, P).
            y: properties (N, K); NaN where an entry is missing.
            weights: how many rows each row counts for (N,); None for one.
            warm_start: go on from the last fit's mixture, its size and columns, after new rows.
            progress: show a bar over the numbers of components and log their scores.

        Returns:
            This object.

        Raises:
            GenoptError: if the table cannot be used or there is no mixture to go on from.
        """
        last = [self.y_space.names[i] for i in self.columns.y_columns] if warm_start else None
        x, y = as_numbers(x, "x"), as_numbers(y, "y")
        rows = usable_rows(x, y, self.x_space, self.y_space, last or self.y_columns)
        columns = JointColumns(self.x_space, self.y_space, rows.y_columns)
        options = dict(self._options)
        if warm_start:
            fitted = self.selection
            options |= {"covariance": fitted.covariance, "n_factors": fitted.n_factors}
        options |= criterion_options(options["criterion"], columns, rows, y)
        hint_at_factors(options["covariance"], len(rows.x), len(columns.fitted))
        fit = best_gmm(
            columns.fit_rows(rows.x, rows.y),
            names=columns.fitted_names,
            weights=None if weights is None else as_numbers(weights, "weights"),
            start=self.gmm if warm_start else None,
            seed=self.seed,
            progress=progress,
            **options,
        )
        self._install(fit, columns, rows.y)
        log_lost(self.reconstruction_error(), fit.n_factors)
        return self

    def fit_table(self, table: Table, options: FitOptions) -> None:
        """Learn from the training rows of a table.

        Args:
            table: the table.
            options: how to fit; the seed and the progress flag are used.

        Raises:
            GenoptError: if the table has other columns than the Spaces or cannot be used.
        """
        check_columns(table, self.x_space, self.y_space)
        part = table.part("train")
        self.seed = options.seed
        self.fit(part.x, part.y, progress=options.progress)

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
            x: designs (N, P).
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

    # -- saved form --------------------------------------------------------------------------------
    def save(self, path: str | Path) -> Path:
        """Write the fitted mixture to one file of plain tensors.

        Args:
            path: the file.

        Returns:
            Its path.
        """
        return write(
            path,
            self.selection,
            x_space=self.x_space.to_dict(),
            y_space=self.y_space.to_dict(),
            options=dict(self._options),
            seed=self.seed,
            y_columns=list(self.columns.y_columns),
            y_seen=self.density.y_seen,
        )

    @classmethod
    def load(cls, path: str | Path) -> Mixture:
        """The inverse of `save`.

        Args:
            path: the file.

        Returns:
            The fitted mixture.

        Raises:
            GenoptError: if the file is missing or is not a saved mixture.
        """
        fit, content = read(path)
        x_space, y_space = (Space.from_dict(content[key]) for key in ("x_space", "y_space"))
        model = cls(x_space, y_space, seed=content["seed"], **content["options"])
        columns = JointColumns(x_space, y_space, tuple(content["y_columns"]))
        model._install(fit, columns, content["y_seen"])
        return model
