"""Heads that are added, removed, switched off, held, or taken from a checkpoint."""

from __future__ import annotations

import copy
import sys
import types
import warnings

import pytest
import torch

from genopt.data.table import Table
from genopt.errors import GenoptError, UnknownNameError
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.options import FitOptions
from genopt.nn.heads import Head, masked_mean
from genopt.space import Space, Variable

SMALL = {"kind": "mlp", "hidden_dims": [32], "latent_dim": 16, "dropout": 0.02}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def data(n: int = 120, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return x, {
        "a": 10.0 + x[:, 0],
        "b": (4.0 * x[:, 0]).sin() + 0.1 * x[:, 1],
        "c": (2 * x[:, 0]).floor(),
    }


@pytest.fixture(scope="module")
def trained() -> FlexibleMultiTaskModel:
    torch.set_num_threads(1)
    x, y = data()
    model = FlexibleMultiTaskModel(
        2, {"a": "regression", "c": {"kind": "classification", "num_classes": 2}}, SMALL
    )
    return model.fit(x, {"a": y["a"], "c": y["c"]}, epochs=60)


def weights(model: FlexibleMultiTaskModel, part: str) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    return {name: value.clone() for name, value in state.items() if name.startswith(part)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[k], other[k]) for k in one)


# -- coming and going ------------------------------------------------------------------------------
def test_add_a_head_to_a_loaded_model_and_train_it_alone(trained, tmp_path):
    x, y = data()
    model = FlexibleMultiTaskModel.load(trained.save(tmp_path / "m.ckpt"))
    before = weights(model, "")
    model.add_head("b", "regression")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert model.y_space.names == ("a", "c", "b")
    assert bool(model.predict(x)["b"].isnan().all())
    assert bool(model.predict_y(x)[:, 2].isnan().all())
    model.freeze("encoder", "a", "c")
    assert model.trained_heads == ("b",)
    old = model.predict(x)
    model.learning_rate = 0.05
    model.fit(x, {"b": y["b"]}, epochs=60)
    assert all(
        torch.equal(model.state_dict()[name], value)
        for name, value in before.items()
        if name != "latent_scale"
    )
    assert torch.equal(model.predict(x)["a"], old["a"])
    error = model.predict(x)["b"] - y["b"]
    assert float(error.square().mean()) < 0.3 * float(y["b"].var())
    # what was done is in the next checkpoint
    again = FlexibleMultiTaskModel.load(model.save(tmp_path / "n.ckpt"))
    assert again.frozen == ("encoder", "a", "c")
    assert not any(p.requires_grad for p in again.encoder.parameters())
    assert torch.equal(again.predict(x)["b"], model.predict(x)["b"])
    assert again.history == model.history


def test_a_fit_leaves_heads_without_labels_as_they_are(trained):
    x, y = data()
    model = copy.deepcopy(trained)
    model.add_head("b", "regression").freeze("encoder")
    old = model.predict(x)
    model.learning_rate = 0.05
    model.fit(x, {"b": y["b"]}, epochs=5)
    new = model.predict(x)
    assert torch.equal(new["a"], old["a"])
    assert torch.equal(new["c"], old["c"])
    assert model.counted_heads == ("a", "c", "b")
    model.freeze("b")
    with pytest.raises(GenoptError, match="without a label"):
        model.fit(x, {"b": y["b"]}, epochs=1)


def test_remove_a_head(trained, tmp_path):
    x, _ = data()
    model = copy.deepcopy(trained)
    kept = {**weights(model, "encoder"), **weights(model, "task_heads.a")}
    model.freeze("c")
    model.remove_head("c")
    assert list(model.predict(x)) == ["a"]
    assert torch.equal(model.predict(x)["a"], trained.predict(x)["a"])
    assert bool(model.predict_y(x)[:, 1].isnan().all())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in kept.items())
    model = FlexibleMultiTaskModel.load(model.save(tmp_path / "m.ckpt"))
    assert list(model.heads) == ["a"]
    assert model.frozen == ()
    with pytest.raises(GenoptError, match="the only one"):
        model.remove_head("a")
    # the column is still there, so a head for it must fit
    with pytest.raises(GenoptError, match="does not fit its column"):
        model.add_head("c", "regression")
    model.add_head("c", "ordinal", weight=0.5)
    assert model.head_specs["c"]["num_classes"] == 2
    assert model.task_weights == {"a": 1.0, "c": 0.5}


