"""Studies that ask the simulator: `model=none`, `routine=multistart`, `routine=refine`."""

import numpy as np
import pytest

from genopt import Candidates, GenoptError, compose, run_study
from genopt.problems.peng_robinson import PengRobinson

from .conftest import SMALL, TINY

pytestmark = pytest.mark.e2e
PLAIN = [*SMALL, "logger=none", "figures=false", "problem=peng_robinson"]


def roots_found(candidates: Candidates) -> set[int]:
    roots = np.sort(np.roots(PengRobinson().coefficients).real)
    gap = np.abs(candidates.x[0].numpy() - roots)
    return set(gap.argmin(1)[gap.min(1) < 1e-7])


def test_no_model_and_the_classical_baseline(tmp_path):
    result = run_study(compose(["model=none", "routine.starts=12", *PLAIN]), tmp_path)
    assert roots_found(result.candidates) == {0, 1, 2}
    assert result.metrics["routine/calls"] == result.candidates.header["numbers"]["calls"]
    assert "simulator calls by slsqp" in result.verdict
    again = run_study(compose(["model=none", "routine.starts=12", *PLAIN]), tmp_path)
    assert again.metrics == result.metrics
    # as after an interruption: the model that is there is read
    (tmp_path / "candidates.parquet").unlink()
    status = (tmp_path / "status.json").read_text().replace('"finished"', '"running"')
    (tmp_path / "status.json").write_text(status)
    repeated = run_study(compose(["model=none", "routine.starts=12", *PLAIN]), tmp_path)
    assert repeated.candidates.x.equal(result.candidates.x)


@pytest.mark.parametrize("model", ["mixture", "none"])
def test_proposals_are_refined(model, tmp_path):
    settings = ["routine=refine", "routine.proposals=60", *TINY.get(model, [f"model={model}"])]
    result = run_study(compose([*settings, *PLAIN]), tmp_path)
    assert roots_found(result.candidates) == {0, 1, 2}
    assert result.metrics["routine/converged"] == 1.0
    assert result.metrics["mode_recall"] == 1.0
    loaded = Candidates.load(tmp_path / "candidates.parquet")
    assert bool(loaded.converged.all())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["routine.method=newton"], "unknown routine.method 'newton'"),
        (["routine=refine", "routine.method=newton"], "unknown routine.method 'newton'"),
        (["routine=refine", "routine.proposals=0"], "proposals must be at least 1, got 0"),
        (["routine.tolerance=2"], "tolerance must lie between 0 and 1"),
        (["routine=refine", "routine.constraints=['Q <= 1']"], "'Q'"),
    ],
)
def test_mistakes_are_found_before_any_work(overrides, message, tmp_path):
    with pytest.raises(GenoptError, match=message):
        run_study(compose(["model=none", *PLAIN, *overrides]), tmp_path)
    assert not (tmp_path / "data.parquet").exists()


def test_measured_data_alone_are_refused(tmp_path):
    with pytest.raises(GenoptError, match=r"asks the simulator.*'photostability'"):
        run_study(compose(["model=none", *SMALL, "problem=photostability"]), tmp_path)
    assert not (tmp_path / "candidates.parquet").exists()
