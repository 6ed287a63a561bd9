"""A real cluster: an array is submitted, a job is killed, another goes back to the queue.

Skipped where no cluster answers; ``scripts/slurm_one_node.sh up`` starts one.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
EPOCHS = 60


def _cluster():
    """Why there is no cluster; None where one answers."""
    if shutil.which("sinfo") is None:
        return "no Slurm on this machine: scripts/slurm_one_node.sh up starts one"
    try:
        said = subprocess.run(
            ["sinfo", "--noheader", "--format", "%T"], capture_output=True, text=True, timeout=10
        )
    except subprocess.TimeoutExpired:
        return "Slurm does not answer"
    if not {"idle", "mixed", "allocated"} & {word.strip("*~#") for word in said.stdout.split()}:
        return "Slurm has no node that is up"
    return None


REASON = _cluster()
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.e2e,
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]
COMMAND = [
    sys.executable, "-m", "genopt.app.main", "launcher=slurm", "launcher.mem_gb=1",
    "problem=plug_flow", "model=multitask", f"model.epochs=2,{EPOCHS}", "seed=0,1",
    "data.rows=120", "routine.starts=4", "routine.restarts=2", "routine.steps=5",
    "figures=false", "+callbacks.slow._target_=tests.app.slow.Slow", "hydra.sweep.dir=sweep",
]  # fmt: skip


def until(true, what, seconds=180):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.3)


def asked(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def jobs(root):
    """The planned jobs by (epochs, seed)."""
    found = {}
    for job in json.loads((root / "sweep.json").read_text())["jobs"]:
        words = dict(word.split("=", 1) for word in job["overrides"])
        found[int(words["model.epochs"]), int(words["seed"])] = job
    return found


def status(root, job):
    try:
        return json.loads((root / job["folder"] / "status.json").read_text())
    except FileNotFoundError:
        return {"state": "missing"}


def state(root, job):
    return status(root, job)["state"]


def first_epochs(root, job):
    """The first epoch that each process of a study trained."""
    out = []
    for log in sorted((root / job["folder"] / "csv").glob("version_*/metrics.csv")):
        with log.open() as file:
            out.append(min(int(row["epoch"]) for row in csv.DictReader(file) if row["epoch"]))
    return out


@pytest.fixture
def environment():
    # the nodes import the callback from here
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def test_an_array_loses_a_job_requeues_one_and_goes_on(tmp_path, environment):
    root = tmp_path / "sweep"
    waiting = subprocess.Popen(
        [*COMMAND, "launcher.wait=true", "launcher.poll_s=1"],
        cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        until(lambda: (root / "sweep.json").exists(), "the plan")
        until(lambda: all("slurm" in job for job in jobs(root).values()), "the submission")
        slow = [jobs(root)[EPOCHS, seed] for seed in (0, 1)]
        assert len({job["slurm"].partition("_")[0] for job in jobs(root).values()}) == 1
        for job in slow:
            last = root / job["folder"] / "checkpoints/last.ckpt"
            until(last.exists, "a checkpoint", 300)
        killed, requeued = slow
        os.kill(status(root, killed)["pid"], signal.SIGKILL)
        # the signal of a time limit
        subprocess.run(["scancel", "--signal=USR2", requeued["slurm"]], check=True)
        until(lambda: "PENDING" in asked("squeue", "-h", "-r", "-j", requeued["slurm"], "-o", "%T"),
              "the queue")  # fmt: skip
        # Slurm would hold it for two minutes; a node refuses a job that it ended in the same second
        time.sleep(3)
        subprocess.run(
            ["scontrol", "update", f"jobid={requeued['slurm']}", "starttime=now"], check=True
        )
        output, errors = waiting.communicate(timeout=300)
    finally:
        waiting.kill()
    assert waiting.returncode == 1, errors
    assert f"Slurm ended job {killed['slurm']}" in errors
    assert "1 of 4 jobs did not finish" in errors
    assert "srun" not in output
    assert state(root, requeued) == "finished"
    first, *_, last = first_epochs(root, requeued)
    assert first == 0
    assert last > 0
    assert all(state(root, jobs(root)[2, seed]) == "finished" for seed in (0, 1))

    # the same command goes on; what is finished is found so
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/metrics.json")}
    again = subprocess.run(
        [*COMMAND, "launcher.wait=true", "launcher.poll_s=1"],
        cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=400, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert state(root, killed) == "finished"
    assert first_epochs(root, killed)[-1] > 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(root.glob("*/metrics.json"))) == 4


def test_a_limit_of_time_that_is_too_short_ends(tmp_path, environment):
    """A study that may not go back to the queue fails, and says so."""
    root = tmp_path / "sweep"
    words = [word for word in COMMAND if not word.startswith(("model.epochs", "seed"))]
    submitted = subprocess.run(
        [*words, "model.epochs=600", "launcher.requeue=0", "launcher.timeout_min=1",
         "launcher.signal_delay_s=20"],
        cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    (job,) = json.loads((root / "sweep.json").read_text())["jobs"]
    assert f"squeue -j {job['slurm']}" in submitted.stderr
    try:
        until(lambda: state(root, job) == "failed", "the limit of time", 200)
    finally:
        subprocess.run(["scancel", job["slurm"]], check=False)
    assert "timed-out too many times" in status(root, job)["error"]
