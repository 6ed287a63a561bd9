"""What a fitted mixture says of some columns given others, for many queries, in raw units.

Queries that know the same columns share one exact conditional. A column that a query knows comes
back as its value, without spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.density import JointDensity
from genopt.models.mixture.designs import draw_variables
from genopt.models.mixture.draws import generator_of
from genopt.models.mixture.given import read_given, variable_numbers
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.laws import Law
from genopt.models.mixture.modes_search import ConditionalModes
from genopt.models.mixture.names import one_column
from genopt.space import Space
from genopt.variable import Variable


@dataclass(frozen=True, eq=False)
class Conditionals:
    """The laws of the wanted columns given what each of C queries knows.

    Numbers (W' of the W wanted columns) have means, covariances, quantiles and modes, classes
    summed out. Of classes there are `probabilities`; draws and densities are of all columns,
    classes by their codes. All fractions of a simplex that is wanted come back: they sum to one in
    every mean, mode and draw, and the last open one adds nothing to the density.

    Args:
        density: the joint density.
        x_space: the columns of x, whose bounds hold for draws.
        known: the columns that some query knows, as variables of the joint.
        values: what the queries know (C, V); NaN for a gap.
        wanted: the wanted columns, as variables of the joint.
        seed: seed of draws without a generator.

    Example:
        >>> from genopt import Mixture
        >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]
        >>> model = Mixture(Space.of(x=(-1, 1)), Space.of(y=(0, 2)), max_components=2)
        >>> answer = model.fit(x, x + 1).condition({"y": [1.5, None], "x": [None, 0.25]})
        >>> answer.names, answer.mean().round(2).tolist()
        (('x', 'y'), [[0.5, 1.5], [0.25, 1.25]])
    """

    density: JointDensity
    x_space: Space
    known: tuple[int, ...]
    values: Tensor
    wanted: tuple[int, ...]
    seed: int

    @classmethod
    def of(
        cls,
        density: JointDensity,
        x_space: Space,
        y_space: Space,
        given: Mapping[str, Any],
        wanted: Sequence[str] | None,
        seed: int,
    ) -> Conditionals:
        """The laws that are asked for by name.

        Args:
            density: the joint density.
            x_space: the columns of x.
            y_space: the columns of y, modelled or not.
            given: known columns and values, see `read_given`.
            wanted: the columns that are asked for; None for all that some query does not know.
            seed: seed of draws without a generator.

        Returns:
            The laws.

        Raises:
            GenoptError: if a column or a value cannot be used or nothing is asked for.
        """
        known, values = read_given(given, density.columns, y_space)
        if wanted is None:
            closed = {i for j, i in enumerate(known) if not bool(values[:, j].isnan().any())}
            asked = tuple(i for i in range(len(density.columns.variables)) if i not in closed)
        else:
            asked = variable_numbers(wanted, density.columns, y_space, "wanted")
        if not asked:
            raise GenoptError("every query knows every column: nothing is left to ask for")
        return cls(density, x_space, known, values, asked, seed)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        of = ", ".join(self.names)
        given = ", ".join(self._variables[i].name for i in self.known) or "nothing"
        return f"Conditionals({len(self)} of {of} given {given})"

    @property
    def _variables(self) -> tuple[Variable, ...]:
        return self.density.columns.variables

    @property
    def names(self) -> tuple[str, ...]:
        """The W wanted columns."""
        return tuple(self._variables[i].name for i in self.wanted)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Those of them that are no classes."""
        return tuple(self._variables[i].name for i in self._numbers)

    @property
    def _numbers(self) -> tuple[int, ...]:
        return tuple(i for i in self.wanted if not self._variables[i].labels)

    @cached_property
    def _parts(self) -> list[_Part]:
        """The queries by which columns they know."""
        given = ~torch.isnan(self.values)
        # a first column of its own: there may be no other
        marked = torch.cat([torch.ones(len(given), 1, dtype=torch.bool), given], 1)
        distinct, member = torch.unique(marked, dim=0, return_inverse=True)
        parts = []
        for p, pattern in enumerate(distinct[:, 1:]):
            rows = (member == p).nonzero().flatten()
            columns = pattern.nonzero().flatten().tolist()
            known = tuple(self.known[j] for j in columns)
            parts.append(_Part(self.density, rows, known, self.values[rows][:, columns]))
        return parts

    def _gathered(self, shape: Sequence[int], part: Callable[[_Part], Array]) -> Array:
        out = np.empty((len(self), *shape))
        for each in self._parts:
            out[each.rows.numpy()] = part(each)
        return out

    # -- moments -----------------------------------------------------------------------------------
    @property
    def weights(self) -> Array:
        """Probabilities of the components (C, k)."""
        k = self.density.gmm.n_components
        return self._gathered((k,), lambda part: part.law(self._numbers).batch.weights)

    @property
    def far(self) -> NDArray[np.bool_]:
        """Queries (C,), bool, beyond the range of numbers: the nearest component answers them."""
        far = self._gathered((), lambda part: part.law(self._numbers).batch.far.astype(np.float64))
        return np.asarray(far > 0.0)

    def mean(self) -> Array:
        """Means of the numbers, (C, W')."""
        width = len(self._numbers)
        return self._gathered((width,), lambda part: part.law(self._numbers).mean())

    def covariance(self) -> Array:
        """Covariances of the numbers, (C, W', W'); zero for what is known."""
        width = len(self._numbers)
        return self._gathered((width, width), lambda part: part.law(self._numbers).covariance())

    def std(self) -> Array:
        """Standard deviations of the numbers, (C, W')."""
        spread: Array = np.sqrt(np.diagonal(self.covariance(), axis1=1, axis2=2))
        return spread

    def probabilities(self, column: int | str | None = None) -> Array:
        """Probabilities of the classes of a column.

        Args:
            column: the column, its number among ``names`` or its name; None for the only class
                column.

        Returns:
            (C, number of classes): the means of the one-hot columns, clipped to 0 to 1.

        Raises:
            GenoptError: if the column holds numbers, or several hold classes and none is named.
        """
        classes = [j for j, i in enumerate(self.wanted) if self._variables[i].labels]
        if column is None and len(classes) == 1:
            column = classes[0]
        if column is None:
            raise GenoptError(f"{len(classes)} wanted columns hold classes: name one of them")
        i = self.wanted[one_column(column, len(self.wanted), self.names)]
        if not self._variables[i].labels:
            raise GenoptError(f"column {self._variables[i].name!r} holds numbers, not classes")

        def shares(part: _Part) -> Array:
            raw: Array = np.clip(part.law((i,)).mean(), 0.0, 1.0)
            total: Array = raw.sum(1, keepdims=True)
            return raw / total

        return self._gathered((len(self._variables[i].labels),), shares)

    # -- one column --------------------------------------------------------------------------------
    def quantile(self, levels: ArrayLike, column: int | str = 0) -> Array:
        """Exact quantiles of one number.

        Args:
            levels: probabilities between 0 and 1, one or (Q,).
            column: the column, its place among ``numbers`` or its name.

        Returns:
            (C, Q).
        """
        j = self._number(column)
        return self._gathered(
            (np.size(levels),), lambda part: part.law(self._numbers).quantile(levels, j)
        )

    def cdf(self, values: ArrayLike, column: int | str = 0) -> Array:
        """Probability of one number below some values.

        Args:
            values: n values for all queries (n,), or for each (C, n).
            column: the column, its place among ``numbers`` or its name.

        Returns:
            (C, n).

        Raises:
            GenoptError: if the shape does not fit.
        """
        j = self._number(column)
        points = np.asarray(values, dtype=np.float64)
        if points.ndim < 2:
            points = np.broadcast_to(points.reshape(1, -1), (len(self), points.size))
        if points.ndim != 2 or len(points) != len(self):
            raise GenoptError(f"values has shape {points.shape}; expected (n,) or ({len(self)}, n)")
        return self._gathered(
            (points.shape[1],),
            lambda part: part.law(self._numbers).cdf(points[part.rows.numpy()], j),
        )

    def _number(self, column: int | str) -> int:
        if isinstance(column, str) and column in self.names and column not in self.numbers:
            raise GenoptError(f"column {column!r} holds classes: ask for probabilities({column!r})")
        return one_column(column, len(self.numbers), self.numbers)

    # -- the whole law -----------------------------------------------------------------------------
    def modes(self) -> ConditionalModes:
        """The peaks of the density of the numbers, classes summed out.

        Returns:
            Modes with points (C, L, W'), columns as in ``numbers``.
        """
        found = [(part, part.law(self._numbers).modes()) for part in self._parts]
        longest = max(modes.points.shape[1] for _, modes in found)
        count, width = len(self), len(self._numbers)
        out = ConditionalModes(
            points=np.full((count, longest, width), np.nan),
            log_density=np.full((count, longest), -np.inf),
            weights=np.zeros((count, longest)),
            count=np.array([0] * count, dtype=np.intp),
        )
        for part, modes in found:
            rows, n = part.rows.numpy(), modes.points.shape[1]
            out.points[rows, :n], out.weights[rows, :n] = modes.points, modes.weights
            out.log_density[rows, :n], out.count[rows] = modes.log_density, modes.count
        return out

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent draws, columns of x inside their Space as those of `Mixture.sample`.

        Args:
            n: draws for each query.
            generator: source of randomness; the seed if None.

        Returns:
            (C, n, W) in raw units, float64.

        Raises:
            GenoptError: if n is not positive.
        """
        if n < 1:
            raise GenoptError(f"n must be at least 1, it is {n}")
        rng = generator_of(generator, self.seed)
        out = torch.empty(len(self), n, len(self.wanted), dtype=torch.float64)
        for part in self._parts:
            variables = self._with_fractions(part.known)
            space = self._space(variables, part)
            drawn, _ = draw_variables(
                self.density, part.values, part.known, variables, space, n, rng
            )
            out[part.rows] = drawn[..., : len(self.wanted)]
        return out

    def _with_fractions(self, known: tuple[int, ...]) -> tuple[int, ...]:
        """The wanted columns, and known fractions that leave them less than one."""
        beside = [
            i
            for group in self.x_space.simplex_indices
            if set(group) & set(self.wanted)
            for i in group
            if i in known and i not in self.wanted
        ]
        return (*self.wanted, *beside)

    def _space(self, variables: tuple[int, ...], part: _Part) -> Space:
        """The Space of draws: bounds of x, except where a query knows better; none of y."""
        inside = []
        for i in variables:
            variable = self._variables[i]
            free = i >= self.x_space.dim or i in part.known
            inside.append(Variable(variable.name) if free and not variable.labels else variable)
        groups = [
            tuple(self.x_space.names[i] for i in group)
            for group in self.x_space.simplex_indices
            if set(group) <= set(variables)
        ]
        return Space(tuple(inside), tuple(groups))

    def log_prob(self, points: Tensor | ArrayLike) -> Array:
        """Log density of points, in raw units, as of `Mixture.log_prob`.

        Args:
            points: one a query (C, W), or n points each (C, n, W), columns as in ``names``; columns
                that a query knows are not looked at.

        Returns:
            (C,) or (C, n).

        Raises:
            GenoptError: if the shape does not fit or a number is not finite.
        """
        rows = torch.as_tensor(points, dtype=torch.float64).detach()
        count, width = len(self), len(self.wanted)
        if rows.ndim not in (2, 3) or len(rows) != count or rows.shape[-1] != width:
            raise GenoptError(
                f"points has shape {tuple(rows.shape)}; expected ({count}, {width}) or ({count}, n,"
                f" {width}) for columns {', '.join(self.names)}"
            )
        stacked = rows.reshape(count, -1, width)
        out = np.zeros(stacked.shape[:2])
        for part in self._parts:
            free = [j for j, i in enumerate(self.wanted) if i not in part.known]
            if free:
                unknown = tuple(self.wanted[j] for j in free)
                out[part.rows.numpy()] = self.density.log_conditional(
                    stacked[part.rows][..., free], unknown, part.values, part.known
                ).numpy()
        return out.reshape(rows.shape[:-1])

    def mixture(self, query: int = 0) -> GaussianMixture:
        """The law of the numbers of one query as a mixture of its own.

        Args:
            query: which query.

        Returns:
            The mixture of the numbers that the query does not know, by name; without the last open
            fraction of a simplex, which follows from the others.

        Raises:
            GenoptError: if there is no such query or it knows all numbers.
        """
        if not -len(self) <= query < len(self):
            raise GenoptError(f"query={query} must lie between 0 and {len(self) - 1}")
        for part in self._parts:
            place = (part.rows == query % len(self)).nonzero().flatten()
            if len(place):
                break
        law = part.law(self._numbers)
        if not law.map.shape[1]:
            raise GenoptError(f"query {query} leaves no number open: there is no law to give")
        return law.batch.component(int(place[0]))


@dataclass(frozen=True, eq=False)
class _Part:
    """Queries that know the same columns."""

    density: JointDensity
    rows: Tensor
    known: tuple[int, ...]
    values: Tensor
    laws: dict[tuple[int, ...], Law] = field(default_factory=dict)

    def law(self, wanted: tuple[int, ...]) -> Law:
        """The law of some variables, worked out once."""
        if wanted not in self.laws:
            self.laws[wanted] = Law(self.density, self.values, self.known, wanted)
        return self.laws[wanted]
