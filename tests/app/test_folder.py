"""The study's folder: whose it is, how far it is, and what a kill at any moment leaves."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genopt import Candidates, compose, run_study
from genopt.app import folder as folders
from genopt.app import lock
from genopt.app.folder import StudyFolder
from genopt.errors import GenoptError
from genopt.files import whole, write_whole

HOLDER = """
import sys, time
from pathlib import Path
from genopt.app.folder import StudyFolder
folder = StudyFolder(Path(sys.argv[1]))
with folder.claimed():
    folder.open("mark", False)
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


class Kill(BaseException):
    """Ends the process, as far as a test can."""


@pytest.fixture
def holder(tmp_path):
    """Start another process that runs the study for some seconds."""
    started = []

    def start(seconds: float = 60.0):
        words = [sys.executable, "-c", HOLDER, str(tmp_path), str(seconds)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


# -- one process at a time -------------------------------------------------------------------------
def test_a_study_runs_as_long_as_its_process_lives(tmp_path, holder):
    folder = StudyFolder(tmp_path)
    assert folder.state == "missing"
    process = holder()
    assert folder.state == "running"
    assert folder.status["pid"] == process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.status["state"] == "running"
    assert folder.state == "interrupted"


def test_a_second_process_is_refused_and_told_by_whom(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(folders, "_PATIENCE", 0.0)
    process = holder()
    before = StudyFolder(tmp_path).status
    with pytest.raises(GenoptError, match=rf"already running in process {process.pid} on ") as told:
        run_study(compose(["problem=plug_flow", "model=mixture", "data.rows=50"]), tmp_path)
    assert "\n" not in str(told.value)
    assert StudyFolder(tmp_path).status == before
    StudyFolder(tmp_path).refuse(told.value)
    assert StudyFolder(tmp_path).state == "running"


def test_who_waits_goes_on_when_the_other_one_ends(tmp_path, holder):
    holder(0.3)
    with StudyFolder(tmp_path).claimed():
        assert lock.owner_of(tmp_path / ".lock")["pid"] == os.getpid()
    assert lock.owner_of(tmp_path / ".lock") == {}


def test_many_may_look_while_one_starts(tmp_path, holder):
    process = holder()
    process.kill()
    process.wait()
    folder = StudyFolder(tmp_path)
    with (tmp_path / ".lock").open("rb") as file:
        lock._locked(file.fileno(), shared=True)
        assert folder.state == "interrupted"
    with folder.claimed():
        assert folder.state == "running"


@pytest.mark.parametrize(
    ("owner", "slurm", "alive"),
    [
        ({}, None, False),
        ({"host": "here", "pid": os.getpid()}, None, True),
        ({"host": "here", "pid": 2**22 + 1}, None, False),
        ({"host": "there", "pid": 1}, None, True),
        ({"host": "there", "pid": 1, "slurm": "7_0"}, {"7_0": "RUNNING"}, True),
        ({"host": "there", "pid": 1, "slurm": "7_0"}, {"7_0": "PENDING"}, False),
        ({"host": "there", "pid": 1, "slurm": "7_0"}, {"8": "RUNNING"}, False),
        ({"host": "there", "pid": 1, "slurm": "7_0"}, None, True),
        ({"host": "there", "pid": 1, "slurm": "5_1"}, None, False),
    ],
)
def test_without_locks_of_the_file_system_the_owner_decides(
    tmp_path, monkeypatch, owner, slurm, alive
):
    monkeypatch.setattr(lock, "_locked", lambda *_, **__: None)
    monkeypatch.setattr(lock, "slurm_states", lambda: slurm)
    me = {"host": "here", "pid": 5, "slurm": "5_1"}
    monkeypatch.setattr(lock, "this_process", lambda: me)
    path = tmp_path / ".lock"
    write_whole(path, json.dumps(owner))
    assert lock.lives(path, owner) is alive
    if alive:
        with pytest.raises(GenoptError, match="delete"), lock.held(path, "the study", 0.0):
            pass
    else:
        with lock.held(path, "the study", 0.0):
            assert lock.owner_of(path) == me


# -- states ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "finished"), (ValueError("no"), "failed"), (KeyboardInterrupt(), "interrupted"),
     (SystemExit(1), "interrupted")],
)  # fmt: skip
def test_how_a_study_ended(tmp_path, error, state):
    folder = StudyFolder(tmp_path)
    with folder.claimed():
        folder.open("mark", False)
        folder.end(error)
    assert folder.state == state
    assert folder.status.get("error") == ("no" if state == "failed" else None)
    assert not {"pid", "host"} & set(folder.status)
    assert folder.finished("mark") is (error is None)
    # what did not end goes on
    assert folder.open("mark", False) is (error is not None)


