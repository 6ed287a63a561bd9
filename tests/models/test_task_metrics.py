"""Scores of heads during training: against scikit-learn, with gaps, offsets and rare classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error, r2_score

from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.multitask.task_metrics import label_counts, looks_at, task_scores
from genopt.models.options import FitOptions

SMALL = {"kind": "mlp", "hidden_dims": [16], "latent_dim": 8}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def numbers(rows=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    labels = labels * torch.tensor([1.0, 1e-3, 5.0, 2.0]) + torch.tensor([0.0, 1e6, -3.0, 7.0])
    said = labels + 0.4 * labels.std(0) * torch.randn(rows, 4, generator=generator)
    labels[torch.rand(rows, 4, generator=generator) < 0.3] = torch.nan
    return said, labels


def test_numbers_as_scikit_learn_scores_them():
    said, labels = numbers()
    outputs = {"a": said[:, :1], "b": said[:, 1:2], "v": said[:, 2:]}
    parts = {"a": labels[:, :1], "b": labels[:, 1:2], "v": labels[:, 2:]}
    scores = task_scores(outputs, parts, dict.fromkeys(outputs, "number"))
    each = []
    for i in range(4):
        known = ~torch.isnan(labels[:, i])
        true, claim = labels[known, i].numpy(), said[known, i].numpy()
        each.append((r2_score(true, claim), mean_squared_error(true, claim), len(true)))
    assert scores["a_r2"] == pytest.approx(each[0][0])
    assert scores["a_rmse"] == pytest.approx(np.sqrt(each[0][1]))
    assert scores["b_r2"] == pytest.approx(each[1][0], rel=1e-5)
    assert scores["b_rmse"] == pytest.approx(np.sqrt(each[1][1]), rel=1e-5)
    assert scores["v_r2"] == pytest.approx((each[2][0] + each[3][0]) / 2)
    pooled = (each[2][1] * each[2][2] + each[3][1] * each[3][2]) / (each[2][2] + each[3][2])
    assert scores["v_rmse"] == pytest.approx(np.sqrt(pooled))


def test_scores_without_a_meaning_are_left_out():
    labels = torch.tensor([[1.0, torch.nan, 2.0], [1.0, torch.nan, torch.nan]])
    said = labels.nan_to_num(0.0) + 0.5
    names = ("constant", "none", "one")
    scores = task_scores(
        {n: said[:, i : i + 1] for i, n in enumerate(names)},
        {n: labels[:, i : i + 1] for i, n in enumerate(names)},
        dict.fromkeys(names, "number"),
    )
    assert scores == {"constant_rmse": pytest.approx(0.5), "one_rmse": pytest.approx(0.5)}


def test_classes_as_scikit_learn_scores_them():
    generator = torch.Generator().manual_seed(2)
    said = torch.rand(60, 4, generator=generator).softmax(-1)
    codes = torch.randint(3, (60, 1), generator=generator).double()
    codes[::7] = torch.nan
    scores = task_scores({"p": said}, {"p": codes}, {"p": "class"})
    known = ~torch.isnan(codes[:, 0])
    true, claim = codes[known, 0].long().numpy(), said[known].argmax(-1).numpy()
    assert scores["p_accuracy"] == pytest.approx(accuracy_score(true, claim))
    assert scores["p_f1"] == pytest.approx(f1_score(true, claim, average="macro"), abs=1e-6)
    assert task_scores({"p": said}, {"p": codes * torch.nan}, {"p": "class"}) == {}


def test_counts_and_looks():
    labels = torch.tensor([[1.0, torch.nan, 3.0], [torch.nan, torch.nan, 3.0]])
    counts = label_counts(labels, {"a": 1, "r": 0, "v": 2})
    assert {name: int(n) for name, n in counts.items()} == {"a": 1, "r": 2, "v": 2}
    for epochs, steps in ((3, 6), (60, 300), (200, 4000), (1000, 4000), (40, 20_000)):
        looks = [looks_at(epoch, epochs, steps) for epoch in range(epochs)]
        assert looks[0]
        assert looks[-1]
        assert min(epochs, 5) <= sum(looks) <= 101


def table(rows=160):
    x = torch.rand(rows, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = {"a": 1e4 + 50 * x[:, 0], "p": (x[:, 1] * 3).floor(), "v": x.clone()}
    y["a"][::3] = torch.nan
    y["v"][::4, 1] = torch.nan
    return x, y


HEADS = {
    "a": "regression",
    "p": {"kind": "classification", "num_classes": 3},
    "v": {"kind": "regression", "dim": 2},
    "r": "autoencoder",
}


def test_history_and_log_hold_the_scores_of_the_validation_rows(tmp_path):
    from genopt.models.training import split_rows

    x, y = table()
    model = FlexibleMultiTaskModel(2, HEADS, SMALL)
    logger = CSVLogger(tmp_path, name="", version="")
    model.fit(x, y, epochs=6, batch_size=32, validation=0.3, options=FitOptions(loggers=[logger]))
    best = min(model.history, key=lambda entry: entry["validation/loss"])
    _, held = split_rows(len(x), 0.3, 0)
    said = model.predict(x[held])
    known = ~torch.isnan(y["a"][held])
    true, claim = y["a"][held][known].numpy(), said["a"][known].numpy()
    assert best["validation/a_r2"] == pytest.approx(r2_score(true, claim), abs=1e-4)
    assert best["validation/a_rmse"] == pytest.approx(
        np.sqrt(mean_squared_error(true, claim)), rel=1e-3
    )
    right = (said["p"].argmax(-1) == y["p"][held]).double().mean()
    assert best["validation/p_accuracy"] == pytest.approx(float(right))
    assert {"validation/v_r2", "validation/p_f1", "validation/r_loss"} <= set(best)
    parts = [best[f"validation/{name}_loss"] for name in HEADS]
    assert best["validation/loss"] == pytest.approx(sum(parts) / len(parts), rel=1e-5)
    written = (tmp_path / "metrics.csv").read_text().splitlines()
    assert "validation/a_r2" in written[0].split(",")


def test_scores_can_be_monitored():
    x, y = table()
    stop = EarlyStopping("validation/a_r2", mode="max", stopping_threshold=-100.0)
    model = FlexibleMultiTaskModel(2, HEADS, SMALL)
    model.fit(x, y, epochs=20, batch_size=32, options=FitOptions(callbacks=[stop]))
    assert len(model.history) < 20


def test_validation_loss_counts_labels_over_several_batches():
    """Rows come in blocks of 4,096; a block with one label must not weigh as much as a full one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(10_200, 1, generator=generator, dtype=torch.float64)
    y = x[:, 0].clone()
    model = FlexibleMultiTaskModel(1, {"a": "regression"}, SMALL)
    y[100:] = torch.where(torch.rand(10_100, generator=generator) < 0.02, y[100:], torch.nan)
    model.fit(x, {"a": y}, epochs=1, batch_size=1000, validation=0.5)
    from genopt.models.training import split_rows

    _, held = split_rows(len(x), 0.5, 0)
    scaled = (model.predict(x[held])["a"] - y[held]) / float(model.head_unit("a"))
    assert model.history[0]["validation/loss"] == pytest.approx(
        float(scaled.square().nanmean()), rel=1e-4
    )


def test_curves_on_grids_of_their_own_are_watched_by_their_loss():
    x, _ = table(60)
    t = torch.tensor([[1.0, 2.0, 3.0]]).repeat(60, 1)
    model = FlexibleMultiTaskModel(2, {"s": {"kind": "sequence", "grid": [1.0, 2.0]}}, SMALL)
    model.fit(x, {"s": (t, x[:, :1] * t)}, epochs=2, batch_size=20)
    assert "validation/s_loss" in model.history[-1]
    assert "validation/s_r2" not in model.history[-1]
    model = FlexibleMultiTaskModel(2, {"s": {"kind": "sequence", "grid": [1.0, 2.0, 3.0]}}, SMALL)
    model.fit(x, {"s": x[:, :1] * t}, epochs=2, batch_size=20)
    assert "validation/s_r2" in model.history[-1]
