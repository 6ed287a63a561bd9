"""Heads: likelihoods against scipy, gaps without influence, what is learned from noisy labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch.func import functional_call, stack_module_state, vmap

from genopt.errors import GenoptError
from genopt.models.multitask.labels import check_labels
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.nn.heads import (
    AutoencoderHead,
    ClassificationHead,
    CountHead,
    Head,
    HeteroscedasticHead,
    OrdinalHead,
    RegressionHead,
    SequenceHead,
)

SMALL = {"kind": "mlp", "hidden_dims": [32], "latent_dim": 16}
H = 3


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Identity(torch.nn.Module):
    """Lets a test choose what a head's network says."""

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return latent


# -- heteroscedastic -------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(mean=st.floats(-3, 3), log_variance=st.floats(-6, 1), label=st.floats(-5, 5))
def test_held_out_loss_is_the_gaussian_likelihood(mean, log_variance, label):
    head = HeteroscedasticHead(2).double().eval()
    head.network = Identity()
    latent = torch.tensor([[mean, log_variance]], dtype=torch.float64)
    std = float(head.noise(latent))
    assert std == pytest.approx(math.exp(0.5 * log_variance), rel=0.03)
    loss = head.loss(latent, torch.tensor([[label]], dtype=torch.float64), latent)
    assert float(loss) == pytest.approx(-stats.norm.logpdf(label, mean, std), rel=1e-9, abs=1e-9)


def test_beta_one_gives_the_mean_the_gradient_of_squared_errors():
    targets = torch.tensor([[1.0], [-2.0], [torch.nan]])
    slopes = {}
    for beta in (0.0, 0.5, 1.0):
        head = HeteroscedasticHead(2, beta=beta).train()
        head.network = Identity()
        out = torch.tensor([[0.5, -3.0], [0.5, 1.0], [0.5, 0.0]], requires_grad=True)
        head.loss(out, targets, out).backward()
        slopes[beta] = out.grad[:, 0]
        variance = head.noise(out.detach()).square()[:, 0]
        expected = torch.tensor([-0.5, 2.5, 0.0]) / 2 * variance ** (beta - 1)
        torch.testing.assert_close(slopes[beta], expected)
    assert not torch.allclose(slopes[0.0], slopes[1.0])
    with pytest.raises(GenoptError, match="beta"):
        HeteroscedasticHead(2, beta=2.0)


def test_variance_has_soft_bounds():
    head = HeteroscedasticHead(2)
    head.network = Identity()
    extreme = torch.tensor([[0.0, -1e4], [0.0, 1e4], [0.0, -12.0]], requires_grad=True)
    spread = head.noise(extreme)
    assert bool(torch.isfinite(spread).all())
    assert 1e-3 < float(spread.min().detach()) < float(spread.max().detach()) < 10.0
    spread.sum().backward()
    assert float(extreme.grad[2, 1]) > 0


def test_heteroscedastic_model_finds_mean_and_noise_in_raw_units():
    x = torch.rand(1000, 1, generator=seeded(), dtype=torch.float64)
    true = 100.0 * (0.1 + x)
    y = 5000.0 + 1000.0 * x + true * torch.randn(1000, 1, generator=seeded(1), dtype=torch.float64)
    model = FlexibleMultiTaskModel(1, {"y": "heteroscedastic"}, SMALL)
    assert model.has_spread
    model.fit(x, {"y": y}, epochs=50, batch_size=64)
    at = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64)
    torch.testing.assert_close(
        model.spread_y(at).detach()[:, 0], 100.0 * (0.1 + at[:, 0]), rtol=0.35, atol=0.0
    )
    torch.testing.assert_close(
        model.predict_y(at).detach()[:, 0], 5000.0 + 1000.0 * at[:, 0], rtol=0.0, atol=25.0
    )
    assert not FlexibleMultiTaskModel(1, {"y": "regression"}, SMALL).has_spread


