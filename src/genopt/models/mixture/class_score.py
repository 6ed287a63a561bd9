"""What the held-out criteria of a `Mixture` measure, in the words of `best_gmm`.

Classes count by their probability instead of the density of their one-hot blocks.
"""

from __future__ import annotations

from typing import Any

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


def criterion_options(
    criterion: str, columns: JointColumns, rows: UsableRows, y: Tensor
) -> dict[str, Any]:
    """The criterion of a `Mixture` as options of `best_gmm`.

    Args:
        criterion: ``heldout``, ``conditional``, ``bic`` or ``aic``.
        columns: the joint columns.
        rows: the rows in the modelled columns.
        y: the same properties in all columns of the y Space (N, K).

    Returns:
        The criterion and, where it needs them, the given columns or a score.
    """
    if criterion not in ("heldout", "conditional"):
        return {"criterion": criterion}
    options: dict[str, Any] = {"criterion": "heldout"}
    given = criterion == "conditional"
    if any(variable.labels for variable in columns.variables):
        options["score"] = class_score(columns, rows, y, given=given)
    elif given:
        options["given"] = columns.fitted_y
    return options
