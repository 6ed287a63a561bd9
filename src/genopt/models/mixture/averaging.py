"""The average of several mixtures of the same rows, which is a mixture again.

Each is another optimum of the likelihood, reached from other rows, and errs in other places. Their
average errs less than each does, for the price of as many times the components (Ormoneit and Tresp,
Averaging, maximum penalized likelihood and Bayesian estimation for improving Gaussian mixture
probability density estimates, 1998).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components, EmOptions, Fitted
from genopt.models.mixture.fitting import Fitter
from genopt.models.mixture.parallel import in_parallel

_GROWTH = 1.5
# a half with fewer rows for each parameter of a component tells less than all rows again
_ROWS_OF_A_HALF = 8


def other_starts(fitter: Fitter, n: int, options: EmOptions, count: int) -> list[Components]:
    """Mixtures that differ: of random halves of the rows, or of all rows where these are few.

    A mixture of a half is grown from one component; one of all rows starts from other clusters.

    Args:
        fitter: all rows.
        n: number of components.
        options: how EM is run.
        count: how many mixtures.

    Returns:
        The mixtures.
    """
    rng = np.random.default_rng(options.seed)
    each = fitter.parameters_a_component(options)
    halves = fitter.n_rows // 2 >= _ROWS_OF_A_HALF * each * n
    jobs = [
        (fitter.without(rng.permutation(fitter.n_rows)[: fitter.n_rows // 2]), options.seed + i)
        for i in range(1, count + 1)
    ]

    def start(job: tuple[Fitter, int]) -> Components:
        half, seed = job
        own = replace(options, seed=seed, n_jobs=1)
        if not halves or half.most_components < n:
            return fitter.from_clusters(n, own).components
        size, found = 1, half.fit(1, own)
        while size < n:
            size = min(n, int(np.ceil(_GROWTH * size)))
            found = half.fit(size, own)
        return found.components

    return in_parallel(start, jobs, options.n_jobs)


def joined(parts: list[Components]) -> Components:
    """The components of all mixtures, with equal shares for each mixture.

    Args:
        parts: the mixtures.

    Returns:
        Their average.
    """
    loadings = [part.loadings for part in parts if part.loadings is not None]
    return Components(
        np.concatenate([part.weights for part in parts]) / len(parts),
        np.concatenate([part.means for part in parts]),
        np.concatenate([part.covariances for part in parts]),
        np.concatenate(loadings) if len(loadings) == len(parts) else None,
    )


def taken_apart(components: Components, members: int) -> list[Components]:
    """The inverse of `joined` for mixtures of equal size.

    Args:
        components: an average.
        members: how many mixtures it is of, a divisor of the number of components.

    Returns:
        The mixtures.
    """

    def part(values: Array | None, i: int) -> Array | None:
        return None if values is None else np.split(values, members)[i]

    out = []
    for i in range(members):
        weights = np.split(components.weights, members)[i]
        out.append(
            replace(
                components,
                weights=weights / weights.sum(),
                means=np.split(components.means, members)[i],
                covariances=np.split(components.covariances, members)[i],
                loadings=part(components.loadings, i),
            )
        )
    return out


def fitted_average(
    fitter: Fitter, starts: list[Components], options: EmOptions
) -> tuple[Fitted, Fitted]:
    """EM from several starts and the average of where it ends.

    Args:
        fitter: the rows.
        starts: the starts, the best one first.
        options: how EM is run.

    Returns:
        The end of the first start alone, and the average of all.
    """
    alone = replace(options, n_jobs=1)

    def fit(start: Components) -> Fitted:
        return fitter.fit(len(start.weights), alone, start)

    fits = in_parallel(fit, starts, options.n_jobs)
    if len(fits) == 1:
        return fits[0], fits[0]
    components = joined([fit.components for fit in fits])
    everything = np.arange(fitter.n_rows)
    log_likelihood = float(fitter.weights @ fitter.log_density(everything, components))
    return fits[0], Fitted(components, log_likelihood, all(fit.converged for fit in fits))