def test_add_a_head_for_a_table_with_one_column_more(trained):
    x, y = data()
    first = FlexibleMultiTaskModel.for_spaces(
        trained.x_space, Space((Variable("a"), Variable("b"))), "auto", SMALL, epochs=15
    )
    space = Space(
        (Variable("b"), Variable("grade", kind="categorical", labels="uv"), Variable("a"))
    )
    first.add_head("grade", "classification", y_space=space)
    table = Table(x, torch.stack([y["b"], y["c"], y["a"]], 1), first.x_space, space)
    first.fit_table(table)
    error = (first.predict_y(x).detach() - table.y)[:, [0, 2]]
    assert float(error.square().mean()) < 0.2
    with pytest.raises(GenoptError, match="already there"):
        first.add_head("a", "regression")
    with pytest.raises(GenoptError, match="weight"):
        first.add_head("d", "regression", weight=-1.0)


# -- switched off ----------------------------------------------------------------------------------
def test_disabled_heads_are_neither_trained_nor_predicted(trained, tmp_path):
    x, y = data()
    model = copy.deepcopy(trained).disable_heads("c")
    head = weights(model, "task_heads.c")
    assert list(model.predict(x)) == ["a"]
    assert bool(model.predict_y(x)[:, 1].isnan().all())
    assert bool(torch.isfinite(model.predict_y(x)[:, 0]).all())
    model.fit(x, {"a": y["a"], "c": torch.full((120,), 9.0)}, epochs=2)
    assert same(head, weights(model, "task_heads.c"))
    with pytest.raises(GenoptError, match=r"head 'c' is disabled: model.enable_heads\('c'\)"):
        model.require_heads("a", "c")
    with pytest.raises(GenoptError, match="every head"):
        model.disable_heads("a")
    model = FlexibleMultiTaskModel.load(model.save(tmp_path / "m.ckpt"))
    assert model.disabled == ("c",)
    assert list(model.enable_heads("c").predict(x)) == ["a", "c"]
    model.fit(x, {"c": y["c"]}, epochs=2)
    assert not same(head, weights(model, "task_heads.c"))


@pytest.mark.parametrize("method", ["disable_heads", "enable_heads", "freeze", "remove_head"])
def test_unknown_names(trained, method):
    with pytest.raises(UnknownNameError, match="'aa'"):
        getattr(copy.deepcopy(trained), method)("aa")


# -- held ------------------------------------------------------------------------------------------
def test_frozen_parts_stay_bit_for_bit_and_drop_no_units(trained):
    x, y = data()
    model = copy.deepcopy(trained).freeze("encoder")
    encoder, head = weights(model, "encoder"), weights(model, "task_heads.a")
    model.train()
    assert not any(module.training for module in model.encoder.modules())
    assert model.task_heads["a"].training
    model.fit(x, {"a": y["a"], "c": y["c"]}, epochs=2)
    assert same(encoder, weights(model, "encoder"))
    assert not same(head, weights(model, "task_heads.a"))
    model.unfreeze("encoder").freeze("a")
    # its loss still counts in what the encoder learns
    assert model.trained_heads == ("a", "c")
    head = weights(model, "task_heads.a")
    model.fit(x, {"a": y["a"]}, epochs=2)
    assert same(head, weights(model, "task_heads.a"))
    assert not same(encoder, weights(model, "encoder"))
    with pytest.raises(GenoptError, match="nothing is left to train"):
        model.freeze("encoder", "c").fit(x, {"a": y["a"]}, epochs=1)


def test_a_frozen_fit_goes_on_where_it_stopped(tmp_path):
    x, y = data(60)
    for epochs in (2, 4):
        model = FlexibleMultiTaskModel(
            2, {"a": "regression", "b": "regression"}, SMALL, frozen=["encoder"], disabled=["b"]
        )
        start = weights(model, "encoder.network")
        model.fit(x, {"a": y["a"]}, epochs=epochs, options=FitOptions(folder=tmp_path))
        assert same(start, weights(model, "encoder.network"))
    assert len(model.history) == 4
    best = FlexibleMultiTaskModel.load(tmp_path / "checkpoints" / "best.ckpt")
    assert (best.frozen, best.disabled) == (("encoder",), ("b",))


