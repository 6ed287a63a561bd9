"""Studies with tiny budgets."""

import subprocess
import sys
from pathlib import Path

import pytest

TINY = {
    "mixture": ["model=mixture", "model.max_components=4"],
    "multitask": [
        "model=multitask",
        "model.epochs=3",
        "routine.starts=4",
        "routine.restarts=2",
        "routine.steps=5",
    ],
    "flow": ["model=flow", "model.epochs=2", "network.width=16", "network.depth=1"],
}
SMALL = ["data.rows=120", "progress=false"]


@pytest.fixture
def genopt(tmp_path, monkeypatch):
    """Run the command line in an empty folder; returns the finished process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "genopt.app.main", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=tmp_path,
            check=False,
        )

    return run


def study_folder(root: Path, problem: str, model: str) -> Path:
    (folder,) = (root / "outputs" / problem).glob(f"{model}-*")
    return folder
