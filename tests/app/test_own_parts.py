"""The parts of one's own in CONTRIBUTING.md run as they are written there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.e2e
GUIDE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def test_problem_encoder_and_routine_of_ones_own(tmp_path):
    blocks = re.findall(
        r"```(?:python|yaml)\n# (\S+\.(?:py|yaml))\n(.*?)```", GUIDE.read_text(), re.S
    )
    assert len(blocks) == 6
    for name, text in blocks:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = subprocess.run(
        [
            sys.executable, "-m", "genopt.app.main", "--config-dir", "myconf", "problem=parabola",
            "model=multitask", "encoder=mine", "routine=random_search", "model.epochs=40",
            "data.rows=200", "progress=false", "logger=none",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (top,) = tmp_path.rglob("top.csv")
    # height = u^2 = 1 at u = -1 and u = 1
    assert pd.read_csv(top)["u"].abs().iloc[0] == pytest.approx(1.0, abs=0.05)
    assert "2 of" in done.stdout or "designs reach the goal (verified)" in done.stdout
