"""Modes: where samples gather.

Clusters of samples stand for the distinct answers of an inverse problem.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from genopt.errors import GenoptError


def cluster_stats(samples: Any, eps: float = 0.3, min_samples: int = 10) -> list[dict[str, Any]]:
    """Clusters of samples by density (DBSCAN, Ester et al. 1996), the largest first.

    Args:
        samples: points (n, P); an array, a tensor or nested lists. One-dimensional input is one
            column.
        eps: radius of a neighbourhood, in the units of the samples.
        min_samples: how many neighbours make a point part of a cluster's core.

    Returns:
        One dictionary a cluster: ``mean`` (P,), ``std`` (P,), ``size`` (points), ``weight`` (share
        of all samples, noise included in the total) and ``indices`` (size,). Noise belongs to no
        cluster.

    Raises:
        GenoptError: if the samples are not finite numbers of shape (n, P).

    Example:
        >>> modes = cluster_stats([[0.0], [0.1], [5.0], [5.1]], eps=0.3, min_samples=2)
        >>> [mode["size"] for mode in modes]
        [2, 2]
    """
    from sklearn.cluster import DBSCAN

    points = np.asarray(samples, dtype=float)
    if points.ndim == 1:
        points = points[:, None]
    if points.ndim != 2:
        raise GenoptError(f"samples has shape {points.shape}; expected (n, P)")
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points).all(1)).sum())
        raise GenoptError(f"samples holds {bad} rows that are not finite: drop them first")
    if len(points) == 0:
        return []
    labels = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(points)
    stats = []
    for label in np.unique(labels[labels >= 0]):
        (indices,) = np.nonzero(labels == label)
        members = points[indices]
        stats.append(
            {
                "mean": members.mean(0),
                "std": members.std(0),
                "size": len(members),
                "weight": len(members) / len(points),
                "indices": indices,
            }
        )
    return sorted(stats, key=lambda mode: -int(mode["size"]))