# -- ordinal ---------------------------------------------------------------------------------------
@settings(max_examples=50, deadline=None)
@given(
    score=st.floats(-40, 40),
    labels=st.lists(st.integers(0, 3), min_size=4, max_size=40).filter(lambda v: len(set(v)) > 1),
)
def test_ordinal_probabilities(score, labels):
    head = OrdinalHead(1, 4).double()
    head.network = Identity()
    head.learn(torch.tensor(labels, dtype=torch.float64)[:, None])
    latent = torch.tensor([[score], [score + 1.0], [0.0]], dtype=torch.float64)
    with torch.no_grad():
        p, log_p = head(latent), head.log_probability(latent)
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-12)
    # the cumulative logit model, from its definition
    above = special.expit(score - head.thresholds.detach().numpy())
    np.testing.assert_allclose(1.0 - p[0].cumsum(-1)[:-1].numpy(), above, atol=1e-12)
    np.testing.assert_allclose(log_p.exp(), p, atol=1e-12)
    assert bool(torch.isfinite(log_p).all())
    # a larger score moves every cumulative probability up
    assert bool((p[1].cumsum(-1)[:-1] <= p[0].cumsum(-1)[:-1] + 1e-12).all())
    # at score zero each class has its share of the labels, but for half a label
    share = np.bincount(labels, minlength=4) + 0.5
    np.testing.assert_allclose(p[2], share / share.sum(), rtol=1e-9)


def test_ordinal_log_probability_is_exact_in_the_tails():
    head = OrdinalHead(1, 3)
    head.network = Identity()
    log_p = head.log_probability(torch.tensor([[60.0], [-60.0]])).detach()
    # far from the thresholds 0 and 1 a class loses one nat for each unit of the score
    torch.testing.assert_close(log_p[0, 0], torch.tensor(-60.0))
    torch.testing.assert_close(log_p[1, 2], torch.tensor(-61.0))
    assert bool(torch.isfinite(log_p).all())


def test_ordinal_is_more_likely_than_free_logits_on_few_labels():
    def grade(x: torch.Tensor) -> torch.Tensor:
        return (3.0 * x[:, 0] + 3.0 * x[:, 1] ** 2).floor().clamp_max(5.0)

    x = torch.rand(40, 2, generator=seeded(10), dtype=torch.float64)
    new = torch.rand(400, 2, generator=seeded(1), dtype=torch.float64)
    likelihood = {}
    for kind in ("ordinal", "classification"):
        model = FlexibleMultiTaskModel(2, {"grade": {"kind": kind, "num_classes": 6}}, SMALL)
        model.fit(x, {"grade": grade(x)}, epochs=60, batch_size=32)
        p = model.predict(new)["grade"].gather(1, grade(new).long()[:, None])
        likelihood[kind] = float(p.clamp_min(1e-9).log().mean())
    assert likelihood["ordinal"] > likelihood["classification"] + 0.1


# -- counts ----------------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 200), a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_count_loss_is_the_poisson_likelihood_but_for_a_factor(count, a, b):
    head = CountHead(1).double()
    head.network = Identity()
    head.learn(torch.tensor([[3.0], [10.0], [40.0], [torch.nan]], dtype=torch.float64))
    label = torch.tensor([[float(count)]], dtype=torch.float64)
    latent = [torch.tensor([[v]], dtype=torch.float64) for v in (a, b)]
    lost = [float(head.loss(z, label, z)) for z in latent]
    nll = [-stats.poisson.logpmf(count, float(head(z))) for z in latent]
    assert lost[0] - lost[1] == pytest.approx(
        float(head.weight) * (nll[0] - nll[1]), rel=1e-9, abs=1e-9
    )
    assert min(lost) >= -1e-12
    assert float(head.noise(latent[0])) == pytest.approx(math.sqrt(float(head(latent[0]))))


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_count_loss_is_of_the_size_of_squared_scaled_errors(size):
    labels = size * torch.tensor([[1.0], [2.0], [3.0], [6.0]], dtype=torch.float64)
    head = CountHead(1).double()
    head.network = Identity()
    head.learn(labels)
    at_mean = torch.zeros(4, 1, dtype=torch.float64)
    # predicting the mean costs about one spread squared
    assert 0.4 < float(head.loss(at_mean, labels, at_mean)) < 1.6


