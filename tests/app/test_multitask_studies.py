"""Studies of the multi-task engine: ensembles, unseen targets, folds, saved encoders."""

import json

import pandas as pd
import pytest
import torch

from genopt import (
    Candidates,
    FlexibleMultiTaskModel,
    GenoptError,
    Goal,
    MultiTaskEnsemble,
    compose,
    run_study,
)
from genopt.app.setting import Setting

from .conftest import SMALL, TINY

pytestmark = pytest.mark.e2e

ENSEMBLE = ["model=ensemble", "model.members=2", *TINY["multitask"][1:]]


def run(folder, *overrides: str):
    config = compose([*overrides, *SMALL, "logger=none"])
    return run_study(config, folder, show=True)


def test_an_ensemble_states_its_spread_everywhere(tmp_path, capsys):
    result = run(tmp_path, *ENSEMBLE, "problem=plug_flow")
    assert {"held_out/coverage_50/F_A", "held_out/coverage_90/F_B"} <= set(result.metrics)
    assert (tmp_path / "figures/calibration.png").exists()
    model = MultiTaskEnsemble.load(tmp_path / "model.ckpt")
    found = Candidates.load(tmp_path / "candidates.parquet")
    assert found.y_spread is not None
    torch.testing.assert_close(found.y_spread, model.spread_y(found.x), rtol=1e-4, atol=1e-6)
    assert "±" in capsys.readouterr().out
    with pytest.raises(GenoptError, match=r"holds an ensemble: load it with MultiTaskEnsemble"):
        FlexibleMultiTaskModel.load(tmp_path / "model.ckpt")


def test_unseen_targets_are_asked_for_and_their_proposals_simulated(tmp_path, capsys):
    result = run(
        tmp_path, *TINY["multitask"], "problem=plug_flow", "held_out_goals=5", "routine.starts=12",
        "routine.diverse=null",
    )  # fmt: skip
    found = result.candidates
    assert found.shape == (5, 12)
    wanted = Goal(found.goal, found.x_space, found.y_space).condition()
    # an independent r_T: the order by claim, the simulator's squared miss, the best so far
    miss = (found.y_verified - wanted[:, None]).square().mean(-1)
    ranked = miss.gather(1, found.loss.argsort(1))
    for count in (1, 10):
        expected = float(ranked[:, :count].amin(1).mean())
        assert result.metrics[f"resimulation/claimed/r_{count}"] == pytest.approx(expected)
    assert (tmp_path / "figures/resimulation.png").exists()
    out = capsys.readouterr().out
    assert "5 goals" in out
    assert "wanted" in out
    # the targets are no rows of the table
    table = Setting.of(compose([*SMALL, "problem=plug_flow"])).table
    assert float(torch.cdist(wanted, table.y).min()) > 0


def test_unseen_targets_of_a_measured_table_are_its_test_rows():
    setting = Setting.of(compose(["problem=photostability", "held_out_goals=7"]))
    test = setting.table.part("test").y
    assert torch.equal(setting.goal.condition(), test[:7])
    with pytest.raises(GenoptError, match=r"exclude each other"):
        Setting.of(compose(["held_out_goals=7", "goal={degradation_wf3: min}"]))
    with pytest.raises(GenoptError, match=r"lower it or raise data\.test"):
        Setting.of(compose(["held_out_goals=7000"]))


def test_folds_predict_every_row_once(tmp_path, capsys):
    result = run(tmp_path, *TINY["multitask"], "problem=plug_flow", "data.folds=3")
    frame = pd.read_csv(tmp_path / "cross_validation.csv")
    assert frame.groupby("column")["rows"].sum().eq(120).all()
    mean = frame.loc[frame["column"] == "F_A", "rmse"].mean()
    assert result.metrics["folds/rmse/F_A"] == pytest.approx(mean)
    assert "folds r2/F_A" in capsys.readouterr().out
    assert len(list((tmp_path / "folds").glob("fold_*/scores.json"))) == 3
    with pytest.raises(GenoptError, match=r"data\.folds needs a model that predicts y"):
        run(tmp_path / "flow", *TINY["flow"], "problem=plug_flow", "data.folds=3")
    with pytest.raises(GenoptError, match=r"data\.folds must be at least 2"):
        run(tmp_path / "one", *TINY["mixture"], "problem=plug_flow", "data.folds=1")


def test_new_heads_are_trained_on_a_saved_encoder(tmp_path):
    run(tmp_path / "first", *TINY["multitask"], "problem=plug_flow")
    saved = tmp_path / "first/model.ckpt"
    run(
        tmp_path / "second", *TINY["multitask"], "problem=plug_flow", f"model.pretrained={saved}",
        "model.frozen=[encoder]", "model.heads={F_A: {kind: heteroscedastic}, F_B: regression}",
    )  # fmt: skip
    first, second = (
        FlexibleMultiTaskModel.load(tmp_path / name / "model.ckpt") for name in ("first", "second")
    )
    for a, b in zip(first.encoder.parameters(), second.encoder.parameters(), strict=True):
        assert torch.equal(a, b)
    assert second.has_spread
    other = ["problem=photostability", f"model.pretrained={saved}"]
    with pytest.raises(GenoptError, match="columns"):
        run(tmp_path / "third", *TINY["multitask"], *other)


def test_polish_is_a_choice_of_callback(tmp_path):
    overrides = [*TINY["multitask"], "problem=plug_flow", "figures=false"]
    plain = run(tmp_path / "plain", *overrides)
    exact = run(tmp_path / "polished", *overrides, "callbacks=polish", "callbacks.polish.steps=60")
    name = "held_out/rmse/F_A"
    assert exact.metrics[name] < 0.5 * plain.metrics[name]
    config = json.dumps(exact.metrics)
    assert "NaN" not in config


def test_heads_are_composed_on_the_command_line(genopt, tmp_path):
    done = genopt(
        *TINY["multitask"], *SMALL, "problem=plug_flow", "figures=false",
        "heads=[{name: F_A, kind: heteroscedastic}, {name: F_B, kind: regression}]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (saved,) = tmp_path.glob("outputs/plug_flow/*/model.ckpt")
    specs = FlexibleMultiTaskModel.load(saved).head_specs
    assert [spec["_target_"].rpartition(".")[2] for spec in specs.values()] == [
        "HeteroscedasticHead",
        "RegressionHead",
    ]
