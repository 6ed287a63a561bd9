"""Folds keep designs together, scores are those of scikit-learn, finished folds are kept."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import f1_score, mean_absolute_error, r2_score

from genopt import FlexibleMultiTaskModel, GenoptError, Mixture, Space, Table, Variable
from genopt.analysis.cross_validation import cross_validate, fold_of_rows, summarise_folds
from genopt.models.options import FitOptions

X = Space.of(a=(0.0, 1.0), b=(0.0, 1.0))
Y = Space((Variable("c"), Variable("k", labels=("u", "v"), kind="categorical"), Variable("d")))


def table(n: int = 60) -> Table:
    """Every design twice; c is linear with noise, k says whether a is large, d is seldom there."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n // 2, 2, generator=generator, dtype=torch.float64).repeat(2, 1)
    c = x @ torch.tensor([2.0, -1.0]).double()
    c = c + 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
    d = torch.full((n,), math.nan, dtype=torch.float64)
    d[::4] = 1.0 + x[::4, 0]
    return Table(x, torch.stack([c, (x[:, 0] > 0.5).double(), d], 1), X, Y)


class Linear:
    """Least squares by column; classes by the sign of a threshold; claims a spread of 0.3."""

    fits = 0
    stop_at: int | None = None

    def __init__(self, intercept: bool = True) -> None:
        self.intercept = intercept

    def fit_table(self, rows: Table, options: FitOptions) -> None:
        if Linear.stop_at == Linear.fits:
            raise KeyboardInterrupt
        Linear.fits += 1
        self.seen = rows.x
        known = [torch.isfinite(column) for column in rows.y.T]
        self.models = [
            LinearRegression(fit_intercept=self.intercept).fit(rows.x[k], column[k])
            for k, column in zip(known, rows.y.T, strict=True)
        ]

    def predict_y(self, x: torch.Tensor) -> torch.Tensor:
        assert not (torch.cdist(x, self.seen) < 1e-9).any(), "a design is in both parts"
        y = torch.stack([torch.from_numpy(m.predict(x.numpy())) for m in self.models], 1)
        y[:, 1] = (y[:, 1] > 0.5).double()
        return y

    def spread_y(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.3, math.nan, math.nan]).double().expand(len(x), 3)


def test_folds_keep_designs_together_and_are_of_one_size():
    rows = table(62)
    fold = fold_of_rows(rows, 5, seed=1)
    assert torch.equal(fold[:31], fold[31:])
    assert sorted(np.bincount(fold).tolist()) == [12, 12, 12, 12, 14]
    assert not torch.equal(fold, fold_of_rows(rows, 5, seed=2))


def test_scores_are_those_of_the_rows_held_out():
    rows = table()
    scores = cross_validate(Linear, rows, folds=3, seed=4, validation=0.0)
    assert scores["fold"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    fold = fold_of_rows(rows, 3, seed=4)
    model = Linear()
    model.fit_table(rows.rows(fold != 1), FitOptions())
    held = rows.rows(fold == 1)
    said = model.predict_y(held.x)
    c, k, d = (row for _, row in scores[scores["fold"] == 1].iterrows())
    assert c["rows"] == 20
    assert c["r2"] == pytest.approx(r2_score(held.y[:, 0], said[:, 0]))
    assert c["mae"] == pytest.approx(mean_absolute_error(held.y[:, 0], said[:, 0]))
    assert c["rmse"] == pytest.approx(float((held.y - said)[:, 0].square().mean().sqrt()))
    # 0.6745 standard deviations hold half of a Gaussian
    inside = ((held.y - said)[:, 0].abs() <= 0.3 * 0.67449).double().mean()
    assert c["coverage_50"] == pytest.approx(float(inside))
    assert k["f1"] == pytest.approx(f1_score(held.y[:, 1], said[:, 1], average="macro"))
    assert math.isnan(k["r2"])
    assert math.isnan(k["coverage_90"])
    assert d["rows"] == int(torch.isfinite(held.y[:, 2]).sum())
    assert math.isnan(d["coverage_50"])


def test_the_summary_has_means_and_scatter():
    scores = cross_validate(Linear, table(), folds=3, validation=0.0)
    summary = summarise_folds(scores)
    assert summary["column"].tolist() == ["c", "k", "d"]
    assert summary["rows"].tolist() == [60, 60, 15]
    c = scores[scores["column"] == "c"]
    assert summary["rmse"][0] == pytest.approx(c["rmse"].mean())
    assert summary["rmse_std"][0] == pytest.approx(np.std(c["rmse"], ddof=1))


def test_finished_folds_are_kept_and_the_rest_goes_on(tmp_path, monkeypatch):
    whole = cross_validate(Linear, table(), folds=4, validation=0.0)
    options = FitOptions(folder=tmp_path)
    monkeypatch.setattr(Linear, "fits", 0)
    monkeypatch.setattr(Linear, "stop_at", 2)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(Linear, table(), 4, options, validation=0.0)
    assert (tmp_path / "fold_1" / "scores.json").exists()
    assert not (tmp_path / "fold_2" / "scores.json").exists()
    monkeypatch.setattr(Linear, "stop_at", None)
    again = cross_validate(Linear, table(), 4, options, validation=0.0)
    assert Linear.fits == 4
    pd.testing.assert_frame_equal(again, whole)
    assert json.loads((tmp_path / "fold_0" / "scores.json").read_text())[0]["column"] == "c"
    with pytest.raises(GenoptError, match="another table, model or seed"):
        cross_validate(Linear, table(), 4, options, seed=1, validation=0.0)
    with pytest.raises(GenoptError, match="another table, model or seed"):
        cross_validate(lambda: Linear(intercept=False), table(), 4, options, validation=0.0)


def test_real_models_and_a_progress_bar(capsys):
    rows = table()
    scores = cross_validate(
        lambda: FlexibleMultiTaskModel.for_spaces(X, Y, epochs=30, batch_size=32),
        rows,
        folds=2,
        progress=True,
    )
    assert "2/2" in capsys.readouterr().out
    assert scores["r2"][0] > 0.5
    mixture = cross_validate(lambda: Mixture(X, Y, max_components=2), rows, folds=2)
    assert mixture["r2"][0] > 0.5
    assert mixture["accuracy"][1] > 0.7


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(GenoptError, match="between 2 and the number of distinct designs, 30"):
        cross_validate(Linear, table(), folds=31)
    with pytest.raises(GenoptError, match="str has no fit_table"):
        cross_validate(lambda: "model", table())
