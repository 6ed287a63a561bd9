"""Studies of `routine=stationary`, `routine=space_map` and `routine=space_mapping`."""

import pytest
import torch

from genopt import Candidates, GenoptError, compose, run_study

from .conftest import SMALL, TINY

pytestmark = pytest.mark.e2e
PLAIN = [*SMALL, "logger=none"]
STATIONARY = ["routine=stationary", "routine.samples=128", "routine.rows=128"]


def test_the_stationary_points_of_a_study_with_their_figure(tmp_path):
    settings = ["problem=rastrigin", "problem.dimension=1", *TINY["mixture"], *STATIONARY, *PLAIN]
    result = run_study(compose(settings), tmp_path)
    assert result.metrics["routine/found"] == 9
    assert result.metrics["mode_recall"] == result.metrics["mode_precision"] == 1.0
    assert "9 stationary points found (5 minima, 4 maxima)" in result.verdict
    assert (tmp_path / "figures" / "stationary.png").exists()
    again = Candidates.load(tmp_path / "candidates.parquet")
    assert again.header["kinds"] == result.candidates.header["kinds"]


def test_constraints_without_a_model(tmp_path):
    settings = ["problem=inactive_constraint", "model=none", *STATIONARY, "figures=false", *PLAIN]
    result = run_study(compose(settings), tmp_path)
    wanted = torch.tensor([[[2.0, 1.0]]], dtype=torch.float64)
    torch.testing.assert_close(result.candidates.x, wanted, atol=1e-6, rtol=0)
    assert "slack >= 0 is inactive" in result.verdict


def test_a_region_of_a_study_with_its_figure(tmp_path):
    settings = [
        "experiment=cstr_region",
        "routine.samples=60",
        "routine.refine=true",
        "model.min_components=20",
        "model.max_components=20",
        *PLAIN,
    ]
    result = run_study(compose(settings), tmp_path)
    assert result.metrics["routine/inside"] == 1.0
    assert result.metrics["routine/round_trip_median"] < 1e-9
    assert (tmp_path / "figures" / "space_map.png").exists()


def test_a_model_corrected_to_the_simulator(tmp_path):
    settings = ["problem=plug_flow", *TINY["mixture"], "routine=space_mapping", "figures=false"]
    result = run_study(compose([*settings, *PLAIN]), tmp_path)
    assert result.metrics["routine/largest_miss"] < 1e-6
    assert result.metrics["routine/calls"] <= 20
    assert "costly calls" in result.verdict


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["routine=stationary", "goal={f: min, slack: min}"], "one objective"),
        (["routine=stationary", "routine.engine=forest"], "unknown engine 'forest'"),
        (["routine=stationary", "routine.constraints=['q <= 1']"], "'q'"),
        (["routine=space_map"], "f is asked for as min, which is no region"),
        (["routine=space_map", "goal={slack: 1}", "routine.region=['f == 1']"], "only a line"),
        (["routine=space_mapping", "routine.method=none"], "unknown routine.method 'none'"),
        (["routine=space_mapping", "routine.calls=1"], "calls must be at least 2"),
    ],
)
def test_mistakes_are_found_before_any_work(overrides, message, tmp_path):
    settings = ["problem=inactive_constraint", *TINY["mixture"], *PLAIN, *overrides]
    with pytest.raises(GenoptError, match=message):
        run_study(compose(settings), tmp_path)
    assert not (tmp_path / "data.parquet").exists()
