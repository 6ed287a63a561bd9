"""Mean and spread of y given x under a joint mixture, in torch so that gradients reach x."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genopt.models.mixture.columns import JointColumns
from genopt.models.mixture.gmm import GaussianMixture

_ROWS = 8192
_LARGEST_VALUE = 1e200


class ConditionalMoments:
    """Regression by a joint mixture: components predict, weighted by posterior probability.

    Args:
        gmm: the mixture over the fitted columns.
        columns: the joint columns.
        y_dim: number of y columns K, modelled or not.
    """

    def __init__(self, gmm: GaussianMixture, columns: JointColumns, y_dim: int) -> None:
        selection = columns.select(columns.x_variables, columns.y_variables)
        shared = columns.mixture(gmm, selection).conditioner(range(len(selection.given)))
        order = columns.columns(columns.x_variables)
        self.columns = columns
        self.y_dim = y_dim
        self._picked = [order.index(c) for c in selection.given]

        # the implied columns of y are sums of the wanted ones: an affine map gives all of them
        outputs = columns.columns(columns.y_variables)
        spread_out = np.zeros((len(outputs), len(selection.wanted)))
        shift = np.zeros(len(outputs))
        for position, column in enumerate(selection.wanted):
            spread_out[outputs.index(column), position] = 1.0
        for column, others in selection.implied:
            shift[outputs.index(column)] = 1.0
            for other in others:
                spread_out[outputs.index(column), selection.wanted.index(other)] = -1.0
        self._blocks = [[outputs.index(c) for c in columns.blocks[i]] for i in columns.y_variables]

        alive = np.isfinite(shared.log_coefficient)
        q = len(self._picked)
        factors = spread_out @ shared.lower[alive]
        self._center = torch.from_numpy(shared.center)
        self._whiten = torch.from_numpy(shared.whiten.reshape(q, q, -1)[:, :, alive].reshape(q, -1))
        self._offset = torch.from_numpy(shared.offset.reshape(q, -1)[:, alive].reshape(-1))
        self._log_coefficient = torch.from_numpy(shared.log_coefficient[alive])
        self._slope = torch.from_numpy(shared.slope[alive] @ spread_out.T)
        self._intercept = torch.from_numpy(shared.intercept[alive] @ spread_out.T + shift)
        self._variance = torch.from_numpy((factors**2).sum(-1))

    def _components(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior weights (N, k) and predictions (N, k, F) of the components."""
        full = self.columns.full(x.to(torch.float64), self.columns.x_variables)[:, self._picked]
        centered = (full - self._center).clamp(-_LARGEST_VALUE, _LARGEST_VALUE)
        q, k = len(self._picked), len(self._log_coefficient)
        whitened = (centered @ self._whiten - self._offset).reshape(-1, q, k)
        # squares relative to the largest entry, so that they do not overflow far from the data
        size = whitened.detach().abs().amax((1, 2)).clamp_min(1.0)[:, None]
        square = ((whitened / size[:, :, None]) ** 2).sum(1)
        excess = square - square.detach().amin(1, keepdim=True)
        distance = (0.5 * (size * excess) * size).clamp_max(1e300)
        weights = torch.softmax(self._log_coefficient - distance, 1)
        return weights, torch.einsum("nq,kqf->nkf", centered, self._slope) + self._intercept

    def mean(self, x: Tensor) -> Tensor:
        """Expected outputs.

        Args:
            x: designs (..., P).

        Returns:
            (..., K); the likeliest code of a class column, NaN in a column that is not modelled.
        """
        parts = []
        for rows in x.reshape(-1, x.shape[-1]).split(_ROWS):
            weights, means = self._components(rows)
            mean = torch.einsum("nk,nkf->nf", weights, means)
            parts.append(self._raw(mean, classes=True))
        return self._assemble(parts, x)

    def spread(self, x: Tensor) -> Tensor:
        """Standard deviations of the outputs.

        Args:
            x: designs (..., P).

        Returns:
            (..., K); for a class column the probability of another class.
        """
        parts = []
        for rows in x.reshape(-1, x.shape[-1]).split(_ROWS):
            weights, means = self._components(rows)
            mean = torch.einsum("nk,nkf->nf", weights, means)
            away = (means - mean[:, None]).clamp(-1e150, 1e150)
            variance = torch.einsum("nk,nkf->nf", weights, away**2 + self._variance)
            deviation = variance.sqrt()
            for block, i in zip(self._blocks, self.columns.y_variables, strict=True):
                if self.columns.variables[i].labels:
                    other = (1.0 - mean[:, block].amax(1, keepdim=True)).clamp(0.0, 1.0)
                    deviation = deviation.index_copy(1, torch.tensor(block[:1]), other)
            parts.append(self._raw(deviation, classes=False))
        return self._assemble(parts, x)

    def _raw(self, full: Tensor, *, classes: bool) -> Tensor:
        """Modelled columns to all K; a block by its likeliest class or by its first entry."""
        out = [full.new_full((len(full),), torch.nan) for _ in range(self.y_dim)]
        for k, i, block in zip(
            self.columns.y_columns, self.columns.y_variables, self._blocks, strict=True
        ):
            labelled = bool(self.columns.variables[i].labels)
            likeliest = labelled and classes
            out[k] = full[:, block].argmax(1).to(full) if likeliest else full[:, block[0]]
        return torch.stack(out, 1)

    def _assemble(self, parts: list[Tensor], x: Tensor) -> Tensor:
        out = torch.cat(parts) if parts else x.new_empty(0, self.y_dim)
        dtype = x.dtype if x.is_floating_point() else torch.float64
        return out.reshape(*x.shape[:-1], self.y_dim).to(dtype)
