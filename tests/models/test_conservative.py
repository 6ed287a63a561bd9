"""Conservative training: the search against the model, and what it does to claims of optima."""

from __future__ import annotations

import pytest
import torch

from genopt.errors import GenoptError, UnknownNameError
from genopt.models.multitask.conservative import ConservativeOptions, ConservativePenalty
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.nn.heads import RegressionHead
from genopt.nn.scalers import InputScaler
from genopt.space import Space, Variable

HEADS = {"a": "regression", "p": {"kind": "classification", "num_classes": 2}}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def test_overestimation_at_optima_falls():
    """A narrow sample of a bent function: a search claims more than there is, less so now."""

    def truth(x):
        return (3 * x).sin().sum(-1) - 0.5 * (x * x.roll(1, -1)).sum(-1)

    space = Space.from_bounds([(-2.0, 2.0)] * 6)
    generator = torch.Generator().manual_seed(0)
    x = (0.7 * torch.randn(120, 6, generator=generator, dtype=torch.float64)).clamp(-2, 2)
    y = truth(x)
    over, true = [], []
    for conservative in (None, {"goals": {"a": "max"}}):
        model = FlexibleMultiTaskModel(
            x_space=space,
            heads={"a": "regression"},
            encoder={"kind": "mlp", "hidden_dims": [64], "latent_dim": 32},
            conservative=conservative,
        )
        model.fit(x, {"a": y}, epochs=60, batch_size=32)
        result = model.optimize_latent(
            "a", initial_input=x[:16], steps=50, num_restarts=1, perturbation_std=0.0
        )
        found = truth(result["best_input"].to(torch.float64))
        over.append(float((result["best_target"][:, 0] - found).mean() / y.std()))
        true.append(float(found.mean() / y.std()))
    assert over[0] > 1.0
    assert abs(over[1]) < 0.5 * over[0]
    assert true[1] > true[0]


def linear(slope, goals=None, **options):
    """A claim that is linear in the features, so the search's way is known."""
    head = RegressionHead(len(slope))
    with torch.no_grad():
        head.network[0].weight.copy_(torch.tensor([slope]))
        head.network[0].bias.zero_()
        head.scaler.scale.fill_(7.0)
    given = ConservativeOptions(goals or {"a": "max"}, **options)
    return ConservativePenalty(given, {"a": head}), {"a": head}


def test_the_search_goes_uphill_by_steps_of_the_given_length():
    penalty, heads = linear([3.0, -4.0], weight=0.5, steps=4, lr=0.25)
    space = Space.from_bounds([(-100.0, 100.0)] * 2)
    penalty.learn_bounds(space, InputScaler([0, 0]))
    features = torch.randn(6, 2)
    network = torch.nn.Identity()
    found = penalty.search(network, heads, features)
    assert found.shape == (1, 6, 2)
    way = found[0] - features
    expected = 4 * 0.25 * 2**0.5 * torch.tensor([0.6, -0.8])
    torch.testing.assert_close(way, expected.expand(6, 2))
    # the slope is 5 along the way, in spreads of the label
    value = penalty(network, heads, features, features)
    assert float(value.detach()) == pytest.approx(0.5 * 5 * 2**0.5, rel=1e-5)
    down, heads = linear([3.0, -4.0], {"a": "min"}, weight=0.5, steps=4, lr=0.25)
    down.learn_bounds(space, InputScaler([0, 0]))
    back = down.search(network, heads, features)[0] - features
    torch.testing.assert_close(back, -expected.expand(6, 2))


def test_the_search_stays_where_designs_can_be():
    space = Space(
        (
            Variable("t", -1.0, 1.0),
            Variable("solvent", kind="categorical", labels=("a", "b", "c")),
            Variable("u", 0.1, 1.0),
            Variable("v", 0.0, 0.7),
            Variable("w", 0.0, 1.0),
        ),
        simplexes=(("u", "v", "w"),),
    )
    scaler = InputScaler([0, 3, 0, 0, 0])
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50, 5, generator=generator, dtype=torch.float64)
    x[:, 1] = torch.randint(3, (50,), generator=generator)
    x = space.project(x)
    scaler.learn_designs(x)
    penalty, heads = linear([1.0, 1.0, 2.0, 3.0, 1.0, 2.0, -1.0], steps=12, lr=0.5)
    penalty.learn_bounds(space, scaler)
    features = scaler(scaler.wide(x))
    found = penalty.search(torch.nn.Identity(), heads, features)[0]
    designs = scaler.raw(scaler.inverse(found, torch.float64))
    assert bool(space.contains(designs, 1e-4).all())
    assert torch.equal(designs[:, 1], x[:, 1])
    assert float((designs[:, 0] - 1.0).abs().max()) < 1e-6
    # uphill: the slopes of u, v, w are 1, 2, -1 in scaled features
    moved = (found - features)[:, 4:] @ torch.tensor([1.0, 2.0, -1.0])
    assert float(moved.min()) > -1e-4
    assert float(moved.mean()) > 1.0
    assert float((designs[:, 3] - x[:, 3]).mean()) > 0.1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"goals": {"b": "max"}}, UnknownNameError, "'b'"),
        ({"goals": {"p": "max"}}, GenoptError, "no number"),
        ({"goals": {"a": "maximum"}}, UnknownNameError, "did you mean 'max'"),
        ({"goals": {}}, GenoptError, "names no head"),
        ({"weight": 1.0}, GenoptError, "names no head"),
        ({"goals": {"a": "max"}, "weights": 1.0}, UnknownNameError, "did you mean 'weight'"),
        ({"goals": {"a": "max"}, "steps": 0}, GenoptError, "steps=0"),
        ({"goals": {"a": "max"}, "lr": 0.0}, GenoptError, "lr=0.0"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        FlexibleMultiTaskModel(2, HEADS, conservative=options)


def test_options_survive_a_checkpoint(tmp_path):
    model = FlexibleMultiTaskModel(2, HEADS, conservative={"goals": {"a": "min"}, "steps": 2})
    x = torch.rand(60, 2)
    model.fit(x, {"a": x[:, 0], "p": (x[:, 1] > 0.5).float()}, epochs=1)
    again = FlexibleMultiTaskModel.load(model.save(tmp_path / "m.ckpt"))
    assert again.hparams["conservative"] == {
        "goals": {"a": "min"}, "weight": 0.1, "steps": 2, "lr": 0.1
    }  # fmt: skip
    assert again.conservative.options.goals == {"a": "min"}
