"""One study: problem, table, model, routine, candidates, verification, figures, all in one folder.

Each stage leaves its result in the folder before the next one starts, so a study that was killed
goes on where it stopped and nothing already computed is lost.
"""

from __future__ import annotations

import logging
import time
import traceback
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from genopt.app.calibrated import calibrated, unseen_pairs
from genopt.app.folder import StudyFolder, environment, fingerprint
from genopt.app.logs import close, log_result, quiet_wandb
from genopt.app.parts import call, make, make_all
from genopt.app.setting import Setting, check_spaces
from genopt.app.show import Screen
from genopt.errors import GenoptError

if TYPE_CHECKING:
    import pandas as pd

    from genopt.candidates import Candidates
    from genopt.data.table import Table
    from genopt.models.options import FitOptions

logger = logging.getLogger(__name__)

_MODEL = "model.ckpt"
_JUDGE = "judge.ckpt"


@dataclass(frozen=True)
class StudyResult:
    """What a study leaves behind.

    Args:
        folder: where everything lies.
        candidates: all designs.
        top: the best distinct ones beside the nearest measured rows.
        metrics: plain numbers.
        verdict: the outcome in words.
    """

    folder: Path
    candidates: Candidates
    top: pd.DataFrame
    metrics: dict[str, float]
    verdict: str


def run_study(config: DictConfig, path: str | Path, show: bool = True) -> StudyResult:
    """Run one study, go on with one that was interrupted, or show one that is finished.

    Args:
        config: a composed configuration, as from `genopt.app.compose.compose`.
        path: the study's folder.
        show: whether to print the table of designs at the end.

    Returns:
        The result.

    Raises:
        GenoptError: if the configuration, the table or the checkpoint cannot be used; nothing has
            been trained then.
    """
    import torch

    from genopt.routines.checks import check_routine

    torch.set_num_threads(max(config.threads, 1))
    screen = Screen(config.progress)
    folder = StudyFolder(Path(path))
    config.paths.study = str(folder.path)
    setting = Setting.of(config)
    model = _new_model(config.model, setting, "model")
    if config.data.folds is not None:
        _check_folds(config, model)
    if config.checkpoint is not None:
        model = _loaded(type(model), config.checkpoint)
        check_spaces(model, setting.problem, f"checkpoint={config.checkpoint}")
    unseen = unseen_pairs(config, model, setting.problem, setting.table)
    routine = make(config.routine, "routine")
    check_routine(routine, model, setting.goal, fitted=config.checkpoint is not None)
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    mark = fingerprint(resolved, setting.file_bytes())
    if folder.finished(mark) and not config.rerun:
        result = load_result(folder)
        screen.note(f"already finished in {folder.path}; rerun=true repeats it")
        screen.result(result, setting, show)
        return result
    if folder.open(mark, config.rerun):
        screen.note(f"going on with the unfinished study in {folder.path}")
    OmegaConf.save(OmegaConf.create(resolved), folder.path / "config.yaml")
    folder.write("environment.json", environment())
    folder.mark(problem=setting.problem.name)
    screen.header(setting)
    loggers: list[Any] = []
    quiet_wandb()
    try:
        loggers = make_all(config.logger, "logger")
        result = _stages(setting, folder, model, unseen, loggers, screen)
        log_result(loggers, resolved, result)
    except BaseException as error:
        logger.info("the study failed: %s\n%s", error, traceback.format_exc())
        folder.mark(state="failed", error=str(error))
        raise
    finally:
        close(loggers)
    folder.mark(state="finished", error=None, finished=time.strftime("%Y-%m-%dT%H:%M:%S"))
    screen.result(result, setting, show)
    return result


def load_result(folder: StudyFolder) -> StudyResult:
    """The result of a finished study.

    Args:
        folder: its folder.

    Returns:
        The result, as `run_study` returned it.
    """
    import pandas as pd

    from genopt.candidates import Candidates

    return StudyResult(
        folder.path,
        Candidates.load(folder.path / "candidates.parquet"),
        pd.read_csv(folder.path / "top.csv"),
        folder.read("metrics.json"),
        folder.status["verdict"],
    )


