"""A search beside the settings without one, judged by seeds that the search did not see."""

from __future__ import annotations

import json
import math
import resource
import shutil
import statistics
import tempfile
from pathlib import Path

from sweeps.trials import command, start

_TRIALS = 14
_TINY = ("data.rows=300", "figures=false", "logger=none", "progress=false", "reach=0")
_PROBLEM = ("problem=plug_flow", *_TINY)
_METRIC = "verified/median_loss"
_SPACE = (
    "hparams_search=mixture",
    f"hydra.sweeper.objective={_METRIC}",
    f"hydra.sweeper.n_trials={_TRIALS}",
)
_FRESH = "seed=101,102,103"


def section(seeds: int = 1) -> str:
    """Markdown with a row for each seed of the search.

    Args:
        seeds: searches, each with another seed.

    Returns:
        The text.
    """
    room = Path(tempfile.mkdtemp(prefix="genopt-search-"))
    lines = [
        "## A search, and what it is worth\n",
        f"`genopt -m {' '.join((*_PROBLEM, *_SPACE))}`: {_TRIALS} trials of the mixture's shipped "
        f"space, the first one with the default settings. `{_METRIC}` of the trials, and of the "
        f"default and of the best trial once more with rows and fits of other seeds (`{_FRESH}`, "
        "median), which the search did not see.\n",
        "| seed of the search | default | best trial | found in trial | fresh seeds: default | "
        "fresh seeds: best | CPU s of the search |",
        "|---|---|---|---|---|---|---|",
    ]
    default = _median(room / "default", (*_PROBLEM, "model=mixture"))
    ratios, notes = [], []
    for seed in range(seeds):
        folder = room / f"search-{seed}"
        spent = _cpu()
        _run(folder, (*_PROBLEM, *_SPACE, f"hydra.sweeper.seed={seed}"))
        spent = _cpu() - spent
        found = json.loads((folder / "search.json").read_text())
        trials = found["trials"]
        (number,) = found["best"]
        best = trials[number]
        words = [f"{key}={value}" for key, value in best["params"].items()]
        fresh = _median(room / f"best-{seed}", (*_PROBLEM, "model=mixture", *words))
        ratios.append(default / fresh)
        lines.append(
            f"| {seed} | {trials[0]['values'][0]:.3g} | {best['values'][0]:.3g} | {number} | "
            f"{default:.3g} | {fresh:.3g} | {spent:.0f} |"
        )
        notes.append(f"Best of seed {seed}: `{' '.join(words)}`.")
    shutil.rmtree(room)
    lines += ["", *notes]
    gain = math.prod(ratios) ** (1.0 / len(ratios))
    lines.append(
        f"\nOn fresh seeds the found settings' loss is {gain:.2g} times lower than the default's."
    )
    return "\n".join(lines)


def _median(folder: Path, words: tuple[str, ...]) -> float:
    """The metric of a setting, median over fresh seeds."""
    _run(folder, (*words, _FRESH))
    values = [json.loads(p.read_text())[_METRIC] for p in folder.glob("*/metrics.json")]
    return statistics.median(values)


def _run(folder: Path, words: tuple[str, ...]) -> None:
    if start(command(folder, words, ()), folder.with_suffix(".log")).wait():
        raise RuntimeError(folder.with_suffix(".log").read_text()[-2000:])


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
