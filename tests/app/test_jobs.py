"""The plan of a sweep: what was to run, how far each job is, and running again what did not end."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genopt.app import jobs as plans
from genopt.app.folder import STATES, StudyFolder
from genopt.app.jobs import (
    PlannedJob,
    is_sweep,
    quoted,
    read_jobs,
    record_jobs,
    record_submitted,
    repeated,
    rerun,
    sweeping,
)
from genopt.errors import GenoptError

SMALL = ["problem=plug_flow", "model=mixture", "model.max_components=2", "data.rows=60",
         "routine.samples=20", "figures=false", "logger=none", "progress=false"]  # fmt: skip
HOLDER = """
import sys
from genopt.app.jobs import sweeping
with sweeping(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
JOBS = [PlannedJob(i, f"mixture-{i}", (f"seed={i}", "model=mixture")) for i in range(5)]


def marked(root, folder, state):
    if state != "missing":
        (root / folder).mkdir(parents=True)
        # nobody holds its lock
        said = "running" if state == "interrupted" else state
        (root / folder / "status.json").write_text(json.dumps({"state": said}))


@pytest.fixture
def sweep(tmp_path):
    record_jobs(tmp_path, JOBS, command=["genopt", "-m", "seed=range(5)"])
    states = ("finished", "failed", "interrupted", "missing", "finished")
    for job, state in zip(JOBS, states, strict=True):
        marked(tmp_path, job.folder, state)
    return tmp_path


# -- the file --------------------------------------------------------------------------------------
words = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=3).map(tuple)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), words), max_size=12))
def test_a_plan_holds_each_folder_once_with_its_last_settings(tmp_path_factory, planned):
    root = tmp_path_factory.mktemp("sweep")
    expected = {}
    for number, (folder, overrides) in enumerate(planned):
        job = PlannedJob(number, str(folder), overrides)
        record_jobs(root, [job], command=["first" if number == 0 else "later"])
        if set(expected.get(str(folder), ())) != set(overrides) or not overrides:
            expected[str(folder)] = overrides
    if planned:
        sweep = read_jobs(root)
        assert [job.folder for job in sweep.jobs] == list(expected)
        assert {j.folder: set(j.overrides) for j in sweep.jobs} == {
            k: set(v) for k, v in expected.items()
        }
        assert sweep.command == ("first",)


def test_a_job_that_is_repeated_keeps_its_number_and_settings(sweep):
    before = read_jobs(sweep)
    again = PlannedJob(0, "mixture-3", tuple(repeated(JOBS[3], ["progress=false"])))
    assert again.overrides == ("seed=3", "model=mixture", "progress=false",
                               "hydra.sweep.subdir='mixture-3'")  # fmt: skip
    record_jobs(sweep, [again], command=["genopt-report", "--failed"])
    assert read_jobs(sweep) == before


