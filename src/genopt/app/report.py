"""Many studies at a glance: one table of the best designs, one of the numbers, one figure.

`genopt-report DIR` reads the folders of finished studies; a multirun does so by itself at its end.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from genopt.app.folder import StudyFolder
from genopt.errors import GenoptError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Entry:
    """A finished study, as a report sees it.

    Args:
        folder: where it lies.
        name: what tells it from its neighbours, for example its model.
        config: its resolved configuration.
        metrics: its numbers.
        verdict: its outcome in words.
        problem: the problem's name.
        started: when it began.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    metrics: dict[str, float]
    verdict: str
    problem: str
    started: str


def gather(root: Path) -> list[Entry]:
    """The finished studies below a folder, the newest results of each.

    Args:
        root: the folder of a sweep, or of many.

    Returns:
        Studies in the order in which they began; unfinished ones are left out.
    """
    entries = []
    for status in sorted(root.rglob("status.json")):
        folder = StudyFolder(status.parent)
        if "previous" in status.relative_to(root).parts or folder.status.get("state") != "finished":
            continue
        config: Any = OmegaConf.to_container(OmegaConf.load(folder.path / "config.yaml"))
        entries.append(
            Entry(
                folder.path,
                _engine(config),
                config,
                folder.read("metrics.json"),
                folder.status.get("verdict", ""),
                folder.status.get("problem", "study"),
                folder.status.get("started", ""),
            )
        )
    return sorted(entries, key=lambda entry: entry.started)


def _engine(config: dict[str, Any]) -> str:
    target = str(config["model"].get("_target_", "model"))
    for word, name in (("multitask", "multitask"), ("flow", "flow"), ("mixture", "mixture")):
        if word in target:
            return name
    return target.rpartition(".")[2]


def report(root: Path) -> None:
    """Print and write what the finished studies below a folder found.

    Studies of one problem are shown together; ``report.csv``, ``metrics.csv`` and, for each
    problem, ``<problem>.png`` are written into the folder.

    Args:
        root: the folder.

    Raises:
        GenoptError: if there is no finished study.
    """
    import pandas as pd

    entries = gather(root)
    if not entries:
        raise GenoptError(f"no finished study below {root}: give the folder of a sweep or a study")
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        key = OmegaConf.to_yaml(
            {"problem": entry.config["problem"], "goal": entry.config["goal"]}, sort_keys=True
        )
        groups.setdefault(key, []).append(entry)
    tops, numbers = [], []
    for group in groups.values():
        frame = _show_problem(group, root)
        tops.append(frame)
        numbers += [
            {"study": str(e.folder.relative_to(root)), "model": e.name, **e.metrics} for e in group
        ]
    pd.concat(tops).to_csv(root / "report.csv", index=False)
    pd.DataFrame(numbers).to_csv(root / "metrics.csv", index=False)


def _show_problem(entries: list[Entry], root: Path) -> pd.DataFrame:
    """Print the studies of one problem, beside its best known rows, and draw their figure."""
    import pandas as pd

    from genopt.analysis.plots.properties import plot_properties
    from genopt.analysis.summary import best_rows_frame
    from genopt.app.show import Screen, designs_table
    from genopt.candidates import Candidates
    from genopt.data.table import Table
    from genopt.goal import Goal

    found = [Candidates.load(entry.folder / "candidates.parquet") for entry in entries]
    x_space, y_space = found[0].x_space, found[0].y_space
    goal = Goal(found[0].goal, x_space, y_space)
    rows = pd.read_parquet(entries[0].folder / "data.parquet")
    table = Table.from_frame(rows, x_space, y_space)
    verified = any(candidates.verified for candidates in found)
    source = "simulated" if verified else "measured"

    frames, series = [], {}
    for entry, candidates in zip(entries, found, strict=True):
        label = _label(entry, entries)
        frames.append(pd.read_csv(entry.folder / "top.csv").assign(model=label))
        best = candidates.top(10)
        series[label] = (best.y_verified if verified else best.y_predicted)[0]
    count = max(len(frame) for frame in frames) // goal.batch_size
    known = best_rows_frame(goal, table, max(count, 1))
    frame = pd.concat([*frames, known.assign(model=f"best {source}")], ignore_index=True)

    screen = Screen()
    shown = [term.column for term in goal.terms]
    problem = entries[0].problem
    title = f"{problem}: best distinct designs for {goal}"
    screen.console.print(f"[bold]{title}[/bold]", highlight=False)
    screen.console.print(designs_table(frame, x_space, shown, verified, lead=("model",)))
    for entry in entries:
        label = _label(entry, entries)
        screen.console.print(f"[bold]{label}[/bold]: {entry.verdict}", highlight=False)
    values = "verified by the simulator" if verified else "predicted"
    title = f"{problem}: best designs, {values}"
    plot_properties(goal, table.y, series, source, title).savefig(root / f"{problem}.png")
    screen.console.print(f"[dim]report.csv, metrics.csv and {problem}.png are in {root}[/dim]")
    return frame


def _label(entry: Entry, among: list[Entry]) -> str:
    """The model's name, with what tells studies apart that share it."""
    alike = [other for other in among if other.name == entry.name]
    if len(alike) == 1:
        return entry.name
    own, others = _overrides(entry), [_overrides(o) for o in alike if o is not entry]
    if own in others or not own:
        return f"{entry.name} {entry.folder.name.rpartition('-')[2]}"
    # a key without its groups says enough
    odd = [o.rpartition("=") for o in own if any(o not in other for other in others)]
    return " ".join([entry.name, *(f"{k.rpartition('.')[2]}={v}" for k, _, v in odd)])


def _overrides(entry: Entry) -> list[str]:
    """What the command line of a study said; nothing for one that was run from Python."""
    path = entry.folder / ".hydra" / "overrides.yaml"
    return sorted(map(str, OmegaConf.load(path))) if path.exists() else []


class SweepReport(Callback):
    """Hydra's callback that reports when a multirun ends."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on the sweep's folder.

        Args:
            config: the sweep's configuration.
            **kwargs: whatever else Hydra passes.
        """
        root = Path(config.hydra.sweep.dir)
        if gather(root):
            report(root)


def main() -> None:
    """Entry point of `genopt-report`."""
    parser = argparse.ArgumentParser(
        prog="genopt-report", description="Show what the finished studies below a folder found."
    )
    parser.add_argument("folder", type=Path, help="folder of a sweep, such as multirun/<name>")
    folder = parser.parse_args().folder
    try:
        report(folder)
    except GenoptError as error:
        sys.exit(f"genopt-report: {error}")
