"""What trackers are told of a study, read back with their own readers; and that nothing else is."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from genopt.app.compose import compose
from genopt.app.logs.config import told_config
from genopt.app.logs.loggers import check_loggers, opened
from genopt.errors import GenoptError

from .conftest import SMALL, TINY, study_folder

SWEEP = ["problem=plug_flow", "model=mixture", *SMALL, "reach=0", "figures=false"]


def records(folder: Path) -> list[dict]:
    """The records of an offline run, as W&B itself reads them."""
    (run,) = folder.glob("*.wandb")
    done = subprocess.run(
        [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", run],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_kind(found: list[dict], kind: str) -> list[dict]:
    return [record[kind] for record in found if record["type"] == kind]


def merged(found: list[dict], kind: str) -> dict:
    out: dict = {}
    for record in of_kind(found, kind):
        out |= record.get("update", {})
    return out


# -- one study, every logger -----------------------------------------------------------------------
@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study in a process of its own that notes every address it looks up or connects to."""
    root = tmp_path_factory.mktemp("study")
    home = root / "home"
    home.mkdir()
    (root / "spy.py").write_text(
        "import sys\n"
        "def note(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname'):\n"
        "        # a socket is the first argument of connect\n"
        "        where = arguments[1] if event == 'socket.connect' else arguments[0]\n"
        "        open('spied.txt', 'a').write(f'{where}\\n')\n"
        "sys.addaudithook(note)\n"
        "sys.argv[0] = 'genopt'\n"
        "from genopt.app.main import main\n"
        "main()\n"
    )
    # what writes the files is another program: it honours a proxy, and here that is a dead one
    environment = {
        **os.environ,
        "HOME": str(home),
        "WANDB_API_KEY": "f" * 40,
        "SECRET_CASE": "S1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "MPLCONFIGDIR": str(root / "mpl"),
    }
    done = subprocess.run(
        [
            sys.executable, "spy.py", *TINY["multitask"], *SMALL, "problem=plug_flow", "reach=0",
            "logger=[csv,tensorboard,wandb,mlflow]", "problem.case=${oc.env:SECRET_CASE}",
            "logger.wandb.tags=[mine]", "logger.wandb.notes=a note",
        ],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return study_folder(root, "plug_flow", "multitask"), root, done


@pytest.fixture(scope="module")
def run(study):
    (folder,) = (study[0] / "wandb").glob("offline-run-*")
    return records(folder)


@pytest.mark.e2e
def test_an_offline_run_says_what_the_study_was_and_found(study, run):
    folder, *_ = study
    (head,) = of_kind(run, "run")
    digits = folder.name.rpartition("-")[2]
    assert head["display_name"] == f"plug_flow-multitask-seed0-{digits}"
    assert head["run_group"] == "plug_flow"
    assert head["job_type"] == "optimize_latent_candidates"
    assert head["tags"] == ["mine"]
    assert head["notes"] == "a note"
    config = merged(run, "config")
    assert config["model"]["epochs"] == 3
    assert config["routine"]["starts"] == 4
    # one row for each epoch with its loss
    history = of_kind(run, "history")
    losses = [record["item"] for record in history if "train/loss" in record["item"]]
    assert [entry["epoch"] for entry in losses] == [0, 1, 2]
    told = json.loads((folder / "history.json").read_text())
    assert losses[-1]["train/loss"] == pytest.approx(told[-1]["train/loss"], rel=1e-5)
    summary = merged(run, "summary")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics
    for name, value in metrics.items():
        assert summary[f"result/{name}"] == pytest.approx(value, rel=1e-9), name
    assert summary["verdict"] == json.loads((folder / "status.json").read_text())["verdict"]
    (end,) = of_kind(run, "exit")
    assert end.get("exit_code", 0) == 0


@pytest.mark.e2e
def test_designs_figures_and_models_are_with_the_run(study, run):
    folder, *_ = study
    (wandb,) = (folder / "wandb").glob("offline-run-*")
    (table,) = (wandb / "files/media/table").glob("top_*.table.json")
    found = json.loads(table.read_text())
    with (folder / "top.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert found["columns"] == list(rows[0])
    k1 = found["columns"].index("k1")
    assert [row[k1] for row in found["data"]] == pytest.approx([float(row["k1"]) for row in rows])
    pictures = {p.name.rsplit("_", 2)[0] for p in (wandb / "files/media/images").rglob("*.png")}
    assert pictures == {path.stem for path in (folder / "figures").glob("*.png")}
    artifacts = {artifact["type"]: artifact for artifact in of_kind(run, "artifact")}
    (model,) = artifacts["model"]["manifest"]["contents"]
    # it stays in the study's folder until `wandb sync` uploads it
    assert Path(model["local_path"]) == folder / "model.ckpt"
    assert int(model["size"]) == (folder / "model.ckpt").stat().st_size
    for kind in artifacts.values():
        for entry in kind["manifest"]["contents"]:
            assert Path(entry["local_path"]).is_relative_to(folder)
            assert Path(entry["local_path"]).exists()


@pytest.mark.e2e
def test_nothing_of_the_machine_is_told(study, run):
    _, root, _ = study
    assert not (root / "home/.local/share/wandb").exists()
    config = json.dumps(merged(run, "config"))
    (head,) = of_kind(run, "run")
    for secret in ("f" * 40, str(root), str(Path.home())):
        assert secret not in config + json.dumps(head), secret
    # the value of a variable is not told, its name is
    assert merged(run, "config")["problem"]["case"] == "${oc.env:SECRET_CASE}"
    assert not head.get("host")
    assert not {record["type"] for record in run} & {"stats", "environment", "output", "output_raw"}


@pytest.mark.e2e
def test_an_offline_run_uses_no_network(study):
    _, root, _ = study
    spied = (root / "spied.txt").read_text().splitlines() if (root / "spied.txt").exists() else []
    # W&B's own process is spoken to through a socket in a file
    assert [line for line in spied if not line.startswith("/")] == []


@pytest.mark.e2e
def test_mlflow_csv_and_tensorboard_have_the_study_too(study, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    folder, root, done = study
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    assert "mlflow" not in done.stderr
    assert not (root / "home/.config/mlflow").exists()
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert experiment.name == "plug_flow"
    assert found.info.status == "FINISHED"
    assert found.data.params["model/epochs"] == "3"
    assert found.data.params["problem/case"] == "${oc.env:SECRET_CASE}"
    metrics = json.loads((folder / "metrics.json").read_text())
    told = {k: v for k, v in found.data.metrics.items() if k.startswith("result/")}
    assert told == pytest.approx({f"result/{k}": v for k, v in metrics.items()})
    assert found.data.tags["verdict"].endswith("designs outside the bounds.")
    assert not {"mlflow.user", "mlflow.source.name"} & set(found.data.tags)
    files = {entry.path for entry in client.list_artifacts(found.info.run_id)}
    assert files == {"candidates.parquet", "figures", "model.ckpt", "top.csv"}
    with (folder / "csv/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows if row["train/loss"]] == [0, 1, 2]
    best = next(r["result/claimed/best_loss"] for r in rows if r["result/claimed/best_loss"])
    assert float(best) == pytest.approx(metrics["claimed/best_loss"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # the run's first events are in one file, its result in the next
    names = set()
    for file in (folder / "tensorboard/version_0").glob("events*"):
        names |= set(EventAccumulator(str(file)).Reload().Tags()["scalars"])
    assert {"train/loss", "result/claimed/best_loss"} <= names


# -- sweeps and failures ---------------------------------------------------------------------------
@pytest.mark.e2e
def test_every_job_of_a_sweep_closes_its_run_and_a_summary_shows_them_all(genopt, tmp_path):
    arguments = ["-m", *SWEEP, "model.max_components=2,0", "logger=wandb", "routine.samples=20"]
    done = genopt(*arguments)
    assert done.returncode != 0
    (sweep,) = (tmp_path / "multirun").iterdir()
    runs = {path: records(path) for path in sweep.glob("mixture-*/wandb/offline-run-*")}
    assert len(runs) == 2
    heads = [of_kind(found, "run")[0] for found in runs.values()]
    assert {head["run_group"] for head in heads} == {sweep.name}
    assert len({head["run_id"] for head in heads}) == 2
    # a mixture without components fails in its fit
    ends = [of_kind(found, "exit") for found in runs.values()]
    assert sorted(end.get("exit_code", 0) for (end,) in ends) == [0, 1]

    from genopt.app.logs.sweep import summarise

    (summary,) = (sweep / "wandb").glob("offline-run-*")
    assert summarise(sweep) is None, "nothing is new"
    found = records(summary)
    (head,) = of_kind(found, "run")
    assert (head["job_type"], head["run_group"]) == ("sweep", sweep.name)
    numbers = merged(found, "summary")
    assert (numbers["count/all"], numbers["count/finished"], numbers["count/failed"]) == (2, 1, 1)
    metrics = json.loads(next(sweep.glob("mixture-*/metrics.json")).read_text())
    assert numbers["best/verified/best_loss"] == pytest.approx(metrics["verified/best_loss"])
    table = json.loads(next((summary / "files/media/table").glob("studies_*")).read_text())
    column = table["columns"].index("verified/best_loss")
    assert {row[table["columns"].index("state")] for row in table["data"]} == {"finished", "failed"}
    assert metrics["verified/best_loss"] in [row[column] for row in table["data"]]


def logging_config(folder: Path, *more: str):
    config = compose(["problem=plug_flow", "model=mixture", *more])
    config.paths.study = str(folder)
    return config


def test_a_crash_ends_the_run_as_failed_and_a_restart_opens_another(tmp_path):
    config = logging_config(tmp_path, "logger=wandb")
    before = dict(os.environ)
    with pytest.raises(RuntimeError, match="boom"), opened(config):
        raise RuntimeError("boom")
    (first,) = (tmp_path / "wandb").glob("offline-run-*")
    with opened(config):
        pass
    (second,) = set((tmp_path / "wandb").glob("offline-run-*")) - {first}
    ends = [of_kind(records(folder), "exit")[0].get("exit_code", 0) for folder in (first, second)]
    assert ends == [1, 0]
    heads = [of_kind(records(folder), "run")[0] for folder in (first, second)]
    assert heads[0]["run_id"] != heads[1]["run_id"]
    assert heads[0]["run_group"] == heads[1]["run_group"] == "plug_flow"
    assert ["resumed" in head["tags"] for head in heads] == [False, True]
    # the next study of the process may be an online one
    wandb = {k: v for k, v in os.environ.items() if k.startswith("WANDB")}
    assert wandb.get("WANDB_MODE") == before.get("WANDB_MODE")
    assert wandb.get("WANDB_DATA_DIR") == before.get("WANDB_DATA_DIR")


def test_a_tracker_that_fails_at_the_end_costs_a_warning(tmp_path, caplog):
    from genopt.app.logs.loggers import log_result
    from genopt.app.study import StudyResult

    class Broken:
        def log_study(self, result):
            raise ConnectionError("no route")

        def close(self, failed):
            self.failed = failed

    result = StudyResult(tmp_path, None, None, {"a": 1.0}, "fine")
    log_result([Broken()], result)
    assert "no route" in caplog.text


# -- what is refused, what is chosen ---------------------------------------------------------------
def test_online_runs_need_a_key_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    config = logging_config(tmp_path, "logger=wandb", "logger.wandb.offline=false")
    with pytest.raises(GenoptError, match="set WANDB_API_KEY"):
        check_loggers(config)
    (tmp_path / ".netrc").write_text("machine elsewhere.org login user password x\n")
    with pytest.raises(GenoptError, match="set WANDB_API_KEY"):
        check_loggers(config)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    check_loggers(config)
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    check_loggers(config)
    check_loggers(logging_config(tmp_path, "logger=wandb"))


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "tensorboard"), ("mlflow", "sqlalchemy")]
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, name, module):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted, *_: None if wanted == module else find(wanted)
    )
    with pytest.raises(GenoptError, match=rf"needs {module}.*genopt\[{name}\]"):
        check_loggers(logging_config(tmp_path, f"logger={name}"))
    check_loggers(logging_config(tmp_path, "logger=csv"))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", []),
        ("csv", ["csv"]),
        ("[csv,wandb]", ["csv", "wandb"]),
        ("[wandb,mlflow,tensorboard]", ["wandb", "mlflow", "tensorboard"]),
    ],
)
def test_several_loggers_are_chosen_by_a_list(choice, expected):
    assert list(compose([f"logger={choice}"]).logger) == expected


