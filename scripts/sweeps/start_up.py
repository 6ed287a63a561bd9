"""What it costs to start: help, errors of the configuration, a study beside its fit and routine."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_REPEATS = 5
_HYDRA = "import hydra; from hydra._internal.hydra import Hydra"
_TORCH = "import torch, pytorch_lightning"
_SHORT = {
    "`genopt --help`": ["--help"],
    "unknown option: `model=flwo`": ["model=flwo"],
    "unknown key: `model.epohcs=3`": ["model=multitask", "model.epohcs=3"],
    "part without effect: `model=mixture encoder=residual`": ["model=mixture", "encoder=residual"],
    "keyword of the trainer: `+trainer.max_epoch=3`": ["+trainer.max_epoch=3"],
}
_STUDIES = {
    "mixture": ["model=mixture", "model.max_components=4"],
    "multitask": [
        "model=multitask", "model.epochs=3", "routine.starts=4", "routine.restarts=2",
        "routine.steps=5",
    ],
    "flow": ["model=flow", "model.epochs=2", "network.width=16", "network.depth=1"],
}  # fmt: skip
_SMALL = ["problem=plug_flow", "data.rows=120", "reach=0", "progress=false"]


def section() -> str:
    """Markdown: CPU seconds of processes, beside the imports that they cannot do without."""
    hydra, torch = _spent(["-c", _HYDRA]), _spent(["-c", _TORCH])
    lines = [
        "## Starting",
        "",
        f"CPU seconds of a process, medians of {_REPEATS}. `import hydra` takes {hydra:.2f} s, "
        f"`import torch, pytorch_lightning` {torch:.2f} s.",
        "",
        "| command | CPU s | beyond `import hydra` |",
        "|---|---:|---:|",
    ]
    for name, arguments in _SHORT.items():
        spent = _spent(["-m", "genopt.app.main", *arguments])
        lines.append(f"| {name} | {spent:.2f} | {spent - hydra:.2f} |")
    lines += [
        "",
        "A study of `plug_flow` with 120 rows, without its fit and its routine:",
        "",
        "| model | figures | CPU s | beyond torch and Lightning |",
        "|---|---|---:|---:|",
    ]
    for name, arguments in _STUDIES.items():
        for figures in ("false", "true"):
            words = [*arguments, *_SMALL, f"figures={figures}"]
            spent = _spent(["-m", "genopt.app.main", *words])
            lines.append(f"| {name} | {figures} | {spent:.2f} | {spent - torch:.2f} |")
    return "\n".join(lines)


def _spent(arguments: Sequence[str]) -> float:
    """The median of the CPU seconds of a process, less what a study says of its fit and routine."""
    # the first one may have to compile
    times = [_once(arguments) for _ in range(_REPEATS + 1)][1:]
    return statistics.median(times)


def _once(arguments: Sequence[str]) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # a user's Python keeps what it compiled
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        for path in Path(folder).rglob("status.json"):
            status = json.loads(path.read_text())
            # one thread works during a routine, so its seconds are the processor's at most
            spent -= status["fit"]["cpu_seconds"] + status["routine_seconds"]
    return spent


if __name__ == "__main__":
    print(section())
