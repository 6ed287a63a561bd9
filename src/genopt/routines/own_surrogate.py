"""A surrogate for a routine that draws by another engine: given, read back, or trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genopt.build import build
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.files import whole
from genopt.goal import Goal
from genopt.models.options import FitOptions
from genopt.models.polish import Polish
from genopt.routines.surrogate import Surrogate, is_surrogate
from genopt.routines.wants import wants_of

_DEFAULT = "genopt.models.multitask.model.FlexibleMultiTaskModel"
_FILE = "surrogate.ckpt"
# share of the rows that watch its training, where so many rows are enough to spare some
_WATCHED, _ENOUGH = 0.1, 40


def new_surrogate(spec: Mapping[str, Any] | None, goal: Goal, seed: int) -> Surrogate:
    """An untrained surrogate for the columns of a goal.

    Args:
        spec: ``_target_`` and options, as for `hybrid`.
        goal: what is wanted.
        seed: seed of its weights, unless the mapping has one.

    Returns:
        The surrogate.

    Raises:
        GenoptError: if it cannot be built or cannot be searched by its gradients.
    """
    options = {"_target_": _DEFAULT, "seed": seed, **(spec or {})}
    built = build(options, "surrogate", x_space=goal.x_space, y_space=goal.y_space)
    if not is_surrogate(built):
        raise GenoptError(
            f"surrogate: {type(built).__name__} cannot be searched by its gradients: name a "
            "multi-task model or an ensemble"
        )
    surrogate: Surrogate = built
    return surrogate


def check_surrogate(surrogate: Surrogate | Mapping[str, Any] | None, goal: Goal) -> None:
    """Refuse a surrogate that cannot be searched for a goal, before anything is trained.

    Args:
        surrogate: a fitted one, a description, or None, as for `hybrid`.
        goal: what is wanted.

    Raises:
        GenoptError: if it cannot be built, is of other columns or has no head for the goal.
    """
    if surrogate is None or isinstance(surrogate, Mapping):
        surrogate = new_surrogate(surrogate, goal, 0)
    elif not is_surrogate(surrogate):
        raise GenoptError(
            f"surrogate: {type(surrogate).__name__} cannot be searched by its gradients: give a "
            "multi-task model or an ensemble"
        )
    surrogate.check_spaces(goal.x_space, goal.y_space)
    wants_of(surrogate, goal.batch_size, {}, None, "max", None, None, None, goal)


def fitted_surrogate(
    surrogate: Surrogate | Mapping[str, Any] | None,
    goal: Goal,
    table: Table | None,
    polish: int = 0,
    folder: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Surrogate:
    """A surrogate as it is given, read from a folder, or trained on a table.

    Args:
        surrogate: a fitted one, or a description, as for `hybrid`.
        goal: what is wanted.
        table: measured rows; a tenth of them watches where none is labelled ``validation``.
        polish: steps of L-BFGS that end the training.
        folder: where it is kept and found again.
        seed: seed of its training.
        progress: whether to show a progress bar.

    Returns:
        The fitted surrogate.

    Raises:
        GenoptError: if there is no table to train on, or it is of other columns than the goal.
    """
    if surrogate is not None and not isinstance(surrogate, Mapping):
        return surrogate
    fresh: Any = new_surrogate(surrogate, goal, seed)
    if folder is not None and (folder / _FILE).exists():
        loaded: Surrogate = type(fresh).load(folder / _FILE)
        return loaded
    if table is None or len(table) == 0:
        raise GenoptError("routine=hybrid trains its surrogate on measured rows: give table=")
    if len(table) >= _ENOUGH and len(table.part("validation")) == 0:
        table = table.with_split(_WATCHED, 0.0, seed)
    callbacks = [Polish(polish)] if polish else []
    fresh.fit_table(table, FitOptions(seed=seed, callbacks=callbacks, progress=progress))
    if folder is not None:
        with whole(folder / _FILE) as part:
            fresh.save(part)
    fitted: Surrogate = fresh
    return fitted
