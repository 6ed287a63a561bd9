"""`calibration=...` in a study: numbers, figures, words, and what is refused before any work."""

import json

import pytest

from genopt import GenoptError, compose, run_study

from .conftest import SMALL, TINY

pytestmark = pytest.mark.e2e


def run(folder, *overrides: str):
    return run_study(compose([*overrides, *SMALL, "logger=none"]), folder)


def test_a_calibrated_study_says_how_honest_its_model_is(tmp_path, capsys):
    options = ["problem=linear_gaussian", "problem.dimension=2", "data.test=0", "calibration=40"]
    result = run(tmp_path, *TINY["mixture"], "model.max_components=1", *options)
    scores = json.loads((tmp_path / "metrics.json").read_text())
    # one Gaussian is the truth here, so only chance is left
    assert abs(scores["calibration/coverage_80"] - 0.8) < 4 * scores["calibration/error_80"]
    assert scores["calibration/ranks/p_value/x1"] > 1e-4
    assert scores["calibration/kl"] == pytest.approx(0.0, abs=0.2)
    assert "over 40 unseen conditions the regions of 50/80/95 % hold" in result.verdict
    for name in ("coverage", "ranks", "pairs"):
        assert (tmp_path / f"figures/{name}.png").stat().st_size > 5000
    assert "calibration/kl" in capsys.readouterr().out


def test_measured_rows_are_test_rows(tmp_path):
    result = run(
        tmp_path, *TINY["flow"], "problem=photostability", "calibration=10", "data.test=0.3",
        "routine.samples=8",
    )  # fmt: skip
    assert "over 10 unseen conditions" in result.verdict
    assert "calibration/kl" not in result.metrics
    assert 0.0 <= result.metrics["calibration/tarp/coverage_50"] <= 1.0


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        ([*TINY["multitask"], "calibration=20"], "calibration needs a model of the distribution"),
        ([*TINY["mixture"], "calibration=3"], "calibration must be at least 10"),
        (
            [*TINY["mixture"], "problem=photostability", "calibration=100"],
            r"calibration=100: only \d+ unseen rows",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_said_before_any_work(tmp_path, overrides, match):
    with pytest.raises(GenoptError, match=match):
        run(tmp_path / "study", *overrides)
    assert not (tmp_path / "study" / "model.ckpt").exists()
