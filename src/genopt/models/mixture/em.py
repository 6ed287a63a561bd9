"""Expectation maximisation for Gaussian mixtures: parameters, moments, one run.

How the moments are summed depends on the rows: `genopt.models.mixture.complete` where all entries
are known, `genopt.models.mixture.gappy` where some are missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genopt.models.mixture.acceleration import Stretching
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.covariances import constrained

Index = NDArray[np.intp]


@dataclass(frozen=True)
class EmOptions:
    """How EM is run on scaled columns.

    Args:
        n_init: runs, the likeliest is kept.
        seed: seed of the starts.
        regularization: variance added to each component.
        tolerance: EM stops when the mean log likelihood of a row gains less.
        max_iterations: most iterations of a run.
        covariance: one of `genopt.models.mixture.covariances.KINDS`.
        n_factors: rank of the covariances of a kind that has one; None for the kinds without.
        accelerated: whether longer steps are tried where EM creeps.
        n_jobs: how many runs go on at the same time.
    """

    n_init: int = 1
    seed: int = 0
    regularization: float = 1e-6
    tolerance: float = 1e-5
    max_iterations: int = 1000
    covariance: str = "full"
    n_factors: int | None = None
    accelerated: bool = False
    n_jobs: int = 1


@dataclass(frozen=True, eq=False)
class Components:
    """The parameters of a mixture.

    Args:
        weights: (k,), sum to one.
        means: (k, d).
        covariances: (k, d, d).
        loadings: of covariances with factors, W in W W^T + diagonal (k, d, r); None for other
            kinds.
    """

    weights: Array
    means: Array
    covariances: Array
    loadings: Array | None = None

    @property
    def noise(self) -> Array | None:
        """What each column varies beside its factors (k, d); None without factors."""
        if self.loadings is None:
            return None
        variances = np.diagonal(self.covariances, axis1=1, axis2=2)
        return np.asarray(variances - (self.loadings**2).sum(-1))

    def shaped(self, kind: str, rank: int | None = None, smallest: float = 1e-6) -> Components:
        """The same mixture with covariances of a kind.

        Args:
            kind: one of `genopt.models.mixture.covariances.KINDS`.
            rank: number of factors, of the kind that has them.
            smallest: least variance of a column beside its factors.

        Returns:
            The mixture.
        """
        own = None if self.noise is None else np.maximum(self.noise, smallest)
        covariances, loadings = constrained(
            self.covariances, self.weights, kind, rank, own, smallest
        )
        return replace(self, covariances=covariances, loadings=loadings)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Where EM ended.

    Args:
        components: the parameters.
        log_likelihood: of all observed entries, the sum over the rows.
        converged: whether the last gain was below the tolerance.
        trace: the log likelihood at the start and after each iteration.
    """

    components: Components
    log_likelihood: float
    converged: bool
    trace: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Moments:
    """What the M-step needs of rows, their missing entries by what is expected of them.

    Args:
        origin: the points that the moments are about (k, d).
        count: rows of each component (k,).
        first: sums of deviations (k, d).
        second: sums of their products (k, d, d).
        log_likelihood: of the rows under the mixture of the E-step.
    """

    origin: Array
    count: Array
    first: Array
    second: Array
    log_likelihood: float

    def about(self, origin: Array) -> Moments:
        """The same about other points.

        Args:
            origin: (k, d).

        Returns:
            The moments.
        """
        step = self.origin - origin
        cross = self.first[:, :, None] * step[:, None, :]
        second = self.second + cross + cross.transpose(0, 2, 1)
        second += (self.count[:, None] * step)[:, :, None] * step[:, None, :]
        first = self.first + self.count[:, None] * step
        return replace(self, origin=origin, first=first, second=second)

    def __add__(self, other: Moments) -> Moments:
        other = other.about(self.origin)
        return Moments(
            self.origin,
            self.count + other.count,
            self.first + other.first,
            self.second + other.second,
            self.log_likelihood + other.log_likelihood,
        )

    def likeliest(self, components: Components, options: EmOptions) -> Components:
        """The M-step; a component without weight stays as it is.

        Args:
            components: the mixture of the E-step.
            options: kind of the covariances and regularisation.

        Returns:
            The next mixture.
        """
        d = self.first.shape[1]
        alive = self.count > 0.0
        size = np.where(alive, self.count, 1.0)[:, None]
        shift = self.first / size
        covariances = self.second / size[:, :, None] - shift[:, :, None] * shift[:, None, :]
        covariances = 0.5 * (covariances + covariances.transpose(0, 2, 1))
        covariances[:, np.arange(d), np.arange(d)] += options.regularization
        own = components.noise
        covariances, loadings = constrained(
            covariances,
            self.count,
            options.covariance,
            options.n_factors,
            None if own is None else np.maximum(own, options.regularization),
            options.regularization,
        )
        if loadings is not None and components.loadings is not None:
            loadings = np.where(alive[:, None, None], loadings, components.loadings)
        kept = alive | (options.covariance == "tied")
        return Components(
            self.count / self.count.sum(),
            np.where(alive[:, None], self.origin + shift, components.means),
            np.where(kept[:, None, None], covariances, components.covariances),
            loadings,
        )


class Rows(Protocol):
    """Rows that EM sees: complete, with gaps, or both.

    Args:
        weights: how many rows each row counts for (N,).
    """

    weights: Array

    def moments(self, components: Components, labels: Index | None = None) -> Moments:
        """The E-step.

        Args:
            components: the mixture.
            labels: the component of each row (N,), instead of what the mixture expects.

        Returns:
            The moments of all rows.
        """

    def expected(self, components: Components) -> tuple[Array, Index]:
        """What each row is likely to be.

        Args:
            components: the mixture.

        Returns:
            The rows with conditional means where entries miss (N, d), and the likeliest component
            of each (N,).
        """

    def log_prob(self, components: Components) -> Array:
        """Log density of each row's observed entries.

        Args:
            components: the mixture.

        Returns:
            (N,); zero for a row without any.
        """


def expectation_maximization(rows: Rows, start: Components, options: EmOptions) -> Fitted:
    """One run of EM.

    What no row shows is not learned: the covariance, within a component, of two columns that are
    never observed together, beyond what third columns explain, stays near its start.

    Args:
        rows: the data.
        start: the first parameters.
        options: when to stop.

    Returns:
        The parameters of the highest likelihood that was met.
    """
    components = best = start.shaped(options.covariance, options.n_factors, options.regularization)
    stretching = Stretching(0.5 * options.regularization)
    trace, n_rows = list[float](), float(rows.weights.sum())
    converged = False
    path: list[Components] = []
    # where EM itself would go on, while a longer step is tried
    retreat: Components | None = None
    for iteration in range(options.max_iterations + 1):
        moments = rows.moments(components)
        log_likelihood = moments.log_likelihood
        if retreat is not None and not log_likelihood >= trace[-1]:
            stretching.shorten()
            components, retreat = retreat, None
            continue
        gain = (log_likelihood - trace[-1]) / n_rows if trace else math.inf
        if log_likelihood > max(trace, default=-math.inf):
            best = components
        trace.append(log_likelihood)
        # a small loss is possible too, where the regularisation outweighs what is left to gain
        converged = retreat is None and abs(gain) < options.tolerance
        if converged or iteration == options.max_iterations:
            break
        path.append(components)
        components, retreat = moments.likeliest(components, options), None
        if options.accelerated and len(path) == 2:
            proposal = stretching.proposed(path[0], path[1], components)
            path.clear()
            if proposal is not None:
                components, retreat = proposal, components
    return Fitted(best, max(trace), converged, tuple(trace))
