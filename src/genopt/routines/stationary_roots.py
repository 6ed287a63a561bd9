"""All roots of given derivatives, with starts from a model of designs given properties."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genopt.data.sampling import sample_space
from genopt.data.table import Table
from genopt.goal import Goal
from genopt.protocols import ConditionalModel
from genopt.routines.propose import propose
from genopt.routines.stationary_newton import Linear
from genopt.routines.stationary_points import (
    Search,
    StationaryPoints,
    search_roots,
    second_order,
)
from genopt.routines.stationary_starts import Sampler, fitted, spread_points, with_spread
from genopt.routines.stationary_system import Conditions, Coordinates, Functions

_SYMMETRIC = 1e-6
_ROWS = 2048


class RootTask:
    """The goal's values as one system y(x) - wanted = 0.

    Args:
        outputs: from designs (N, P) to properties (N, K), to be differentiated by torch.
        goal: what is wanted, values only.
        coordinates: what may move.
        multipliers: moving columns that are multipliers of a Lagrangian.

    Attributes:
        calls: designs that were simulated so far.
    """

    def __init__(
        self,
        outputs: Functions,
        goal: Goal,
        coordinates: Coordinates,
        multipliers: tuple[str, ...] = (),
    ) -> None:
        self.goal = goal
        self.coordinates = coordinates
        self.calls = 0
        self.multipliers = [coordinates.names.index(name) for name in multipliers]
        columns = [term.index for term in goal.terms]
        wanted = goal.condition()[columns]

        def values(x: Tensor) -> list[Tensor]:
            self.calls += len(x)
            y = outputs(x)[:, columns]
            # no objective: the column is there for the others' sake
            return [y[:, :1], y - wanted]

        self.conditions = Conditions(
            values,
            tuple(term.column for term in goal.terms),
            torch.ones(len(columns), dtype=torch.bool),
            coordinates,
        )

    def system(self, z: Tensor) -> Linear:
        """Misses of the values, in units of each column's size.

        Args:
            z: points (N, P) of the unit box.

        Returns:
            Residuals (N, K) and slopes.
        """
        found = self.conditions.derivatives(z)
        return Linear(found.value[:, 1:], found.slope[:, 1:])

    def solve(
        self, model: Any, engine: str, table: Table | None, options: Search
    ) -> StationaryPoints:
        """Draw starts, finish each, tell the points apart.

        Args:
            model: the study's model.
            engine: what draws the starts.
            table: measured rows, for another engine than the study's.
            options: how to search.

        Returns:
            The roots.
        """
        dim = len(self.coordinates.moving)
        starts = self._starts(model, engine, table, options.seed)
        ends = search_roots([self.system], starts, dim, options)
        slope = self.system(ends.point).slope if len(ends.point) else ends.point.new_empty(0)
        kinds = self._kinds(slope, ends.residual) if len(ends.point) else ((), torch.empty(0, dim))
        return StationaryPoints(
            x=self.coordinates.raw(ends.point),
            space=self.coordinates.space,
            value=torch.full((len(ends.point),), torch.nan, dtype=torch.float64),
            kinds=kinds[0],
            eigenvalues=kinds[1],
            residual=ends.residual,
            hits=ends.hits,
            starts=ends.starts,
            unseen=ends.unseen,
            calls=self.calls,
        )

    def _starts(self, model: Any, engine: str, table: Table | None, seed: int) -> Sampler:
        dim = len(self.coordinates.moving)
        if engine == "none":
            return spread_points(dim)
        if engine == "auto" and isinstance(model, ConditionalModel):

            def draw(n: int, turn: int) -> Tensor:
                found = propose(model, self.goal, n, table=table, seed=turn)
                return self.coordinates.unit(found.x[0])

            return with_spread(draw, dim)
        x = sample_space(self.goal.x_space, _ROWS, seed=seed) if table is None else table.x
        if table is None or self.coordinates.held:
            # rows with the held columns at their values
            z = self.coordinates.unit(x)
            y = self.system(z).residual
        else:
            z = self.coordinates.unit(x)
            columns = [term.index for term in self.goal.terms]
            y = (table.y[:, columns] - self.goal.condition()[columns]) / self.conditions.size[1:]
        whole = torch.isfinite(y).all(1)
        other = fitted("flow" if engine == "flow" else "mixture", z[whole], y[whole], seed)
        zero = torch.zeros(1, y.shape[1], dtype=torch.float64)
        return with_spread(
            lambda n, turn: other.sample(zero, n, torch.Generator().manual_seed(turn))[0], dim
        )

    def _kinds(self, slope: Tensor, residual: Tensor) -> tuple[tuple[str, ...], Tensor]:
        """Kinds of the roots, where the values are the derivatives of one function.

        Args:
            slope: of the scaled system in the unit box (R, K, P).
            residual: what is left of the system (R,).

        Returns:
            The kinds and the eigenvalues (R, P).
        """
        roots, equations, dim = slope.shape
        if equations != dim:
            return ("root",) * roots, torch.full((roots, dim), torch.nan, dtype=torch.float64)
        # d y_k / d z_i in raw units of y, times the width of the k-th column: symmetric for a slope
        raw = slope * (self.conditions.size[1:] * self.coordinates.width)[:, None]
        gap = (raw - raw.transpose(1, 2)).abs().amax((1, 2))
        if bool((gap > _SYMMETRIC * raw.abs().amax((1, 2))).any()):
            return ("root",) * roots, torch.full((roots, dim), torch.nan, dtype=torch.float64)
        own = [i for i in range(dim) if i not in self.multipliers]
        checked = second_order(
            raw[:, own][:, :, own],
            raw[:, self.multipliers][:, :, own],
            torch.zeros(roots, dtype=torch.bool),
            residual,
        )
        return checked.kinds, checked.eigenvalues
