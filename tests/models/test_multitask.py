"""The multi-task model: masks, scales, heads, checkpoints, errors, one small real fit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genopt.data.table import Table
from genopt.errors import GenoptError, UnknownNameError
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.options import FitOptions
from genopt.nn.heads import ClassificationHead, RegressionHead
from genopt.nn.scalers import InputScaler, Standardiser
from genopt.protocols import ForwardModel
from genopt.space import Space, Variable

HEADS = {
    "density": "regression",
    "phase": {"kind": "classification", "num_classes": 3},
    "reconstruction": "autoencoder",
}
SMALL = {"kind": "mlp", "hidden_dims": [32], "latent_dim": 16}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def data(n: int = 240, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    density = 1000.0 + 50.0 * x[:, 0] - 20.0 * x[:, 1]
    phase = (x[:, 0] * 3).floor()
    return x, density, phase


@pytest.fixture(scope="module")
def fitted() -> FlexibleMultiTaskModel:
    torch.set_num_threads(1)
    x, density, phase = data()
    density = density.clone()
    density[::5] = torch.nan
    model = FlexibleMultiTaskModel(input_dim=2, heads=HEADS, encoder=SMALL)
    return model.fit(x, {"density": density, "phase": phase}, epochs=120, batch_size=32)


# -- learning --------------------------------------------------------------------------------------
def test_fit_learns_each_head_in_raw_units(fitted):
    x, density, phase = data(200, seed=1)
    out = fitted.predict(x)
    assert out["density"].shape == (200,)
    assert float((out["density"] - density).abs().max()) < 0.2 * float(density.std())
    assert float((out["density"] - density).square().mean().sqrt()) < 0.05 * float(density.std())
    assert float((out["phase"].argmax(-1) == phase).double().mean()) > 0.9
    assert float((out["reconstruction"] - x).abs().mean()) < 0.05
    torch.testing.assert_close(out["phase"].sum(-1), torch.ones(200, dtype=torch.float64))


def test_encoder_and_heads_compose_to_predict(fitted):
    x = data(7)[0].float()
    _, latent = fitted.encoder(x)
    torch.testing.assert_close(
        fitted.task_heads["density"](latent)[:, 0].detach(), fitted.predict(x)["density"]
    )


def test_numpy_in_numpy_out_and_same_seed_same_weights():
    x, density, _ = data(60)
    runs = []
    for _ in range(2):
        model = FlexibleMultiTaskModel(2, {"density": "regression"}, SMALL)
        state = torch.get_rng_state()
        model.fit(x.numpy(), {"density": density.numpy()}, epochs=2, seed=3)
        assert torch.equal(torch.get_rng_state(), state)
        runs.append(model.predict(x.numpy())["density"])
    assert isinstance(runs[0], np.ndarray)
    np.testing.assert_array_equal(runs[0], runs[1])


def test_predict_y_is_differentiable_and_matches_finite_differences(fitted):
    assert isinstance(fitted, ForwardModel)
    model = FlexibleMultiTaskModel.for_spaces(
        fitted.x_space, fitted.y_space, heads=HEADS, encoder=SMALL
    )
    model.load_state_dict(fitted.state_dict())
    model.double()
    x = torch.tensor([[0.3, 0.6]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.predict_y(x)[0, 0], x)
    step = 1e-5
    for i in range(2):
        shift = torch.zeros(1, 2, dtype=torch.float64)
        shift[0, i] = step
        up, down = model.predict_y(x.detach() + shift), model.predict_y(x.detach() - shift)
        slope = float((up - down).detach()[0, 0]) / (2 * step)
        assert float(gradient[0, i]) == pytest.approx(slope, rel=1e-5)


# -- masks and scales ------------------------------------------------------------------------------
def test_missing_label_has_no_influence_on_gradients():
    model = FlexibleMultiTaskModel(
        2, {"a": "regression", "b": {"kind": "regression", "dim": 2}, "c": HEADS["phase"]}, SMALL
    )
    x = torch.rand(6, 2)
    labels = torch.randn(6, 4)
    labels[:, 3] = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 2.0])
    labels[0, 0] = labels[1, 2] = labels[4, 3] = torch.nan

    def gradients(rows: torch.Tensor, values: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        model.batch_loss(rows, values).backward()
        return [
            p.grad.clone() if p.grad is not None else torch.zeros_like(p)
            for p in model.parameters()
        ]

    whole = gradients(x, labels)
    assert all(bool(torch.isfinite(g).all()) for g in whole)
    # a row without any label changes nothing, whatever its design
    more = torch.cat([labels, torch.full((1, 4), torch.nan)])
    for a, b in zip(whole, gradients(torch.cat([x, torch.full((1, 2), 9.0)]), more), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    # with labels of one head only, the other heads receive none
    only = labels.clone()
    only[:, 1:] = torch.nan
    gradients(x, only)
    assert float(model.task_heads["a"].network[0].weight.grad.abs().sum()) > 0
    assert float(model.task_heads["b"].network[0].weight.grad.abs().sum()) == 0
    assert float(model.task_heads["c"].network[0].weight.grad.abs().sum()) == 0


def test_regression_loss_averages_known_entries_only():
    head = RegressionHead(1)
    torch.nn.init.zeros_(head.network[0].weight)
    torch.nn.init.zeros_(head.network[0].bias)
    targets = torch.tensor([[3.0], [torch.nan], [1.0]])
    assert float(head.loss(torch.ones(3, 1), targets, torch.empty(3, 0)).detach()) == 5.0


def test_class_weights_act_as_repeated_rows():
    weighted = ClassificationHead(2, 2, class_weights=[1.0, 3.0])
    plain = ClassificationHead(2, 2)
    plain.network.load_state_dict(weighted.network.state_dict())
    latent, codes = torch.randn(2, 2), torch.tensor([[0.0], [1.0]])
    repeat = [0, 1, 1, 1]
    torch.testing.assert_close(
        weighted.loss(latent, codes, latent), plain.loss(latent[repeat], codes[repeat], latent)
    )
    balanced = ClassificationHead(2, 2, class_weights="balanced")
    balanced.learn(torch.tensor([[0.0], [0.0], [0.0], [1.0], [torch.nan]]))
    assert float(balanced.weights[1] / balanced.weights[0]) == pytest.approx(3.0)


@settings(max_examples=30, deadline=None)
@given(offset=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), missing=st.integers(0, 5))
def test_standardiser_round_trip_and_moments(offset, width, missing):
    values = offset + width * torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
    values[:missing] = torch.nan
    scaler = Standardiser(1)
    scaler.learn(values)
    scaled = scaler(values)
    known = scaled[missing:].double()
    assert abs(float(known.mean())) < 0.2 + abs(offset) * 1e-7 / width
    assert bool(torch.isnan(scaled[:missing]).all())
    back = scaler.inverse(scaled, torch.float64)[missing:]
    assert float((back - values[missing:]).abs().max()) <= 1e-6 * (width * 3 + abs(offset) * 1e-3)


def test_rescaled_columns_give_the_same_answer():
    x, density, _ = data(120)
    factor = torch.tensor([1e-5, 1e4], dtype=torch.float64)
    out = []
    for scale, unit in ((torch.ones(2, dtype=torch.float64), 1.0), (factor, 1e3)):
        model = FlexibleMultiTaskModel(2, {"density": "regression"}, SMALL)
        model.fit(x * scale, {"density": density * unit}, epochs=5)
        out.append(model.predict(x * scale)["density"] / unit)
    torch.testing.assert_close(out[0], out[1], rtol=1e-4, atol=1e-2)


def test_input_scaler_class_blocks_round_trip():
    scaler = InputScaler([0, 3, 0])
    x = torch.tensor([[1.0, 2.0, 5.0], [2.0, 0.0, 7.0]], dtype=torch.float64)
    wide = scaler.wide(x)
    assert wide.tolist() == [[1.0, 0.0, 0.0, 1.0, 5.0], [2.0, 1.0, 0.0, 0.0, 7.0]]
    assert torch.equal(scaler.raw(wide), x)


# -- Spaces and tables -----------------------------------------------------------------------------
def mixed_table(n: int = 120) -> Table:
    x_space = Space((Variable("t", 0, 10), Variable("solvent", kind="categorical", labels="abc")))
    y_space = Space(
        (Variable("rate", 0, 5), Variable("state", kind="categorical", labels=("low", "high")))
    )
    generator = torch.Generator().manual_seed(0)
    t = 10 * torch.rand(n, generator=generator, dtype=torch.float64)
    solvent = torch.randint(3, (n,), generator=generator).double()
    rate = 0.1 * t + solvent
    y = torch.stack([rate, (rate > 1.5).double()], 1)
    y[::4, 0] = torch.nan
    return Table(torch.stack([t, solvent], 1), y, x_space, y_space)


def test_fit_table_with_classes_on_both_sides():
    table = mixed_table().with_split(0.1, 0.2)
    model = FlexibleMultiTaskModel.for_spaces(
        table.x_space, table.y_space, "auto_autoencoder", SMALL, epochs=150, batch_size=32
    )
    model.fit_table(table)
    test = table.part("test")
    y = model.predict_y(test.x).detach()
    rate = 0.1 * test.x[:, 0] + test.x[:, 1]
    assert float((y[:, 0] - rate).abs().mean()) < 0.1
    assert float((y[:, 1] == test.y[:, 1]).double().mean()) > 0.85
    decoded = model.predict(test.x)["reconstruction"]
    assert float((decoded[:, 1] == test.x[:, 1]).double().mean()) > 0.9


def test_column_without_head_is_nan():
    table = mixed_table(40)
    model = FlexibleMultiTaskModel.for_spaces(
        table.x_space, table.y_space, {"rate": "regression"}, SMALL
    )
    y = model.predict_y(table.x)
    assert bool(torch.isfinite(y[:, 0]).all())
    assert bool(torch.isnan(y[:, 1]).all())


# -- checkpoints -----------------------------------------------------------------------------------
def test_save_and_load_keep_predictions_and_scalers(fitted, tmp_path):
    path = fitted.save(tmp_path / "deep" / "model.ckpt")
    x = data(9, seed=4)[0]
    again = FlexibleMultiTaskModel.load(path)
    for name, value in fitted.predict(x).items():
        assert torch.equal(value, again.predict(x)[name])
    state = torch.load(path, weights_only=True)["state_dict"]
    assert float(state["task_heads.density.scaler.mean"]) == pytest.approx(1015.0, abs=5.0)
    assert len(again.history) == len(fitted.history)
    by_lightning = FlexibleMultiTaskModel.load_from_checkpoint(path, weights_only=True)
    assert torch.equal(by_lightning.eval().predict(x)["density"], again.predict(x)["density"])


def test_fit_with_folder_leaves_a_loadable_checkpoint(tmp_path):
    x, density, _ = data(60)
    model = FlexibleMultiTaskModel(2, {"density": "regression"}, SMALL)
    model.fit(x, {"density": density}, epochs=3, options=FitOptions(folder=tmp_path))
    best = FlexibleMultiTaskModel.load(tmp_path / "checkpoints" / "best.ckpt")
    torch.testing.assert_close(best.predict(x)["density"], model.predict(x)["density"])


def test_wrong_file_and_wrong_problem(fitted, tmp_path):
    with pytest.raises(GenoptError, match="does not exist"):
        FlexibleMultiTaskModel.load(tmp_path / "no.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(GenoptError, match="no checkpoint"):
        FlexibleMultiTaskModel.load(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(GenoptError, match="no checkpoint of a multi-task model"):
        FlexibleMultiTaskModel.load(tmp_path / "other.ckpt")
    with pytest.raises(GenoptError, match="temperature"):
        fitted.check_spaces(Space.of(x1=(0, 1), temperature=(0, 1)), fitted.y_space)
    fitted.check_spaces(fitted.x_space, fitted.y_space)


# -- errors before work ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.rand(60, 3)}, r"expected \(N, 2\)"),
        ({"x": torch.full((60, 2), torch.nan)}, "x column 'x1' is nan in row 0"),
        ({"y": {"denisty": torch.rand(60)}}, "did you mean 'density'"),
        ({"y": {"density": torch.full((60,), torch.nan)}}, "all 60 entries are missing"),
        ({"y": {"density": torch.rand(59)}}, r"expected \(60, 1\)"),
        ({"y": {"density": ["a"] * 60}}, "must hold numbers"),
        ({"y": {"density": [torch.inf] * 60}}, r"y\['density'\] holds an infinite value in row 0"),
        ({"y": {"phase": torch.full((60,), 2.0)}}, "one class only"),
        ({"y": {"phase": torch.arange(60.0)}}, "codes are 0 to 2"),
        ({"y": {}}, "no label at all"),
        ({"y": {"reconstruction": torch.rand(60, 2)}}, "takes no labels"),
    ],
)
def test_bad_training_data(change, message):
    x, density, phase = data(60)
    arguments = {"x": x, "y": {"density": density, "phase": phase}, **change}
    model = FlexibleMultiTaskModel(2, HEADS, SMALL)
    with pytest.raises(GenoptError, match=message):
        model.fit(arguments["x"], arguments["y"], epochs=1)


def test_constant_columns_warn():
    x, density, _ = data(60)
    x[:, 1] = 0.5
    model = FlexibleMultiTaskModel(2, {"density": "regression"}, SMALL)
    with pytest.warns(UserWarning, match="x column 'x2' is constant"):
        model.fit(x, {"density": density}, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, {"density": torch.full((60,), 2.0)}, epochs=1)
    assert bool(torch.isfinite(model.predict(x)["density"]).all())


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"heads": {"a": "regresion"}}, UnknownNameError, "regression"),
        ({"heads": {}}, GenoptError, "no head"),
        ({"heads": {"a": "regression"}, "encoder": "mpl"}, UnknownNameError, "'mlp'"),
        ({"heads": {"a": {"kind": "regression", "width": 3}}}, GenoptError, "width"),
        ({"heads": {"a": "regression"}, "task_weights": {"b": 1.0}}, UnknownNameError, "b"),
        ({"heads": {"a": "regression"}, "input_dim": 0}, GenoptError, "input_dim"),
        ({"heads": "auto"}, GenoptError, "for_spaces"),
    ],
)
def test_bad_construction(keywords, error, message):
    with pytest.raises(error, match=message):
        FlexibleMultiTaskModel(**{"input_dim": 2, **keywords})


def test_a_column_of_one_class_is_named():
    only = Variable("state", labels=("solid",), kind="categorical")
    for heads in ("auto", {"state": "classification"}):
        with pytest.raises(GenoptError, match="'state' holds one class only, 'solid'"):
            FlexibleMultiTaskModel.for_spaces(Space.of(a=(0, 1)), Space((only,)), heads)


def test_head_must_fit_its_column():
    table = mixed_table(20)
    with pytest.raises(UnknownNameError, match="rate"):
        FlexibleMultiTaskModel.for_spaces(table.x_space, table.y_space, {"ratte": "regression"})
    with pytest.raises(GenoptError, match="does not fit its column"):
        FlexibleMultiTaskModel.for_spaces(table.x_space, table.y_space, {"state": "regression"})
