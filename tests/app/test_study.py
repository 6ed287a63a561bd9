"""Studies from end to end: what they leave, how they go on, what they say of bad input."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from genopt import Candidates, Table, compose, run_study
from genopt.app.folder import StudyFolder

from .conftest import SMALL, TINY, study_folder

pytestmark = pytest.mark.e2e


def tiny(model: str, *more: str, logger: str = "none"):
    overrides = [*TINY[model], *SMALL, f"logger={logger}", *more]
    return compose(overrides)


@pytest.mark.parametrize("model", sorted(TINY))
def test_a_study_leaves_everything_that_is_needed_to_read_and_repeat_it(model, tmp_path):
    result = run_study(tiny(model, "problem=plug_flow"), tmp_path / "s")
    files = {p.name for p in (tmp_path / "s").iterdir()}
    assert {
        "candidates.json", "candidates.parquet", "config.yaml", "data.parquet",
        "environment.json", "figures", "metrics.json", "model.ckpt", "status.json", "top.csv",
    } <= files  # fmt: skip
    assert json.loads((tmp_path / "s/status.json").read_text())["state"] == "finished"
    candidates = Candidates.load(tmp_path / "s/candidates.parquet")
    assert bool(candidates.x_space.contains(candidates.x).all())
    # what is verified is the simulator's own answer, not the model's
    k1 = candidates.x[..., 0]
    f_a = torch.exp(-2 * k1)
    torch.testing.assert_close(candidates.y_verified[..., 0], f_a, atol=1e-9, rtol=1e-9)
    figures = {p.stem for p in (tmp_path / "s/figures").glob("*.png")}
    assert {"designs", "properties", "claimed_verified"} <= figures
    if model != "mixture":
        assert {"trajectories", "learning_curves"} <= figures
    if model != "flow":
        assert "parity" in figures
    assert "verified by the simulator" in result.verdict
    assert len(pd.read_csv(tmp_path / "s/top.csv")) >= 1


def test_the_same_seed_gives_the_same_designs(tmp_path):
    runs = [
        run_study(tiny("flow", "problem=absolute_value", "figures=false"), tmp_path / name)
        for name in "ab"
    ]
    torch.testing.assert_close(runs[0].candidates.x, runs[1].candidates.x)


def test_a_finished_study_is_shown_again_and_repeated_only_when_asked(tmp_path, capsys):
    config = tiny("mixture", "problem=plug_flow", "figures=false")
    first = run_study(config, tmp_path)
    stamp = (tmp_path / "model.ckpt").stat().st_mtime_ns
    again = run_study(config, tmp_path)
    assert (tmp_path / "model.ckpt").stat().st_mtime_ns == stamp
    assert again.metrics == first.metrics
    config.rerun = True
    run_study(config, tmp_path)
    (kept,) = (tmp_path / "previous").iterdir()
    assert (kept / "candidates.parquet").exists()
    assert "best distinct designs" in capsys.readouterr().out


def test_another_configuration_in_the_same_folder_keeps_the_old_result(tmp_path):
    run_study(tiny("mixture", "problem=plug_flow", "figures=false"), tmp_path)
    run_study(tiny("mixture", "problem=plug_flow", "figures=false", "seed=5"), tmp_path)
    assert len(list((tmp_path / "previous").iterdir())) == 1


def test_a_study_killed_after_training_does_not_train_again(tmp_path, monkeypatch):
    import genopt.routines.sample as sample

    config = tiny("mixture", "problem=plug_flow", "figures=false")
    original = sample.condition

    def killed(*_args, **_kwargs):
        raise KeyboardInterrupt

    killed.__signature__ = __import__("inspect").signature(original)
    monkeypatch.setattr(sample, "condition", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(config, tmp_path)
    assert StudyFolder(tmp_path).state == "interrupted"
    stamp = (tmp_path / "model.ckpt").stat().st_mtime_ns
    monkeypatch.setattr(sample, "condition", original)
    run_study(config, tmp_path)
    assert (tmp_path / "model.ckpt").stat().st_mtime_ns == stamp
    assert StudyFolder(tmp_path).status["state"] == "finished"
    assert not (tmp_path / "previous").exists()


def test_a_checkpoint_is_used_and_one_of_another_problem_is_refused(genopt, tmp_path):
    config = tiny("mixture", "problem=plug_flow", "figures=false")
    run_study(config, tmp_path / "a")
    model = tmp_path / "a/model.ckpt"
    args = [*TINY["mixture"], *SMALL, "logger=none", "figures=false", f"checkpoint={model}"]
    good = genopt("problem=plug_flow", *args)
    assert good.returncode == 0, good.stderr
    bad = genopt("problem=peng_robinson", *args)
    assert bad.returncode == 1
    assert "belongs to another problem: its x columns are k1, k2, this problem has Z" in bad.stderr
    assert not list((tmp_path / "outputs/peng_robinson").glob("*/model.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle=flow"], "unknown config key 'modle': did you mean 'model'"),
        (["model=flwo"], "unknown model 'flwo': did you mean 'flow'"),
        (["model=multitask", "model.epohcs=3"], "did you mean 'model.epochs'"),
        (["seed=abc"], "seed: Value 'abc'"),
        (["+colour=red"], "unknown config key 'colour'"),
        (["+trainer.max_epoch=3"], "unknown config key 'trainer.max_epoch'"),
        (["problem=table"], "problem.path has no value"),
        (["problem=table", "problem.path=no.csv", "problem.x=[a]", "problem.y=[b]"], "no.csv"),
        (["problem=table", "problem.path=t.csv", "problem.x=[a]", "problem.y=[b]"], "row 1 holds"),
        (["problem=table", "problem.path=t.csv", "problem.x=[z]", "problem.y=[c]"], "column 'z'"),
        (["problem=table", "problem.path=t.csv", "problem.x=[a]", "problem.y=[d]"], "has no entry"),
        (["problem=plug_flow", "goal={F_C: 1}"], "unknown goal column 'F_C'"),
        (["problem=plug_flow", "goal.F_A=much"], "goal.F_A: expected a finite number"),
        (["model=mixture", "encoder=residual"], "encoder has no effect"),
        (["data.test=0.9", "data.validation=0.2"], "must be shares"),
        (["model=multitask", "routine.restarts=0"], "num_restarts"),
        (["model=multitask", "routine.lr=-1"], "lr"),
        (["model=multitask", "routine.space=latent"], "reconstruction"),
        (["model=mixture", "routine=optimize_latent"], "works with model=multitask"),
        (["model=flow", "routine=condition"], "works with model=mixture"),
        (["model=multitask", "routine=generate"], "works with model=flow"),
        (["model=flow", "problem=plug_flow", "goal={k1: 1, F_A: 0.1}"], "cannot hold"),
        (["goal={degradation_pce10: 1e9}"], "cannot be reached"),
        (["goal={degradation_pce10: min, mat_1: 0.6, mat_2: 0.7}"], "leaves no blend"),
        (["goal=min"], "goal must name columns"),
        (["seed=-1"], "must not be negative"),
        (["+trainer.max_epochs=3"], "set model.epochs"),
        (["trainer.devices=7"], "trains on one device"),
        (["model=multitask", "model.task_weights={zz: 1}"], "zz"),
        (["problem=table", "problem.path=s.csv", "problem.x=[a]", "problem.y=[b]"], "by commas"),
        (["problem=plug_flow", "model=mixture", "checkpoint=t.csv"], "t.csv"),
    ],
)
def test_bad_input_is_one_line_before_any_work(genopt, tmp_path, arguments, message):
    (tmp_path / "t.csv").write_text("a,b,c,d\n1,2,3,\n2,much,4,\n3,4,5,\n")
    (tmp_path / "s.csv").write_text("a;b\n1;2\n")
    done = genopt(*arguments)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("genopt: ")
    assert message in line
    assert not list(tmp_path.rglob("model.ckpt"))


def test_a_table_of_ones_own_from_another_folder(genopt, tmp_path):
    rng = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 80, generator=rng).tolist()
    frame = pd.DataFrame({"a": a, "b": b, "kind": ["oak", "ash"] * 40})
    frame["c"] = 3 * frame.a - frame.b + (frame.kind == "oak")
    frame.loc[::7, "c"] = None
    frame.loc[::8, "b"] = None
    frame.to_csv(tmp_path / "mine.csv", index=False)
    done = genopt(
        "problem=table",
        "problem.path=mine.csv",
        "problem.x=[a,b,kind]",
        "problem.y=[c]",
        "goal={c: max}",
        *TINY["mixture"],
    )
    assert done.returncode == 0, done.stderr
    assert "kind: categorical, ash, oak" in done.stdout
    assert "beside them 10 rows have gaps in x (b 10)" in done.stdout
    folder = study_folder(tmp_path, "table", "mixture")
    top = pd.read_csv(folder / "top.csv")
    assert set(top["kind"]) <= {"ash", "oak"}
    assert top["a"].between(frame.a.min(), frame.a.max()).all()
    table = Table.from_frame(
        pd.read_parquet(folder / "data.parquet"),
        Candidates.load(folder / "candidates.parquet").x_space,
        Candidates.load(folder / "candidates.parquet").y_space,
    )
    assert len(table) == 70
    assert len(table.incomplete) == 10


def test_multirun_reports_all_studies(genopt, tmp_path):
    done = genopt(
        "-m", "problem=photostability", "model=mixture", "model.max_components=2,3",
        "routine.samples=50", "figures=false", "logger=csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    assert len(list(sweep.glob("mixture-*/status.json"))) == 2
    report = pd.read_csv(sweep / "report.csv")
    names = {"best measured", "mixture max_components=2", "mixture max_components=3"}
    assert set(report["model"]) == names
    assert (report[["mat_1", "mat_2", "mat_3", "mat_4"]].sum(axis=1) - 1).abs().max() < 1e-9
    assert list(sweep.glob("*.png"))
    shutil.rmtree(next(iter(sweep.glob("mixture-*"))))
    from genopt.app.report import report as write_report

    write_report(sweep)
    assert pd.read_csv(sweep / "report.csv")["model"].nunique() == 2


def test_wandb_runs_offline_without_a_network(genopt, tmp_path):
    done = genopt(*TINY["mixture"], *SMALL, "problem=plug_flow", "logger=wandb", timeout=300)
    assert done.returncode == 0, done.stderr
    folder = study_folder(tmp_path, "plug_flow", "mixture")
    (run,) = (folder / "wandb").glob("offline-run-*")
    assert list(run.glob("run-*.wandb"))
    assert Path(folder / "status.json").exists()