def test_count_model_learns_rates_and_zeros_are_fine():
    x = torch.rand(600, 1, generator=seeded(), dtype=torch.float64)
    rate = torch.exp(1.0 + 2.0 * x[:, 0])
    y = torch.poisson(rate, generator=seeded(1))
    model = FlexibleMultiTaskModel(1, {"defects": "count"}, SMALL)
    model.fit(x, {"defects": y}, epochs=40, batch_size=64)
    at = torch.tensor([[0.2], [0.8]], dtype=torch.float64)
    torch.testing.assert_close(
        model.predict(at)["defects"], torch.exp(1.0 + 2.0 * at[:, 0]), rtol=0.12, atol=0.0
    )
    head = CountHead(1)
    head.learn(torch.zeros(9, 1))
    assert bool(torch.isfinite(head(torch.randn(2, 1))).all())


@pytest.mark.parametrize("wrong", [-1.0, 2.5])
def test_counts_are_integers_from_zero(wrong):
    model = FlexibleMultiTaskModel(1, {"n": "count"}, SMALL)
    y = torch.ones(50)
    y[3] = wrong
    with pytest.raises(GenoptError, match=f"holds {wrong:g}, which is no count"):
        model.fit(torch.rand(50, 1), {"n": y}, epochs=1)


# -- sequences -------------------------------------------------------------------------------------
def curves(n: int, seed: int = 0) -> tuple[torch.Tensor, list[np.ndarray], list[np.ndarray]]:
    """Straight lines over t, each seen at 2 to 6 temperatures of its own."""
    numbers = np.random.default_rng(seed)
    x = numbers.random((n, 2))
    t = [np.sort(numbers.uniform(300, 400, numbers.integers(2, 7))) for _ in range(n)]
    values = [50 + 20 * a + 0.3 * b * (s - 300) for (a, b), s in zip(x, t, strict=True)]
    return torch.from_numpy(x), t, values


def padded(rows: list[np.ndarray]) -> np.ndarray:
    out = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out


def test_sequence_learns_from_grids_of_different_length():
    x, t, values = curves(300)
    model = FlexibleMultiTaskModel(
        2, {"cp": {"kind": "sequence", "grid": [300, 350, 400]}, "a": "regression"}, SMALL
    )
    model.fit(x, {"cp": (t, values), "a": x[:, 0]}, epochs=120, batch_size=64)
    new = curves(100, seed=1)[0]
    out = model.predict(new)
    line = 50 + 20 * new[:, :1] + 0.3 * new[:, 1:] * torch.tensor([[0.0, 50.0, 100.0]])
    assert out["cp"].shape == (100, 3)
    assert float((out["cp"] - line).square().mean().sqrt()) < 0.05 * float(line.std())
    assert model.y_space.names == ("cp_1", "cp_2", "cp_3", "a")
    torch.testing.assert_close(model.predict_y(new)[:, 1].detach(), out["cp"][:, 1])
    elsewhere = model.predict(new.numpy(), grid={"cp": [325.0]})
    true = (50 + 20 * new[:, 0] + 0.3 * new[:, 1] * 25.0).numpy()
    assert elsewhere["cp"].shape == (100, 1)
    assert elsewhere["a"].shape == (100,)
    assert np.sqrt(np.mean((elsewhere["cp"][:, 0] - true) ** 2)) < 0.05 * float(line.std())
    torch.testing.assert_close(model.predict(new)["cp"], out["cp"])
    with pytest.raises(GenoptError, match="no sequence head"):
        model.predict(new, grid={"a": [1.0]})
    with pytest.raises(GenoptError, match="grid"):
        model.predict(new, grid={"cp": [math.nan]})


