"""Studies whose rows are sampled near the goal, and studies by `hybrid`."""

import json

import pandas as pd
import pytest
import torch

from genopt import Candidates, GenoptError, compose, run_study
from genopt.app.setting import Setting

from .conftest import SMALL, TINY

pytestmark = pytest.mark.e2e


def tiny(*overrides: str):
    return compose([*overrides, *SMALL, "logger=none", "figures=false"])


def test_rows_near_the_goal_from_the_command_line(tmp_path):
    config = tiny("problem=peng_robinson", *TINY["mixture"], "data=adaptive", "data.share=0.01")
    result = run_study(config, tmp_path, show=False)
    rows = pd.read_parquet(tmp_path / "data.parquet")
    assert len(rows) == 120
    usual = Setting.of(tiny("problem=peng_robinson", *TINY["mixture"])).table
    assert (rows["r"].abs() < 1e-3).mean() > 3 * float((usual.y.abs() < 1e-3).double().mean())
    assert rows["row_weight"].mean() == pytest.approx(1.0)
    assert result.metrics["mode_recall"] == 1.0


def test_rows_near_other_wishes_than_the_goal():
    near = "data.near={F_A: {at_most: 0.05}}"
    config = tiny(
        "problem=plug_flow", *TINY["mixture"], "data=adaptive", near, "held_out_goals=3",
        "data.unbiased=joint",
    )  # fmt: skip
    table = Setting.of(config).table
    usual = Setting.of(tiny("problem=plug_flow", *TINY["mixture"])).table
    near_rows, usually = (
        float(((t.y[:, 0] - 0.05).abs() < 0.01).double().mean()) for t in (table, usual)
    )
    assert near_rows > 2 * usually
    assert float(table.weight.max()) > 1.3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["held_out_goals=3"], "exclude each other"),
        (["data.near=goals"], "data.near must be goal"),
        (["data.near={q: 1}"], "unknown goal column 'q'"),
        (["data.rounds=1"], "at least 2"),
        (["data.unbiased=none"], "data.unbiased"),
    ],
)
def test_sampling_that_cannot_work_is_said_before_any_work(overrides, words):
    with pytest.raises(GenoptError, match=words):
        Setting.of(tiny("problem=plug_flow", *TINY["mixture"], "data=adaptive", *overrides))


def test_hybrid_improves_draws_and_goes_on_with_its_surrogate(tmp_path):
    options = [
        "problem=plug_flow", *TINY["mixture"], "routine=hybrid", "routine.samples=40",
        "routine.surrogate.epochs=60", "encoder.hidden_dims=[16]", "encoder.latent_dim=8",
    ]  # fmt: skip
    result = run_study(tiny(*options), tmp_path, show=False)
    assert result.candidates.header["routine"] == "hybrid"
    assert result.metrics["routine/moved"] > 0.0
    kept = tmp_path / "routine" / "surrogate.ckpt"
    written = kept.stat().st_mtime_ns
    # killed before the candidates were there
    status = json.loads((tmp_path / "status.json").read_text())
    del status["routine_seconds"]
    (tmp_path / "status.json").write_text(json.dumps({**status, "state": "running"}))
    (tmp_path / "candidates.parquet").unlink()
    run_study(tiny(*options), tmp_path, show=False)
    assert kept.stat().st_mtime_ns == written
    found = Candidates.load(tmp_path / "candidates.parquet")
    assert torch.allclose(found.x, result.candidates.x)


def test_hybrid_needs_an_engine_that_draws():
    config = tiny("problem=plug_flow", "model=multitask", "routine=hybrid")
    with pytest.raises(GenoptError, match="model=flow or model=mixture"):
        run_study(config, "unused", show=False)
