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
    """

    folder: Path
    name: str
    config: dict[str, Any]
    metrics: dict[str, float]
    verdict: str


def gather(root: Path) -> list[Entry]:
    """The finished studies below a folder, the newest results of each.

    Args:
        root: the folder of a sweep, or of many.

    Returns:
        Studies sorted by folder; unfinished ones are left out.
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
            )
        )
    return entries


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
    """Print the studies of one problem and draw their figure."""
    import pandas as pd

    from genopt.analysis.plots.properties import plot_properties
    from genopt.app.show import Screen, designs_table
    from genopt.candidates import Candidates
    from genopt.data.table import Table
    from genopt.goal import Goal

    first = Candidates.load(entries[0].folder / "candidates.parquet")
    frames, series = [], {}
    for entry in entries:
        label = _label(entry, entries)
        frames.append(pd.read_csv(entry.folder / "top.csv").assign(model=label))
        best = Candidates.load(entry.folder / "candidates.parquet").top(10)
        known = best.y_verified.isfinite().all()
        series[label] = (best.y_verified if known else best.y_predicted)[0]
    frame = pd.concat(frames, ignore_index=True)
    verified = bool(frame[[f"{n}_verified" for n in first.y_space.names]].notna().any(axis=None))
    goal = Goal(first.goal, first.x_space, first.y_space)
    problem = str(entries[0].folder.parent.name if len(entries) == 1 else root.name)
    screen = Screen()
    title = f"best distinct designs for {goal}"
    screen.console.print(
        designs_table(frame, first.x_space, first.y_space, title, verified, lead=("model",))
    )
    for entry in entries:
        screen.console.print(
            f"[bold]{_label(entry, entries)}[/bold]: {entry.verdict}", highlight=False
        )
    rows = pd.read_parquet(entries[0].folder / "data.parquet")
    table = Table.from_frame(rows, first.x_space, first.y_space)
    values = "verified by the simulator" if verified else "predicted"
    figure = plot_properties(
        goal, table.y, series, "simulated" if verified else "measured", f"best designs, {values}"
    )
    figure.savefig(root / f"{problem}.png")
    screen.console.print(f"[dim]report.csv, metrics.csv and {problem}.png are in {root}[/dim]")
    return frame


def _label(entry: Entry, among: list[Entry]) -> str:
    """The model's name, with the folder where two studies share it."""
    same = sum(other.name == entry.name for other in among)
    return entry.name if same == 1 else f"{entry.name} {entry.folder.name.rpartition('-')[2]}"


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
