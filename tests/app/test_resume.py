"""A study that is killed while it trains goes on from its last checkpoint."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from .conftest import study_folder

pytestmark = pytest.mark.e2e
EPOCHS = 50


@pytest.mark.parametrize("model", ["multitask", "flow"])
def test_a_killed_training_goes_on_from_its_last_epoch(model, tmp_path):
    command = [
        sys.executable, "-m", "genopt.app.main", "problem=plug_flow", f"model={model}",
        f"model.epochs={EPOCHS}", "figures=false", "progress=false",
        # slow enough to be killed between two checkpoints, the same in both runs
        "+callbacks.slow._target_=tests.app.slow.Slow",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    first = subprocess.Popen(command, cwd=tmp_path, env=environment)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            written = list(tmp_path.rglob("last.ckpt"))
            if written and len(history(written[0])) >= 5:
                break
            time.sleep(0.05)
        assert first.poll() is None, "the study ended before it could be killed"
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    folder = study_folder(tmp_path, "plug_flow", model)
    assert not (folder / "model.ckpt").exists()
    before = len(history(folder / "checkpoints/last.ckpt"))

    second = subprocess.run(command, cwd=tmp_path, env=environment, timeout=300, check=False)
    assert second.returncode == 0
    entries = history(folder / "model.ckpt")
    assert [entry["epoch"] for entry in entries] == list(range(EPOCHS))
    logs = sorted((folder / "csv").glob("version_*/metrics.csv"))
    with logs[-1].open() as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row["epoch"]]
    assert min(epochs) >= before - 1
    assert (folder / "candidates.parquet").exists()
    assert not (folder / "previous").exists()


def history(path) -> list[dict[str, float]]:
    try:
        return list(torch.load(path, weights_only=True)["history"])
    except (OSError, RuntimeError, EOFError, KeyError):
        return []
