"""Modes of conditional mixtures: each component climbs from its mean to a peak of the density.

The ascent is the mean shift x <- A^-1 sum_k r_k Lambda_k mu_k with A = sum_k r_k Lambda_k,
responsibilities r_k and precisions Lambda_k (M. A. Carreira-Perpinan, Mode-finding for mixtures of
Gaussian distributions, 2000), which never lowers the density; near a peak Newton's step
replaces it. All components of all queries climb at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genopt.models.mixture.conditioning import Array, log_mixture

_MOST_STEPS = 500
_CHUNK = 1 << 19
_NEWTON_RADIUS = 0.3
_AT_REST = 1e-16
_SAME_PEAK = 1e-2
_LEAST_WEIGHT = 1e-12
_LARGEST_PULL = 1e100
# off a saddle that symmetry may have put a mean on, by a share of the component's deviation
_NUDGE = 1e-3


@dataclass(frozen=True, eq=False)
class ConditionalModes:
    """The modes of C conditional mixtures, from the highest to the lowest density.

    Args:
        points: (C, L, m); NaN beyond a query's last mode.
        log_density: (C, L); -inf beyond the last mode.
        weights: (C, L) share of the probability: the weights of the components that climb to the
            mode; 0 beyond the last one.
        count: (C,) number of modes.
    """

    points: Array
    log_density: Array
    weights: Array
    count: Array


def find_modes(log_weights: Array, means: Array, whiten: Array) -> ConditionalModes:
    """All modes to which a component's mean leads.

    Args:
        log_weights: (C, k); a component of a weight below 1e-12 does not count.
        means: (C, k, m).
        whiten: inverses of the components' Cholesky factors (k, m, m).

    Returns:
        The modes, with L = the largest number of modes of a query.
    """
    count, k, m = means.shape
    step = max(1, _CHUNK // (k * k * m * m))
    parts = [
        _Hills(log_weights[start : start + step], means[start : start + step], whiten).peaks()
        for start in range(0, count, step)
    ]
    found = [mode for part in parts for mode in part]
    longest = max((len(density) for _, density, _ in found), default=0)
    out = ConditionalModes(
        points=np.full((count, longest, m), np.nan),
        log_density=np.full((count, longest), -np.inf),
        weights=np.zeros((count, longest)),
        count=np.array([len(density) for _, density, _ in found], dtype=np.intp),
    )
    for c, (points, density, weights) in enumerate(found):
        out.points[c, : len(density)] = points
        out.log_density[c, : len(density)] = density
        out.weights[c, : len(density)] = weights
    return out


class _Hills:
    """The densities of some queries, and the climb on them."""

    def __init__(self, log_weights: Array, means: Array, whiten: Array) -> None:
        m = means.shape[2]
        log_scale = np.log(np.abs(np.diagonal(whiten, axis1=1, axis2=2))).sum(1)
        self.weights = np.exp(log_weights)
        self.weights[self.weights < _LEAST_WEIGHT] = 0.0
        self.weights /= self.weights.sum(1, keepdims=True)
        self.coefficient = log_weights + log_scale - 0.5 * m * np.log(2.0 * np.pi)
        self.means = means
        self.whiten = whiten
        self.precision = whiten.transpose(0, 2, 1) @ whiten

    def slopes(self, query: NDArray[np.intp], x: Array) -> tuple[Array, Array, Array, Array]:
        """Log density (n,), its gradient (n, m), A (n, m, m) and minus its Hessian (n, m, m)."""
        away = self.means[query] - x[:, None]
        whitened = np.einsum("kij,nkj->nik", self.whiten, away, optimize=True)
        share, _, density = log_mixture(whitened, self.coefficient[query])
        pull = np.einsum("kij,nik->nkj", self.whiten, whitened, optimize=True)
        np.clip(pull, -_LARGEST_PULL, _LARGEST_PULL, out=pull)
        gradient = np.einsum("nk,nkj->nj", share, pull)
        mixed = np.einsum("nk,kij->nij", share, self.precision)
        outer = np.einsum("nk,nki,nkj->nij", share, pull, pull, optimize=True)
        curvature = mixed - outer + gradient[:, :, None] * gradient[:, None, :]
        return density, gradient, mixed, curvature

    def climb(self) -> tuple[Array, Array, Array]:
        """Where each component's mean leads (C * k, m), the log density and curvature there."""
        count, k, m = self.means.shape
        query = np.repeat(np.arange(count, dtype=np.intp), k)
        nudge = _NUDGE * np.linalg.inv(self.whiten) @ np.cos(np.arange(m) + 1.0)
        x = (self.means + nudge).reshape(-1, m)
        density, gradient, mixed, curvature = self.slopes(query, x)
        moving = np.flatnonzero(self.weights.reshape(-1))
        for _ in range(_MOST_STEPS):
            if not len(moving):
                break
            shift = _solve(mixed[moving], gradient[moving])
            peaked = np.linalg.eigvalsh(curvature[moving])[:, 0] > 0
            newton = _solve(
                np.where(peaked[:, None, None], curvature[moving], mixed[moving]), gradient[moving]
            )
            gain = np.einsum("nj,nj->n", newton, gradient[moving])
            near = peaked & (gain < _NEWTON_RADIUS**2)
            step = np.where(near[:, None], newton, shift)
            there = x[moving] + step
            parts = self.slopes(query[moving], there)
            # Newton's step may fall: the shift cannot
            worse = near & (parts[0] < density[moving] - 1e-12 * np.abs(density[moving]))
            if worse.any():
                there[worse] = x[moving[worse]] + shift[worse]
                again = self.slopes(query[moving[worse]], there[worse])
                for part, better in zip(parts, again, strict=True):
                    part[worse] = better
            x[moving] = there
            for whole, part in zip((density, gradient, mixed, curvature), parts, strict=True):
                whole[moving] = part
            rest = np.einsum("nj,nj->n", gradient[moving], _solve(mixed[moving], gradient[moving]))
            moving = moving[~(rest < _AT_REST)]
        return x, density, curvature

    def peaks(self) -> list[tuple[Array, Array, Array]]:
        """For each query its distinct modes, their log density and weights, highest first."""
        count, k, m = self.means.shape
        x, density, curvature = self.climb()
        x, density = x.reshape(count, k, m), density.reshape(count, k)
        curvature = curvature.reshape(count, k, m, m)
        top = np.linalg.eigvalsh(curvature)[..., 0] > 0
        out = []
        for c in range(count):
            alive = np.flatnonzero(self.weights[c])
            order = alive[np.lexsort((-density[c, alive], ~top[c, alive]))]
            kept: list[int] = []
            share: list[float] = []
            for j in order:
                away = x[c, kept] - x[c, j]
                distance = np.einsum("ni,nij,nj->n", away, curvature[c, kept], away)
                nearest = int(np.argmin(distance)) if kept else -1
                if kept and (distance[nearest] < _SAME_PEAK**2 or not top[c, j]):
                    share[nearest] += float(self.weights[c, j])
                else:
                    kept.append(int(j))
                    share.append(float(self.weights[c, j]))
            out.append((x[c, kept], density[c, kept], np.array(share)))
        return out


def _solve(matrices: Array, vectors: Array) -> Array:
    return np.asarray(np.linalg.solve(matrices, vectors[:, :, None])[:, :, 0])
