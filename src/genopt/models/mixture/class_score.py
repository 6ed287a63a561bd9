"""Held-out density with the probability of classes instead of that of one-hot blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.models.mixture.columns import JointColumns
from genopt.models.mixture.conditioning import Array
from genopt.models.mixture.density import JointDensity
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.heldout import Rows
from genopt.models.mixture.rows import UsableRows
from genopt.models.mixture.selection import RowScore


def class_score(columns: JointColumns, rows: UsableRows, y: Tensor, *, given: bool) -> RowScore:
    """The score of a table with classes, for `best_gmm`.

    Args:
        columns: the joint columns.
        rows: the rows in the modelled columns.
        y: the same properties in all columns of the y Space (N, K).
        given: whether the density of designs given their properties counts, not the joint one.

    Returns:
        Log densities of held-out rows under a mixture.
    """

    def score(gmm: GaussianMixture, held_out: Rows) -> Array:
        part = torch.from_numpy(held_out)
        density = JointDensity(gmm, columns, rows.y)
        log_density = density.log_prob if given else density.log_joint
        logs: Array = log_density(rows.x[part], y[part]).numpy()
        return logs

    return score
