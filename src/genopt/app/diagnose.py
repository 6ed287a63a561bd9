"""`genopt diagnose STUDY`: what is wrong with a finished study, without training anything."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import get_object
from omegaconf import OmegaConf

from genopt.app.folder import StudyFolder
from genopt.errors import GenoptError

if TYPE_CHECKING:
    from genopt.analysis.findings import Finding

_FILE = "diagnosis.json"


def write_findings(folder: StudyFolder, findings: Sequence[Finding]) -> None:
    """Keep a diagnosis in the study's folder.

    Args:
        folder: the folder.
        findings: what was found.
    """
    folder.write(_FILE, [finding.to_dict() for finding in findings])


def read_findings(folder: StudyFolder) -> list[Finding]:
    """The diagnosis that a study kept.

    Args:
        folder: its folder.

    Returns:
        The findings; none where there is no diagnosis.
    """
    from genopt.analysis.findings import Finding

    if not (folder.path / _FILE).exists():
        return []
    return [Finding.from_dict(entry) for entry in folder.read(_FILE)]


def diagnose_study(path: str | Path) -> list[Finding]:
    """Look at a finished study again, with nothing trained and nothing simulated.

    Args:
        path: the study's folder.

    Returns:
        The findings, which are kept in the folder, too.

    Raises:
        GenoptError: if there is no finished study, or its files cannot be read.
    """
    folder = StudyFolder(Path(path).expanduser())
    if folder.status.get("state") != "finished":
        raise GenoptError(
            f"{folder.path} holds no finished study: give the folder that `genopt` named at its end"
        )
    import pandas as pd

    from genopt.analysis.diagnose import diagnose
    from genopt.analysis.diagnose_fit import FitTimes
    from genopt.analysis.heldout import HeldOut
    from genopt.app.training import loaded, past_of
    from genopt.candidates import Candidates
    from genopt.data.table import Table
    from genopt.goal import Goal
    from genopt.protocols import ForwardModel

    config: Any = OmegaConf.load(folder.path / "config.yaml")
    candidates = Candidates.load(folder.path / "candidates.parquet")
    spaces = candidates.x_space, candidates.y_space
    table = Table.from_frame(pd.read_parquet(folder.path / "data.parquet"), *spaces)
    goal = Goal(candidates.goal, *spaces)
    saved = folder.path / "model.ckpt"
    model = loaded(
        get_object(config.model._target_), saved if saved.exists() else config.checkpoint
    )
    judge = folder.path / "judge.ckpt"
    forward = model if isinstance(model, ForwardModel) else None
    if forward is None and judge.exists():
        forward = loaded(get_object(config.judge._target_), judge)
    fit = folder.status.get("fit")
    findings = diagnose(
        table,
        goal,
        model,
        candidates,
        history=past_of(folder),
        times=None if fit is None else FitTimes(**fit),
        held_out=None if forward is None else HeldOut.of(forward, table),
        seed=config.seed,
    )
    write_findings(folder, findings)
    return findings


def diagnose_command(arguments: Sequence[str]) -> str | int:
    """The subcommand of the command line.

    Args:
        arguments: what follows ``genopt diagnose``.

    Returns:
        0, or the line that says what went wrong.
    """
    parser = argparse.ArgumentParser(
        prog="genopt diagnose",
        description="Say what is wrong with a finished study, which figure shows it and what to "
        "change. Nothing is trained.",
    )
    parser.add_argument("folder", type=Path, nargs="+", help="folder of a finished study")
    from genopt.app.show import Screen

    screen = Screen()
    for folder in parser.parse_args(list(arguments)).folder:
        try:
            findings = diagnose_study(folder)
        except GenoptError as error:
            return f"genopt diagnose: {error}"
        screen.findings(findings, folder)
    return 0
