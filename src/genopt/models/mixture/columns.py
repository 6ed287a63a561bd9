"""The columns of a joint mixture: x and y side by side, classes as one-hot blocks.

A simplex or a one-hot block sums to one, so one of its columns is implied. Which one may differ
from query to query: the full set is an affine map of the fitted columns, and so is the mixture over
any selection of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.gmm import GaussianMixture
from genopt.space import Space


@dataclass(frozen=True)
class Selection:
    """Columns of one kind of query, without those that the others imply.

    Args:
        given: full columns whose values are known.
        wanted: full columns to draw.
        implied: wanted columns that follow from a group's sum, with the other columns of the group.
    """

    given: tuple[int, ...]
    wanted: tuple[int, ...]
    implied: tuple[tuple[int, tuple[int, ...]], ...]


class JointColumns:
    """Maps between raw x, y and the columns of the mixture.

    Args:
        x_space: the columns of x.
        y_space: the columns of y.
        y_columns: the columns of y that are modelled.
    """

    def __init__(self, x_space: Space, y_space: Space, y_columns: tuple[int, ...]) -> None:
        self.variables = (*x_space.variables, *(y_space.variables[i] for i in y_columns))
        self.x_dim = x_space.dim
        self.y_columns = y_columns
        self.blocks: list[tuple[int, ...]] = []
        start = 0
        for variable in self.variables:
            width = len(variable.labels) if variable.labels else 1
            self.blocks.append(tuple(range(start, start + width)))
            start += width
        self.width = start
        names = [v.name for v in self.variables[self.x_dim :]]
        simplexes = [tuple(self.blocks[i][0] for i in group) for group in x_space.simplex_indices]
        for group in y_space.simplexes:
            if set(group) <= set(names):
                simplexes.append(tuple(self.blocks[self.x_dim + names.index(n)][0] for n in group))
        one_hot = [block for block, v in zip(self.blocks, self.variables, strict=True) if v.labels]
        self.groups: tuple[tuple[int, ...], ...] = (*simplexes, *one_hot)
        implied = {group[-1] for group in self.groups}
        self.fitted = tuple(i for i in range(self.width) if i not in implied)
        self.map = np.zeros((self.width, len(self.fitted)))
        self.shift = np.zeros(self.width)
        for position, column in enumerate(self.fitted):
            self.map[column, position] = 1.0
        for columns in self.groups:
            self.map[columns[-1]] = -self.map[list(columns[:-1])].sum(0)
            self.shift[columns[-1]] = 1.0

    @property
    def x_variables(self) -> tuple[int, ...]:
        """The variables of x."""
        return tuple(range(self.x_dim))

    @property
    def y_variables(self) -> tuple[int, ...]:
        """The modelled variables of y, numbered after those of x."""
        return tuple(range(self.x_dim, len(self.variables)))

    @property
    def names(self) -> list[str]:
        """Names of the full columns, ``column=label`` in a one-hot block."""
        names = [""] * self.width
        for block, v in zip(self.blocks, self.variables, strict=True):
            for j, column in enumerate(block):
                names[column] = f"{v.name}={v.labels[j]}" if v.labels else v.name
        return names

    @property
    def fitted_names(self) -> list[str]:
        """Names of the fitted columns."""
        return [self.names[i] for i in self.fitted]

    def full(self, values: Tensor, variables: tuple[int, ...]) -> Tensor:
        """Raw values of some variables as full columns, differentiable for numbers.

        Args:
            values: raw values (N, V), one column for each of ``variables``; NaN for a gap.
            variables: their numbers.

        Returns:
            (N, sum of the blocks' widths).

        Raises:
            GenoptError: if a class code does not exist.
        """
        parts = []
        for position, i in enumerate(variables):
            column, variable = values[:, position], self.variables[i]
            if variable.labels:
                gap = torch.isnan(column)
                codes = torch.where(gap, 0.0, column).round().long()
                if bool(((codes < 0) | (codes >= len(variable.labels))).any()):
                    raise GenoptError(
                        f"column {variable.name!r} holds a class code outside 0 to "
                        f"{len(variable.labels) - 1}"
                    )
                block = torch.nn.functional.one_hot(codes, len(variable.labels)).to(values)
                parts.append(torch.where(gap[:, None], torch.nan, block))
            else:
                parts.append(column[:, None])
        return torch.cat(parts, 1) if parts else values.new_empty(len(values), 0)

    def fit_rows(self, x: Tensor, y: Tensor) -> Array:
        """The fitted columns of a table; one gap of a simplex follows from its sum.

        Args:
            x: designs (N, P).
            y: modelled properties (N, K'); NaN for a gap.

        Returns:
            (N, number of fitted columns).
        """
        values = torch.cat([x, y], 1)
        full: Array = self.full(values, (*self.x_variables, *self.y_variables)).numpy().copy()
        for group in self.groups:
            block = full[:, list(group)]
            gaps = np.isnan(block)
            row, column = np.nonzero(gaps & (gaps.sum(1) == 1)[:, None])
            block[row, column] = 1.0 - np.nansum(block[row], axis=1)
            full[:, list(group)] = block
        return full[:, list(self.fitted)]

    @property
    def fitted_y(self) -> list[int]:
        """Positions of the columns of y among the fitted ones."""
        first = self.columns(self.y_variables)[0]
        return [position for position, column in enumerate(self.fitted) if column >= first]

    def columns(self, variables: tuple[int, ...]) -> list[int]:
        """The full columns of some variables, in the order of `full`.

        Args:
            variables: their numbers.

        Returns:
            Column numbers.
        """
        return [column for i in variables for column in self.blocks[i]]

    def select(self, given: tuple[int, ...], wanted: tuple[int, ...]) -> Selection:
        """The columns of a query, less those that a sum implies.

        Args:
            given: variables whose values are known.
            wanted: variables to draw.

        Returns:
            The Selection.
        """
        known, free = self.columns(given), self.columns(wanted)
        implied = []
        for group in self.groups:
            in_known = [c for c in group if c in known]
            in_free = [c for c in group if c in free]
            if len(in_known) == len(group):
                known.remove(group[-1])
            elif in_free and len(in_known) + len(in_free) == len(group):
                last = in_free[-1]
                free.remove(last)
                implied.append((last, tuple(c for c in group if c != last)))
        return Selection(tuple(known), tuple(free), tuple(implied))

    def mixture(self, gmm: GaussianMixture, selection: Selection) -> GaussianMixture:
        """The mixture over the given and the wanted columns, in this order.

        Args:
            gmm: the mixture over the fitted columns.
            selection: the columns.

        Returns:
            The mixture.
        """
        rows = [*selection.given, *selection.wanted]
        part = self.map[rows]
        return GaussianMixture(
            gmm.n_components,
            gmm.priors,
            gmm.means @ part.T + self.shift[rows],
            part @ gmm.covariances @ part.T,
            random_state=gmm.random_state,
            names=[self.names[i] for i in rows],
        )

    def restore(self, selection: Selection, given: Array, wanted: Array) -> Array:
        """All full columns of given and wanted values, the implied ones from their sums.

        Args:
            selection: the columns.
            given: values of ``selection.given`` (..., q).
            wanted: values of ``selection.wanted`` (..., m).

        Returns:
            (..., W); NaN in columns that are neither.
        """
        out = np.full((*wanted.shape[:-1], self.width), np.nan)
        out[..., list(selection.given)] = given
        out[..., list(selection.wanted)] = wanted
        for column, others in selection.implied:
            out[..., column] = 1.0 - out[..., list(others)].sum(-1)
        return out

    def raw(self, full: Array, variables: tuple[int, ...]) -> Tensor:
        """Raw values of some variables: the likeliest class of a block, numbers as they are.

        Args:
            full: full columns (..., W).
            variables: the variables to return.

        Returns:
            (..., V).
        """
        parts = []
        for i in variables:
            block = full[..., list(self.blocks[i])]
            parts.append(block.argmax(-1) if self.variables[i].labels else block[..., 0])
        return torch.from_numpy(np.stack(parts, -1).astype(np.float64))