# -- the stages ------------------------------------------------------------------------------------
def _stages(
    setting: Setting,
    folder: StudyFolder,
    model: Any,
    unseen: Table | None,
    loggers: list[Any],
    screen: Screen,
) -> StudyResult:
    import torch

    from genopt.analysis.heldout import HeldOut
    from genopt.analysis.metrics import candidate_scores
    from genopt.analysis.reconstruction import lost_by_rows
    from genopt.analysis.resimulation import curve_scores, held_out_curves
    from genopt.analysis.summary import top_frame, verdict
    from genopt.protocols import ForwardModel

    config, table = setting.config, setting.table
    table.write(folder.path / "data.parquet")
    folds = _cross_validated(setting, folder, screen)
    model, fit_seconds = _fitted(model, setting, folder, loggers, screen)
    judge = _judge(setting, folder, model, screen)

    candidates, seconds = _candidates(setting, folder, model, judge, screen)
    train = table.part("train")
    metrics = {"fit_seconds": fit_seconds, "routine_seconds": seconds}
    metrics |= candidate_scores(candidates, setting.goal, setting.answers, train)
    metrics |= {
        f"routine/{name}": float(value)
        for name, value in candidates.header.get("numbers", {}).items()
    }
    forward = model if isinstance(model, ForwardModel) else judge
    held_out = None
    if forward is not None:
        held_out = HeldOut.of(forward, table)
        whose = "held_out" if judge is None else "judge_held_out"
        metrics |= {f"{whose}/{name}": value for name, value in held_out.scores().items()}
    metrics |= folds
    lost = lost_by_rows(model, table)
    metrics |= {
        f"reconstruction_error/{rows.replace(' ', '_')}/{column}": share
        for rows, shares in lost.items()
        for column, share in shares.items()
    }
    curves = {}
    if config.held_out_goals is not None and candidates.verified:
        curves = held_out_curves(candidates, train, model, setting.problem, config.seed)
        metrics |= curve_scores(curves)
    words = verdict(candidates, setting.goal, metrics, setting.answers)
    honest = None
    if unseen is not None:
        screen.note(f"calibrating the model with {len(unseen)} unseen designs")
        honest = calibrated(model, unseen, setting.problem, setting.goal, config.seed)
        metrics |= honest.metrics
        words += f" Calibration: {honest.calibration.verdict()}."
    # a neighbour without a label in the goal's columns says nothing about a claim
    labelled = torch.isfinite(table.y[:, [term.index for term in setting.goal.terms]]).any(1)
    top = top_frame(candidates, table.rows(labelled), config.top)
    top.to_csv(folder.path / "top.csv", index=False)
    folder.write("metrics.json", metrics)
    folder.mark(verdict=words)
    if config.figures:
        from genopt.analysis.plots.study import draw_figures

        screen.note("drawing figures")
        draw_figures(
            folder.path / "figures",
            setting.problem.name,
            setting.goal,
            table,
            candidates,
            setting.answers,
            held_out,
            getattr(model, "history", None),
            curves,
            calibration=None if honest is None else honest.calibration,
            exact=None if honest is None else honest.exact,
            lost=lost,
        )
    return StudyResult(folder.path, candidates, top, metrics, words)


def _fitted(
    model: Any, setting: Setting, folder: StudyFolder, loggers: list[Any], screen: Screen
) -> tuple[Any, float]:
    """The fitted model and the seconds its fit took; loaded where it is already there."""
    if setting.config.checkpoint is not None:
        screen.note(f"using the model of {setting.config.checkpoint}")
        return model, 0.0
    saved = folder.path / _MODEL
    if saved.exists():
        screen.note("using the model that is already trained")
        return type(model).load(saved), float(folder.status.get("fit_seconds", 0.0))
    seconds = _fit(model, setting, folder.path, loggers)
    model.save(saved)
    folder.mark(fit_seconds=seconds)
    return model, seconds