# -- a start from another model --------------------------------------------------------------------
def test_fine_tuning_from_a_checkpoint(trained, tmp_path):
    x, y = data()
    path = trained.save(tmp_path / "m.ckpt")
    model = FlexibleMultiTaskModel(
        2,
        {"b": "regression", "a": "regression", "c": {"kind": "ordinal", "num_classes": 2}},
        SMALL,
        pretrained=path,
        frozen=["encoder"],
        learning_rate=0.05,
        seed=5,
    )
    assert same(weights(model, "encoder"), weights(trained, "encoder"))
    assert torch.equal(model.predict(x)["a"], trained.predict(x)["a"])
    # other options: a new head, which has not learned yet
    assert model.untrained_heads == ("b", "c")
    model.fit(x, {"b": y["b"], "c": y["c"]}, epochs=40)
    assert same(weights(model, "encoder"), weights(trained, "encoder"))
    assert float((model.predict(x)["b"] - y["b"]).square().mean()) < 0.4 * float(y["b"].var())
    assert model.hparams["pretrained"] is None
    saved = model.save(tmp_path / "n.ckpt")
    path.unlink()
    again = FlexibleMultiTaskModel.load(saved)
    assert torch.equal(again.predict(x)["b"], model.predict(x)["b"])


def test_a_checkpoint_that_does_not_fit(trained, tmp_path):
    path = trained.save(tmp_path / "m.ckpt")
    other = Space.of(x1=(0, 1), temperature=(0, 1))
    with pytest.raises(GenoptError, match=r"pretrained=.*temperature"):
        FlexibleMultiTaskModel(
            heads={"a": "regression"}, x_space=other, encoder=SMALL, pretrained=path
        )
    with pytest.raises(GenoptError, match=r"encoder has another shape.*x1, x2"):
        FlexibleMultiTaskModel(2, {"a": "regression"}, "mlp", pretrained=path)
    with pytest.raises(GenoptError, match="does not exist"):
        FlexibleMultiTaskModel(2, {"a": "regression"}, pretrained=tmp_path / "no.ckpt")
    with pytest.raises(UnknownNameError, match="'encodr'"):
        FlexibleMultiTaskModel(2, {"a": "regression"}, SMALL, frozen=["encodr"])
    with pytest.raises(UnknownNameError, match="'aa'"):
        FlexibleMultiTaskModel(2, {"a": "regression"}, SMALL, disabled=["aa"])


# -- heads without labels --------------------------------------------------------------------------
def test_a_column_without_labels_is_warned_of_and_the_others_are_trained():
    x, y = data()
    space = Space((Variable("a"), Variable("tension")))
    empty = torch.full((120,), torch.nan, dtype=torch.float64)
    table = Table(x, torch.stack([y["a"], empty], 1), Space.from_bounds([(0, 1)] * 2), space)
    model = FlexibleMultiTaskModel.for_spaces(table.x_space, space, "auto", SMALL, epochs=30)
    with pytest.warns(UserWarning, match=r"'tension'.* has no label: .* predicts NaN"):
        model.fit_table(table)
    out = model.predict_y(x).detach()
    assert bool(out[:, 1].isnan().all())
    assert float((out[:, 0] - y["a"]).square().mean()) < 0.2 * float(y["a"].var())
    with pytest.raises(GenoptError, match="'tension' never had a label"):
        model.require_heads("tension")
    # labels that come later are learned from, scale included
    model.fit(x, {"tension": 1e6 * y["b"]}, epochs=30)
    assert float((model.predict(x)["tension"] - 1e6 * y["b"]).std()) < 0.7e6 * float(y["b"].std())


