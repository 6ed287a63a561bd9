"""Mixture: one Gaussian mixture over x and y, conditioned exactly on whatever is known.

It is a conditional model (designs given properties) and a forward model (properties given designs)
at once, trained in seconds; `genopt.models.mixture.gmm` holds its mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genopt.data.streaming import warn_sampled
from genopt.errors import GenoptError, UnknownNameError
from genopt.models.mixture.class_score import criterion_options
from genopt.models.mixture.columns import JointColumns
from genopt.models.mixture.conditions import as_numbers
from genopt.models.mixture.denser import denser_rows
from genopt.models.mixture.joint import JointMixture
from genopt.models.mixture.kinds import check_kind, hint_at_factors
from genopt.models.mixture.reconstruction import log_lost
from genopt.models.mixture.rows import check_columns, usable_rows
from genopt.models.mixture.selection import CRITERIA, best_gmm
from genopt.models.mixture.storage import read, write
from genopt.space import Space

if TYPE_CHECKING:
    from genopt.data.table import Table
    from genopt.models.options import FitOptions


class Mixture(JointMixture):
    """A Gaussian mixture over x and y.

    Columns are standardised inside; classes become one-hot blocks; a simplex is modelled without
    its last column. A row with gaps, in x or y, counts by the entries that it has. A y column with
    too few labels is not modelled, with a warning.

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
            closely; ``aic`` takes the noise of other data for structure.
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
        interpolated_rows: of a simulator without noise, the mixture learns so many new rows that
            lie between those given, as in `denser_rows`; 0 for the rows as they are.
        n_jobs: EM runs that go on at the same time, in threads; the result is the same.
        seed: seed of EM, and of draws without a generator.

    Raises:
        GenoptError: if there is no member.
        UnknownNameError: if the criterion or the kind of covariance is unknown.

    Example:
        >>> import torch
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
        interpolated_rows: int = 0,
        n_jobs: int = 1,
        seed: int = 0,
    ) -> None:
        criteria = (*CRITERIA, "conditional")
        if criterion not in criteria:
            raise UnknownNameError("criterion", criterion, criteria)
        check_kind(covariance, n_factors)
        if members < 1:
            raise GenoptError(f"members={members} must be at least 1")
        if interpolated_rows < 0:
            raise GenoptError(
                f"interpolated_rows={interpolated_rows} must not be negative; 0 for none"
            )
        super().__init__(x_space, y_space, seed)
        self.y_columns = None if y_columns is None else [y_space[name].name for name in y_columns]
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
            "interpolated_rows": interpolated_rows,
            "n_jobs": n_jobs,
        }

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
            x: designs (N, P); NaN where an entry is missing.
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
        n_interpolated = options.pop("interpolated_rows")
        counts = None if weights is None else as_numbers(weights, "weights")
        if warm_start:
            fitted = self.selection
            options |= {"covariance": fitted.covariance, "n_factors": fitted.n_factors}
        options |= criterion_options(options["criterion"], columns, rows, y)
        hint_at_factors(options["covariance"], len(rows.x), len(columns.fitted))
        learned = rows
        if n_interpolated:
            learned = denser_rows(
                rows, self.x_space, self.y_space, n_interpolated, weights=counts, seed=self.seed
            )
            counts = None
        fit = best_gmm(
            columns.fit_rows(learned.x, learned.y),
            names=columns.fitted_names,
            weights=counts,
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
        warn_sampled(table, "the mixture")
        part = table.part("train")
        self.seed = options.seed
        x, y, weight = part.with_incomplete()
        self.fit(x, y, weights=weight, progress=options.progress)

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
