"""The table that EM sees: rows checked, columns standardised, results mapped back exactly."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genopt.errors import GenoptError
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.em import Components
from genopt.models.mixture.gmm import GaussianMixture


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

    def scaled(self, gmm: GaussianMixture) -> Components:
        """The inverse of `raw`.

        Args:
            gmm: a mixture in raw units.

        Returns:
            The mixture of scaled columns.
        """
        unit = self.scale[:, None] * self.scale
        return Components(
            gmm.priors, (gmm.means - self.center) / self.scale, gmm.covariances / unit
        )

    def raw(
        self,
        components: Components,
        seed: int,
        names: Sequence[str] | None = None,
        n_parameters: int | None = None,
    ) -> GaussianMixture:
        """A mixture of scaled columns in raw units.

        Args:
            components: the mixture.
            seed: seed of its own ``sample``.
            names: names of the columns.
            n_parameters: number of free parameters; None for that of full covariances.

        Returns:
            The mixture.
        """
        return GaussianMixture(
            len(components.weights),
            components.weights,
            components.means * self.scale + self.center,
            components.covariances * self.scale[:, None] * self.scale,
            random_state=seed,
            names=names,
            n_parameters=n_parameters,
        )


def checked_rows(
    data: ArrayLike, weights: ArrayLike | None, names: Sequence[str] | None
) -> tuple[Array, Array, NDArray[np.intp]]:
    """The rows that can be fitted.

    Args:
        data: rows (N, p) or (N,), NaN where an entry is missing.
        weights: how many rows each row counts for (N,); None for one.
        names: column names for messages.

    Returns:
        A copy of the rows that have an entry and a weight (n, p), their weights (n,) and numbers.

    Raises:
        GenoptError: if shapes do not fit, entries are infinite, weights are negative or not finite,
            a column is empty or fewer than two rows are left.
    """
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
    counts = _checked_weights(weights, len(raw))
    known = np.isfinite(raw)
    shown = known.any(1)
    kept = np.flatnonzero(shown & (counts > 0.0))
    if len(kept) < 2:
        raise GenoptError(
            f"data has {len(kept)} rows with an entry and a weight; a mixture needs at least two"
        )
    empty = np.flatnonzero(~known[kept].any(0))
    if empty.size:
        told = ", ".join(_name(int(i), names) for i in empty)
        raise GenoptError(f"all entries are missing in {told}: leave it out")
    if not shown.all():
        warnings.warn(
            f"{(~shown).sum()} rows of data without any entry are dropped",
            UserWarning,
            stacklevel=3,
        )
    return raw[kept], counts[kept], kept


def _checked_weights(weights: ArrayLike | None, n: int) -> Array:
    if weights is None:
        return np.ones(n)
    try:
        counts: Array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GenoptError("weights must be numbers (N,), one for each row") from error
    if counts.shape != (n,):
        raise GenoptError(f"weights has shape {counts.shape}; expected ({n},), one for each row")
    bad = np.flatnonzero(~np.isfinite(counts) | (counts < 0.0))
    if bad.size:
        raise GenoptError(
            f"weights must be finite and not negative; that of row {bad[0]} is {counts[bad[0]]}"
        )
    return counts


def column_scaling(raw: Array, weights: Array, names: Sequence[str] | None) -> Scaling:
    """Mean and standard deviation of the observed entries.

    Args:
        raw: rows (n, p), each column with an entry.
        weights: of the rows (n,).
        names: column names for messages.

    Returns:
        The scaling; a constant column gets a small scale of its own.
    """
    known = np.isfinite(raw)
    total = weights @ known
    center = weights @ np.where(known, raw, 0.0) / total
    scale = np.sqrt(weights @ np.where(known, raw - center, 0.0) ** 2 / total)
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
