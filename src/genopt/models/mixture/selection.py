"""How many components: EM for a range of numbers on scaled columns, the best by one criterion.

The columns are standardised before EM and the result is mapped back exactly, so neither the units
nor a fixed absolute regularisation decide what is found.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from genopt.errors import GenoptError, UnknownNameError
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components, EmOptions, Fitted
from genopt.models.mixture.fitting import Fitter
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.heldout import Rows, held_out_losses, log_density, usual_folds

logger = logging.getLogger(__name__)
CRITERIA = ("bic", "aic", "heldout")
RowScore = Callable[[GaussianMixture, Rows], Array]
_COARSE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class MixtureFit:
    """A fitted mixture and why it has that many components; unpacks as ``gmm, n_components``.

    Args:
        gmm: the best mixture, in raw units.
        n_components: its number of components.
        criterion: ``bic``, ``aic`` or ``heldout``.
        scores: the criterion of each number of components tried, lower is better, in raw units;
            for ``heldout`` minus the mean log density of a held-out row.
        converged: whether EM met its tolerance for that number; for ``heldout`` only the best one.
    """

    gmm: GaussianMixture
    n_components: int
    criterion: str
    scores: dict[int, float] = field(default_factory=dict)
    converged: dict[int, bool] = field(default_factory=dict)

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
    n_init: int = 1,
    seed: int = 0,
    regularization: float = 1e-6,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
    names: Sequence[str] | None = None,
    progress: bool = False,
) -> MixtureFit:
    """Fit mixtures of ``min_components`` to ``max_components`` Gaussians and keep the best.

    Complete tables are fitted by scikit-learn's EM, tables with gaps by our own EM over the
    patterns of missing entries, which sums the gaps out. Where two columns are never observed
    together, their covariance within a component is not identified: it stays near what third
    columns explain.

    Args:
        data: rows (N, p), NaN where an entry is missing; a vector (N,) counts as one column. Rows
            without any entry are dropped.
        max_components: largest number of components; at most the number of distinct rows is used.
        min_components: smallest number of components.
        criterion: ``bic`` or ``aic`` of the observed entries, or ``heldout``: the log density of
            rows held out by cross-validation; larger numbers are not tried after six that do not
            improve it.
        given: for ``heldout``, columns that are given, so that the density of the other columns
            conditional on them counts; None for the joint density.
        folds: for ``heldout``, how many parts are held out in turn; None for ten of a small table
            to three of a large one.
        score: for ``heldout``, an own density: the logs (n,) for rows of ``data``, given by their
            numbers, under a mixture in raw units.
        n_init: EM runs for each number, the likeliest is kept.
        seed: seed of the runs and of the mixture's own ``sample``.
        regularization: variance added to each component in units of the columns' variances.
        tolerance: EM of the best number stops when the mean log likelihood gains less; the others
            are ranked with a tolerance of 1e-3 or more.
        max_iterations: most EM iterations of one run.
        names: column names for messages.
        progress: log each number's score at level INFO instead of DEBUG.

    Returns:
        The best mixture with all scores.

    Raises:
        GenoptError: if the data has infinite entries, a column without any entry, fewer than two
            rows or another shape.
        UnknownNameError: if the criterion is unknown.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> data = np.concatenate([rng.normal(0, 1, (200, 2)), rng.normal(9, 1, (200, 2))])
        >>> gmm, n_components = best_gmm(data, max_components=4)
        >>> n_components
        2
    """
    if criterion not in CRITERIA:
        raise UnknownNameError("criterion", criterion, CRITERIA)
    if not 1 <= min_components <= max_components:
        raise GenoptError(
            f"min_components={min_components} must be at least 1 and not exceed "
            f"max_components={max_components}"
        )
    if n_init < 1 or max_iterations < 1 or regularization <= 0 or tolerance <= 0:
        raise GenoptError(
            f"n_init={n_init}, max_iterations={max_iterations}, regularization={regularization} "
            f"and tolerance={tolerance} must be positive"
        )
    if criterion != "heldout" and (given is not None or score is not None):
        raise GenoptError(f"given and score have no effect with criterion={criterion!r}")
    if folds is not None and folds < 2:
        raise GenoptError(f"folds={folds} must be at least 2")
    raw, kept = _checked(data, names)
    scaling = _scaling(raw, names)
    scaled = (raw - scaling.center) / scaling.scale
    columns = _given_columns(given, raw.shape[1])
    fitter = Fitter(scaled)
    sizes = _sizes(fitter, min_components, max_components)
    level = logging.INFO if progress else logging.DEBUG
    # a coarse EM ranks the numbers of components; only the best one is worth a fine one
    fine = EmOptions(n_init, seed, regularization, tolerance, max_iterations)
    coarse = replace(fine, tolerance=max(tolerance, _COARSE_TOLERANCE))

    if criterion == "heldout":
        wanted = [i for i in range(raw.shape[1]) if i not in columns]

        def held_out_score(components: Components, rows: Rows) -> Array:
            if score is not None:
                return score(scaling.raw(components, seed), kept[rows])
            density = log_density(scaled[rows], components, columns)
            return density - scaling.jacobian(raw[rows][:, wanted], wanted)

        if len(raw) < 4:
            raise GenoptError(f"criterion='heldout' needs at least 4 rows, there are {len(raw)}")
        parts = folds or usual_folds(len(raw))
        scores = held_out_losses(scaled, sizes, coarse, parts, held_out_score)
        best = min(scores, key=lambda n: scores[n])
        fit = fitter.fit(best, fine)
        converged = {best: fit.converged}
    else:
        fits = {n: fitter.fit(n, coarse) for n in sizes}
        jacobian = float(scaling.jacobian(raw, range(raw.shape[1])).sum())
        scores = {n: _information(fits[n], len(raw), criterion, jacobian) for n in sizes}
        converged = {n: fit.converged for n, fit in fits.items()}
        best = min(scores, key=lambda n: scores[n])
        fit = fits[best]
        if tolerance < coarse.tolerance:
            fit = fitter.fit(best, fine, fit.components)
            scores[best] = _information(fit, len(raw), criterion, jacobian)
            converged[best] = fit.converged
    for n, value in scores.items():
        logger.log(level, "%d components: %s %.6g", n, criterion, value)
    if not fit.converged:
        logger.log(level, "EM has not converged after %d iterations", max_iterations)
    return MixtureFit(scaling.raw(fit.components, seed), best, criterion, scores, converged)


def _sizes(fitter: Fitter, smallest: int, largest: int) -> range:
    most = fitter.most_components
    if most < largest:
        warnings.warn(
            f"max_components={largest} is more than the {most} distinct rows: at most {most} are "
            "tried",
            UserWarning,
            stacklevel=3,
        )
    largest = min(largest, most)
    return range(min(smallest, largest), largest + 1)


def _given_columns(given: Sequence[int] | None, width: int) -> list[int]:
    columns = [] if given is None else sorted({int(i) for i in given})
    if any(not 0 <= i < width for i in columns) or len(columns) == width:
        raise GenoptError(
            f"given={columns} must be some, not all, of the columns 0 to {width - 1} of data"
        )
    return columns


def _information(fit: Fitted, n_rows: int, criterion: str, jacobian: float) -> float:
    """BIC or AIC of the observed entries, in raw units."""
    penalty = np.log(n_rows) if criterion == "bic" else 2.0
    return float(-2.0 * (fit.log_likelihood - jacobian) + penalty * fit.components.n_parameters)


@dataclass(frozen=True, eq=False)
class Scaling:
    """Mean and standard deviation of the columns.

    Args:
        center: (p,).
        scale: (p,), positive.
    """

    center: Array
    scale: Array

    def jacobian(self, raw: Array, columns: Sequence[int]) -> Array:
        """By how much the log density of scaled entries exceeds that of raw ones.

        Args:
            raw: rows of these columns (n, q).
            columns: their numbers.

        Returns:
            The sum over the observed entries of each row (n,).
        """
        total: Array = np.isfinite(raw) @ np.log(self.scale[list(columns)])
        return total

    def raw(self, components: Components, seed: int) -> GaussianMixture:
        """A mixture of scaled columns in raw units.

        Args:
            components: the mixture.
            seed: seed of its own ``sample``.

        Returns:
            The mixture.
        """
        return GaussianMixture(
            len(components.weights),
            components.weights,
            components.means * self.scale + self.center,
            components.covariances * self.scale[:, None] * self.scale,
            random_state=seed,
        )


def _checked(data: ArrayLike, names: Sequence[str] | None) -> tuple[Array, Rows]:
    """The rows with an entry as a copy (N, p) with N >= 2 and p >= 1, and their numbers."""
    try:
        raw: Array = np.array(data, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GenoptError("data must be a table of numbers (N, p)") from error
    if raw.ndim == 1:
        raw = raw[:, None]
    if raw.ndim != 2 or raw.shape[1] == 0:
        raise GenoptError(f"data has shape {raw.shape}; expected (N, p) or (N,)")
    infinite = np.isinf(raw).sum(0)
    if infinite.any():
        told = ", ".join(
            f"{_name(int(i), names)} ({infinite[i]} rows)" for i in np.flatnonzero(infinite)
        )
        raise GenoptError(f"data has infinite entries in {told}: NaN marks a missing entry")
    known = np.isfinite(raw)
    kept = np.flatnonzero(known.any(1))
    if len(kept) < 2:
        raise GenoptError(f"data has {len(kept)} rows with an entry; a mixture needs at least two")
    empty = np.flatnonzero(~known.any(0))
    if empty.size:
        told = ", ".join(_name(int(i), names) for i in empty)
        raise GenoptError(f"all entries are missing in {told}: leave it out")
    if len(kept) < len(raw):
        warnings.warn(
            f"{len(raw) - len(kept)} rows of data without any entry are dropped",
            UserWarning,
            stacklevel=3,
        )
    return raw[kept], kept


def _scaling(raw: Array, names: Sequence[str] | None) -> Scaling:
    """The scaling; a constant column gets a small scale of its own."""
    center = np.nanmean(raw, axis=0)
    scale = np.nanstd(raw, axis=0)
    size = np.nanmax(np.abs(raw), axis=0)
    constant = scale <= 1e-14 * size
    if constant.any():
        told = ", ".join(_name(int(i), names) for i in np.flatnonzero(constant))
        warnings.warn(
            f"constant columns carry no information for the mixture: {told}",
            UserWarning,
            stacklevel=3,
        )
        center = np.where(constant, np.nanmin(raw, axis=0), center)
        scale = np.where(constant, 1e-3 * np.where(size > 0.0, size, 1.0), scale)
    return Scaling(center, scale)


def _name(i: int, names: Sequence[str] | None) -> str:
    return f"column {names[i]!r}" if names is not None else f"column {i}"
