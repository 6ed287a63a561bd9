"""Balances of tasks: against closed forms, the paper's algorithm and another library."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genopt.errors import UnknownNameError
from genopt.models.multitask.balance import UncertaintyBalance, without_conflicts
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.options import FitOptions
from genopt.nn.heads import ClassificationHead, HeteroscedasticHead, RegressionHead

SMALL = {"kind": "mlp", "hidden_dims": [16], "latent_dim": 8}
TWO = {"a": "regression", "b": "regression"}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def two_tasks(n=200):
    """One property without noise and one that is nothing but noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return x, {"a": x[:, 0], "b": torch.randn(n, generator=generator, dtype=torch.float64)}


def test_unknown_balance():
    with pytest.raises(UnknownNameError, match="uncertainty"):
        FlexibleMultiTaskModel(2, TWO, SMALL, balance="uncertainity")


# -- uncertainty -----------------------------------------------------------------------------------
def settled(heads, losses, weights=None):
    """exp(-s) after descending on s alone, with the losses held."""
    balance = UncertaintyBalance(heads)
    values = torch.tensor(losses)
    share = torch.ones(len(losses)) / len(losses) if weights is None else torch.tensor(weights)
    optimizer = torch.optim.Adam(balance.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        out = balance(lambda _: values, torch.zeros(1, 1), share, tuple(heads), ())
        out.objective.backward()
        optimizer.step()
    s = 10 * balance.scaled_log_variance.detach()
    return balance, s


def test_log_variances_settle_where_their_likelihood_with_the_prior_is_largest():
    heads = {"a": RegressionHead(2), "p": ClassificationHead(2, 2), "b": RegressionHead(2)}
    _, s = settled(heads, [0.5, 0.5, 0.01])
    for loss, factor, value in ((0.5, 1, s[0]), (0.5, 2, s[1]), (0.01, 1, s[2])):
        # the root of the derivative, by bisection
        low, high = -20.0, 20.0
        for _ in range(80):
            middle = 0.5 * (low + high)
            slope = -factor * loss * math.exp(-middle) + 1 + 2 * middle / 9
            low, high = (middle, high) if slope < 0 else (low, middle)
        assert float(value) == pytest.approx(low, abs=0.02)


def test_heads_that_know_their_noise_and_heads_without_labels_keep_the_factor_one():
    heads = {"a": RegressionHead(2), "h": HeteroscedasticHead(2), "b": RegressionHead(2)}
    _, s = settled(heads, [0.1, -2.0, 0.0])
    assert float(s[0]) < -1.0
    assert s[1:].tolist() == [0.0, 0.0]


def test_the_network_sees_weights_that_sum_to_one():
    heads = {"a": RegressionHead(2), "b": RegressionHead(2)}
    balance, s = settled(heads, [0.9, 0.02], [0.25, 0.75])
    values = torch.tensor([0.3, 0.4], requires_grad=True)
    out = balance(lambda _: values, torch.zeros(1, 1), torch.tensor([0.25, 0.75]), ("a", "b"), ())
    (seen,) = torch.autograd.grad(out.objective, values)
    precision = (-s).exp() * torch.tensor([0.25, 0.75])
    torch.testing.assert_close(seen, precision / precision.sum())
    factors = balance.factors()
    assert factors["b"] > 5 * factors["a"]
    assert factors["a"] + factors["b"] == pytest.approx(2.0)


def test_a_fit_with_uncertainty_learns_weights_and_watches_the_plain_loss(tmp_path):
    x, y = two_tasks()
    model = FlexibleMultiTaskModel(2, TWO, SMALL, balance="uncertainty", task_weights={"b": 3.0})
    model.fit(x, y, epochs=40, batch_size=32, options=FitOptions(folder=tmp_path))
    factors = [(e["balance/a"], e["balance/b"]) for e in model.history if "balance/a" in e]
    assert factors[-1][0] > 3 * factors[-1][1]
    for entry in model.history:
        if "validation/a_loss" in entry:
            plain = (entry["validation/a_loss"] + 3 * entry["validation/b_loss"]) / 4
            assert entry["validation/loss"] == pytest.approx(plain, rel=1e-5)
    # the training loss is the plain one, too: nothing but noise stays near its variance
    assert 0.6 < model.history[-1]["train/loss"] < 0.9
    again = FlexibleMultiTaskModel.load(model.save(tmp_path / "m.ckpt"))
    assert again.balance.factors() == model.balance.factors()


def test_what_was_learned_of_heads_survives_their_management():
    model = FlexibleMultiTaskModel(
        2,
        {**TWO, "c": "regression"},
        SMALL,
        balance="uncertainty",
        conservative={"goals": {"b": "max"}},
    )
    with torch.no_grad():
        model.balance.scaled_log_variance.copy_(torch.tensor([0.1, 0.2, 0.3]))
    before = model.balance.factors()
    model.remove_head("b").add_head("d", "regression")
    after = model.balance.factors()
    assert list(after) == ["a", "c", "d"]
    assert after["a"] / after["c"] == pytest.approx(before["a"] / before["c"])
    assert after["d"] / after["a"] == pytest.approx(math.exp(1.0))
    assert model.conservative is None
    x, y = two_tasks(60)
    model.fit(x, {"a": y["a"], "c": y["b"], "d": y["b"]}, epochs=1)


# -- conflicting gradients -------------------------------------------------------------------------
def algorithm_1(gradients, orders):
    """The paper's algorithm on the gradients themselves, task by task."""
    total = torch.zeros_like(gradients[0])
    for i, order in enumerate(orders.tolist()):
        mine = gradients[i].clone()
        for j in order:
            if j != i and float(mine @ gradients[j]) < 0:
                mine -= (mine @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
        total += mine
    return total


@settings(max_examples=40, deadline=None)
@given(tasks=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_projections_are_those_of_the_paper(tasks, seed):
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(tasks, 5, generator=generator, dtype=torch.float64)
    orders = torch.rand(tasks, tasks, generator=generator).argsort(1)
    weights = without_conflicts(gradients @ gradients.mT, orders)
    torch.testing.assert_close(weights @ gradients, algorithm_1(gradients, orders))


def conflict():
    model = FlexibleMultiTaskModel(3, TWO, SMALL, balance="pcgrad", task_weights={"b": 2.0})
    features = torch.randn(30, 3, generator=torch.Generator().manual_seed(3))
    targets = features[:, :1] * torch.tensor([[1.0, -1.0]])
    # alike heads with opposite labels: their gradients conflict
    model.task_heads["b"].load_state_dict(model.task_heads["a"].state_dict())
    return model, features, targets


def gradients_of(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}


def test_the_encoder_follows_projected_gradients_and_heads_their_own():
    model, features, targets = conflict()
    fixed = FlexibleMultiTaskModel(3, TWO, SMALL, task_weights={"b": 2.0})
    fixed.load_state_dict(model.state_dict())
    ours = gradients_of(model, model.batch_loss(features, targets))
    plain = gradients_of(fixed, fixed.batch_loss(features, targets))
    latent = model.encoder.network(features)
    losses = model.task_losses(latent, targets, features) * torch.tensor([1 / 3, 2 / 3])
    encoder = list(model.encoder.parameters())
    each = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, encoder, retain_graph=True)])
        for loss in losses
    ]
    assert float(each[0] @ each[1]) < 0
    expected = algorithm_1(torch.stack(each), torch.tensor([[0, 1], [0, 1]]))
    found = torch.cat([ours[n].flatten() for n, _ in model.named_parameters() if "encoder" in n])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    for name in ours:
        if name.startswith("task_heads"):
            torch.testing.assert_close(ours[name], plain[name])
    assert not torch.allclose(found, sum(each))


