"""Launchers: what is checked before the first job, where jobs run, what a dead one leaves."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf
from tests.app.launching import make_launcher

from genopt.app.compose import full_words
from genopt.app.folder import StudyFolder
from genopt.app.jobs import read_jobs
from genopt.app.launch import local as launch_local
from genopt.app.launch import slurm as launch_slurm
from genopt.app.launch import submitit_jobs as launch_submitit
from genopt.app.launch.job import alone_in_slurm, sendable
from genopt.app.launch.shared import SweepEnd, varied_words, waits
from genopt.errors import GenoptError

REPOSITORY = Path(__file__).parents[2]
PRESETS = sorted(p.stem for p in (REPOSITORY / "conf/hydra/launcher").glob("*.yaml"))
STUDY = ["problem=plug_flow", "model=mixture", "data.rows=60", "progress=false"]
# jobs run in processes that cannot import this file
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def launcher(tmp_path):
    """Make a launcher of a sweep in ``sweep``."""
    before = HydraConfig.instance().cfg
    yield lambda name, task, *words: make_launcher(name, task, tmp_path / "sweep", *words)
    HydraConfig.instance().cfg = before


def report(config):
    """A task that says where it runs."""
    import os

    print(f"seed {config.seed} was here")
    return {
        "pid": os.getpid(),
        "seed": config.seed,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def fragile(config):
    """A task that fails for seed 1 and is killed for seed 2."""
    import os
    import signal

    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    if config.seed == 1:
        raise Odd("first", "second")
    if config.seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return float(config.seed)


def refuse(_config):
    raise AssertionError("no job may start")


def seeds(*values, more=()):
    return [[*STUDY, f"seed={value}", *more] for value in values]


# -- before the first job --------------------------------------------------------------------------
@pytest.mark.parametrize("name", PRESETS)
def test_presets_make_their_launchers(launcher, name):
    made = launcher(name, refuse)
    target = OmegaConf.select(made.config, "hydra.launcher._target_")
    assert f"{type(made).__module__}.{type(made).__name__}" == target


def test_all_bad_jobs_are_named_at_once_and_none_starts(launcher, tmp_path):
    jobs = [
        [*STUDY, "seed=0"],
        [*STUDY, "seed=1", "model.max_componets=3"],
        [*STUDY, "seed=many"],
        ["problem=table", "model=mixture"],
        [*STUDY, "seed=4", "encoder.dropout=0.1"],
        [*STUDY, "seed=5", "~goal", "+goal={F_A:1,yield:2}"],
    ]
    with pytest.raises(GenoptError) as error:
        launcher("basic", refuse).launch(jobs, 10)
    said = str(error.value)
    assert said.startswith("4 of 6 jobs cannot run; none has started:")
    assert "job 11 " in said
    assert "did you mean 'model.max_components'" in said
    assert "job 12 " in said
    assert "seed" in said
    assert "job 13 " in said
    assert "problem.path" in said
    assert "job 14 " in said
    assert "encoder.dropout has no effect" in said
    assert not (tmp_path / "sweep").exists()
    # columns are looked at where the settings of all jobs can be read
    with pytest.raises(GenoptError, match="unknown goal column 'yield'") as error:
        launcher("basic", refuse).launch([jobs[0], jobs[5]], 0)
    assert "1 of 2 jobs" in str(error.value)


def test_check_composition_leaves_the_study_to_the_job(launcher):
    made = launcher("basic", lambda _: 1.0, "hydra.launcher.check=composition")
    (outcome,) = made.launch([[*STUDY, "~goal", "+goal={yield:2}"]], 0)
    assert outcome.return_value == 1.0


def test_jobs_that_differ_in_seed_alone_are_built_once(launcher, monkeypatch):
    from genopt.app.setting import Setting

    built = []
    of = Setting.of.__func__
    monkeypatch.setattr(
        Setting, "of", classmethod(lambda cls, c: built.append(c.seed) or of(cls, c))
    )
    jobs = [*seeds(0, 1), *seeds(0, 1, more=["model.max_components=3"])]
    launcher("basic", lambda _: 0.0).launch(jobs, 0)
    assert built == [0, 0]


def test_jobs_that_would_share_a_folder_are_refused(launcher):
    jobs = [[*STUDY, "threads=1"], [*STUDY, "threads=2"]]
    with pytest.raises(GenoptError, match=r"has the folder mixture-[0-9a-f]+ of job 0"):
        launcher("basic", refuse).launch(jobs, 0)


def test_unknown_check_is_refused(launcher):
    with pytest.raises(Exception, match=r"hydra\.launcher\.check") as error:
        launcher("basic", refuse, "hydra.launcher.check=studies")
    assert "did you mean 'study'" in str(error.value)


def test_the_sweep_is_written_down_before_its_first_job(launcher, tmp_path):
    seen = []

    def look(_config):
        seen.append(len(read_jobs(tmp_path / "sweep").jobs))

    launcher("basic", look).launch(seeds(3, 4), 0)
    assert seen == [2, 2]
    jobs = read_jobs(tmp_path / "sweep").jobs
    assert [job.overrides[-1] for job in jobs] == ["seed=3", "seed=4"]
    assert all((tmp_path / "sweep" / job.folder / ".hydra").is_dir() for job in jobs)


def test_a_planned_grid_is_not_composed_again(launcher, monkeypatch):
    made = launcher("basic", lambda _: 0.0)
    made.plan(seeds(0, 1, 2), 0)
    monkeypatch.setattr("genopt.app.launch.check.composed", refuse)
    assert len(made.launch(seeds(0, 1), 0)) == 2
    assert len(made.launch(seeds(2), 2)) == 1


def test_words_that_vary_tell_jobs_apart():
    jobs = [["a=1", "b=2", "hydra.x=1"], ["a=1", "b=3"]]
    assert varied_words(jobs) == ["b=2", "b=3"]
    assert varied_words(jobs[:1]) == ["a=1 b=2"]


# -- failures --------------------------------------------------------------------------------------
def test_a_failed_job_neither_stops_the_others_nor_raises(launcher, capfd):
    made = launcher("basic", fragile)
    outcomes = made.launch(seeds(0, 1, 3), 0)
    assert [o.status for o in outcomes] == [
        JobStatus.COMPLETED,
        JobStatus.FAILED,
        JobStatus.COMPLETED,
    ]
    assert [o.return_value for o in outcomes][::2] == [0.0, 3.0]
    assert outcomes[1].return_value != outcomes[1].return_value
    assert "job 1 (seed=1) failed: Odd: first and second" in capfd.readouterr().err


def test_the_end_of_a_sweep_counts_what_is_not_finished(launcher, tmp_path):
    made = launcher("basic", lambda _: 0.0)
    made.launch(seeds(0, 1, 2), 0)
    sweep = read_jobs(tmp_path / "sweep")
    for job, state in zip(sweep.jobs, ("finished", "failed"), strict=False):
        StudyFolder(sweep.folder / job.folder).mark(state=state, error="no such column\nmore")
    with pytest.raises(SystemExit) as end:
        SweepEnd().on_multirun_end(made.config)
    said = str(end.value.code).splitlines()
    assert said[0] == "genopt: 2 of 3 jobs did not finish:"
    assert said[1] == "  job 1 (seed=1) failed: no such column"
    assert said[2] == "  job 2 (seed=2) missing"
    assert said[3].startswith(f"genopt-report {tmp_path}/sweep --failed")
    for job in sweep.jobs:
        StudyFolder(sweep.folder / job.folder).mark(state="finished")
    SweepEnd().on_multirun_end(made.config)


def test_errors_travel_as_text_where_they_cannot_be_read_elsewhere():
    error = GenoptError("plain")
    assert sendable(error) is error

    class Local(Exception):
        pass

    assert str(sendable(Local("deep"))) == "Local: deep"


# -- side by side ----------------------------------------------------------------------------------
@pytest.fixture
def light(monkeypatch):
    """A fork server without torch, where this process has none yet."""
    monkeypatch.setattr(launch_local, "_IMPORTS", "genopt.app.main")


@pytest.mark.usefixtures("light")
def test_joblib_gives_each_job_a_process_a_card_and_its_threads(launcher, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    made = launcher("joblib", report, "hydra.launcher.n_jobs=2")
    outcomes = made.launch(seeds(0, 1, 2, more=["threads=2"]), 0)
    said = [outcome.return_value for outcome in outcomes]
    assert [s["seed"] for s in said] == [0, 1, 2]
    assert len({s["pid"] for s in said} | {os.getpid()}) == 4
    assert {s["device"] for s in said} == {"3", "5"}
    assert {s["threads"] for s in said} == {"2"}
    logs = [log.read_text() for log in (tmp_path / "sweep/logs").glob("*.log")]
    assert sorted(logs) == [f"seed {seed} was here\n" for seed in range(3)]


@pytest.mark.usefixtures("light")
def test_a_killed_job_takes_no_other_with_it(launcher):
    outcomes = launcher("joblib", fragile, "hydra.launcher.n_jobs=2").launch(seeds(*range(5)), 0)
    assert [o.status == JobStatus.COMPLETED for o in outcomes] == [True, False, False, True, True]
    assert [o.return_value for o in outcomes][3:] == [3.0, 4.0]
    assert str(outcomes[1].error) == "Odd: first and second"
    assert "killed by signal 9" in str(outcomes[2].error)


SLEEPERS = """
import os, sys, time
from pathlib import Path
from genopt.app.launch import local as launch_local
from tests.app.launching import make_launcher

