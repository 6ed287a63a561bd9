"""What a study prints: what is asked, how far it is, the best designs and the verdict.

This is the only place of genopt that prints; everything else logs or warns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genopt.analysis.findings import findings_in_words
from genopt.analysis.summary import KIND

if TYPE_CHECKING:
    import pandas as pd

    from genopt.analysis.findings import Finding
    from genopt.app.auto import Chosen
    from genopt.app.setting import Setting
    from genopt.app.study import StudyResult
    from genopt.goal import Goal
    from genopt.space import Space

_WIDTH = 200
_TINY = 1e-9
_SCORES = ("r2", "accuracy", "coverage_90")
_ALWAYS = (
    "round_trip",
    "mode_",
    "weight_",
    "resimulation/r_",
    "resimulation/mmd",
    "calibration/kl",
)
# with more goals than these, the table shows the best design of the first ones
_FEW_GOALS, _GOALS = 3, 10
# with more design columns than these, those that never vary are left out
_WIDE = 6
# with more properties than these, their names are broken at underscores
_MANY = 2
# so many properties fit beside the designs
_LIMITS = 4


class Screen:
    """The terminal of a study; only the first process of a distributed run prints.

    Args:
        progress: whether steps are shown; results always are.
    """

    def __init__(self, progress: bool = True) -> None:
        import os

        from rich.console import Console

        self.progress = progress
        console = Console(stderr=False)
        # a pipe or a log file has no width of its own, and a table cut to 80 columns is no table
        self.console = console if console.is_terminal else Console(width=_WIDTH)
        self.first = os.environ.get("LOCAL_RANK", "0") == "0"

    def note(self, text: str) -> None:
        """One line about a step.

        Args:
            text: the line.
        """
        if self.progress and self.first:
            self.console.print(f"[dim]·[/dim] {text}", highlight=False, soft_wrap=True)

    def header(self, setting: Setting, chosen: Chosen | None = None) -> None:
        """What is asked: problem, columns, rows, goal, model and routine.

        Args:
            setting: the study's setting.
            chosen: the choice that ``model=auto`` made.
        """
        if not (self.progress and self.first):
            return
        from rich.panel import Panel
        from rich.table import Table

        config, table = setting.config, setting.table
        counts = {part: table.split.count(part) for part in ("train", "validation", "test")}
        facts = Table.grid(padding=(0, 2))
        missing = f", {table.missing_share:.0%} of labels missing" if table.missing_share else ""
        facts.add_row("rows", f"{len(table)} {_counts(counts)}{missing}")
        if table.incomplete is not None:
            facts.add_row("", f"beside them {table.incomplete.told(table.x_space)}")
        facts.add_row("goal", str(setting.goal))
        engine = str(config.model.get("_target_", "")).rpartition("genopt.")[2]
        facts.add_row("model", "none" if engine == "models.nothing.Nothing" else engine)
        if chosen is not None:
            for i, reason in enumerate(chosen.advice.reasons):
                facts.add_row("" if i else "chosen by model=auto", reason)
        facts.add_row("routine", str(config.routine.get("_target_", "")).rpartition("genopt.")[2])
        for row in setting.problem.describe():
            unit = f" {row['unit']}" if row["unit"] else ""
            facts.add_row(row["role"], f"{row['column']}: {row['kind']}, {row['range']}{unit}")
        title = f"[bold]{setting.problem.name}[/bold] seed {config.seed}"
        self.console.print(Panel(facts, title=title, title_align="left", expand=False))

    def result(self, result: StudyResult, setting: Setting, table: bool = True) -> None:
        """The best designs, the numbers behind them and the verdict.

        Args:
            result: what the study found.
            setting: the study's setting.
            table: whether to show the table of designs.
        """
        if not self.first:
            return
        problem = setting.problem
        if table and len(result.top):
            title = f"{problem.name}: best distinct designs"
            shown, kept = shown_columns(setting.goal, result.top, problem.has_simulator)
            top, goals = result.top, result.top["goal"].nunique()
            if goals > _FEW_GOALS:
                top = top.groupby("goal").head(1).head(_GOALS)
                title = f"{problem.name}: the best design of {len(top)} of {goals} goals"
            self.console.print(f"[bold]{title}[/bold]", highlight=False)
            self.console.print(designs_table(top, problem.x_space, shown, problem.has_simulator))
            if kept:
                self.console.print(
                    f"[dim]all of them keep {', '.join(kept)}[/dim]",
                    highlight=False,
                    soft_wrap=True,
                )
        columns = [term.column for term in setting.goal.terms]
        self.console.print(numbers_line(result.metrics, columns), highlight=False, soft_wrap=True)
        self.console.print(f"[bold]{result.verdict}[/bold]", highlight=False, soft_wrap=True)
        for line in findings_in_words(result.findings):
            self.console.print(f"[yellow]![/yellow] {line}", highlight=False, soft_wrap=True)
        self.console.print(f"[dim]everything is in {result.folder}[/dim]", soft_wrap=True)

    def findings(self, findings: Sequence[Finding], folder: Path) -> None:
        """The diagnosis of a finished study, all of it.

        Args:
            findings: what was found.
            folder: the study's folder.
        """
        if not findings:
            self.console.print(f"{folder}: nothing wrong was recognised", highlight=False)
        for finding in findings:
            self.console.print(
                f"[bold]{finding.fault}[/bold]: {finding.what}", highlight=False, soft_wrap=True
            )
            self.console.print(f"  change: {finding.advice}", highlight=False, soft_wrap=True)
            picture = folder / "figures" / finding.picture
            if finding.picture and picture.exists():
                self.console.print(f"  figure: {picture}", highlight=False, soft_wrap=True)


def shown_columns(goal: Goal, top: pd.DataFrame, verified: bool) -> tuple[list[str], list[str]]:
    """The columns of y to show; of many, limits that all designs keep are only named.

    Args:
        goal: what is wanted.
        top: the designs that are shown.
        verified: whether the simulator says what is kept, else the claims do.

    Returns:
        The columns that are shown, and those that are only named.
    """
    columns = [term.column for term in goal.terms]
    if len(columns) <= _LIMITS:
        return columns, []
    basis = "verified" if verified else "predicted"
    kept = []
    for term in goal.terms:
        if term.kind in ("at_least", "at_most", "between") and not goal.batched:
            y = torch.tensor(top[f"{term.column}_{basis}"].to_numpy(dtype=float))
            if bool((term.miss(y) <= 0.0).all()):
                kept.append(term.column)
    return [c for c in columns if c not in kept], kept


def designs_table(
    top: pd.DataFrame,
    x_space: Space,
    properties: Sequence[str],
    verified: bool,
    lead: tuple[str, ...] = (),
) -> Any:
    """A rich table of designs: design, claim, truth or nearest measured row.

    Args:
        top: rows as `genopt.analysis.summary.top_frame` gives them.
        x_space: the Space of the designs.
        properties: the columns of y that are shown, those of the goal.
        verified: whether there is a simulator, whose answer is shown.
        lead: further columns of ``top`` to show first.

    Returns:
        The table.
    """
    from rich.table import Table

    columns: list[tuple[str, str, str]] = [(name, name, "bold") for name in lead]
    if top["goal"].nunique() > 1:
        columns.append(("goal", "goal", "bold"))
    if KIND in top and KIND not in x_space.names:
        columns.append((KIND, KIND, "bold"))
    # a column that is the same in every design is held: it is said in the goal
    alike = len(x_space) > _WIDE and len(top) > 1
    columns += [
        (v.name, v.name, "")
        for v in x_space
        if not (alike and top[v.name].nunique(dropna=False) == 1)
    ]
    wanted = [n for n in properties if f"{n}_wanted" in top]
    heads = {n: n.replace("_", "_\n") if len(properties) > _MANY else n for n in properties}
    columns += [(f"{n}_wanted", f"{heads[n]}\nwanted", "bold") for n in wanted]
    spread = {f"{n}_predicted": f"{n}_spread" for n in properties if f"{n}_spread" in top}
    # a routine that asked the simulator claims what it said: nothing was predicted
    asked = verified and not spread and _told_alike(top, properties)
    if not asked:
        columns += [(f"{n}_predicted", f"{heads[n]}\npredicted", "cyan") for n in properties]
    if verified:
        columns += [(f"{n}_verified", f"{heads[n]}\nverified", "green") for n in properties]
    else:
        columns.append(("nearest_distance", "nearest\nmeasured", "dim"))
        columns += [(f"{n}_nearest", f"{heads[n]}\nmeasured\nthere", "green") for n in properties]
    table = Table(header_style="")
    for _, header, style in columns:
        table.add_column(header, style=style, justify="right", overflow="fold")
    least = {name: _least(top, name, x_space, properties) for name, _, _ in columns}
    previous = None
    for row in top.to_dict("records"):
        key = tuple(row[name] for name in lead)
        if previous is not None and key != previous:
            table.add_section()
        previous = key
        table.add_row(*(_claim(row, name, spread.get(name), least[name]) for name, _, _ in columns))
    return table


def numbers_line(metrics: Mapping[str, float], columns: Sequence[str]) -> str:
    """The numbers that say how far the designs can be trusted, in one line.

    Args:
        metrics: a study's metrics.
        columns: the columns of y whose scores are shown, those of the goal.

    Returns:
        The line.
    """
    shown = [
        f"{_spoken(name)} {value:.3g}"
        for name, value in metrics.items()
        if name.startswith(_ALWAYS)
        or any(name.endswith(f"held_out/{kind}/{c}") for kind in _SCORES for c in columns)
    ]
    for kind, column in product(_SCORES, columns):
        mean = metrics.get(f"folds/{kind}/{column}")
        if mean is not None:
            scatter = metrics.get(f"folds/{kind}_std/{column}", math.nan)
            shown.append(f"folds {kind}/{column} {mean:.3g} ± {scatter:.1g}")
    if "diversity" in metrics:
        shown += [f"diversity {metrics['diversity']:.3g}"]
    shown += [f"fit {metrics['fit_seconds']:.1f} s", f"search {metrics['routine_seconds']:.1f} s"]
    return "  ".join(shown)


def _spoken(metric: str) -> str:
    """A metric's name without the group that is clear from it."""
    return re.sub(r"^(held_out|resimulation)/", "", metric.replace("_held_out/", " "))


