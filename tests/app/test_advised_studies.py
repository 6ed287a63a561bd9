"""Studies that choose their engine, say what is wrong, what is lost and what cannot be reached."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from genopt import GenoptError, compose, run_study
from genopt.app.compose import waiting_overrides
from genopt.app.diagnose import diagnose_command, diagnose_study
from genopt.problems import PlugFlow

from .conftest import SMALL

pytestmark = pytest.mark.e2e
QUICK = [*SMALL, "logger=none", "figures=false"]


def auto(*more: str):
    return compose(["model=auto", *QUICK, *more])


def test_the_engine_is_chosen_when_the_table_is_known(tmp_path):
    config = auto("problem=peng_robinson", "routine.samples=50", "model.max_components=3")
    result = run_study(config, tmp_path)
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert saved.model._target_ == "genopt.models.mixture.Mixture"
    # keys of the engine, given before it was chosen, are kept
    assert saved.model.max_components == 3
    assert saved.routine.samples == 50
    assert result.candidates.shape == (1, 50)
    assert result.verdict.startswith("model=auto took model=mixture: there is one design column")
    advice = json.loads((tmp_path / "advice.json").read_text())
    assert advice["engine"] == "mixture"
    assert advice["figures"]["inputs"] == 1
    # the same command finds the finished study
    stamp = (tmp_path / "model.ckpt").stat().st_mtime_ns
    again = run_study(config, tmp_path)
    assert (tmp_path / "model.ckpt").stat().st_mtime_ns == stamp
    assert again.verdict == result.verdict
    assert again.findings == result.findings


def test_the_routine_of_ones_choice_narrows_the_engines(tmp_path):
    config = auto("problem=plug_flow", "routine=condition", "routine.samples=20",
                  "model.max_components=2")  # fmt: skip
    result = run_study(config, tmp_path)
    assert "model=auto took model=mixture" in result.verdict


def test_what_was_changed_after_composing_is_kept(tmp_path):
    config = auto("problem=peng_robinson", "model.max_components=2", "routine.samples=20")
    config.seed = 5
    config.top = 1
    run_study(config, tmp_path)
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert (saved.seed, saved.top) == (5, 1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.epochs=5"], r"chose model=mixture: .*model\.epochs"),
        (["encoder=residual"], "chose model=mixture: encoder has no effect"),
        (["checkpoint=a.ckpt"], "checkpoint holds a model of one engine"),
        (["model.engines=[forest]"], "choose among mixture"),
        (["model.engines=[multitask]", "routine=condition"], "routine=condition works with"),
    ],
)
def test_what_does_not_fit_the_chosen_engine_is_said_before_any_work(overrides, message, tmp_path):
    with pytest.raises(GenoptError, match=message):
        run_study(auto("problem=peng_robinson", *overrides), tmp_path / "study")
    assert not (tmp_path / "study" / "model.ckpt").exists()


def test_keys_wait_only_where_the_engine_is_not_known():
    given = ["model=auto", "model.epochs=3", "routine.samples=4", "model.engines=[flow]", "seed=1"]
    assert waiting_overrides(given) == [
        "model=auto", "++model.epochs=3", "++routine.samples=4", "model.engines=[flow]", "seed=1",
    ]  # fmt: skip
    assert waiting_overrides(["model=flow", "model.epochs=3"]) == ["model=flow", "model.epochs=3"]
    assert waiting_overrides(["model=auto,flow", "model.epochs=3"])[1] == "++model.epochs=3"


def test_a_users_table_by_the_command_line_and_its_diagnosis(genopt, tmp_path, capsys):
    x = torch.linspace(0.0, 3.0, 80, dtype=torch.float64)
    rows = "\n".join(f"{a},{(a - 1) ** 2},7.0" for a in x.tolist())
    (tmp_path / "t.csv").write_text(f"a,c,still\n{rows}\n")
    done = genopt(
        "problem=table", "problem.path=t.csv", "problem.x=[a]", "problem.y=[c]", "goal={c: 9.0}",
        "problem.bounds={c: [0, 20]}", "model=auto", "model.max_components=3", "figures=false",
        "logger=none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "chosen by model=auto" in done.stdout
    assert "the goal lies outside the data" in done.stdout
    (folder,) = (tmp_path / "outputs").glob("*/auto-*")
    assert diagnose_command([str(folder)]) == 0
    told = capsys.readouterr().out
    assert "goal outside the data" in told
    assert "change: ask for values nearer to that row" in told
    missing = genopt("diagnose", "nowhere")
    assert missing.returncode == 1
    assert missing.stderr.strip().startswith("genopt diagnose: nowhere holds no finished study")
    with pytest.raises(SystemExit, match="0"):
        diagnose_command(["--help"])
    assert "Nothing is trained" in " ".join(capsys.readouterr().out.split())


def test_a_diagnosis_is_repeated_without_the_simulator_or_the_fit(tmp_path, monkeypatch):
    config = compose(["model=mixture", "model.max_components=2", "problem=plug_flow", *QUICK])
    result = run_study(config, tmp_path)
    assert any(f.fault == "too few components" for f in result.findings)
    saved = json.loads((tmp_path / "diagnosis.json").read_text())
    (tmp_path / "diagnosis.json").unlink()

    def no(*_):
        raise AssertionError("the simulator was asked")

    monkeypatch.setattr(PlugFlow, "simulate", no)
    found = diagnose_study(tmp_path)
    assert tuple(found) == result.findings
    assert json.loads((tmp_path / "diagnosis.json").read_text()) == saved


def test_goals_that_no_design_reaches_are_said_with_the_nearest_values(tmp_path):
    goal = "goal={Y: [500, 350], Tm: [1850, 1800]}"
    config = compose(["model=mixture", "model.max_components=4", "problem=alloy", goal, *QUICK])
    result = run_study(config, tmp_path)
    assert result.metrics["goals_unreached"] == 1
    assert "unreachable: Y = 500, Tm = 1850; the nearest reachable values" in result.verdict
    (entry,) = json.loads((tmp_path / "reach.json").read_text())
    assert entry["goal"] == 0
    assert sum(entry["x"].values()) == pytest.approx(1.0, abs=1e-6)


def test_designs_that_the_simulator_loses_are_counted_in_the_verdict(tmp_path, monkeypatch, capsys):
    own = PlugFlow.simulate

    def breaks(self, x):
        if bool((x[..., 0] > 2.5).any()):
            raise ValueError("the reactor burst")
        return own(self, x)

    monkeypatch.setattr(PlugFlow, "simulate", breaks)
    overrides = ["model=mixture", "model.max_components=3", "problem=plug_flow", *QUICK]
    config = compose([*overrides, "goal={F_B: {at_least: 0.0}}"])
    config.progress = True
    result = run_study(config, tmp_path)
    lost = int(torch.isnan(result.candidates.y_verified).all(-1).sum())
    assert f"failed for {lost} of 1000 designs" in result.verdict
    assert "the reactor burst" in result.verdict
    # no row is there for which the simulator failed, in the table neither
    assert "which are lost" in capsys.readouterr().out
    assert json.loads((tmp_path / "status.json").read_text())["lost"]
    again = run_study(config, tmp_path)
    assert again.verdict == result.verdict
