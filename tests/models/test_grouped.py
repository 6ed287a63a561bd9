"""Grouped heads: the same losses and gradients as heads one by one, in fewer computations."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, vmap

from genopt.models.multitask.grouped import GroupedLosses
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.nn.heads import RegressionHead

DEEP = {"kind": "regression", "hidden_dims": [7]}
CLASSES = {"kind": "classification", "num_classes": 3}
SMALL = {"kind": "mlp", "hidden_dims": [16], "latent_dim": 8}
HEADS = {
    "a": "regression",
    "p": CLASSES,
    "b": {"kind": "regression", "dim": 3},
    "d": DEEP,
    "q": {**CLASSES, "class_weights": [1.0, 2.0, 3.0]},
    "c": "regression",
    "h": {"kind": "heteroscedastic"},
    "r": "autoencoder",
    "e": DEEP,
    "n": "count",
    "o": {"kind": "ordinal", "num_classes": 4},
    "s": {"kind": "sequence", "grid": [1.0, 2.0, 4.0]},
    "m": "count",
    "u": {"kind": "sequence", "grid": [1.0, 2.0, 3.0]},
    "k": {"kind": "heteroscedastic"},
    "v": {"kind": "ordinal", "num_classes": 4},
    "tanh": {**DEEP, "activation": "tanh"},
}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def model_of(heads=HEADS, **options):
    model = FlexibleMultiTaskModel(4, heads, SMALL, **options)
    for i, p in enumerate(model.parameters()):
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(i))
    return model


def batch(model, rows=40, missing=0.4):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(rows, 4, generator=generator)
    parts = []
    for name, width in model.label_widths.items():
        if model.head_kind(name) == "class":
            parts.append(torch.randint(3, (rows, 1), generator=generator).float())
        else:
            parts.append(torch.randint(6, (rows, width), generator=generator).float())
    targets = torch.cat(parts, 1)
    targets[torch.rand(targets.shape, generator=generator) < missing] = torch.nan
    return features, targets


def one_by_one(model, names, latent, targets, features):
    losses, start = {}, 0
    for name, width in model.label_widths.items():
        losses[name] = model.heads[name].loss(latent, targets[:, start : start + width], features)
        start += width
    return torch.stack([losses[name] for name in names])


def gradients(model, losses):
    model.zero_grad()
    (losses * torch.linspace(0.5, 2.0, len(losses))).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_losses_and_gradients_equal_those_of_single_heads(missing):
    model = model_of()
    features, targets = batch(model, missing=missing)
    grouped = GroupedLosses(model.heads, model.label_widths, model.counted_heads)
    # {a, b, c}, {d, e}, {n, m}, {o, v}, {h, k}; p and q differ in their weights, s and u in theirs
    assert grouped.number < len(HEADS) - 4
    ours = grouped(model.encoder.network(features), targets, features)
    theirs = one_by_one(
        model, model.counted_heads, model.encoder.network(features), targets, features
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    one, other = gradients(model, ours), gradients(model, theirs)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)


def test_heads_alike_but_for_an_option_are_not_joined():
    model = model_of({"a": DEEP, "b": {**DEEP, "activation": "tanh"}, "c": DEEP})
    names = model.counted_heads
    assert GroupedLosses(model.heads, model.label_widths, names).number == 2
    features, targets = batch(model)
    latent = model.encoder.network(features)
    torch.testing.assert_close(
        model.task_losses(latent, targets, features),
        one_by_one(model, names, latent, targets, features),
    )


def test_frozen_and_disabled_heads():
    model = model_of(disabled=["b", "e"], frozen=["d", "a"], task_weights={"c": 0.0})
    features, targets = batch(model)
    names = model.counted_heads
    assert not {"b", "e", "c"} & set(names)
    assert {"a", "d"} <= set(names)
    latent = model.encoder.network(features)
    losses = model.task_losses(latent, targets, features)
    torch.testing.assert_close(losses, one_by_one(model, names, latent, targets, features))
    found = gradients(model, losses)
    idle = [n for n in found if n.startswith(tuple(f"task_heads.{h}." for h in "abcde"))]
    assert idle == []
    model.freeze("encoder")
    assert not {"a", "d"} & set(model.counted_heads)


def test_weights_are_those_of_the_weighted_mean():
    weights = {"a": 3.0, "p": 0.5}
    model = model_of({"a": "regression", "b": "regression", "p": CLASSES}, task_weights=weights)
    features, targets = batch(model)
    a, b, p = one_by_one(
        model, ["a", "b", "p"], model.encoder.network(features), targets, features
    ).tolist()
    expected = (3.0 * a + b + 0.5 * p) / 4.5
    assert float(model.batch_loss(features, targets).detach()) == pytest.approx(expected, rel=1e-6)
    assert float(model.held_out_loss(features, targets).detach()) == pytest.approx(
        expected, rel=1e-6
    )


def test_dropout_differs_between_stacked_heads():
    wide = {"kind": "regression", "hidden_dims": [256], "dropout": 0.5}
    model = model_of({"a": wide, "b": wide})
    state = model.task_heads["a"].state_dict()
    model.task_heads["b"].load_state_dict(state)
    features, targets = batch(model, missing=0.0)
    targets[:, 1] = targets[:, 0]
    model.train()
    a, b = model.task_losses(model.encoder.network(features), targets, features).tolist()
    assert a != b
    model.eval()
    a, b = model.task_losses(model.encoder.network(features), targets, features).tolist()
    assert a == pytest.approx(b)


class Squares(RegressionHead):
    """A head of one's own, which vmap could not take."""

    def loss(self, latent, targets, features):
        known = ~torch.isnan(targets)
        return (self.network(latent)[known] - targets[known]).square().mean()


def test_heads_of_ones_own_go_one_by_one():
    model = model_of({"a": "regression", "b": "regression"})
    for name in ("a", "b"):
        model.task_heads[name] = Squares(8)
    grouped = GroupedLosses(model.heads, model.label_widths, ("b", "a"))
    assert grouped.number == 2
    features, targets = batch(model)
    latent = model.encoder.network(features)
    torch.testing.assert_close(
        grouped(latent, targets, features),
        one_by_one(model, ("b", "a"), latent, targets, features),
    )


class Losses(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, features, targets):
        return self.model.held_out_losses(features, targets)


def test_losses_of_several_models_under_vmap():
    models = [model_of(seed=i) for i in range(3)]
    for i, model in enumerate(models):
        for p in model.parameters():
            p.data += 0.1 * i
    features, targets = batch(models[0])
    parameters, buffers = torch.func.stack_module_state(models)
    base = Losses(models[0])

    def losses(parameters, buffers):
        state = {f"model.{n}": t for part in (parameters, buffers) for n, t in part.items()}
        return functional_call(base, state, (features, targets))

    together = vmap(losses, randomness="different")(parameters, buffers)
    alone = torch.stack([m.held_out_losses(features, targets) for m in models])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