def test_launchers_that_write_at_once_lose_nothing(tmp_path):
    def write(job):
        record_jobs(tmp_path, [job], command=[])

    threads = [threading.Thread(target=write, args=(job,)) for job in JOBS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {job.folder for job in read_jobs(tmp_path).jobs} == {job.folder for job in JOBS}


def test_a_folder_without_a_sweep_is_said_so(tmp_path):
    assert not is_sweep(tmp_path)
    with pytest.raises(GenoptError, match=r"neither sweep.json nor multirun.yaml"):
        read_jobs(tmp_path)


# -- how far ---------------------------------------------------------------------------------------
def test_states_and_what_is_left(sweep):
    found = read_jobs(sweep)
    assert list(found.states().values()) == [
        "finished", "failed", "interrupted", "missing", "finished",
    ]  # fmt: skip
    assert set(found.states().values()) <= set(STATES)
    assert [job.number for job in found.unfinished()] == [1, 2, 3]


def test_a_job_that_slurm_will_start_is_not_submitted_twice(sweep, monkeypatch):
    record_submitted(sweep, {"mixture-2": "9_2", "mixture-3": "9_3", "mixture-0": "9_0"})
    # 9_2 was sent back to the queue, 9_3 never began, 9_0 is over
    monkeypatch.setattr(plans, "slurm_states", lambda: {"9_2": "PENDING", "9_3": "CONFIGURING"})
    found = read_jobs(sweep)
    assert found.states()["mixture-2"] == found.states()["mixture-3"] == "queued"
    assert [job.number for job in found.unfinished()] == [1]
    monkeypatch.setattr(plans, "slurm_states", lambda: None)
    assert [job.number for job in found.unfinished()] == [1, 2, 3]


def test_what_a_living_command_will_start_is_not_started_by_another(sweep, monkeypatch):
    monkeypatch.setattr(plans, "_PATIENCE", 0.0)
    found = read_jobs(sweep)
    words = [sys.executable, "-c", HOLDER, str(sweep)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert found.states()["mixture-3"] == "queued"
        assert [job.number for job in found.unfinished()] == [1, 2]
        with pytest.raises(GenoptError, match=rf"already running in process {other.pid}"):
            rerun(sweep)
        other.kill()
    assert found.states()["mixture-3"] == "missing"
    # a command knows what it has yet to start itself
    with sweeping(sweep):
        assert found.states()["mixture-3"] == "missing"


def test_slurm_is_asked_only_where_jobs_were_submitted(sweep, monkeypatch):
    def asked():
        raise AssertionError

    monkeypatch.setattr(plans, "slurm_states", asked)
    read_jobs(sweep).states()


# -- running again ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "word",
    [
        "seed=3",
        "model=flow",
        "+callbacks.x=1",
        "~goal",
        "hydra/sweeper=optuna",
        "hydra.sweep.dir=x",
    ],
)
def test_a_word_that_would_change_the_studies_is_refused(sweep, word):
    with pytest.raises(GenoptError, match=r"would change the studies"):
        rerun(sweep, [word])


def test_nothing_runs_where_nothing_is_left(tmp_path, monkeypatch):
    record_jobs(tmp_path, JOBS[:1], command=[])
    marked(tmp_path, "mixture-0", "finished")
    monkeypatch.setattr(sys, "argv", ["genopt-report"])
    assert rerun(tmp_path, ["launcher=joblib", "hydra.job.name=x", "threads=2"]) == 0
    assert sys.argv == ["genopt-report"]


def test_what_was_said_to_hydra_is_said_again_but_for_the_launcher(sweep, monkeypatch):
    given = []
    monkeypatch.setattr("genopt.app.main.main", lambda: given.extend(sys.argv[1:]))
    command = ["genopt", "-m", "seed=range(5)", "--config-dir", "mine", "hydra.verbose=true",
               "hydra/launcher=slurm", "hydra.launcher.timeout_min=1", "launcher=slurm",
               "hydra.sweep.dir=x", "hydra.job.name=old"]  # fmt: skip
    manifest = json.loads((sweep / "sweep.json").read_text()) | {"command": command}
    (sweep / "sweep.json").write_text(json.dumps(manifest))
    assert rerun(sweep, ["launcher=joblib", "hydra.job.name=new"]) == 3
    assert given == [
        "--multirun", "--config-dir", "mine", "hydra.verbose=true", "launcher=joblib",
        "hydra.job.name=new", "hydra/sweeper=recorded", f"hydra.sweeper.folder='{sweep}'",
        f"hydra.sweep.dir='{sweep}'",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a b", "it's", "50%", "a\\b", "a\\'b\\", "k=1,2"])
def test_any_folder_can_be_given_to_hydra(name):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    read = OverridesParser.create().parse_override(f"hydra.sweep.subdir={quoted(name)}")
    assert read.value() == name
    assert not read.is_sweep_override()


@pytest.fixture(scope="module")
def finished_sweep(tmp_path_factory):
    """A sweep of three studies."""
    from genopt.app.main import main

    root = tmp_path_factory.mktemp("home") / "a sweep"
    line = ["genopt", "-m", *SMALL, "seed=0,1,2", "goal={F_A: 0.3}",
            f"hydra.sweep.dir={quoted(str(root))}"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", line)
        patch.chdir(root.parent)
        main()
    return root


@pytest.fixture
def real_sweep(finished_sweep, tmp_path, monkeypatch):
    """The same sweep, moved."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished_sweep, tmp_path / "moved sweep"))


@pytest.mark.e2e
def test_only_what_did_not_finish_runs_again_in_its_own_folder(real_sweep):
    planned = read_jobs(real_sweep)
    assert set(planned.states().values()) == {"finished"}
    assert [job.number for job in planned.jobs] == [0, 1, 2]
    first, second, third = (planned.study(job) for job in planned.jobs)
    truth = [study.read("metrics.json") for study in (first, second, third)]
    shutil.rmtree(second.path)
    (third.path / "metrics.json").unlink()
    third.mark(state="running", pid=1, host="nowhere")
    stamp = (first.path / "metrics.json").stat().st_mtime_ns
    model = (third.path / "model.ckpt").stat().st_mtime_ns
    # what Hydra leaves tells the same as our own plan
    (real_sweep / "sweep.json").rename(real_sweep.parent / "sweep.json")
    assert read_jobs(real_sweep).states() == planned.states()
    assert [j.folder for j in read_jobs(real_sweep).jobs] == [j.folder for j in planned.jobs]
    (real_sweep.parent / "sweep.json").rename(real_sweep / "sweep.json")

    here = Path.cwd()
    assert rerun(real_sweep, ["progress=false"]) == 2
    assert Path.cwd() == here
    assert set(planned.states().values()) == {"finished"}
    assert (first.path / "metrics.json").stat().st_mtime_ns == stamp
    # the interrupted one had trained
    assert (third.path / "model.ckpt").stat().st_mtime_ns == model
    for study, numbers in zip((first, second, third), truth, strict=True):
        found = study.read("metrics.json")
        assert {k: v for k, v in found.items() if not k.endswith("_seconds")} == {
            k: v for k, v in numbers.items() if not k.endswith("_seconds")
        }
        assert not (study.path / "previous").exists()
    assert read_jobs(real_sweep).jobs == planned.jobs
    assert rerun(real_sweep) == 0


@pytest.mark.e2e
def test_a_sweep_without_a_plan_is_read_off_hydras_files(real_sweep):
    planned = read_jobs(real_sweep)
    (real_sweep / "sweep.json").unlink()
    lost = planned.study(planned.jobs[1]).path
    shutil.rmtree(lost)
    found = read_jobs(real_sweep)
    assert [job.folder for job in found.jobs] == [job.folder for job in planned.jobs]
    assert [set(job.overrides) for job in found.jobs] == [set(j.overrides) for j in planned.jobs]
    assert found.states()[lost.name] == "missing"
    assert rerun(real_sweep) == 1
    assert StudyFolder(lost).state == "finished"
    assert read_jobs(real_sweep).jobs[1].folder == lost.name
