"""`genopt-report`: what it prints and writes, and how its command line is read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from omegaconf import OmegaConf

from genopt.app import report as reporting
from genopt.app.dashboard import watch as watching
from genopt.app.dashboard.gather import Study
from genopt.app.dashboard.terminal import labels_of
from genopt.app.jobs import PlannedJob, record_jobs
from genopt.app.report import SweepReport, main, report
from genopt.errors import GenoptError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A real study."""
    folder = tmp_path_factory.mktemp("real") / "mixture-0"
    words = ["problem=plug_flow", "model=mixture", "model.max_components=2", "data.rows=60"]
    more = ["progress=false", "figures=false", f"hydra.run.dir={folder}"]
    command = [sys.executable, "-m", "genopt.app.main", *words, *more]
    subprocess.run(command, check=True, capture_output=True, timeout=300, cwd=folder.parent)
    shutil.rmtree(folder / ".hydra")
    return folder


@pytest.fixture
def sweep(finished, tmp_path):
    """Two finished studies, one that failed, one that never began."""
    jobs = []
    for seed in range(4):
        folder = tmp_path / f"mixture-{seed}"
        words = ("model=mixture", f"seed={seed}")
        jobs.append(PlannedJob(seed, folder.name, words))
        if seed < 2:
            shutil.copytree(finished, folder)
        if seed < 3:
            (folder / ".hydra").mkdir(parents=True)
            (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(list(words)))
    failed = {"state": "failed", "error": "the loss is nan", "started": "2026-01-01T00:00:00"}
    (tmp_path / "mixture-2" / "status.json").write_text(json.dumps(failed))
    record_jobs(tmp_path, jobs, command=["genopt", "-m"])
    return tmp_path


