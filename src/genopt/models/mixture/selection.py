"""How many components: EM for a range of numbers on scaled columns, the best by BIC or AIC.

The columns are standardised before EM and the result is mapped back exactly, so neither the units
nor a fixed absolute regularisation decide what is found.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from genopt.errors import GenoptError, UnknownNameError
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.gmm import GaussianMixture

logger = logging.getLogger(__name__)
CRITERIA = ("bic", "aic")
_COARSE_TOLERANCE = 1e-3
_SINGLE_THREAD_SIZE = 500_000


@dataclass(frozen=True)
class MixtureFit:
    """A fitted mixture and why it has that many components; unpacks as ``gmm, n_components``.

    Args:
        gmm: the best mixture, in raw units.
        n_components: its number of components.
        criterion: ``bic`` or ``aic``, lower is better.
        scores: the criterion of each number of components tried, in raw units.
        converged: whether EM met its tolerance for that number.
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
    n_init: int = 1,
    seed: int = 0,
    regularization: float = 1e-6,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
    names: Sequence[str] | None = None,
    progress: bool = False,
) -> MixtureFit:
    """Fit mixtures of ``min_components`` to ``max_components`` Gaussians and keep the best.

    Args:
        data: rows (N, p); a vector (N,) counts as one column.
        max_components: largest number of components; at most the number of distinct rows is used.
        min_components: smallest number of components.
        criterion: ``bic`` or ``aic``.
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
        GenoptError: if the data has missing entries, fewer than two rows or another shape.
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
    raw = _checked(data, names)
    center, scale = _scaling(raw, names)
    scaled = (raw - center) / scale
    largest = _cap(scaled, max_components)
    smallest = min(min_components, largest)

    jacobian = 2.0 * len(raw) * float(np.log(scale).sum())
    scores: dict[int, float] = {}
    converged: dict[int, bool] = {}

    def learn(n: int, until: float, start: Any = None) -> tuple[float, Any]:
        runs = 1 if start is not None else n_init
        model = _expectation_maximization(
            scaled, n, runs, seed, regularization, until, max_iterations, start
        )
        score = float(model.bic(scaled) if criterion == "bic" else model.aic(scaled))
        scores[n], converged[n] = score + jacobian, bool(model.converged_)
        level = logging.INFO if progress else logging.DEBUG
        ending = "" if converged[n] else f" (not converged after {max_iterations} iterations)"
        logger.log(level, "%d components: %s %.6g%s", n, criterion, scores[n], ending)
        return score, model

    # a coarse EM ranks the numbers of components; only the best one is worth a fine one
    coarse = max(tolerance, _COARSE_TOLERANCE)
    tried = [learn(n, coarse) for n in range(smallest, largest + 1)]
    model = min(tried, key=lambda pair: pair[0])[1]
    if tolerance < coarse:
        model = learn(len(model.weights_), tolerance, model)[1]
    weights, means, covariances = model.weights_, model.means_, model.covariances_
    gmm = GaussianMixture(
        len(weights),
        weights,
        means * scale + center,
        covariances * scale[:, None] * scale,
        random_state=seed,
    )
    return MixtureFit(gmm, len(weights), criterion, scores, converged)


def _expectation_maximization(
    scaled: Array,
    n: int,
    n_init: int,
    seed: int,
    regularization: float,
    tolerance: float,
    max_iterations: int,
    start: Any,
) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as ScikitMixture
    from threadpoolctl import threadpool_limits

    model = ScikitMixture(
        n,
        n_init=n_init,
        random_state=seed,
        reg_covar=regularization,
        tol=tolerance,
        max_iter=max_iterations,
        weights_init=None if start is None else start.weights_,
        means_init=None if start is None else start.means_,
        precisions_init=None if start is None else start.precisions_,
    )
    threads = 1 if scaled.size < _SINGLE_THREAD_SIZE else None
    with threadpool_limits(threads), warnings.catch_warnings():
        # reported in MixtureFit.converged and the log
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(scaled)


def _checked(data: ArrayLike, names: Sequence[str] | None) -> Array:
    """The data as a finite (N, p) copy with N >= 2 and p >= 1."""
    try:
        raw: Array = np.array(data, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GenoptError("data must be a table of numbers (N, p)") from error
    if raw.ndim == 1:
        raw = raw[:, None]
    if raw.ndim != 2 or raw.shape[1] == 0:
        raise GenoptError(f"data has shape {raw.shape}; expected (N, p) or (N,)")
    if len(raw) < 2:
        raise GenoptError(f"data has {len(raw)} rows; a mixture needs at least two")
    bad = (~np.isfinite(raw)).sum(0)
    if bad.any():
        told = ", ".join(f"{_name(int(i), names)} ({bad[i]} rows)" for i in np.flatnonzero(bad))
        raise GenoptError(
            f"data has missing or infinite entries in {told}: drop or fill these rows"
        )
    return raw


def _scaling(raw: Array, names: Sequence[str] | None) -> tuple[Array, Array]:
    """Mean and standard deviation of the columns; a constant one gets a small scale of its own."""
    center = raw.mean(0)
    scale = raw.std(0)
    size = np.abs(raw).max(0)
    constant = scale <= 1e-14 * size
    if constant.any():
        told = ", ".join(_name(int(i), names) for i in np.flatnonzero(constant))
        warnings.warn(
            f"constant columns carry no information for the mixture: {told}",
            UserWarning,
            stacklevel=3,
        )
        center = np.where(constant, raw[0], center)
        scale = np.where(constant, 1e-3 * np.where(size > 0.0, size, 1.0), scale)
    return center, scale


def _cap(scaled: Array, max_components: int) -> int:
    distinct = len(np.unique(scaled, axis=0))
    if distinct < max_components:
        warnings.warn(
            f"max_components={max_components} is more than the {distinct} distinct rows: at most "
            f"{distinct} are tried",
            UserWarning,
            stacklevel=3,
        )
    return min(distinct, max_components)


def _name(i: int, names: Sequence[str] | None) -> str:
    return f"column {names[i]!r}" if names is not None else f"column {i}"
