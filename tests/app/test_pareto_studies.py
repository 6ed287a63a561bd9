"""Studies that look for a front: numbers, figure and verdict, and mistakes said before training."""

import pytest

from genopt import GenoptError, compose, run_study

from .conftest import SMALL, TINY

pytest.importorskip("pymoo")
pytest.importorskip("moocore")
pytestmark = pytest.mark.e2e
PLAIN = [*TINY["mixture"], *SMALL, "logger=none", "routine=pareto", "routine.n=30"]
FAST = ["routine.steps=40", "routine.directions=20"]


def test_a_study_ends_with_its_front(tmp_path):
    result = run_study(compose([*PLAIN, *FAST, "problem=bnh"]), tmp_path)
    assert result.metrics["routine/calls"] == 30
    assert 0.9 < result.metrics["routine/hypervolume_share"] <= 1.001
    assert "% of the true front's" in result.verdict
    assert (tmp_path / "figures" / "front.png").exists()


def test_one_wish_is_refused_before_training(tmp_path):
    config = compose([*PLAIN, "problem=bnh", "goal={f1: min}"])
    with pytest.raises(GenoptError, match="at least two columns with min or max"):
        run_study(config, tmp_path / "s")
    assert not (tmp_path / "s" / "model.ckpt").exists()
