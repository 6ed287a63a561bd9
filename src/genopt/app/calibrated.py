"""The stage of a study that asks whether a conditional model's distribution is honest.

`calibration=200` looks at so many unseen designs: fresh ones of a simulator, test rows of a
measured table.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from genopt.errors import GenoptError

if TYPE_CHECKING:
    from torch import Tensor

    from genopt.analysis.calibrate import Calibration
    from genopt.data.table import Table
    from genopt.goal import Goal
    from genopt.problems.base import Problem

logger = logging.getLogger(__name__)

# with fewer conditions no fault could be told from chance
_FEWEST = 10
_FRESH = 15_487
_EXACT_CONDITIONS, _EXACT_DRAWS, _SHOWN_DRAWS = 10, 200, 2000


@dataclass(frozen=True)
class Calibrated:
    """What the stage found.

    Args:
        calibration: ranks and coverages.
        metrics: plain numbers, ``calibration/...``.
        exact: exact designs for the study's goal (S, P) where the problem can draw them.
    """

    calibration: Calibration
    metrics: dict[str, float]
    exact: Tensor | None


def unseen_pairs(config: DictConfig, model: Any, problem: Problem, table: Table) -> Table | None:
    """The designs to calibrate with, or the message that says why there are none.

    Args:
        config: the composed configuration.
        model: the model, trained or not.
        problem: what is asked.
        table: all rows, with split labels.

    Returns:
        Rows that training does not see; None where no calibration is asked for.

    Raises:
        GenoptError: if the model draws no designs, or there are too few unseen rows.
    """
    import torch

    from genopt.protocols import ConditionalModel

    count = config.calibration
    if count is None:
        return None
    if count < _FEWEST:
        raise GenoptError(f"calibration must be at least {_FEWEST}, or null, got {count}")
    if not isinstance(model, ConditionalModel):
        raise GenoptError(
            f"calibration needs a model of the distribution of designs, not "
            f"{type(model).__name__}: drop it, or choose model=mixture or model=flow"
        )
    if problem.has_simulator:
        rows = problem.table(count, config.seed + _FRESH)
    else:
        rows = table.part("test")
    rows = rows.rows(torch.isfinite(rows.y).any(1) & torch.isfinite(rows.x).all(1))
    if len(rows) < count:
        raise GenoptError(
            f"calibration={count}: only {len(rows)} unseen rows have a label; lower it or raise "
            "data.test"
        )
    return rows.rows(torch.arange(count))


def calibrated(model: Any, rows: Table, problem: Problem, goal: Goal, seed: int) -> Calibrated:
    """Calibrate a fitted model.

    Args:
        model: the model.
        rows: unseen pairs.
        problem: what is asked; one that knows its posterior is compared with it.
        goal: what is wanted.
        seed: seed of the draws.

    Returns:
        What was found.
    """
    from genopt.analysis.calibrate import calibrate
    from genopt.analysis.exact_posterior import compare_with_exact
    from genopt.problems.stochastic import StochasticProblem

    found = calibrate(model, rows.x, rows.y, seed=seed)
    metrics = found.summary()
    if isinstance(problem, StochasticProblem):
        y = rows.y[:_EXACT_CONDITIONS]
        metrics["kl"] = compare_with_exact(model, problem, y, _EXACT_DRAWS, seed=seed).summary()[
            "kl"
        ]
    named = {f"calibration/{name}": value for name, value in metrics.items()}
    return Calibrated(found, named, _exact(problem, goal, seed))


def _exact(problem: Problem, goal: Goal, seed: int) -> Tensor | None:
    """Exact designs for the first goal, where it names all properties and they can be reached."""
    from genopt.analysis.resimulation import exact_draws

    wanted = goal.condition().reshape(goal.batch_size, -1)[:1]
    try:
        draws = exact_draws(problem, wanted, _SHOWN_DRAWS, seed)
    except GenoptError as error:
        logger.info("no exact designs for the goal: %s", error)
        return None
    return None if draws is None else draws[0]