def _least(top: pd.DataFrame, name: str, x_space: Space, properties: Sequence[str]) -> float:
    """The size below which a number of a column is shown as zero: columns may be in tiny units."""
    if name in x_space and x_space[name].bounded:
        largest = x_space[name].upper - x_space[name].lower
    else:
        told = [n for n in properties if name.startswith(f"{n}_")]
        alike = [c for c in top if any(str(c).startswith(f"{n}_") for n in told)] or [name]
        numbers = top[alike].select_dtypes("number").to_numpy(dtype=float)
        largest = max(abs(numbers[~np.isnan(numbers)]), default=1.0)
    return _TINY * min(1.0, float(largest))


def _told_alike(top: pd.DataFrame, properties: Sequence[str]) -> bool:
    return all(top[f"{n}_predicted"].equals(top[f"{n}_verified"]) for n in properties)


def _claim(row: Mapping[Any, Any], name: str, spread: str | None, least: float) -> str:
    """A cell; a claim with its standard deviation where there is one."""
    cell = _cell(row[name], least)
    if spread is None or math.isnan(row[spread]):
        return cell
    return f"{cell} ± {row[spread]:.2g}"


def _cell(value: Any, least: float) -> str:
    if isinstance(value, float):
        if abs(value) < least:
            return "0"
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _counts(counts: Mapping[str, int]) -> str:
    return "(" + ", ".join(f"{n} {part}" for part, n in counts.items() if n) + ")"
