"""Optuna's side of a search: its database in the sweep's folder, and the curves of its fits.

Optuna prunes by the objective alone, and not at all where there are several. So the losses of fits
are a second study beside the search, one for each kind of fit whose losses can be compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genopt.errors import GenoptError

SEARCH = "search"
# several processes write: the jobs their losses, the search their ends
_TIMEOUT = 60.0


@contextmanager
def calm() -> Iterator[None]:
    """Without Optuna's remarks on every trial, and on what it calls experimental.

    Yields:
        Nothing.
    """
    optuna = optuna_module()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


def optuna_module() -> Any:
    """Optuna.

    Returns:
        The package.

    Raises:
        GenoptError: if it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise GenoptError(
            "a search needs Optuna: pip install 'genopt[sweeps]', or choose hydra/sweeper=grid"
        ) from error
    return optuna


def storage(database: Path) -> Any:
    """The database, made where it is missing.

    Args:
        database: its file.

    Returns:
        Optuna's storage.
    """
    optuna = optuna_module()
    database.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(
        f"sqlite:///{database.resolve()}", engine_kwargs={"connect_args": {"timeout": _TIMEOUT}}
    )


def search_study(database: Any, directions: Sequence[str]) -> Any:
    """The search's trials.

    Args:
        database: of `storage`.
        directions: of its objectives.

    Returns:
        Optuna's study.
    """
    optuna = optuna_module()
    return optuna.create_study(
        study_name=SEARCH,
        storage=database,
        directions=list(directions),
        sampler=optuna.samplers.RandomSampler(),
        load_if_exists=True,
    )


def comparable(database: Any, name: str, pruner: Any = None) -> Any:
    """The fits whose losses can be compared, as a study that minimises them.

    Args:
        database: of `storage`, or its file.
        name: their name.
        pruner: the rule that stops a fit.

    Returns:
        Optuna's study.
    """
    optuna = optuna_module()
    place = storage(database) if isinstance(database, Path) else database
    with calm():
        return optuna.create_study(
            study_name=name,
            storage=place,
            direction="minimize",
            load_if_exists=True,
            pruner=pruner,
        )


def handle(study: Any, number: int) -> Any:
    """A trial that runs, for whoever reports to it.

    Args:
        study: its study.
        number: its number.

    Returns:
        Optuna's trial.
    """
    optuna = optuna_module()
    return optuna.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)
