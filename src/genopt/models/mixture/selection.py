"""How many components: EM for a range of numbers on scaled columns, the best by one criterion.

The columns are standardised before EM and the result is mapped back exactly, so neither the units
nor a fixed absolute regularisation decide what is found.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from genopt.errors import GenoptError, UnknownNameError
from genopt.models.mixture.affine import affine_columns
from genopt.models.mixture.averaging import fitted_average, other_starts, taken_apart
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components, EmOptions, Fitted
from genopt.models.mixture.ending import last_start
from genopt.models.mixture.fitting import Fitter
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.heldout import HeldOutLoss, Rows, log_density, usual_folds
from genopt.models.mixture.kinds import check_kind, chosen_covariance
from genopt.models.mixture.names import names_of
from genopt.models.mixture.parallel import quiet_threads
from genopt.models.mixture.reconstruction import reconstruction_error
from genopt.models.mixture.scaling import checked_rows, column_scaling
from genopt.models.mixture.sizes import scores_of_sizes, sizes_between

logger = logging.getLogger(__name__)
CRITERIA = ("bic", "aic", "heldout")
RowScore = Callable[[GaussianMixture, Rows], Array]
_COARSE_TOLERANCE = 1e-3
# EM moves in small steps where columns have almost nothing of their own
_FACTOR_TOLERANCE = 1e-2


@dataclass(frozen=True)
class MixtureFit:
    """A fitted mixture and why it has that many components; unpacks as ``gmm, n_components``.

    Args:
        gmm: the best mixture, in raw units.
        n_components: its number of components; where several mixtures are averaged, that of each.
        criterion: ``bic``, ``aic`` or ``heldout``.
        scores: the criterion of each number of components tried, lower is better, in raw units;
            for ``heldout`` minus the mean log density of a held-out row; empty if nothing was
            chosen.
        converged: whether EM met its tolerance for that number; for ``heldout`` only the best one.
        covariance: the kind of covariances.
        loadings: of covariances with factors, W in W W^T + diagonal, in raw units (k, p, r); None
            for other kinds.
        reconstruction_error: the share of each column's variance that is lost when the rows are
            rebuilt from their factors (p,); None without factors.
        held_out: log density of each row while it was held out, in raw units (N,); None for other
            criteria.
    """

    gmm: GaussianMixture
    n_components: int
    criterion: str
    scores: dict[int, float] = field(default_factory=dict)
    converged: dict[int, bool] = field(default_factory=dict)
    covariance: str = "full"
    loadings: Array | None = None
    reconstruction_error: Array | None = None
    held_out: Array | None = None

    @property
    def n_factors(self) -> int | None:
        """Number of factors; None without factors."""
        return None if self.loadings is None else self.loadings.shape[2]

    def __iter__(self) -> Iterator[GaussianMixture | int]:
        yield self.gmm
        yield self.n_components


def best_gmm(
    data: ArrayLike,
    max_components: int = 10,
    *,
    min_components: int = 1,
    criterion: str = "bic",
    given: Sequence[int] | None = None,
    folds: int | None = None,
    score: RowScore | None = None,
    patience: int | None = 6,
    covariance: str = "full",
    n_factors: int | None = None,
    members: int = 1,
    weights: ArrayLike | None = None,
    start: GaussianMixture | None = None,
    n_init: int = 1,
    seed: int = 0,
    regularization: float = 1e-6,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
    names: Sequence[str] | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> MixtureFit:
    """Fit mixtures of ``min_components`` to ``max_components`` Gaussians and keep the best.

    Each number of components starts EM from k-means and from the mixture of the number before, the
    components that look least Gaussian cut in two; the likelier end counts. Of the number that is
    chosen, the last EM starts from k-means too where held-out entries are predicted better then.
    Missing entries are summed out, pattern by pattern. In a complete table, columns that are
    exact linear functions of others follow exactly in every component (not with ``diag``).

    Where two columns are never observed together, their covariance within a component is not
    identified: it stays near what third columns explain.

    Args:
        data: rows (N, p), NaN where an entry is missing; a vector (N,) counts as one column. Rows
            without any entry are dropped.
        max_components: largest number of components; at most the number of distinct rows is used.
            Above 20 not every number is tried, but steps of a tenth.
        min_components: smallest number of components.
        criterion: ``bic`` or ``aic`` of the observed entries, or ``heldout``: the log density of
            rows held out by cross-validation. AIC takes noise for structure where there is some.
        given: for ``heldout``, columns that are given, so that the density of the other columns
            conditional on them counts; None for the joint density.
        folds: for ``heldout``, how many parts are held out in turn; None for ten of a small table
            to three of a large one.
        score: for ``heldout``, an own density: the logs (n,) for rows of ``data``, given by their
            numbers, under a mixture in raw units.
        patience: larger numbers are not tried after so many that do not improve the criterion; None
            to try all.
        covariance: ``full``; ``tied``, one for all components; ``diag``, columns independent
            within a component; ``factors``, a few directions in which the columns move together and
            a variance for each, for wide tables with few rows; ``auto``, ``full`` up to ten
            columns, from eleven on ``full`` or ``factors``, as the criterion says.
        n_factors: number of those directions, of ``factors`` alone; None to choose it by the
            criterion.
        members: the mixture that is returned is the average of so many of the chosen number of
            components, each from another start. Three follow curved and bounded densities much
            better than one, with three times the components.
        weights: how many rows each row counts for (N,); None for one. Weights of two are the same
            as every row twice, except that a row is held out with all of its weight.
        start: a mixture of the same columns to go on from, as after new rows: one EM with its
            number of components, in place of the choice, whose arguments then do not count.
        n_init: EM runs from k-means for each number, the likeliest is kept.
        seed: seed of the runs and of the mixture's own ``sample``.
        regularization: variance added to each component in units of the columns' variances.
        tolerance: EM of the best number stops when the mean log likelihood gains less; the others
            are ranked with a tolerance of 1e-3 or more, 1e-2 with factors.
        max_iterations: most EM iterations of one run.
        names: column names, for messages and for conditioning by name; None for those of ``data``
            if it is a data frame.
        n_jobs: EM runs that go on at the same time, in threads: of the parts that are held out, of
            the members, of the starts for one number of components. The result is the same.
        progress: show a bar and log each number's score at level INFO instead of DEBUG.

    Returns:
        The best mixture with all scores.

    Raises:
        GenoptError: if the data has infinite entries, a column without any entry, fewer than two
            rows or another shape, or if an option cannot be used.
        UnknownNameError: if the criterion or the kind of covariance is unknown.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> data = np.concatenate([rng.normal(0, 1, (200, 2)), rng.normal(9, 1, (200, 2))])
        >>> gmm, n_components = best_gmm(data, max_components=4)
        >>> n_components
        2
    """
    _check_options(
        criterion=criterion,
        covariance=covariance,
        n_factors=n_factors,
        with_start=start is not None,
        least=min_components,
        most=max_components,
        folds=folds,
        patience=patience,
    )
    if min(n_init, members, max_iterations, n_jobs) < 1 or min(regularization, tolerance) <= 0:
        raise GenoptError(
            f"n_init={n_init}, members={members}, max_iterations={max_iterations}, "
            f"n_jobs={n_jobs}, regularization={regularization} and tolerance={tolerance} must be "
            "positive"
        )
    if criterion != "heldout" and (given is not None or score is not None):
        raise GenoptError(f"given and score have no effect with criterion={criterion!r}")
    names = names_of(data, names)
    raw, counts, kept = checked_rows(data, weights, names)
    scaling = column_scaling(raw, counts, names)
    scaled = (raw - scaling.center) / scaling.scale
    columns = _given_columns(given, raw.shape[1])
    if n_factors is not None and n_factors >= raw.shape[1]:
        raise GenoptError(
            f"n_factors={n_factors} must be less than the number of columns, {raw.shape[1]}"
        )
    if covariance == "auto" or (covariance == "factors" and n_factors is None):

        def of_kind(kind: str, rank: int | None, most: int) -> MixtureFit:
            return best_gmm(
                data,
                most,
                min_components=min_components,
                criterion=criterion,
                given=given,
                folds=folds,
                score=score,
                patience=patience,
                covariance=kind,
                n_factors=rank,
                members=members,
                weights=weights,
                n_init=n_init,
                seed=seed,
                regularization=regularization,
                tolerance=tolerance,
                max_iterations=max_iterations,
                names=names,
                n_jobs=n_jobs,
                progress=progress,
            )

        return chosen_covariance(
            of_kind, covariance, raw.shape[1], min_components, max_components, counts
        )
    # independent columns within a component have no linear relation to keep
    affine = None if covariance == "diag" else affine_columns(scaled, counts, regularization)
    fitter = Fitter(scaled, counts, affine)
    # a coarse EM ranks the numbers of components; only the best one is worth a fine one
    fine = EmOptions(
        n_init,
        seed,
        regularization,
        tolerance,
        max_iterations,
        covariance,
        n_factors,
        n_jobs=n_jobs,
    )
    ranking = _FACTOR_TOLERANCE if covariance == "factors" else _COARSE_TOLERANCE
    coarse = replace(fine, tolerance=max(tolerance, ranking))
    scored = partial(scores_of_sizes, patience=patience, criterion=criterion, progress=progress)
    scores: dict[int, float] = {}
    fits: dict[int, Fitted] = {}
    held_out: Array | None = None
    information: Callable[[int], float] | None = None

    with quiet_threads(scaled.size, n_jobs):
        if start is not None:
            if start.dim != raw.shape[1]:
                raise GenoptError(f"start has {start.dim} columns; data has {raw.shape[1]}")
            if start.n_components % members:
                raise GenoptError(
                    f"start has {start.n_components} components, which is no average of "
                    f"members={members} mixtures of one size"
                )
            best = start.n_components // members
            starts = taken_apart(scaling.scaled(start), members)
        elif criterion == "heldout":

            def held_out_score(components: Components, rows: Rows) -> Array:
                if score is not None:
                    return score(scaling.raw(components, seed), kept[rows])
                if not columns:
                    wanted = list(range(raw.shape[1]))
                    density = fitter.log_density(rows, components)
                else:
                    wanted = [i for i in range(raw.shape[1]) if i not in columns]
                    density = log_density(scaled[rows], components, columns)
                return density - scaling.jacobian(raw[rows][:, wanted], wanted)

            if len(raw) < 4:
                raise GenoptError(
                    f"criterion='heldout' needs at least 4 rows, there are {len(raw)}"
                )
            sizes = _sizes(fitter, min_components, max_components)
            loss = HeldOutLoss(fitter, coarse, folds or usual_folds(len(raw)), held_out_score)
            scores = scored([sizes[0], *(n for n in sizes[1:] if n <= loss.most_components)], loss)
            held_out = loss.best
            best = min(scores, key=lambda n: scores[n])
            # the likeliest of many ends fits the rows more closely than the ends that were scored
            starts = [fitter.from_clusters(best, coarse).components]
        else:
            jacobian = float(counts @ scaling.jacobian(raw, range(raw.shape[1])))
            n_rows = float(counts.sum())

            def penalized(n: int) -> float:
                parameters = fitter.n_parameters(n, covariance, n_factors)
                penalty = np.log(n_rows) if criterion == "bic" else 2.0
                return float(-2.0 * (fits[n].log_likelihood - jacobian) + penalty * parameters)

            def fitted_information(n: int) -> float:
                fits[n] = fitter.fit(n, coarse)
                return penalized(n)

            information = penalized
            sizes = _sizes(fitter, min_components, max_components)
            scores = scored(sizes, fitted_information)
            best = min(scores, key=lambda n: scores[n])
            # of one size alone, nothing has grown
            starts = [fits[best].components]
            if len(fits) > 1:
                starts = [last_start(fitter, starts[0], coarse)]
        if (
            best in fits
            and members == 1
            and tolerance >= coarse.tolerance
            and starts[0] is fits[best].components
        ):
            fit = fits[best]
        else:
            starts += other_starts(fitter, best, coarse, members - len(starts))
            fits[best], fit = fitted_average(fitter, starts, replace(fine, accelerated=True))
            if information is not None:
                # clusters may end less likely than the mixture that was scored
                scores[best] = min(scores[best], information(best))
    if not fit.converged:
        level = logging.INFO if progress else logging.DEBUG
        logger.log(level, "EM has not converged after %d iterations", max_iterations)
    converged = {n: each.converged for n, each in fits.items()}
    parameters = members * fitter.n_parameters(best, covariance, n_factors)
    gmm = scaling.raw(fit.components, seed, names, parameters)
    loadings, lost = fit.components.loadings, None
    if loadings is not None:
        loadings = loadings * scaling.scale[:, None]
        lost = reconstruction_error(gmm, loadings, raw, counts)
    return MixtureFit(gmm, best, criterion, scores, converged, covariance, loadings, lost, held_out)


def _check_options(
    *,
    criterion: str,
    covariance: str,
    n_factors: int | None,
    with_start: bool,
    least: int,
    most: int,
    folds: int | None,
    patience: int | None,
) -> None:
    if criterion not in CRITERIA:
        raise UnknownNameError("criterion", criterion, CRITERIA)
    check_kind(covariance, n_factors)
    if with_start and (covariance == "auto" or (covariance == "factors" and n_factors is None)):
        raise GenoptError(
            f"covariance={covariance!r} chooses what start has already: name the kind of start's "
            "covariances, and n_factors if it has factors"
        )
    if not 1 <= least <= most:
        raise GenoptError(
            f"min_components={least} must be at least 1 and not exceed max_components={most}"
        )
    if folds is not None and folds < 2:
        raise GenoptError(f"folds={folds} must be at least 2")
    if patience is not None and patience < 1:
        raise GenoptError(f"patience={patience} must be at least 1; None tries all numbers")


def _sizes(fitter: Fitter, smallest: int, largest: int) -> list[int]:
    most = fitter.most_components
    if most < largest:
        warnings.warn(
            f"max_components={largest} is more than the {most} distinct rows: at most {most} are "
            "tried",
            UserWarning,
            stacklevel=3,
        )
    largest = min(largest, most)
    return sizes_between(min(smallest, largest), largest)


def _given_columns(given: Sequence[int] | None, width: int) -> list[int]:
    columns = [] if given is None else sorted({int(i) for i in given})
    if any(not 0 <= i < width for i in columns) or len(columns) == width:
        raise GenoptError(
            f"given={columns} must be some, not all, of the columns 0 to {width - 1} of data"
        )
    return columns
