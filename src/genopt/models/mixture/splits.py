"""More components from fewer: those whose rows look least like one Gaussian are cut in two.

Each component is looked at in its own metric, where it is round, so that neither units nor linear
correlations hide where its rows bend or fall apart. A mixture that grows like this starts EM near a
good optimum, where a clustering by distances sees none of the components' shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components, Index
from genopt.models.mixture.quadratic import coefficients, features, symmetric

_MOST_DIRECTIONS = 8


@dataclass(frozen=True, eq=False)
class _Cut:
    """The rows of one component in two overlapping parts.

    Args:
        gain: of the log likelihood of the rows.
        shares: of the parts (2,).
        means: (2, d).
        covariances: (2, d, d).
    """

    gain: float
    shares: Array
    means: Array
    covariances: Array


def split_components(
    data: Array,
    labels: Index,
    weights: Array,
    components: Components,
    n: int,
    regularization: float,
    fewest: float = 0.0,
) -> Components | None:
    """Cut the components that gain most, until there are n.

    Args:
        data: rows without gaps (N, d).
        labels: the component of each row (N,).
        weights: how many rows each row counts for (N,).
        components: the mixture, with fewer than n components.
        n: the number wanted, at most twice as many.
        regularization: variance added to each component.
        fewest: rows that each part of a component has to have; at least one more than columns.

    Returns:
        The larger mixture; None where too few components have the rows for it.
    """
    k = len(components.weights)
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(k + 1))
    cuts: dict[int, _Cut] = {}
    for j in range(k):
        rows = order[ends[j] : ends[j + 1]]
        part, mean, covariance = data[rows], components.means[j], components.covariances[j]
        cut = _best_cut(part, weights[rows], mean, covariance, regularization, fewest)
        if cut is not None:
            cuts[j] = cut
    chosen = sorted(cuts, key=lambda j: -cuts[j].gain)[: n - k]
    if len(chosen) < n - k:
        return None
    kept = np.setdiff1d(np.arange(k), chosen)
    shares = [components.weights[j] * cuts[j].shares for j in chosen]
    return Components(
        np.concatenate([components.weights[kept], *shares]),
        np.concatenate([components.means[kept], *(cuts[j].means for j in chosen)]),
        np.concatenate([components.covariances[kept], *(cuts[j].covariances for j in chosen)]),
    )


def _best_cut(
    data: Array,
    weights: Array,
    mean: Array,
    covariance: Array,
    regularization: float,
    fewest: float,
) -> _Cut | None:
    """The best of some cuts: by planes across the axes of the fourth moments, or core and rest.

    Fourth moments are small along directions in which rows fall into heaps, large along tails. A
    core in wide tails has one centre, so no plane parts the two.
    """
    n, d = data.shape
    if n <= 2 * d or weights.sum() < 2.0 * fewest:
        return None
    root = np.linalg.cholesky(covariance)
    moved = np.linalg.solve(root, (data - mean).T)
    lengths = (moved**2).sum(0)
    axes = np.linalg.eigh((moved * (weights * lengths)) @ moved.T)[1]
    moved = axes.T @ moved
    sides = np.concatenate([moved[:_MOST_DIRECTIONS] > 0.0, lengths[None] < d])
    count, size = sides.sum(1), sides @ weights
    enough = np.minimum(size, weights.sum() - size) >= fewest
    sides = sides[enough & (np.minimum(count, n - count) > d)]
    if not len(sides):
        return None
    columns = features(moved)
    first = (sides * weights) @ columns.T
    parts = np.stack([first, columns @ weights - first], 1).reshape(2 * len(sides), -1)
    means = parts[:, 1 : 1 + d] / parts[:, :1]
    covariances = symmetric(parts[:, 1 + d :] / parts[:, :1], d)
    covariances -= means[:, :, None] * means[:, None, :]
    back = root @ axes
    there = np.linalg.inv(back)
    covariances += regularization * there @ there.T
    shares = parts[:, 0] / weights.sum()
    log_parts = coefficients(shares, means, covariances) @ columns
    log_whole = -0.5 * (lengths + d * np.log(2.0 * np.pi))
    gains = (np.logaddexp(log_parts[::2], log_parts[1::2]) - log_whole) @ weights
    best = int(gains.argmax())
    pair = slice(2 * best, 2 * best + 2)
    return _Cut(
        float(gains[best]),
        shares[pair],
        mean + means[pair] @ back.T,
        back @ covariances[pair] @ back.T,
    )
