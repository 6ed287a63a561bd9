"""A study whose mixture has factors says what they lose."""

import json
import logging

import pytest

from genopt import compose, run_study

pytestmark = pytest.mark.e2e


def test_a_study_shows_what_its_factors_lose(tmp_path, caplog):
    overrides = [
        "problem=plug_flow",
        "model=mixture",
        "model.covariance=factors",
        "model.n_factors=1",
        "model.max_components=2",
        "model.criterion=bic",
        "data.rows=150",
        "progress=false",
        "logger=none",
    ]
    with caplog.at_level(logging.INFO, "genopt"):
        run_study(compose(overrides), tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    parts = [key.split("/") for key in metrics if key.startswith("reconstruction_error/")]
    assert {rows for _, rows, _ in parts} == {"training", "held_out"}
    for _, rows, column in parts:
        assert 0.0 <= metrics[f"reconstruction_error/{rows}/{column}"] < 1.5
    assert (tmp_path / "figures" / "reconstruction.png").stat().st_size > 5000
    assert "1 factor(s) lose" in caplog.text
