"""The density of designs under a mixture, in torch: what keeps a gradient search near the data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.mixture.columns import JointColumns
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.heldout import Rows
from genopt.models.mixture.selection import best_gmm
from genopt.models.mixture.torch_mixture import TorchMixture
from genopt.space import Space

_RAREST_CLASS = 1e-3
_FEWEST_ROWS, _MOST_ROWS = 4, 5000
# a standard deviation of 3 % of a column's: a penalty is to pull from afar, not to spike at rows
_SMOOTHING = 1e-3


class TorchDensity:
    """Log density of designs, batched and differentiable; properties are summed out.

    A component has a Gaussian for the numbers (a simplex counts by all but its last column) and a
    probability for each class, taken as independent within the component. A relaxed one-hot block
    mixes these probabilities.

    Args:
        gmm: the mixture over the fitted columns.
        columns: the joint columns.
    """

    def __init__(self, gmm: GaussianMixture, columns: JointColumns) -> None:
        self.columns = columns
        numbers = tuple(i for i in columns.x_variables if not columns.variables[i].labels)
        selection = columns.select((), numbers)
        self._numbers = list(selection.wanted)
        part = columns.mixture(gmm, selection)
        alive = part.priors > 0
        self._numbers_density = TorchMixture.of(part.priors, part.means, part.covariances)
        full = (gmm.means @ columns.map.T + columns.shift)[alive]
        self._classes: list[tuple[list[int], Tensor]] = []
        for i in columns.x_variables:
            if columns.variables[i].labels:
                block = list(columns.blocks[i])
                share = np.clip(full[:, block], _RAREST_CLASS, None)
                share = share / share.sum(1, keepdims=True)
                self._classes.append((block, torch.from_numpy(share)))

    def __call__(self, x: Tensor) -> Tensor:
        """Log density of designs.

        Args:
            x: designs (..., P) in raw units, classes as codes.

        Returns:
            (...), float64, per raw unit of each number.

        Raises:
            GenoptError: if the last dimension is not P.
        """
        if x.ndim == 0 or x.shape[-1] != self.columns.x_dim:
            raise GenoptError(f"x has shape {tuple(x.shape)}; expected (..., {self.columns.x_dim})")
        wide = self.columns.full(x.reshape(-1, x.shape[-1]), self.columns.x_variables)
        return self.of_wide(wide).reshape(x.shape[:-1])

    def of_wide(self, wide: Tensor) -> Tensor:
        """Log density of designs whose classes are relaxed one-hot blocks.

        Args:
            wide: raw numbers and blocks (..., E).

        Returns:
            (...), float64.
        """
        wide = wide.to(torch.float64)
        home = wide.device
        logs = self._numbers_density.component_log_prob(wide[..., self._numbers])
        for block, share in self._classes:
            mixed = wide[..., block] @ share.to(home).T
            logs = logs + mixed.clamp_min(1e-12).log()
        return logs.logsumexp(-1)


def design_density(
    x: Tensor, x_space: Space, *, max_components: int = 10, seed: int = 0
) -> TorchDensity:
    """The density of a table's designs; the number of components by held-out likelihood.

    Args:
        x: designs (N, P) in raw units.
        x_space: their columns.
        max_components: largest number of components that is tried.
        seed: seed of EM and, of a large table, of the rows that are used.

    Returns:
        The density.

    Raises:
        GenoptError: if there are fewer than four rows.
    """
    if len(x) < _FEWEST_ROWS:
        raise GenoptError(
            f"a density of designs needs at least {_FEWEST_ROWS} rows, there are {len(x)}"
        )
    if len(x) > _MOST_ROWS:
        generator = torch.Generator().manual_seed(seed)
        x = x[torch.randperm(len(x), generator=generator)[:_MOST_ROWS]]
    x = x.to(torch.float64)
    columns = JointColumns(x_space, x_space, ())

    def score(gmm: GaussianMixture, held_out: Rows) -> Array:
        logs: Array = TorchDensity(gmm, columns)(x[torch.from_numpy(held_out)]).numpy()
        return logs

    data = columns.fit_rows(x, x[:, :0])
    fit = best_gmm(
        data,
        max_components=min(max_components, len(np.unique(data, axis=0))),
        criterion="heldout",
        score=score,
        names=columns.fitted_names,
        seed=seed,
        regularization=_SMOOTHING,
    )
    return TorchDensity(fit.gmm, columns)
