"""One study: problem, table, model, routine, candidates, verification, figures, all in one folder.

Each stage leaves its result in the folder before the next one starts, so a study that was killed
goes on where it stopped and nothing already computed is lost.
"""

from __future__ import annotations

import logging
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from genopt.app.auto import Chosen, choose, is_auto
from genopt.app.calibrated import calibrated, unseen_pairs
from genopt.app.distributed import check_machine, check_strategy, together
from genopt.app.folder import PRUNED, StudyFolder, environment, fingerprint
from genopt.app.logs.loggers import log_result, opened
from genopt.app.losses import losses_said
from genopt.app.parts import call, make
from genopt.app.search.state import PrunedError
from genopt.app.setting import Setting, check_spaces
from genopt.app.show import Screen
from genopt.app.training import (
    check_folds,
    cross_validated,
    fitted,
    judge_of,
    loaded,
    new_model,
    past_of,
    trained,
)
from genopt.files import whole, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from genopt.analysis.findings import Finding
    from genopt.candidates import Candidates
    from genopt.data.table import Table

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyResult:
    """What a study leaves behind.

    Args:
        folder: where everything lies.
        candidates: all designs.
        top: the best distinct ones beside the nearest measured rows.
        metrics: plain numbers.
        verdict: the outcome in words.
        findings: what is wrong with the study, as far as it can be recognised.
    """

    folder: Path
    candidates: Candidates
    top: pd.DataFrame
    metrics: dict[str, float]
    verdict: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class _Run:
    """What the stages of one run share beside the setting."""

    setting: Setting
    folder: StudyFolder
    screen: Screen
    chosen: Chosen | None = None
    loggers: list[Any] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


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

    check_strategy(config, multirun=False)
    check_machine(config)
    torch.set_num_threads(max(config.threads, 1))
    screen = Screen(config.progress)
    folder = StudyFolder(Path(path))
    config.paths.study = str(folder.path)
    lost: list[str] = []
    with losses_said(screen.note, lost, config.progress):
        setting, chosen = Setting.of(config), None
    if is_auto(config):
        setting, chosen = choose(setting)
        config = setting.config
    model = new_model(config.model, setting, "model")
    if config.data.folds is not None:
        check_folds(config, model)
    if config.checkpoint is not None:
        model = loaded(type(model), config.checkpoint)
        check_spaces(model, setting.problem, f"checkpoint={config.checkpoint}")
    unseen = unseen_pairs(config, model, setting.problem, setting.table)
    routine = make(config.routine, "routine")
    check_routine(routine, model, setting.goal, config.checkpoint is not None, setting.problem)
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    mark = fingerprint(resolved, setting.file_bytes())
    with folder.claimed(), together(config):
        if folder.finished(mark) and not config.rerun:
            result = load_result(folder)
            screen.note(f"already finished in {folder.path}; rerun=true repeats it")
            screen.result(result, setting, show)
            return result
        if folder.open(mark, config.rerun):
            screen.note(f"going on with the unfinished study in {folder.path}")
        write_whole(folder.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(resolved)))
        folder.write("environment.json", environment())
        folder.mark(problem=setting.problem.name)
        if chosen is not None:
            folder.write("advice.json", chosen.advice.to_dict())
        screen.header(setting, chosen)
        run = _Run(setting, folder, screen, chosen, lost=lost)
        try:
            with losses_said(screen.note, lost, config.progress), opened(config) as loggers:
                run.loggers.extend(loggers)
                result = _stages(run, model, unseen)
                log_result(loggers, result)
        except PrunedError as error:
            folder.end(error)
            folder.mark(state=PRUNED)
            raise
        except BaseException as error:
            logger.info("the study failed: %s\n%s", error, traceback.format_exc())
            folder.end(error)
            raise
        folder.end()
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

    from genopt.app.diagnose import read_findings
    from genopt.candidates import Candidates

    return StudyResult(
        folder.path,
        Candidates.load(folder.path / "candidates.parquet"),
        pd.read_csv(folder.path / "top.csv"),
        folder.read("metrics.json"),
        folder.status["verdict"],
        tuple(read_findings(folder)),
    )


