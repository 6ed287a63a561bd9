"""Many studies at a glance: in the terminal, as one table and as one page.

`genopt-report DIR` reads the folders of studies, however far they are; a multirun does so by itself
at its end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from genopt.app.folder import FINISHED
from genopt.errors import GenoptError

_PORT, _PORTS = 8765, 65535
_COMMAND = "genopt-report"


def report(*roots: Path, out: Path | None = None) -> Path | None:
    """Print and write what the studies below folders found, or how far they are.

    Studies of one problem are printed together. ``studies.parquet`` (one row a study) and
    ``report.html`` (one page, which needs no network) are written; where a study has finished, also
    ``report.csv``, ``metrics.csv`` and, for each problem, ``<problem>.png``.

    Args:
        *roots: folders of studies or of sweeps.
        out: where to write; the folder itself if it is one, else the current one.

    Returns:
        The page; None where Plotly is missing.

    Raises:
        GenoptError: if there is no study.
    """
    import warnings

    from genopt.app.dashboard.gather import gather_studies
    from genopt.app.dashboard.page import write_dashboard
    from genopt.app.dashboard.terminal import has_designs, show_problem, show_states

    studies = gather_studies(roots)
    if not studies:
        places = ", ".join(map(str, roots))
        raise GenoptError(f"no study below {places}: give the folder of a sweep or a study")
    out = place_of(roots, out)
    out.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[Any]] = {}
    for study in studies:
        if study.state == FINISHED and has_designs(study):
            groups.setdefault(study.question, []).append(study)
    frames = [show_problem(group, out) for group in groups.values()]
    show_states(studies, roots)
    if frames:
        import pandas as pd

        pd.concat(frames).to_csv(out / "report.csv", index=False)
        rows = [
            {"study": s.name, "model": s.model, **s.metrics} for g in groups.values() for s in g
        ]
        pd.DataFrame(rows).to_csv(out / "metrics.csv", index=False)
    try:
        page = write_dashboard(studies, roots, out)
    except GenoptError as error:
        # a report at the end of a sweep is worth having without its page
        warnings.warn(str(error), stacklevel=2)
        page = None
    pictures = sorted({f"{group[0].problem}.png" for group in groups.values()})
    _say_files(out, pictures, page)
    return page


def place_of(roots: Sequence[Path], out: Path | None) -> Path:
    """Where a report is written.

    Args:
        roots: the folders that were asked for.
        out: what the user said.

    Returns:
        A folder.
    """
    return out or (roots[0] if len(roots) == 1 else Path.cwd())


class SweepReport(Callback):
    """Hydra's callback that reports when a multirun ends."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on the sweep's folder, unless its jobs have only been submitted.

        Args:
            config: the sweep's configuration.
            **kwargs: whatever else Hydra passes.
        """
        from genopt.app.dashboard.gather import gather_studies
        from genopt.app.launch.local import where_torch_is

        root = Path(config.hydra.sweep.dir)
        if root.is_dir() and any(s.state == FINISHED for s in gather_studies([root])):
            # the jobs' own processes were forked from one that has torch: no need to import it here
            where_torch_is(report, root)


def main() -> None:
    """Entry point of `genopt-report`."""
    try:
        sys.exit(_run(sys.argv[1:]))
    except GenoptError as error:
        sys.exit(f"{_COMMAND}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _run(arguments: Sequence[str]) -> int:
    parser = _parser()
    given = parser.parse_intermixed_args(list(arguments))
    folders = [Path(word).expanduser() for word in given.folder if not _is_setting(word)]
    settings = [word for word in given.folder if _is_setting(word)]
    if settings and not given.failed:
        raise GenoptError(f"{settings[0]!r} sets something for jobs: that needs --failed")
    if not folders:
        raise GenoptError("give the folder of a sweep or a study, such as multirun/<name>")
    for folder in folders:
        if not folder.is_dir():
            raise GenoptError(f"{folder} is no folder: give the folder of a sweep or a study")
    if not 0 <= given.port <= _PORTS:
        raise GenoptError(f"--port wants a number from 0 to {_PORTS}, not {given.port}")
    if given.compare:
        return _compare(folders)
    if given.failed:
        return _rerun(folders, settings)
    if given.wandb:
        return _summarise(folders)
    if given.watch:
        from genopt.app.dashboard.watch import watch

        return watch(folders, given.port, given.open)
    page = report(*folders, out=given.out)
    if given.open and page is not None:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_COMMAND,
        usage=f"{_COMMAND} DIR [DIR ...] [--out DIR] [--open] "
        "[--watch [--port N] | --failed [key=value ...] | --compare | --wandb]",
        description="Show what the studies below folders found: in the terminal, in "
        "studies.parquet (one row a study) and in report.html, a page that needs no network.",
    )
    parser.add_argument(
        "folder",
        nargs="*",
        metavar="DIR",
        help="folder of a sweep, such as multirun/<name>, or of studies",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--watch", action="store_true", help="serve the page on this machine while a sweep runs"
    )
    what.add_argument(
        "--failed",
        action="store_true",
        help="run the failed, interrupted and missing jobs again, in the same folders; a launcher "
        "may follow, for example launcher=joblib",
    )
    what.add_argument(
        "--compare", action="store_true", help="show in what two studies, or two sweeps, differ"
    )
    what.add_argument(
        "--wandb", action="store_true", help="write one W&B run for the studies of a sweep"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="where to write; the folder itself, or this one if there are several",
    )
    parser.add_argument(
        "--port", type=int, default=_PORT, help=f"of --watch; {_PORT} unless another is given"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return parser


def _is_setting(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _compare(folders: Sequence[Path]) -> int:
    if len(folders) != 2:
        raise GenoptError(f"--compare wants two folders, not {len(folders)}")
    from rich.console import Console

    from genopt.app.compare import compare
    from genopt.app.compare_show import show_comparison

    show_comparison(compare(*folders), Console())
    return 0


def _summarise(folders: Sequence[Path]) -> int:
    from rich.console import Console

    from genopt.app.logs.sweep import summarise

    for folder in folders:
        files = summarise(folder)
        told = f"written to {files}" if files else f"nothing new to tell of {folder}"
        Console().print(told, highlight=False, soft_wrap=True)
    return 0


def _rerun(folders: Sequence[Path], words: Sequence[str]) -> int:
    from rich.console import Console

    from genopt.app.jobs import rerun

    if not sum(rerun(folder, words) for folder in folders):
        Console().print("nothing to run again: no job failed, was interrupted or is missing")
    return 0


def _say_files(out: Path, pictures: Sequence[str], page: Path | None) -> None:
    from rich.console import Console

    names = ["report.csv", "metrics.csv", *pictures] if pictures else []
    names += ["studies.parquet", "report.html"] if page else ["studies.parquet"]
    told = f"{', '.join(names[:-1])} and {names[-1]} are" if len(names) > 1 else f"{names[0]} is"
    Console().print(f"[dim]{told} in {out}[/dim]", highlight=False, soft_wrap=True)