def cp_labels(labels: object, n: int) -> tuple[SequenceHead, torch.Tensor]:
    head = SequenceHead(H, [300.0, 400.0])
    return head, check_labels({"cp": labels}, n, {"cp": head}, {"cp": head.label_width})


def test_lists_padded_arrays_and_one_grid_mean_the_same():
    _, t, values = curves(20)
    ragged = cp_labels((t, values), 20)[1]
    np.testing.assert_array_equal(cp_labels((padded(t), padded(values)), 20)[1], ragged)
    np.testing.assert_array_equal(ragged[:, -padded(t).shape[1] :], padded(values))
    # rows that all lie on the head's own grid have the same loss in every form
    labels = torch.randn(6, 2, generator=seeded(), dtype=torch.float64) * 30 + 400
    labels[2, 1] = torch.nan
    latent = torch.randn(6, H, generator=seeded(1))
    losses = []
    for form in (labels, ([300.0, 400.0], labels), ([[300.0, 400.0]] * 6, labels)):
        head, both = cp_labels(form, 6)
        with torch.no_grad():
            for p in head.parameters():
                p.copy_(0.3 * torch.randn(p.shape, generator=seeded(p.numel())))
        head.scaler.learn(labels.reshape(-1, 1))
        losses.append(head.loss(latent, head.targets(both), latent).detach())
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(losses[2], losses[0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (([[1.0, 2.0]] * 2, [[1.0], [1.0]]), r"row 0: t has 2 entries, the values have 1"),
        (([[1.0, 2.0], [1.0]], [[1.0, 2.0], [1.0, 2.0]]), r"row 1: t has 1 entries"),
        ((np.full((2, 2), np.nan), np.ones((2, 2))), "each value needs its t"),
        ((np.ones((2, 3)), np.ones((2, 2))), "longest row of t has 3"),
        (([[1.0, math.inf], [1.0, 2.0]], np.ones((2, 2))), "infinite value in row 0"),
        ((np.ones((3, 2)), np.ones((2, 2))), r"t has shape \(3, 2\); expected \(2, L\)"),
        ((1, 2, 3), "pair"),
        (np.ones((2, 5)), r"expected \(2, 2\)"),
        (([["a"], ["b", "c"]], np.ones((2, 2))), "t row 0 must hold numbers"),
    ],
)
def test_bad_sequences(labels, message):
    with pytest.raises(GenoptError, match=message):
        cp_labels(labels, 2)


@pytest.mark.parametrize("grid", [[], [1.0, 1.0], [math.inf], ["a"]])
def test_bad_grid(grid):
    with pytest.raises(GenoptError, match="grid"):
        SequenceHead(H, grid)


# -- what holds for every head ---------------------------------------------------------------------
def heads_and_labels(n: int = 8) -> list[tuple[Head, torch.Tensor]]:
    generator = seeded(5)
    numbers = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    codes = torch.arange(n, dtype=torch.float64)[:, None] % 3
    counts = torch.poisson(torch.full((n, 2), 4.0, dtype=torch.float64), generator=generator)
    per_row = SequenceHead(H, [0.0, 1.0])
    torch.manual_seed(0)
    pairs: list[tuple[Head, torch.Tensor]] = [
        (RegressionHead(H, 2), numbers),
        (HeteroscedasticHead(H, 2), numbers),
        (ClassificationHead(H, 3), codes),
        (OrdinalHead(H, 3), codes),
        (CountHead(H, 2), counts),
        (SequenceHead(H, [0.0, 1.0]), numbers),
        (per_row, per_row.read((numbers.abs(), numbers), n, "y")),
    ]
    for head, labels in pairs:
        head.learn(labels)
    return pairs