def test_a_model_that_was_not_fitted_says_so_once():
    model = FlexibleMultiTaskModel(2, {"a": "regression"}, SMALL)
    with pytest.warns(UserWarning, match="has not been fitted"):
        assert model.predict([[0.0, 1.0]])["a"].shape == (1,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict([[0.0, 1.0]])
        # a search on the untrained model is how a study checks its options
        fresh = FlexibleMultiTaskModel(2, {"a": "regression"}, SMALL)
        assert bool(torch.isfinite(fresh.predict_y(torch.zeros(1, 2))).all())


# -- composing -------------------------------------------------------------------------------------
SPACE = Space(
    (
        Variable("strength"),
        Variable("defects", kind="integer", lower=0, upper=9),
        Variable("grade", kind="categorical", labels=("low", "mid", "high")),
        Variable("cp_300"),
        Variable("cp_400"),
    )
)


def kinds(heads: object) -> dict[str, str]:
    model = FlexibleMultiTaskModel.for_spaces(Space.of(t=(0, 1)), SPACE, heads, SMALL)
    return {name: type(head).__name__ for name, head in model.heads.items()}


def test_auto_takes_kinds_and_options():
    assert kinds("auto") == {
        "strength": "RegressionHead",
        "defects": "RegressionHead",
        "grade": "ClassificationHead",
        "cp_300": "RegressionHead",
        "cp_400": "RegressionHead",
    }
    auto = {"numbers": "heteroscedastic", "integers": "count", "classes": {"kind": "ordinal"}}
    found = kinds(
        {"auto": auto, "cp": {"kind": "sequence", "grid": {"cp_300": 300, "cp_400": 400}}}
    )
    assert found == {
        "strength": "HeteroscedasticHead",
        "defects": "CountHead",
        "grade": "OrdinalHead",
        "cp": "SequenceHead",
    }
    with pytest.raises(UnknownNameError, match="did you mean 'numbers'"):
        kinds({"auto": {"number": "heteroscedastic"}})
    with pytest.raises(GenoptError, match="does not fit its column"):
        kinds({"auto": {"classes": "regression"}})


def test_a_list_is_as_good_as_a_mapping():
    entries = [
        {"name": "grade", "kind": "ordinal"},
        {"name": "cp", "kind": "sequence", "grid": {"cp_400": 400, "cp_300": 300}},
        {"auto": {"heteroscedastic": {"beta": 0.0}, "numbers": "heteroscedastic"}},
    ]
    mapping = {
        entry["name"]: {k: v for k, v in entry.items() if k != "name"} for entry in entries[:2]
    }
    assert kinds(entries) == kinds({**mapping, "auto": entries[2]["auto"]})
    assert kinds(["auto"]) == kinds("auto")
    for bad, message in (
        ([{"kind": "ordinal"}], "needs a name"),
        (["grade"], "needs a name"),
        ([entries[0], entries[0]], "two entries"),
        (
            {"grade": "ordinal", "cp": {"kind": "sequence", "grid": {"cp_300": 1, "grade": 2}}},
            "two",
        ),
        ({"encoder": "regression"}, "must not be"),
    ):
        with pytest.raises(GenoptError, match=message):
            kinds(bad)


def test_sequence_columns_of_a_table_come_in_any_order():
    x = torch.rand(150, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    space = SPACE.select(["cp_300", "cp_400"])
    y = torch.cat([x, 5.0 + x], 1)
    y[::3, 0] = torch.nan
    heads = {"cp": {"kind": "sequence", "grid": {"cp_400": 400, "cp_300": 300}}}
    model = FlexibleMultiTaskModel.for_spaces(Space.of(t=(0, 1)), space, heads, SMALL, epochs=80)
    model.fit_table(Table(x, y, model.x_space, space))
    out = model.predict_y(x).detach()
    torch.testing.assert_close(out, torch.cat([x, 5.0 + x], 1), atol=0.4, rtol=0.0)
    torch.testing.assert_close(model.predict(x)["cp"].flip(-1), out)


def test_a_model_with_vector_heads_comes_back_from_its_file(tmp_path):
    heads = [
        {"name": "v", "kind": "heteroscedastic", "dim": 2},
        {"name": "s", "kind": "sequence", "grid": [1.0, 2.0, 3.0]},
        {"name": "n", "kind": "count"},
        {"name": "o", "kind": "ordinal", "num_classes": 3},
        {"name": "back", "kind": "autoencoder"},
    ]
    x, y = data(60)
    labels = {
        "v": torch.stack([y["a"], y["b"]], 1),
        "s": ([[1.0, 1.5], [2.5]] * 30, [[1.0, 1.5], [2.5]] * 30),
        "n": (9 * x[:, 0]).round(),
        "o": (3 * x[:, 1]).floor(),
    }
    model = FlexibleMultiTaskModel(2, heads, SMALL)
    assert model.y_space.names == ("v_1", "v_2", "s_1", "s_2", "s_3", "n", "o")
    model.fit(x, labels, epochs=2)
    again = FlexibleMultiTaskModel.load(model.save(tmp_path / "m.ckpt"))
    for name, value in model.predict(x).items():
        assert torch.equal(value, again.predict(x)[name])
    assert torch.equal(model.spread_y(x).isnan(), again.spread_y(x).isnan())
    assert model.spread_y(x).isnan()[0].tolist() == [False, False, True, True, True, False, True]


def test_hydra_composes_encoders_and_heads():
    from genopt.app.compose import compose
    from genopt.app.parts import make

    for words, encoder, head in (
        (
            ["encoder=transformer", "heads=heteroscedastic"],
            "TransformerEncoder",
            "HeteroscedasticHead",
        ),
        (["model.heads=[{name: degradation_wf3, kind: count}]"], "MLPEncoder", "CountHead"),
        (["+heads.degradation_wf3=count"], "MLPEncoder", "CountHead"),
    ):
        config = compose(["problem=photostability", "model=multitask", *words])
        problem = make(config.problem, "problem")
        model = make(config.model, "model")(x_space=problem.x_space, y_space=problem.y_space)
        assert type(model.encoder.network).__name__ == encoder
        assert type(model.heads["degradation_wf3"]).__name__ == head


@pytest.mark.filterwarnings("ignore:.*has not been fitted")
def test_columns_may_have_any_name(tmp_path):
    names = ("type", "values", "yield.1", "a%", "training", "_modules", "%2E", "size [mm]")
    space = Space(tuple(Variable(name) for name in names))
    x, _ = data(40)
    model = FlexibleMultiTaskModel.for_spaces(Space.from_bounds([(0, 1)] * 2), space, "auto", SMALL)
    assert tuple(model.heads) == tuple(model.task_heads) == names
    y = torch.stack([x[:, 0] + i for i in range(len(names))], 1)
    model.fit(x, {name: y[:, i] for i, name in enumerate(names)}, epochs=1)
    again = FlexibleMultiTaskModel.load(model.save(tmp_path / "m.ckpt"))
    assert torch.equal(again.predict(x)["yield.1"], model.predict(x)["yield.1"])
    assert again.predict_y(x).shape == (40, len(names))
    other = FlexibleMultiTaskModel.for_spaces(
        model.x_space, space, "auto", SMALL, pretrained=tmp_path / "m.ckpt", seed=3
    )
    assert torch.equal(other.predict(x)["type"], model.predict(x)["type"])
    again.remove_head("type").remove_head("yield.1")
    assert "type" not in again.task_heads
    assert tuple(again.predict(x)) == tuple(n for n in names if n not in ("type", "yield.1"))


class Halving(Head):
    """A head of one's own: half of the first latent entry."""

    def __init__(self, latent_dim: int, factor: float = 0.5) -> None:
        super().__init__()
        self.dim = self.label_width = 1
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, latent: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        return (self.factor * latent[..., :1]).to(dtype or latent.dtype)

    def loss(
        self, latent: torch.Tensor, targets: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        return masked_mean((self(latent) - targets).square(), ~torch.isnan(targets))


def test_a_head_of_ones_own_needs_only_its_forward_and_loss(monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(Halving=Halving))
    x, y = data(60)
    spec = {"_target_": "mine.Halving", "factor": 0.25}
    model = FlexibleMultiTaskModel(2, {"own": spec, "a": "regression"}, SMALL)
    model.fit(x, {"own": y["b"], "a": y["a"]}, epochs=3)
    latent = model.encoder(x)[1].detach()
    out = model.predict(x)["own"]
    torch.testing.assert_close(out, (model.heads["own"].factor.detach() * latent[:, 0]).double())
    assert model.heads["own"].factor.item() != 0.25
    assert model.spread_y(x).isnan().all()