@pytest.fixture
def command(monkeypatch):
    """Run the command line; returns its exit."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["genopt-report", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    return run


def test_a_report_prints_and_writes_what_was_found(sweep, command, capsys):
    assert command(sweep) == 0
    said = capsys.readouterr().out
    assert "mixture seed=0" in said
    assert "mixture seed=1" in said
    assert "best simulated" in said
    assert "4 studies: 2 finished, 1 failed, 1 missing" in said
    assert "the loss is nan" in said
    assert "--failed" in said
    designs = pd.read_csv(sweep / "report.csv")
    top = pd.read_csv(sweep / "mixture-0" / "top.csv")
    own = designs[designs["model"] == "mixture seed=0"].reset_index(drop=True)
    # the rows without a number make a column of whole numbers one of fractions
    pd.testing.assert_frame_equal(own[top.columns], top, check_dtype=False)
    numbers = pd.read_csv(sweep / "metrics.csv").set_index("study")
    metrics = json.loads((sweep / "mixture-1" / "metrics.json").read_text())
    for name, value in metrics.items():
        assert numbers.loc["mixture-1", name] == pytest.approx(value)
    states = pd.read_parquet(sweep / "studies.parquet").set_index("folder")["state"]
    assert states.to_dict() == {
        "mixture-0": "finished",
        "mixture-1": "finished",
        "mixture-2": "failed",
        "mixture-3": "missing",
    }
    assert (sweep / "report.html").stat().st_size > 4e6
    assert (sweep / "plug_flow.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_of_what_has_not_finished(sweep, command, capsys):
    for seed in (0, 1):
        shutil.rmtree(sweep / f"mixture-{seed}")
    out = sweep / "elsewhere"
    assert command(sweep, "--out", out) == 0
    assert "4 studies: 1 failed, 3 missing" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["report.html", "studies.parquet"]


def test_numbers_without_designs_are_on_the_page(sweep, command, capsys):
    (sweep / "mixture-0" / "candidates.parquet").unlink()
    assert command(sweep) == 0
    said = capsys.readouterr().out
    assert "mixture:" in said
    assert "2 finished" in said
    frame = pd.read_parquet(sweep / "studies.parquet").set_index("folder")
    assert frame.loc["mixture-0", "verified/best_loss"] > 0


def test_several_folders_are_reported_where_the_user_is(sweep, finished, monkeypatch, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    page = report(sweep, finished.parent)
    assert page is not None
    assert page.parent == here
    assert len(pd.read_parquet(here / "studies.parquet")) == 5


def test_many_studies_are_not_all_printed(finished, tmp_path, capsys):
    for number in range(14):
        shutil.copytree(finished, tmp_path / f"mixture-{number:02d}")
        metrics = json.loads((finished / "metrics.json").read_text())
        metrics["verified/best_loss"] = float(100 - number)
        (tmp_path / f"mixture-{number:02d}" / "metrics.json").write_text(json.dumps(metrics))
    report(tmp_path)
    said = capsys.readouterr().out
    assert "the best 12 of 14 studies are shown" in said
    assert "mixture 00:" not in said
    assert "mixture 13:" in said
    assert pd.read_csv(tmp_path / "report.csv")["model"].nunique() == 15


def test_a_report_without_plotly_is_still_a_report(sweep, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.warns(UserWarning, match="pip install plotly"):
        assert report(sweep) is None
    assert "report.html" not in capsys.readouterr().out
    assert (sweep / "studies.parquet").exists()
    assert (sweep / "report.csv").exists()


def test_the_end_of_a_multirun(sweep, tmp_path):
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}})
    SweepReport().on_multirun_end(config)
    assert (sweep / "report.html").exists()
    # jobs that were only submitted have nothing to report, and a folder may not be there yet
    waiting = tmp_path / "waiting"
    record_jobs(waiting, [PlannedJob(0, "a", ("seed=0",))], command=[])
    for folder in (waiting, tmp_path / "nowhere"):
        SweepReport().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}))
    assert not (waiting / "report.html").exists()


def test_labels_name_what_differs():
    def one(number, model, *words):
        return Study(Path(f"{model}-{number}"), "", "finished", model=model, overrides=words)

    studies = [
        one(0, "flow", "model=flow", "seed=0"),
        one(1, "mixture", "model=mixture", "data.rows=5", "seed=0"),
        one(2, "mixture", "model=mixture", "data.rows=6", "seed=0"),
        one(3, "multitask", "seed=0"),
        one(4, "multitask", "seed=0"),
        one(5, "none"),
        one(6, "none"),
    ]
    labels = labels_of(studies)
    assert [labels[study.id] for study in studies] == [
        "flow",
        "mixture rows=5",
        "mixture rows=6",
        "multitask 3",
        "multitask 4",
        "none 5",
        "none 6",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give the folder of a sweep"),
        (("nowhere",), "nowhere is no folder"),
        ((".",), "no study below"),
        ((".", "hydra/launcher=joblib"), "'hydra/launcher=joblib' sets something for jobs"),
        ((".", "--watch", "--port", "99999"), "--port wants a number from 0 to 65535, not 99999"),
        ((".", "--compare"), "--compare wants two folders, not 1"),
    ],
)
def test_a_mistake_is_one_line(command, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    said = command(*words)
    assert said.startswith("genopt-report: ")
    assert message in said
    assert "\n" not in said


def test_failed_jobs_run_again_with_a_launcher(sweep, command, monkeypatch, capsys):
    asked = []

    def rerun(folder, words=()):
        asked.append((folder, list(words)))
        return len(asked) - 1

    monkeypatch.setattr("genopt.app.jobs.rerun", rerun)
    assert command(sweep, "--failed", "hydra/launcher=joblib", "progress=false") == 0
    assert asked == [(sweep, ["hydra/launcher=joblib", "progress=false"])]
    assert "nothing to run again" in capsys.readouterr().out
    assert command("--failed", sweep) == 0
    assert "nothing to run again" not in capsys.readouterr().out


def test_a_sweep_is_summed_up_for_wandb(sweep, command, monkeypatch, capsys):
    told = iter([sweep / "wandb", None])
    monkeypatch.setattr("genopt.app.logs.sweep.summarise", lambda _: next(told))
    assert command(sweep, "--wandb") == 0
    assert f"written to {sweep / 'wandb'}" in capsys.readouterr().out
    assert command(sweep, "--wandb") == 0
    assert "nothing new" in capsys.readouterr().out


def test_two_studies_are_compared(sweep, command, capsys):
    changed = json.loads((sweep / "mixture-1" / "metrics.json").read_text())
    changed["verified/best_loss"] = 123.0
    (sweep / "mixture-1" / "metrics.json").write_text(json.dumps(changed))
    assert command("--compare", sweep / "mixture-0", sweep / "mixture-1") == 0
    said = capsys.readouterr().out
    assert "verified/best_loss" in said
    assert "123" in said


def test_watching_says_where_and_ends_with_control_c(sweep, command, monkeypatch, capsys):
    interrupted = mock.Mock(side_effect=KeyboardInterrupt)
    opened = []
    monkeypatch.setattr(watching.ThreadingHTTPServer, "serve_forever", interrupted)
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert command(sweep, "--watch", "--port", 0, "--open") == 0
    (url,) = opened
    assert url.startswith("http://127.0.0.1:")
    assert url in capsys.readouterr().out


def test_the_page_is_opened_when_asked(sweep, command, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert command(sweep, "--open") == 0
    assert opened == [(sweep / "report.html").resolve().as_uri()]


def test_no_study_is_an_error_from_python_too(tmp_path):
    with pytest.raises(GenoptError, match="no study below"):
        report(tmp_path)


def test_the_place_of_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = Path("one"), Path("two")
    assert reporting.place_of([one], None) == one
    assert reporting.place_of([one, two], None) == tmp_path
    assert reporting.place_of([one, two], two) == two
