"""Encoders: columns as tokens against torch's own attention, and waves of columns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from genopt.errors import GenoptError
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.nn.periodic import PeriodicEncoder
from genopt.nn.transformer import AttentionBlock, FeatureTokens, TransformerEncoder
from genopt.space import Space, Variable


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def stirred(module: nn.Module) -> nn.Module:
    """The module with weights away from their zeros."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return module.eval()


def test_attention_is_that_of_torch():
    block = stirred(AttentionBlock(8, 2, 16)).double()
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([block.query.weight, block.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([block.query.bias, block.key_value.bias]))
    theirs.out_proj.load_state_dict(block.merge.state_dict())
    layer = nn.Sequential(block.layer_norm, block.inner, nn.SiLU(), block.outer)
    tokens = torch.randn(5, 4, 8, dtype=torch.float64)
    normed = block.attention_norm(tokens)
    mixed = tokens + theirs(normed, normed, normed)[0]
    torch.testing.assert_close(block(tokens), mixed + layer(mixed))
    whole = block(tokens)
    block.only_first = True
    torch.testing.assert_close(block(tokens), whole[:, :1])


def test_class_tokens_are_rows_of_a_table_and_mix_linearly():
    tokens = FeatureTokens([0, 3, 2], 4)
    x = torch.tensor([[2.0, 0.0, 1.0, 0.0, 1.0, 0.0]])
    out = tokens(x)[0]
    torch.testing.assert_close(out[0], 2.0 * tokens.directions[0] + tokens.offsets[0])
    torch.testing.assert_close(out[1], tokens.directions[2] + tokens.offsets[1])
    torch.testing.assert_close(out[2], tokens.directions[4] + tokens.offsets[2])
    relaxed = torch.tensor([[2.0, 0.3, 0.7, 0.0, 0.5, 0.5]])
    pure = torch.tensor([[2.0, 1.0, 0.0, 0.0, 1.0, 0.0], [2.0, 0.0, 1.0, 0.0, 0.0, 1.0]])
    a, b = tokens(pure)
    torch.testing.assert_close(tokens(relaxed)[0, 1], 0.3 * a[1] + 0.7 * b[1])
    torch.testing.assert_close(tokens(relaxed)[0, 2], 0.5 * a[2] + 0.5 * b[2])
    plain = FeatureTokens([0, 0], 4)
    torch.testing.assert_close(
        plain(torch.tensor([[1.5, -1.0]]))[0],
        torch.stack([1.5 * plain.directions[0], -plain.directions[1]]) + plain.offsets,
    )


def test_gradients_match_finite_differences_and_rows_are_alone():
    encoder = stirred(TransformerEncoder(4, [0, 0, 2], latent_dim=3, width=8, n_heads=2)).double()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(encoder, (x,), atol=1e-6)
    torch.testing.assert_close(encoder(x)[1], encoder(x[1:2])[0])
    torch.testing.assert_close(encoder(x.reshape(1, 3, 1, 4))[0, :, 0], encoder(x))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_members_in_one_pass_are_those_one_by_one():
    members = [stirred(TransformerEncoder(5, [0, 3, 0], width=8, n_heads=2)) for _ in range(3)]
    x = torch.randn(6, 5)
    tensors = stack_module_state(members)

    def loss(parameters, buffers):
        return functional_call(members[0], (parameters, buffers), (x,)).square().mean()

    together = vmap(loss, randomness="different")(*tensors)
    torch.testing.assert_close(together, torch.stack([m(x).square().mean() for m in members]))
    together.sum().backward()
    members[1](x).square().mean().backward()
    torch.testing.assert_close(
        tensors[0]["tokens.directions"].grad[1],
        members[1].tokens.directions.grad,
        atol=1e-6,
        rtol=1e-4,
    )


def test_a_model_learns_with_classes_as_tokens():
    space = Space((Variable("t", 0, 1), Variable("solvent", kind="categorical", labels="abc")))
    generator = torch.Generator().manual_seed(0)
    x = torch.stack(
        [torch.rand(300, generator=generator), torch.randint(3, (300,), generator=generator)], 1
    ).double()
    y = x[:, 0] * (x[:, 1] - 1.0)
    model = FlexibleMultiTaskModel(
        heads={"y": "regression"},
        x_space=space,
        encoder={"kind": "transformer", "width": 16, "n_blocks": 1, "n_heads": 2},
    )
    assert model.encoder.network.tokens.columns.tolist() == [[1, 0, 0, 0], [0, 1, 1, 1]]
    model.fit(x[:240], {"y": y[:240]}, epochs=40, batch_size=32)
    error = model.predict(x[240:])["y"] - y[240:]
    assert float(error.square().mean()) < 0.05 * float(y.var())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10}, "n_heads=4 must divide width=10"),
        ({"n_blocks": 0}, "n_blocks"),
        ({"classes": [0, 3]}, "do not make input_dim=3"),
        ({"hidden": 0}, "positive"),
        ({"dropout": 1.0}, "dropout"),
        ({"activation": "sliu"}, "silu"),
    ],
)
def test_bad_transformer(options, message):
    with pytest.raises(GenoptError, match=message):
        TransformerEncoder(3, **options)


# -- waves of columns ------------------------------------------------------------------------------
def wavy(n: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 6, generator=generator, dtype=torch.float64)
    return x, (10 * math.pi * x[:, 0]).sin() + x[:, 1:].sum(1)


def test_waves_in_one_column_are_found_where_a_perceptron_smooths_them():
    space = Space(tuple(Variable(f"x{i}", 0, 1) for i in range(6)))
    x, y = wavy(600, 0)
    fresh, truth = wavy(300, 1)
    missed = {}
    for kind in ("mlp", "periodic"):
        model = FlexibleMultiTaskModel(
            heads={"y": "regression"}, x_space=space, encoder=kind, seed=0, epochs=60
        )
        model.fit(x, {"y": y})
        missed[kind] = float((model.predict(fresh)["y"] - truth).square().mean())
    # the waves' own variance is .5
    assert missed["mlp"] > 0.3
    assert missed["periodic"] < 0.05


def test_an_encoder_of_waves_begins_near_a_perceptron():
    torch.manual_seed(0)
    encoder = PeriodicEncoder(3, latent_dim=5, frequencies=6, width=2)
    features = torch.randn(4, 7, 3)
    latent = encoder(features)
    assert latent.shape == (4, 7, 5)
    with torch.no_grad():
        encoder.weight.zero_()
    assert float((latent - encoder(features)).abs().max()) < 0.1
    # one whole period of every wave further, only the columns themselves are seen to move
    with torch.no_grad():
        encoder.weight.normal_()
        encoder.frequency.fill_(2.0)
        encoder.layers[0].weight[:, :3] = 0.0
    assert torch.allclose(encoder(features), encoder(features + 0.5), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frequencies": 0}, "positive"),
        ({"width": 0}, "positive"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_bad_encoder_of_waves(options, message):
    with pytest.raises(GenoptError, match=message):
        PeriodicEncoder(3, **options)