@pytest.mark.parametrize("which", range(7))
def test_missing_labels_have_zero_gradient_in_every_head(which):
    head, labels = heads_and_labels()[which]
    labels = labels.clone()
    labels[2] = torch.nan
    latent = torch.randn(8, H, generator=seeded(), requires_grad=True)
    head.loss(latent, head.targets(labels), latent).backward()
    assert bool(torch.isfinite(latent.grad).all())
    assert float(latent.grad[2].abs().max()) == 0.0
    assert float(latent.grad[3].abs().max()) > 0.0
    # the mean is over what is there: the row counts as little as if it were not
    rest = [i for i in range(8) if i != 2]
    alone = head.loss(latent[rest], head.targets(labels[rest]), latent[rest])
    torch.testing.assert_close(alone, head.loss(latent, head.targets(labels), latent))
    head.zero_grad()
    nothing = torch.full_like(labels, torch.nan)
    zero = head.loss(latent, head.targets(nothing), latent)
    zero.backward()
    assert float(zero.detach()) == 0.0
    assert all(p.grad is None or float(p.grad.abs().max()) == 0.0 for p in head.parameters())


@pytest.mark.parametrize("which", range(7))
def test_losses_under_vmap_are_those_one_by_one(which):
    heads = []
    for seed in (0, 1, 2):
        head, labels = heads_and_labels()[which]
        with torch.no_grad():
            for p in head.parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=seeded(seed)))
        heads.append(head)
    labels[1] = torch.nan
    latent = torch.randn(3, 8, H, generator=seeded(9))
    targets = heads[0].targets(labels)
    tensors = stack_module_state(heads)

    class Loss(torch.nn.Module):
        def __init__(self, head: Head) -> None:
            super().__init__()
            self.head = head

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return self.head.loss(z, targets, z)

    named = [{f"head.{k}": v for k, v in part.items()} for part in tensors]
    call = Loss(heads[0])
    mapped = vmap(lambda p, b, z: functional_call(call, (p, b), (z,)))(*named, latent)
    single = torch.stack([head.loss(z, targets, z) for head, z in zip(heads, latent, strict=True)])
    torch.testing.assert_close(mapped, single)


@pytest.mark.parametrize("which", range(7))
def test_predictions_and_units_scale_with_the_labels(which):
    head, labels = heads_and_labels()[which]
    latent = torch.randn(4, H, generator=seeded())
    with torch.no_grad():
        value, noise, unit = head(latent, torch.float64), head.noise(latent), head.unit
    assert value.shape == (4, head.dim)
    assert unit.shape == (head.dim,)
    if head.kind == "class":
        torch.testing.assert_close(
            head.log_probability(latent).exp().sum(-1), torch.ones(4), rtol=1e-5, atol=1e-6
        )
        assert torch.equal(unit, torch.ones(head.dim, dtype=torch.float64))
        return
    with pytest.raises(GenoptError, match="no class probabilities"):
        head.log_probability(latent)
    assert (noise is not None) == head.has_noise
    if head.has_noise:
        assert bool((noise > 0).all())
    known = labels[:, -2:]
    if isinstance(head, SequenceHead):
        known = known.reshape(-1, 1)
    np.testing.assert_allclose(unit, np.broadcast_to(known.numpy().std(0), (2,)), rtol=1e-5)
    if isinstance(head, CountHead):
        return
    # labels of another unit: the same weights say the same in that unit
    head.learn(torch.cat([labels[:, :-2], 1000.0 * labels[:, -2:]], 1))
    with torch.no_grad():
        torch.testing.assert_close(
            head(latent, torch.float64), 1000.0 * value, rtol=1e-5, atol=1e-3
        )
        if head.has_noise:
            torch.testing.assert_close(head.noise(latent), 1000.0 * noise)


def test_reconstruction_gives_designs():
    head = AutoencoderHead(H, [0, 3])
    assert (head.kind, head.label_width, head.dim) == ("design", 0, 2)
    codes = head(torch.randn(20, H, generator=seeded()))[:, 1]
    assert set(codes.tolist()) <= {0.0, 1.0, 2.0}
