"""The models of a study: built, trained, judged by folds, read back where they are there."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from genopt.app.folder import StudyFolder
from genopt.app.parts import call, make, make_all
from genopt.app.search.state import watch_of
from genopt.app.setting import Setting
from genopt.app.show import Screen
from genopt.errors import GenoptError
from genopt.files import whole, write_whole

if TYPE_CHECKING:
    from genopt.analysis.diagnose_fit import FitTimes
    from genopt.data.table import Table
    from genopt.models.options import FitOptions

_MODEL = "model.ckpt"
_JUDGE = "judge.ckpt"
_HISTORY = "history.json"


def new_model(node: DictConfig, setting: Setting, key: str) -> Any:
    """An untrained model for the problem's columns.

    Args:
        node: the model's configuration.
        setting: the study's setting.
        key: the node's key, for messages.

    Returns:
        The model.
    """
    problem, seed = setting.problem, setting.config.seed
    return call(make(node, key), x_space=problem.x_space, y_space=problem.y_space, seed=seed)


def loaded(kind: Any, path: str | Path) -> Any:
    """A saved model of one's own choice; whatever is wrong with the file is said in one line.

    Args:
        kind: the model's class.
        path: the file.

    Returns:
        The model.

    Raises:
        GenoptError: if the file cannot be used.
    """
    try:
        return kind.load(path)
    except GenoptError:
        raise
    except Exception as error:
        raise GenoptError(f"checkpoint={path} is not a saved {kind.__name__}: {error}") from error


def fitted(
    model: Any, setting: Setting, folder: StudyFolder, loggers: list[Any], screen: Screen
) -> tuple[Any, FitTimes]:
    """The fitted model; loaded where it is already there.

    Args:
        model: the untrained model, or the one of a checkpoint.
        setting: the study's setting.
        folder: the study's folder, which keeps the model and its history.
        loggers: where losses go.
        screen: the terminal.

    Returns:
        The model and what its fit took.
    """
    from genopt.analysis.diagnose_fit import FitTimes

    if setting.config.checkpoint is not None:
        screen.note(f"using the model of {setting.config.checkpoint}")
        return model, FitTimes(0.0, 0.0)
    saved = folder.path / _MODEL
    if saved.exists():
        screen.note("using the model that is already trained")
        return type(model).load(saved), FitTimes(**folder.status.get("fit", _NO_TIMES))
    times = _fit(model, setting, folder.path, loggers)
    past = getattr(model, "history", None)
    if past:
        folder.write(_HISTORY, [dict(entry) for entry in past])
    folder.mark(fit=asdict(times))
    # last: where the model is there, so is all that belongs to it
    with whole(saved) as part:
        model.save(part)
    return model, times


_NO_TIMES = {"seconds": 0.0, "cpu_seconds": 0.0}


def past_of(folder: StudyFolder) -> list[dict[str, float]] | None:
    """The losses of the epochs of a study's fit.

    Args:
        folder: the study's folder.

    Returns:
        Numbers of each epoch; None where the model has no epochs.
    """
    path = folder.path / _HISTORY
    return folder.read(_HISTORY) if path.exists() else None


def judge_of(setting: Setting, folder: StudyFolder, model: Any, screen: Screen) -> Any:
    """A model that predicts y for designs of one that does not, where no simulator can.

    Args:
        setting: the study's setting.
        folder: the study's folder, which keeps the judge.
        model: the study's model.
        screen: the terminal.

    Returns:
        The judge; None where none is needed.
    """
    from genopt.protocols import ForwardModel

    node = setting.config.get("judge")
    if node is None or isinstance(model, ForwardModel) or setting.problem.has_simulator:
        return None
    judge = new_model(node, setting, "judge")
    saved = folder.path / _JUDGE
    if saved.exists():
        return type(judge).load(saved)
    screen.note(f"fitting the judge ({type(judge).__name__}) that scores the flow's designs")
    _fit(judge, setting, None, [])
    with whole(saved) as part:
        judge.save(part)
    return judge


def trained(setting: Setting, table: Table) -> Any:
    """The study's kind of model, fitted to another table; for routines that add rows to it.

    Args:
        setting: the study's setting.
        table: the rows.

    Returns:
        The fitted model.
    """
    model = new_model(setting.config.model, setting, "model")
    options = replace(fit_options(setting, None, []), callbacks=[], progress=False)
    model.fit_table(table, options)
    return model


def _fit(model: Any, setting: Setting, folder: Path | None, loggers: list[Any]) -> FitTimes:
    from genopt.analysis.diagnose_fit import FitTimes

    started, worked = time.perf_counter(), time.process_time()
    options = fit_options(setting, folder, loggers)
    watch = None if folder is None else watch_of(folder)
    if watch is not None:
        from genopt.app.search.pruning import Pruning

        options = replace(options, callbacks=[*options.callbacks, Pruning(watch)])
    model.fit_table(setting.table, options)
    steps = getattr(getattr(model, "_trainer", None), "global_step", 0)
    return FitTimes(time.perf_counter() - started, time.process_time() - worked, int(steps or 0))


def fit_options(setting: Setting, folder: Path | None, loggers: list[Any]) -> FitOptions:
    """How the study's models are fitted.

    Args:
        setting: the study's setting.
        folder: where checkpoints go; None for none.
        loggers: where losses go.

    Returns:
        The options.
    """
    from genopt.models.options import FitOptions

    config = setting.config
    trainer: Any = OmegaConf.to_container(config.get("trainer") or OmegaConf.create({}))
    return FitOptions(
        seed=config.seed,
        folder=folder,
        trainer=trainer,
        loggers=loggers,
        callbacks=make_all(config.get("callbacks"), "callbacks"),
        progress=config.progress,
    )


def check_folds(config: DictConfig, model: Any) -> None:
    """Refuse folds that cannot be done.

    Args:
        config: the composed configuration.
        model: the untrained model.

    Raises:
        GenoptError: if there are too few, or the model cannot be judged by them.
    """
    from genopt.protocols import ForwardModel

    if config.data.folds < 2:
        raise GenoptError(f"data.folds must be at least 2, or null, got {config.data.folds}")
    if config.checkpoint is not None:
        raise GenoptError("data.folds trains new models, checkpoint uses a saved one: drop one")
    if not isinstance(model, ForwardModel):
        raise GenoptError(
            f"data.folds needs a model that predicts y, not {type(model).__name__}: drop it, or "
            "choose model=multitask or model=mixture"
        )


def cross_validated(setting: Setting, folder: StudyFolder, screen: Screen) -> dict[str, float]:
    """Mean scores over folds of all rows, if they are asked for; each fold is kept as it comes.

    Args:
        setting: the study's setting.
        folder: the study's folder.
        screen: the terminal.

    Returns:
        The scores by name.
    """
    config = setting.config
    if config.data.folds is None:
        return {}
    from genopt.analysis.cross_validation import cross_validate, summarise_folds

    screen.note(f"judging the model by {config.data.folds} folds of all rows")
    scores = cross_validate(
        lambda: new_model(config.model, setting, "model"),
        setting.table,
        config.data.folds,
        fit_options(setting, folder.path / "folds", []),
        seed=config.seed,
        progress=config.progress,
        validation=config.data.validation,
    )
    write_whole(folder.path / "cross_validation.csv", scores.to_csv(index=False))
    summary = summarise_folds(scores).set_index("column")
    return {
        f"folds/{score}/{column}": float(value)
        for score in summary.columns
        if score != "rows"
        for column, value in summary[score].dropna().items()
    }
