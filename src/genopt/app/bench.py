"""The command `genopt-bench`: a suite of problems, each solved in several ways with several seeds.

Every way is a multirun of the command `genopt` over the seeds, in a folder of its own; what is
finished is not run again. The table is made from the folders alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from genopt.app.suite import Case, Suite, Way, read_suite
from genopt.errors import GenoptError


def way_folder(root: Path, case: Case, way: Way) -> Path:
    """Where the studies of one way lie.

    Args:
        root: the folder of the suite.
        case: the problem.
        way: the way.

    Returns:
        A folder with one study for each seed, ``seed-<n>``.
    """
    return root / _slug(case.name) / _slug(way.name)


def command(suite: Suite, case: Case, way: Way, root: Path, seeds: int) -> list[str]:
    """The command line of one way, a multirun over the seeds.

    Args:
        suite: the suite.
        case: the problem.
        way: the way.
        root: the folder of the suite.
        seeds: how many seeds, from 0 on.

    Returns:
        What follows ``genopt``.
    """
    folder = way_folder(root, case, way).resolve()
    line = ["-m", *suite.everywhere, *way.overrides]
    if way.after:
        first = next(other for other in case.ways if other.name == way.after)
        model = way_folder(root, case, first).resolve() / "seed-${seed}" / "model.ckpt"
        line.append(f"checkpoint='{model}'")
    return [
        *line,
        f"seed={','.join(map(str, range(seeds)))}",
        f"hydra.sweep.dir='{folder}'",
        "hydra.sweep.subdir=seed-${seed}",
        "~hydra.callbacks.report",
        "progress=false",
    ]


def run_way(arguments: Sequence[str], log: Path) -> tuple[str, float]:
    """Run one way; what it prints and its error go to a file.

    Args:
        arguments: what follows ``genopt``.
        log: the file.

    Returns:
        The error in one line, empty where there is none, and the CPU seconds spent.

    Raises:
        KeyboardInterrupt: if the way was interrupted.
    """
    from genopt.app.main import main

    log.parent.mkdir(parents=True, exist_ok=True)
    started, given = time.process_time(), sys.argv
    error = ""
    with log.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            sys.argv = ["genopt", *arguments]
            main()
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):
                # whoever interrupts one way means them all
                raise KeyboardInterrupt from stop
            error = "" if stop.code in (None, 0) else str(stop.code)
        except Exception as problem:
            traceback.print_exc()
            error = f"{type(problem).__name__}: {problem}"
        finally:
            sys.argv = given
        file.write(f"{error}\n")
    return error.strip().split("\n")[-1], time.process_time() - started


def run_suite(
    suite: Suite, root: Path, seeds: int, jobs: int = 1, progress: bool = True
) -> dict[tuple[str, str], str]:
    """Run all ways of all problems; a way that fails does not stop the others.

    Args:
        suite: the suite.
        root: its folder.
        seeds: how many seeds.
        jobs: how many ways run side by side, each on one thread.
        progress: whether to show a bar.

    Returns:
        The errors by problem and way.
    """
    from joblib import Parallel, delayed
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    pairs = [(case, way) for case in suite.cases for way in case.ways]
    errors: dict[tuple[str, str], str] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("ways", total=len(pairs))
        # those that use another's model wait for it
        for stage in (
            [pair for pair in pairs if not pair[1].after],
            [pair for pair in pairs if pair[1].after],
        ):
            work = (
                delayed(_job)(suite, case, way, root, seeds) for case, way in stage
            )  # a generator: nothing is composed before its turn
            for case, way, error in Parallel(jobs, return_as="generator_unordered")(work):
                bar.update(task, advance=1, description=f"{case}: {way}")
                if error:
                    errors[case, way] = error
                    bar.console.print(f"[red]{case}: {way}: {error}[/red]", highlight=False)
    return errors


def _job(suite: Suite, case: Case, way: Way, root: Path, seeds: int) -> tuple[str, str, str]:
    folder = way_folder(root, case, way)
    error, _ = run_way(command(suite, case, way, root, seeds), folder / "bench.log")
    return case.name, way.name, error


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-").replace("--", "-")


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Workers on one thread each: small networks run fastest so, and jobs do not fight."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Whoever ends the process (`kill`, `scancel`) means all ways, as by Ctrl-C, not one fit."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `genopt-bench`.

    Args:
        arguments: the command line; None for that of the process.
    """
    parser = argparse.ArgumentParser(
        prog="genopt-bench",
        description="Solve a suite of problems in several ways with several seeds, and write the "
        "table. What is finished is not run again.",
    )
    add = parser.add_argument
    add(
        "suite",
        nargs="?",
        default="quick",
        help="quick, problems or the path of a YAML file (default quick)",
    )
    add("--problems", nargs="+", metavar="P", help="only these problems")
    add("--ways", nargs="+", metavar="W", help="only these ways, such as 'mixture' 'flow'")
    add("--seeds", type=int, help="medians are over so many (default: the suite's)")
    add("--jobs", type=int, default=1, help="ways side by side, one thread each (default 1)")
    add("--out", type=Path, default=Path("bench"), help="folder of the studies (default bench)")
    add("--write", type=Path, metavar="FILE", help="write the page, such as docs/problems.md")
    add("--table", action="store_true", help="run nothing: make the table of what is finished")
    given = parser.parse_args(arguments)
    if given.jobs < 1 or (given.seeds is not None and given.seeds < 1):
        parser.error("--jobs and --seeds must be at least 1")
    try:
        with _ended_by_sigterm():
            _run(given)
    except GenoptError as error:
        sys.exit(f"genopt-bench: {error}")
    except KeyboardInterrupt:
        sys.exit("genopt-bench: interrupted; the same command goes on from here")


def _run(given: argparse.Namespace) -> None:
    whole = read_suite(given.suite)
    chosen = whole.only(given.problems, given.ways)
    root = given.out / whole.name
    seeds = given.seeds or whole.seeds
    errors: dict[tuple[str, str], str] = {}
    if not given.table:
        with _one_thread():
            errors = run_suite(chosen, root, seeds, given.jobs)
    from genopt.app.bench_page import page

    # a page of the whole suite, whatever part of it was run now
    text = page(whole if given.write else chosen, root, seeds)
    sys.stdout.write(f"{text}\n")
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(text)
    if errors:
        sys.exit(f"genopt-bench: {len(errors)} of the ways failed, see bench.log in {root}")


if __name__ == "__main__":
    main()
