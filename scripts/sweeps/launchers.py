"""What a launcher costs for each job, and what it costs to submit and return."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_NAMES = ("basic", "joblib", "submitit_local", "ray")
_FEW, _MANY = 2, 8
_SUBMITTED = (4, 16, 64)
_BECOME_REAPER = 36
# jobs that do nothing: what is left is the launcher, and torch where it is imported for all jobs
_EMPTY = """
import sys
import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from genopt.app.compose import CONFIG_NAME, conf_folder, prepare

def nothing(config):
    return 0.0

if __name__ == "__main__":
    name, count, folder = sys.argv[1:]
    prepare()
    hydra.initialize_config_dir(str(conf_folder()), version_base="1.3")
    loader = GlobalHydra.instance().config_loader()
    words = [f"hydra/launcher={name}", f"hydra.sweep.dir={folder}",
             "hydra.launcher.check=composition"]
    config = loader.load_configuration(CONFIG_NAME, words, run_mode=RunMode.MULTIRUN)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(config_loader=loader, callbacks=Callbacks()),
        task_function=nothing, config=config)
    jobs = [["problem=plug_flow", "model=mixture", f"seed={n}", "progress=false"]
            for n in range(int(count))]
    outcomes = launcher.launch(jobs, 0)
    assert not any(o.error for o in outcomes), [str(o.error) for o in outcomes if o.error]
"""
_SLURM = {
    "sbatch": 'echo "Submitted batch job 7"',
    "srun": "true",
    "squeue": "true",
    "sacct": "true",
}


def section() -> str:
    """Markdown with both."""
    room = Path(tempfile.mkdtemp(prefix="genopt-launchers-"))
    script = room / "empty.py"
    script.write_text(_EMPTY)
    lines = [
        "## What launchers cost\n",
        f"CPU seconds of all processes together, with jobs that do nothing: {_FEW} of them, and "
        "each one more. Composing and checking a job's settings is the same for all.\n",
        f"| launcher | {_FEW} jobs | one more |",
        "|---|---|---|",
    ]
    for name in _NAMES:
        if name == "ray" and importlib.util.find_spec("ray") is None:
            continue
        few, many = (
            _spent([sys.executable, str(script), name, str(count), str(room / f"{name}-{count}")])
            for count in (_FEW, _MANY)
        )
        lines.append(f"| {name} | {few:.1f} | {(many - few) / (_MANY - _FEW):.2f} |")
    lines += [
        "\n`genopt launcher=slurm` submits one array and returns, on a machine where `sbatch` "
        "answers at once:\n",
        "| jobs | CPU s |",
        "|---|---|",
    ]
    commands = room / "commands"
    commands.mkdir()
    for command, line in _SLURM.items():
        (commands / command).write_text(f"#!/bin/sh\n{line}\n")
        (commands / command).chmod(0o755)
    path = {"PATH": f"{commands}:{os.environ['PATH']}"}
    words = ["launcher=slurm", "problem=plug_flow", "model=mixture", "progress=false"]
    for count in _SUBMITTED:
        sweep = [f"seed=range({count})", f"hydra.sweep.dir={room}/slurm-{count}"]
        spent = _spent([sys.executable, "-m", "genopt.app.main", *words, *sweep], **path)
        lines.append(f"| {count} | {spent:.1f} |")
    shutil.rmtree(room)
    return "\n".join(lines)


def _spent(command: list[str], **environment: str) -> float:
    """CPU seconds of a command and of all processes that it starts, also of those it leaves."""
    # processes that lose their parent become ours, so that theirs can be counted
    ctypes.CDLL(None).prctl(_BECOME_REAPER, 1, 0, 0, 0)
    before = _children()
    subprocess.run(
        command, env={**os.environ, **environment}, check=True, stderr=subprocess.PIPE, cwd="/tmp"
    )
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    return _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
