"""Sixteen studies one after another, and by joblib on two cores: whole commands, by the clock."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from sweeps.trials import command, start, studies

# a fit of some seconds each, as small studies have
_WORDS = (
    "problem=photostability", "model=multitask", "model.epochs=150", "seed=range(16)",
    "routine.restarts=50", "figures=false", "logger=none", "progress=false",
)  # fmt: skip
_WAYS = {
    "one after another": ("launcher=basic",),
    "joblib, 2 at a time": ("launcher=joblib", "launcher.n_jobs=2"),
}
_ASKED = 1.7


def section() -> str:
    """Markdown with both times and their ratio."""
    room = Path(tempfile.mkdtemp(prefix="genopt-parallel-"))
    lines = [
        "## Sixteen studies on two cores\n",
        f"`genopt -m {' '.join(_WORDS)}`: the whole command by the clock, its start, the imports "
        "of each process and the report at its end included.\n",
        "| | seconds | load before |",
        "|---|---|---|",
    ]
    clock, results = [], []
    for number, (name, launcher) in enumerate(_WAYS.items()):
        load = os.getloadavg()[0]
        sweep = room / str(number)
        began = time.monotonic()
        status = start(command(sweep, _WORDS, launcher), sweep.with_suffix(".log")).wait()
        clock.append(time.monotonic() - began)
        lines.append(f"| {name} | {clock[-1]:.1f} | {load:.1f} |")
        if status:
            raise RuntimeError(sweep.with_suffix(".log").read_text())
        results.append(studies(sweep))
    shutil.rmtree(room)
    first, second = results
    alike = set(first) == set(second) and all(first[name].like(second[name]) for name in first)
    same = "the same" if alike else "NOT the same"
    lines.append(
        f"\nBy joblib {clock[0] / clock[1]:.2f} times faster (asked: {_ASKED}); {same} results, to "
        f"nine digits, in all {len(first)} studies. The times mean something only where "
        "nothing else runs: the load before should be near 0."
    )
    return "\n".join(lines)