def test_told_config_hides_variables_wherever_they_end_up(monkeypatch, tmp_path):
    monkeypatch.setenv("A_TOKEN", "hush-hush")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.create(
        {
            "paths": {"study": "/home/somebody/x"},
            "logger": {"csv": {"save_dir": "/home/somebody/x"}},
            "seed": 3,
            "problem": {
                "_partial_": True,
                "token": "${oc.env:A_TOKEN}",
                "again": "${problem.token}",
                "address": "https://${problem.token}@host",
                "half": "${seed}",
                "path": "/home/somebody/data/t.csv",
                "here": f"{tmp_path}/t.csv",
                "list": ["${oc.env:A_TOKEN}", 1],
                "given": "hush",
            },
            "copy": "${problem}",
        }
    )
    told = told_config(config)
    assert "hush-hush" not in json.dumps(told)
    assert set(told) == {"seed", "problem", "copy"}
    assert told["problem"]["token"] == "${oc.env:A_TOKEN}"
    assert told["problem"]["again"] == "${problem.token}"
    assert told["problem"]["half"] == 3
    assert told["problem"]["path"] == "~/data/t.csv"
    assert told["problem"]["here"] == "./t.csv"
    assert told["problem"]["list"] == ["${oc.env:A_TOKEN}", 1]
    assert told["problem"]["given"] == "hush"
    assert "_partial_" not in told["problem"]
    # the study's own configuration is untouched
    assert config.problem.token == "hush-hush"
