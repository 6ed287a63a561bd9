"""The joint density of a fitted mixture: conditionals, log densities, how unusual an output is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from genopt.models.mixture.columns import JointColumns, Selection
from genopt.models.mixture.conditionals import ConditionalBatch
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.conditions import known_values, patterns
from genopt.models.mixture.gmm import GaussianMixture

_FEWEST_ROWS = 10
_DRAWS = 1000


class JointDensity:
    """A mixture over the joint columns and what can be asked of it.

    Variables are numbered as in `JointColumns`: those of x first, then the modelled ones of y.

    Args:
        gmm: the mixture over the fitted columns.
        columns: the joint columns.
        y_seen: modelled training outputs (N, K'), NaN for a gap: the reference of `ood_score`.
    """

    def __init__(self, gmm: GaussianMixture, columns: JointColumns, y_seen: Tensor) -> None:
        self.gmm = gmm
        self.columns = columns
        self.y_seen = y_seen
        self._joints: dict[Selection, GaussianMixture] = {}
        self._surprises: dict[tuple[int, ...], Array] = {}

    def conditional(
        self, values: Tensor, given: tuple[int, ...], wanted: tuple[int, ...]
    ) -> tuple[ConditionalBatch, Selection, Array]:
        """Conditionals of the wanted variables.

        Args:
            values: raw values of the given variables (C, V).
            given: the given variables.
            wanted: the wanted variables; all others are integrated out.

        Returns:
            The conditionals over ``selection.wanted``, the selection of columns and the values of
            ``selection.given`` (C, q).
        """
        selection = self.columns.select(given, wanted)
        known = self._pick(values, given, selection.given)
        joint = self._joint(selection)
        return joint.condition_batch(range(known.shape[1]), known), selection, known

    def _joint(self, selection: Selection) -> GaussianMixture:
        if selection not in self._joints:
            self._joints[selection] = self.columns.mixture(self.gmm, selection)
        return self._joints[selection]

    def _pick(self, values: Tensor, variables: tuple[int, ...], wanted: tuple[int, ...]) -> Array:
        order = self.columns.columns(variables)
        full = self.columns.full(values, variables)[:, [order.index(c) for c in wanted]]
        picked: Array = full.detach().to(torch.float64).numpy()
        return picked

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Log density of designs given the known entries of y.

        The density of the numbers times the probability of the classes given the numbers.

        Args:
            x: designs (N, P); NaN for an entry that does not count.
            y: properties (N, K); NaN for a free entry.

        Returns:
            (N,).
        """
        out = y.new_zeros(len(y))
        for rows, known in patterns(y, self.columns):
            values = known_values(y[rows], known, self.columns)
            designs = x[rows]
            for some, wanted in _by_gaps(designs):
                points = designs[some][:, None, list(wanted)]
                density = self.log_conditional(points, wanted, values[some], known)
                out[rows[some]] = density[:, 0]
        return out

    def log_conditional(
        self,
        points: Tensor,
        wanted: tuple[int, ...],
        values: Tensor,
        given: tuple[int, ...],
    ) -> Tensor:
        """Log density of the wanted variables at n points for each query.

        The density of the numbers times the probability of the classes given the numbers.

        Args:
            points: raw values of the wanted variables (C, n, U).
            wanted: the wanted variables; all others are integrated out.
            values: raw values of the given variables (C, V).
            given: the given variables.

        Returns:
            (C, n).
        """
        classes = [position for position, i in enumerate(wanted) if self._labels(i)]
        batch, selection, _ = self.conditional(values, given, wanted)
        density = self._log_prob(batch, points, wanted, selection)
        if not classes:
            return density
        total = torch.full_like(density, -math.inf)
        labels = [range(len(self._labels(wanted[position]))) for position in classes]
        for codes in itertools.product(*labels):
            other = points.clone()
            other[..., classes] = torch.tensor(codes, dtype=points.dtype)
            total = torch.logaddexp(total, self._log_prob(batch, other, wanted, selection))
        density = density - total
        numbers = [position for position in range(len(wanted)) if position not in classes]
        if numbers:
            kept = tuple(wanted[position] for position in numbers)
            batch, selection, _ = self.conditional(values, given, kept)
            density = density + self._log_prob(batch, points[..., numbers], kept, selection)
        return density

    def _labels(self, variable: int) -> tuple[str, ...]:
        return self.columns.variables[variable].labels

    def _log_prob(
        self,
        batch: ConditionalBatch,
        points: Tensor,
        variables: tuple[int, ...],
        selection: Selection,
    ) -> Tensor:
        """Log density (C, n) of raw points (C, n, U), classes as corners of their blocks."""
        picked = self._pick(points.flatten(0, 1), variables, selection.wanted)
        return torch.from_numpy(batch.log_prob(picked.reshape(*points.shape[:2], -1)))

    def log_joint(self, x: Tensor, y: Tensor) -> Tensor:
        """Log density of designs given the known entries of y, and of the known numbers of y.

        Classes count by their probability given the numbers, where they are designs, and not at
        all, where they are properties: the density of a one-hot block means nothing.

        Args:
            x: designs (N, P).
            y: properties (N, K); NaN where an entry is not known.

        Returns:
            (N,).
        """
        out = self.log_prob(x, y)
        for rows, known in patterns(y, self.columns):
            numbers = tuple(i for i in known if not self.columns.variables[i].labels)
            if numbers:
                values = known_values(y[rows], numbers, self.columns)
                out[rows] -= torch.from_numpy(self._surprise(values, numbers))
        return out

    def ood_score(self, y: Tensor) -> Tensor:
        """How unusual conditions are among the training outputs.

        Args:
            y: conditions (C, K); NaN for a free entry.

        Returns:
            Scores (C,); 0 where everything is free.
        """
        out = y.new_zeros(len(y))
        for rows, known in patterns(y, self.columns):
            if known:
                out[rows] = self._ood_score(known_values(y[rows], known, self.columns), known)
        return out

    def _ood_score(self, values: Tensor, known: tuple[int, ...]) -> Tensor:
        calm = self._calm(known)
        n = len(calm)
        surprise = self._surprise(values, known)
        tail = np.interp(surprise, calm, np.linspace(1.0, 1.0 / n, n))
        width = max(float(calm[-1] - np.median(calm)), 1e-3)
        excess = np.clip(surprise / width - calm[-1] / width, 0.0, 1e300)
        return torch.from_numpy(np.abs(np.log(tail)) / math.log(max(n, 2)) + np.log1p(excess))

    def _calm(self, known: tuple[int, ...]) -> Array:
        """Sorted surprises of the training rows that have all the known variables.

        Where hardly any row has them all, draws of the mixture stand for rows.
        """
        if known not in self._surprises:
            seen = self.y_seen[:, [i - self.columns.x_dim for i in known]]
            seen = seen[~torch.isnan(seen).any(1)]
            if len(seen) < _FEWEST_ROWS:
                joint = self._joint(self.columns.select((), known))
                surprise: Array = -joint.log_prob(joint.sample(_DRAWS, random_state=0))
            else:
                surprise = self._surprise(seen, known)
            self._surprises[known] = np.sort(surprise)
        return self._surprises[known]

    def _surprise(self, values: Tensor, known: tuple[int, ...]) -> Array:
        selection = self.columns.select((), known)
        surprise: Array = -self._joint(selection).log_prob(
            self._pick(values, known, selection.wanted)
        )
        return surprise


def _by_gaps(x: Tensor) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """Row numbers (n,) and the columns that these rows have, where they have any."""
    there = ~torch.isnan(x)
    if bool(there.all()):
        yield torch.arange(len(x)), tuple(range(x.shape[1]))
        return
    distinct, member = torch.unique(there, dim=0, return_inverse=True)
    for number, pattern in enumerate(distinct):
        if bool(pattern.any()):
            yield (
                (member == number).nonzero().flatten(),
                tuple(pattern.nonzero().flatten().tolist()),
            )