# -- the stages ------------------------------------------------------------------------------------
def _stages(run: _Run, model: Any, unseen: Table | None) -> StudyResult:
    import torch

    from genopt.analysis.diagnose import diagnose
    from genopt.analysis.diagnose_table import outside_data
    from genopt.analysis.heldout import HeldOut
    from genopt.analysis.metrics import candidate_scores
    from genopt.analysis.reconstruction import lost_by_rows
    from genopt.analysis.resimulation import curve_scores, held_out_curves
    from genopt.analysis.summary import top_frame, verdict
    from genopt.analysis.unreachable import unreached
    from genopt.app.diagnose import write_findings
    from genopt.protocols import ForwardModel

    setting, folder, screen = run.setting, run.folder, run.screen
    config, table = setting.config, setting.table
    with whole(folder.path / "data.parquet") as part:
        table.write(part)
    far = outside_data(table, setting.goal)
    if far is not None:
        screen.note(far.what)
    folds = cross_validated(setting, folder, screen)
    model, times = fitted(model, setting, folder, run.loggers, screen)
    judge = judge_of(setting, folder, model, screen)

    candidates, seconds = _candidates(run, model, judge)
    train = table.part("train")
    metrics = {"fit_seconds": times.seconds, "routine_seconds": seconds}
    metrics |= candidate_scores(candidates, setting.goal, setting.answers, train)
    metrics |= {
        f"routine/{name}": float(value)
        for name, value in candidates.header.get("numbers", {}).items()
    }
    reach = unreached(candidates, setting.goal, table, setting.problem, config.reach, config.seed)
    if reach:
        folder.write("reach.json", [entry.to_dict() for entry in reach])
        metrics["goals_unreached"] = float(len(reach))
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
    words = verdict(candidates, setting.goal, metrics, setting.answers, reach, run.lost)
    if run.chosen is not None:
        words = f"{run.chosen.in_words()} {words}"
    honest = None
    if unseen is not None:
        screen.note(f"calibrating the model with {len(unseen)} unseen designs")
        honest = calibrated(model, unseen, setting.problem, setting.goal, config.seed)
        metrics |= honest.metrics
        words += f" Calibration: {honest.calibration.verdict()}."
    # a neighbour without a label in the goal's columns says nothing about a claim
    labelled = torch.isfinite(table.y[:, [term.index for term in setting.goal.terms]]).any(1)
    top = top_frame(candidates, table.rows(labelled), config.top)
    write_whole(folder.path / "top.csv", top.to_csv(index=False))
    past = past_of(folder)
    findings = diagnose(
        table,
        setting.goal,
        model,
        candidates,
        history=past,
        times=times,
        held_out=held_out,
        seed=config.seed,
    )
    write_findings(folder, findings)
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
            past,
            curves,
            calibration=None if honest is None else honest.calibration,
            exact=None if honest is None else honest.exact,
            lost=lost,
        )
    return StudyResult(folder.path, candidates, top, metrics, words, tuple(findings))


def _candidates(run: _Run, model: Any, judge: Any) -> tuple[Candidates, float]:
    """What the routine returns, verified and saved; read back where it is already there."""
    from genopt.candidates import Candidates
    from genopt.routines.abstain import AbstainedWarning
    from genopt.routines.verify import verify

    setting, folder, screen = run.setting, run.folder, run.screen
    saved = folder.path / "candidates.parquet"
    if "routine_seconds" in folder.status and saved.exists():
        run.lost.extend(t for t in folder.status.get("lost", []) if t not in run.lost)
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
            train=lambda table: trained(setting, table),
            folder=folder.path / "routine",
            seed=setting.config.seed,
            progress=setting.config.progress,
        )
    seconds = time.perf_counter() - started
    candidates = verify(candidates, setting.problem)
    candidates.save(saved)
    folder.mark(routine_seconds=seconds, lost=run.lost)
    return candidates, seconds