def _loaded(kind: Any, path: str) -> Any:
    """A saved model of one's own choice; whatever is wrong with the file is said in one line."""
    try:
        return kind.load(path)
    except GenoptError:
        raise
    except Exception as error:
        raise GenoptError(f"checkpoint={path} is not a saved {kind.__name__}: {error}") from error


def _judge(setting: Setting, folder: StudyFolder, model: Any, screen: Screen) -> Any:
    """A model that predicts y for designs of one that does not, where no simulator can."""
    from genopt.protocols import ForwardModel

    node = setting.config.get("judge")
    if node is None or isinstance(model, ForwardModel) or setting.problem.has_simulator:
        return None
    judge = _new_model(node, setting, "judge")
    saved = folder.path / _JUDGE
    if saved.exists():
        return type(judge).load(saved)
    screen.note(f"fitting the judge ({type(judge).__name__}) that scores the flow's designs")
    _fit(judge, setting, None, [])
    judge.save(saved)
    return judge


def _new_model(node: DictConfig, setting: Setting, key: str) -> Any:
    """An untrained model for the problem's columns."""
    problem, seed = setting.problem, setting.config.seed
    return call(make(node, key), x_space=problem.x_space, y_space=problem.y_space, seed=seed)


def _fit(model: Any, setting: Setting, folder: Path | None, loggers: list[Any]) -> float:
    started = time.perf_counter()
    model.fit_table(setting.table, _options(setting, folder, loggers))
    return time.perf_counter() - started


def _trained(setting: Setting, table: Table) -> Any:
    """The study's kind of model, fitted to another table; for routines that add rows to it."""
    model = _new_model(setting.config.model, setting, "model")
    options = replace(_options(setting, None, []), callbacks=[], progress=False)
    model.fit_table(table, options)
    return model


def _options(setting: Setting, folder: Path | None, loggers: list[Any]) -> FitOptions:
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


def _check_folds(config: DictConfig, model: Any) -> None:
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


def _cross_validated(setting: Setting, folder: StudyFolder, screen: Screen) -> dict[str, float]:
    """Mean scores over folds of all rows, if they are asked for; each fold is kept as it comes."""
    config = setting.config
    if config.data.folds is None:
        return {}
    from genopt.analysis.cross_validation import cross_validate, summarise_folds

    screen.note(f"judging the model by {config.data.folds} folds of all rows")
    scores = cross_validate(
        lambda: _new_model(config.model, setting, "model"),
        setting.table,
        config.data.folds,
        _options(setting, folder.path / "folds", []),
        seed=config.seed,
        progress=config.progress,
        validation=config.data.validation,
    )
    scores.to_csv(folder.path / "cross_validation.csv", index=False)
    summary = summarise_folds(scores).set_index("column")
    return {
        f"folds/{score}/{column}": float(value)
        for score in summary.columns
        if score != "rows"
        for column, value in summary[score].dropna().items()
    }


def _candidates(
    setting: Setting, folder: StudyFolder, model: Any, judge: Any, screen: Screen
) -> tuple[Candidates, float]:
    """What the routine returns, verified and saved; read back where it is already there."""
    from genopt.candidates import Candidates
    from genopt.routines.abstain import AbstainedWarning
    from genopt.routines.verify import verify

    saved = folder.path / "candidates.parquet"
    if "routine_seconds" in folder.status and saved.exists():
        return Candidates.load(saved), float(folder.status["routine_seconds"])
    routine = make(setting.config.routine, "routine")
    screen.note(f"searching for designs: {setting.goal}")
    started = time.perf_counter()
    with warnings.catch_warnings():
        # the verdict says what was refused
        warnings.simplefilter("ignore", AbstainedWarning)
        candidates = call(
            routine,
            model,
            setting.goal,
            table=setting.table.part("train"),
            judge=judge,
            problem=setting.problem,
            train=lambda table: _trained(setting, table),
            folder=folder.path / "routine",
            seed=setting.config.seed,
            progress=setting.config.progress,
        )
    seconds = time.perf_counter() - started
    candidates = verify(candidates, setting.problem)
    candidates.save(saved)
    folder.mark(routine_seconds=seconds)
    return candidates, seconds