launch_local._IMPORTS = "genopt.app.main"

def sleep(config):
    Path(config.paths.outputs, f"pid-{os.getpid()}").touch()
    time.sleep(300)

if __name__ == "__main__":
    root = sys.argv[1]
    words = ["hydra.launcher.n_jobs=2", "hydra.launcher.check=composition"]
    jobs = [["problem=plug_flow", "model=mixture", f"paths.outputs={root}", f"seed={n}"]
            for n in range(2)]
    make_launcher("joblib", sleep, f"{root}/sweep", *words).launch(jobs, 0)
"""


def test_jobs_end_with_a_launcher_that_is_killed(tmp_path):
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    launching = subprocess.Popen(
        [sys.executable, str(tmp_path / "sleepers.py"), str(tmp_path)], env=environment
    )
    _until(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
    launching.send_signal(signal.SIGKILL)
    launching.wait()
    pids = [int(path.name.partition("-")[2]) for path in tmp_path.glob("pid-*")]
    _until(lambda: all(_gone(pid) for pid in pids))


def _until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def _gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("n_jobs", "threads", "cards", "on_gpu", "count", "expected"),
    [
        (None, 1, 0, False, 99, 8),
        (None, 3, 0, False, 99, 2),
        (None, 16, 0, False, 99, 1),
        (None, 1, 2, True, 99, 2),
        (None, 1, 2, False, 99, 8),
        (None, 1, 0, False, 3, 3),
        (5, 4, 0, False, 99, 5),
        (5, 1, 0, False, 2, 2),
    ],
)
def test_places(monkeypatch, n_jobs, threads, cards, on_gpu, count, expected):
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    trainer = {"accelerator": "gpu" if on_gpu else "cpu"}
    job = SimpleNamespace(threads=threads, config=OmegaConf.create({"trainer": trainer}))
    assert launch_local.places([job] * count, n_jobs, cards) == expected


def test_no_places_are_refused():
    with pytest.raises(GenoptError, match=r"n_jobs must be at least 1"):
        launch_local.places([], 0, 0)


def test_cards_of_the_user_are_kept(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert launch_local.graphics_cards() == ["GPU-a", "GPU-b"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch_local.graphics_cards() == []


# -- submitit --------------------------------------------------------------------------------------
def test_submitit_local_runs_jobs_and_survives_a_killed_one(launcher):
    pytest.importorskip("submitit")
    made = launcher("submitit_local", fragile, "hydra.launcher.n_jobs=2")
    outcomes = made.launch(seeds(0, 1, 2), 0)
    assert [o.status == JobStatus.COMPLETED for o in outcomes] == [True, False, False]
    assert outcomes[0].return_value == 0.0
    assert str(outcomes[1].error) == "Odd: first and second"
    assert "its process died" in str(outcomes[2].error)


@pytest.fixture
def no_ray_left():
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@pytest.mark.e2e
@pytest.mark.usefixtures("no_ray_left")
def test_ray_runs_jobs_and_survives_a_killed_one(launcher):
    pytest.importorskip("ray")
    with pytest.raises(GenoptError, match=r"hydra\.launcher\.gpus_per_job=99, but there are"):
        launcher("ray", refuse, "hydra.launcher.gpus_per_job=99").launch(seeds(0), 0)
    made = launcher("ray", fragile, "hydra.launcher.num_cpus=2", "hydra.launcher.max_retries=0")
    outcomes = made.launch(seeds(0, 1, 2), 0)
    assert [o.status == JobStatus.COMPLETED for o in outcomes] == [True, False, False]
    assert outcomes[0].return_value == 0.0
    assert str(outcomes[1].error) == "Odd: first and second"
    assert "its process died" in str(outcomes[2].error)
    assert made.planned[0].log.exists()


FAKES = {
    "sbatch": 'cp "$1" "$FAKE/batch.sh"; echo x >>"$FAKE/calls"; echo "Submitted batch job 77"',
    "srun": "true",
    "squeue": 'cat "$FAKE/queue" 2>/dev/null || true',
    "sacct": 'echo "OUT_OF_MEMORY"',
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of Slurm that only write down what they are asked."""
    pytest.importorskip("submitit")
    folder = tmp_path / "fake"
    folder.mkdir()
    for name, lines in FAKES.items():
        (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    return folder


def test_slurm_submits_one_array_and_returns(slurm, tmp_path):
    words = [*STUDY, "seed=0,1,2,3", "launcher=slurm", "launcher.partition=big", "threads=3"]
    words += ["launcher.array_parallelism=2", "launcher.timeout_min=90", "launcher.mem_gb=4"]
    words += ["launcher.setup=['module load cuda']", "launcher.gpus_per_node=1"]
    words += ["+launcher.additional_parameters.mail-type=END", f"hydra.sweep.dir={tmp_path}/sweep"]
    code = (
        "import sys, genopt.app.main as m\n"
        "m.main()\n"
        "heavy = {'torch', 'pandas', 'pytorch_lightning', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "submitted 4 jobs to Slurm as 77, at most 2 at a time" in run.stderr
    batch = (slurm / "batch.sh").read_text()
    wanted = ["array=0-3%2", "time=90", "partition=big", "cpus-per-task=3", "mem=4GB"]
    wanted += ["gpus-per-node=1", "mail-type=END", "signal=USR2@120"]
    for flag in wanted:
        assert f"#SBATCH --{flag}\n" in batch
    assert "\nmodule load cuda\n" in batch
    jobs = json.loads((tmp_path / "sweep/sweep.json").read_text())["jobs"]
    assert [job["slurm"] for job in jobs] == [f"77_{n}" for n in range(4)]
    # what is pickled is the whole job
    submitted = sorted((tmp_path / "sweep/.submitit").glob("77_*/*_submitted.pkl"))
    assert len(submitted) == 4
    with submitted[1].open("rb") as file:
        assert pickle.load(file).function.job.overrides[4] == "seed=1"


def test_jobs_that_slurm_has_already_are_not_submitted_again(slurm, launcher, capfd):
    made = launcher("slurm", refuse)
    outcomes = made.launch(seeds(0, 1), 0)
    assert {o.status for o in outcomes} == {JobStatus.UNKNOWN}
    assert all(o.return_value != o.return_value for o in outcomes)
    (slurm / "queue").write_text("77_0 PENDING\n77_1 RUNNING\n")
    launcher("slurm", refuse).launch(seeds(0, 1), 0)
    assert (slurm / "calls").read_text() == "x\n"
    assert "2 jobs are queued or running already" in capfd.readouterr().err


def test_waiting_ends_for_results_and_for_jobs_that_slurm_lost(slurm, launcher):
    made = launcher("slurm", refuse, "hydra.launcher.wait=true", "hydra.launcher.poll_s=0.01")
    (slurm / "queue").write_text("77_0 RUNNING\n")
    folder = Path(made.config.hydra.sweep.dir) / ".submitit"
    looks = []

    def queued(look=launch_slurm.queued):
        looks.append(1)
        if len(looks) == 3:
            # one job leaves its result, the other vanishes
            outcome = launch_slurm._unknown(made.planned[0])
            outcome.status, outcome.return_value = JobStatus.COMPLETED, 1.5
            path = folder / "77_0/77_0_0_result.pkl"
            path.write_bytes(cloudpickle.dumps(("success", outcome)))
            (slurm / "queue").write_text("")
        return look()

    launch_slurm.queued, before = queued, launch_slurm.queued
    try:
        first, second = made.launch(seeds(0, 1), 0)
    finally:
        launch_slurm.queued = before
    assert first.return_value == 1.5
    assert "Slurm ended job 77_1 (OUT_OF_MEMORY)" in str(second.error)
    assert len(looks) <= 6


def test_a_slurm_that_does_not_answer_loses_no_job(slurm):
    (slurm / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert launch_slurm.queued() is None
    (slurm / "squeue").write_text("#!/bin/sh\nprintf '7_0 RUNNING\\n8 PENDING\\n'\n")
    assert launch_slurm.queued() == {"7_0": "RUNNING", "8": "PENDING"}


@pytest.mark.parametrize(
    ("wait", "sweeper", "expected"),
    [(None, "GridSweeper", False), (None, "SearchSweeper", True), (True, "GridSweeper", True)],
)
def test_a_sweeper_that_needs_results_waits_for_them(wait, sweeper, expected):
    node = {"launcher": {"wait": wait}, "sweeper": {"_target_": f"somewhere.{sweeper}"}}
    assert waits(OmegaConf.create({"hydra": node})) is expected
    node["launcher"]["wait"] = False
    config = OmegaConf.create({"hydra": node})
    if sweeper == "SearchSweeper":
        with pytest.raises(GenoptError, match=r"wait=false cannot be"):
            waits(config)
    else:
        assert waits(config) is False


def test_missing_packages_and_commands_are_named(monkeypatch, launcher):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(GenoptError, match=r"pip install 'genopt\[slurm\]'"):
        launcher("submitit_local", refuse).launch(seeds(0), 0)
    with pytest.raises(GenoptError, match=r"pip install 'genopt\[ray\]'"):
        launcher("ray", refuse).launch(seeds(0), 0)
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(GenoptError, match="there is no sbatch"):
        launch_submitit.check_cluster("slurm")


def test_a_job_of_one_task_is_no_rank(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    alone_in_slurm()
    assert "SLURM_NTASKS" not in os.environ
    monkeypatch.setenv("SLURM_NTASKS", "2")
    alone_in_slurm()
    assert os.environ["SLURM_NTASKS"] == "2"


# -- the command line ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["launcher=slurm", "seed=1"], ["--multirun", "hydra/launcher=slurm", "seed=1"]),
        (["-m", "launcher.n_jobs=2"], ["-m", "hydra.launcher.n_jobs=2"]),
        (["+launcher.setup=[]"], ["+hydra.launcher.setup=[]"]),
        (["problem=launcher"], ["problem=launcher"]),
        (["-m", "sweeper=optuna"], ["-m", "hydra/sweeper=optuna"]),
    ],
)
def test_short_words(given, meant):
    assert full_words(given) == meant


def test_the_wheel_holds_the_plugins():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert "src/hydra_plugins" in packages
    # a file of that name would hide the plugins of others
    assert not (REPOSITORY / "src/hydra_plugins/__init__.py").exists()


@pytest.mark.e2e
def test_studies_side_by_side_with_one_that_fails(tmp_path):
    words = ["launcher=joblib", "launcher.n_jobs=2", "launcher.check=composition", "seed=0,1"]
    words += ["problem=plug_flow", "model=mixture", "model.max_components=2", "data.rows=60,3"]
    run = subprocess.run(
        [sys.executable, "-m", "genopt.app.main", *words, "figures=false", "hydra.sweep.dir=sweep"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "job 3 (seed=1 data.rows=3) failed: " in run.stderr
    assert "2 of 4 jobs did not finish" in run.stderr
    states = read_jobs(tmp_path / "sweep").states()
    assert sorted(states.values()) == ["failed", "failed", "finished", "finished"]
    assert "best distinct designs" in run.stdout


def test_the_status_of_a_process_is_read_by_one_thread_at_a_time():
    # starting a process polls the others, so reading a status elsewhere meanwhile would lose it
    receive, send = multiprocessing.Pipe(duplex=False)
    held = []

    class Ended:
        sentinel = receive

        def join(self):
            held.append(launch_local._REAPING.locked())

    send.close()
    launch_local._join(Ended())
    assert held == [True]
    assert not launch_local._REAPING.locked()