def test_pcgrad_agrees_with_torchjd():
    from torchjd import aggregation, autojac

    model, features, targets = conflict()
    ours = gradients_of(model, model.batch_loss(features, targets))
    model.zero_grad()
    latent = model.encoder.network(features)
    losses = [
        weight * head.loss(latent, targets[:, i : i + 1], features)
        for i, (weight, head) in enumerate(
            zip((1 / 3, 2 / 3), model.task_heads.values(), strict=True)
        )
    ]
    autojac.mtl_backward(losses, latent)
    autojac.jac_to_grad(list(model.encoder.parameters()), aggregation.PCGrad())
    for name, p in model.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frozen", [[], ["encoder"]])
def test_a_fit_with_pcgrad_learns(frozen):
    x, y = two_tasks()
    y["b"] = 1.0 - x[:, 0] + 0.1 * x[:, 1]
    y["b"][::3] = torch.nan
    model = FlexibleMultiTaskModel(2, TWO, SMALL, balance="pcgrad", frozen=frozen)
    model.fit(x, y, epochs=40, batch_size=32)
    if frozen:
        # one task's heads share nothing that is trained: their gradients are plain
        assert model.history[-1]["train/loss"] < 0.9 * model.history[0]["train/loss"]
        return
    assert model.history[-1]["validation/a_r2"] > 0.99
    assert model.history[-1]["validation/b_r2"] > 0.99