def test_an_error_before_the_study_is_kept_and_makes_no_old_results(tmp_path):
    folder = StudyFolder(tmp_path)
    folder.refuse(ValueError("no such column"))
    assert (folder.state, folder.status["error"]) == ("failed", "no such column")
    folder.open("mark", False)
    assert folder.state == "interrupted"
    assert not (tmp_path / "previous").exists()
    folder.end()
    folder.refuse(ValueError("later"))
    assert folder.state == "finished"


def test_a_repeated_study_that_slurm_starts_again_goes_on(tmp_path, monkeypatch):
    folder = StudyFolder(tmp_path)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert folder.open("mark", rerun=True) is False
    assert folder.status["slurm"] == "7_2"
    assert folder.open("mark", rerun=True) is True
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "8")
    assert folder.open("mark", rerun=True) is False


# -- kills -----------------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(kills=st.lists(st.integers(0, 6), max_size=5))
def test_files_of_another_study_are_never_taken_for_ones_own(tmp_path_factory, kills):
    path = tmp_path_factory.mktemp("study")
    folder = StudyFolder(path)
    names = ("candidates.parquet", "config.yaml", "model.ckpt", "zzz.txt")
    folder.open("old", False)
    for name in names:
        (path / name).write_text("old")
    for steps in [*kills, 10_000]:
        left = [steps]

        def move(source, target, left=left):
            if left[0] == 0:
                raise Kill
            left[0] -= 1
            os.rename(source, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folders.shutil, "move", move)
            try:
                folder.open("new", False)
                break
            except Kill:
                # as long as anything is left the folder is still the old study's
                assert folder.status["fingerprint"] == "old"
    assert folder.status["fingerprint"] == "new"
    assert {p.name for p in path.iterdir()} == {"previous", "status.json"}
    kept = [p.name for p in path.glob("previous/*/*")]
    assert sorted(kept) == sorted([*names, "status.json"])


def test_a_file_is_the_old_or_the_new_one_whenever_its_writer_is_killed(tmp_path):
    path = tmp_path / "file"
    text = "0" * 200_000
    write_whole(path, text)
    for number in range(1, 9):
        child = os.fork()
        if child == 0:
            while True:
                write_whole(path, str(number) * 200_000)
        time.sleep(0.002 * number)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        read = path.read_text()
        assert len(read) == 200_000
        assert len(set(read)) == 1

    def fails():
        with whole(path) as part:
            part.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert path.read_text() == read
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] in ([], [".part-file"])


@pytest.mark.e2e
def test_a_study_killed_again_and_again_ends_like_one_that_never_was(tmp_path, monkeypatch):
    words = ["problem=plug_flow", "model=mixture", "model.max_components=2", "data.rows=60",
             "routine.samples=20", "figures=false", "logger=none", "progress=false"]  # fmt: skip
    truth = run_study(compose(words), tmp_path / "whole", show=False)
    replace, end = os.replace, StudyFolder.end
    kills = 0
    for steps in (0, 2, 3, 5, 1, 4, 2, 7, 10_000):
        left = [steps]

        def one_step(source, target, left=left):
            if left[0] == 0:
                raise Kill
            left[0] -= 1
            replace(source, target)

        monkeypatch.setattr(os, "replace", one_step)
        # a process that is killed says nothing of its end
        monkeypatch.setattr(
            StudyFolder, "end", lambda s, e=None: None if isinstance(e, Kill) else end(s, e)
        )
        try:
            result = run_study(compose(words), tmp_path / "cut", show=False)
            break
        except Kill:
            kills += 1
            assert StudyFolder(tmp_path / "cut").state in ("interrupted", "missing")
    monkeypatch.undo()
    assert kills >= 5
    assert StudyFolder(tmp_path / "cut").state == "finished"
    assert without_times(result.metrics) == without_times(truth.metrics)
    designs = Candidates.load(tmp_path / "cut/candidates.parquet").to_frame()
    assert designs.equals(truth.candidates.to_frame())
    assert not (tmp_path / "cut/previous").exists()


def without_times(metrics):
    return {k: v for k, v in metrics.items() if not k.endswith("_seconds")}
