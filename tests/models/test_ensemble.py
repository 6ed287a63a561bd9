"""An ensemble is its members, one by one: predictions, training, spread and files."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from genopt import FlexibleMultiTaskModel, GenoptError, Space, Table, Variable
from genopt.errors import UnknownNameError
from genopt.models.multitask.ensemble import MultiTaskEnsemble
from genopt.models.multitask.spread import likeliest
from genopt.models.multitask.stacking import draw_designs
from genopt.models.options import FitOptions

HEADS = {
    "number": "regression",
    "vector": {"kind": "regression", "dim": 2, "hidden_dims": [8]},
    "noisy": "heteroscedastic",
    "kind": {"kind": "classification", "num_classes": 3},
    "grade": {"kind": "ordinal", "num_classes": 3},
    "count": "count",
    "curve": {"kind": "sequence", "grid": [0.0, 0.5, 1.0]},
    "design": "autoencoder",
}
SMALL = {"kind": "mlp", "hidden_dims": [16], "latent_dim": 8}
ENCODERS = [
    SMALL,
    {"kind": "residual", "width": 16, "n_blocks": 2, "latent_dim": 8},
    {"kind": "periodic", "hidden_dims": [16], "latent_dim": 8},
    {"kind": "transformer", "latent_dim": 8},
]


def data(n: int = 120, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Designs and labels of every head, a third of them missing."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    y = {
        "number": x.sum(1) ** 2,
        "vector": 100.0 * x[:, :2],
        "noisy": x[:, 0] + 0.3 * x[:, 1] * noise,
        "kind": (3 * x[:, 2]).floor(),
        "grade": (3 * x[:, 0]).floor(),
        "count": (5 * x[:, 1]).floor(),
        "curve": x[:, :1] * torch.tensor([1.0, 2.0, 3.0]),
    }
    for i, labels in enumerate(y.values()):
        labels[i::3] = math.nan
    return x, y


def fitted(encoder=SMALL, **options) -> MultiTaskEnsemble:
    x, y = data()
    options = {"epochs": 3, "batch_size": 32, "members": 3, **options}
    return MultiTaskEnsemble(3, HEADS, encoder, **options).fit(x, y)


@pytest.fixture(scope="module")
def ensemble() -> MultiTaskEnsemble:
    return fitted()


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda spec: spec["kind"])
def test_predictions_are_the_mean_over_the_members(encoder):
    both = fitted(encoder, calibrate=False)
    x = data(50, seed=1)[0]
    alone = [both.member(i).predict(x) for i in range(3)]
    together, apart = both.predict(x), both.predict_spread(x, "disagreement")
    for name in HEADS:
        each = torch.stack([found[name] for found in alone])
        assert not torch.allclose(each[0], each[1], atol=1e-3)
        torch.testing.assert_close(together[name], each.mean(0), atol=1e-5, rtol=1e-5)
        if name != "design":
            torch.testing.assert_close(apart[name], each.std(0, False), atol=1e-5, rtol=1e-4)
    assert "design" not in apart


@pytest.mark.parametrize("balance", ["fixed", "pcgrad"])
def test_training_at_once_is_training_each_alone(balance):
    x, y = data()
    y = {name: y[name] for name in ("noisy", "kind")}
    heads = {name: HEADS[name] for name in y}
    # a small clip, so that each member has to be clipped by its own norm
    options = {"epochs": 4, "batch_size": 32, "clip": 0.05, "validation": 0.0, "balance": balance}
    both = MultiTaskEnsemble(3, heads, SMALL, members=3, **options)
    alone = [both.member(i) for i in range(3)]
    both.fit(x, y, seed=3)
    for i, model in enumerate(alone):
        before = model.predict_y(x).detach()
        model.fit(x, y, seed=3)
        assert float((model.predict_y(x).detach() - before)[:, 0].abs().max()) > 0.1
        for name, value in model.predict(x).items():
            torch.testing.assert_close(both.member(i).predict(x)[name], value, atol=2e-4, rtol=0)
        assert float(both.member(i).latent_scale) == pytest.approx(
            float(model.latent_scale), rel=1e-3
        )


def test_each_member_keeps_its_own_best_epoch(tmp_path):
    x, y = data()
    y = {"number": y["number"]}
    options = {"epochs": 30, "batch_size": 16, "learning_rate": 0.03, "schedule": "constant"}
    both = MultiTaskEnsemble(3, {"number": "regression"}, SMALL, members=3, **options)
    alone = [both.member(i) for i in range(3)]
    both.fit(x, y, options=FitOptions(folder=tmp_path))
    best = []
    for i, model in enumerate(alone):
        model.fit(x, y)
        torch.testing.assert_close(
            both.member(i).predict(x)["number"], model.predict(x)["number"], atol=0.02, rtol=0
        )
        best.append(min(model.history, key=lambda entry: entry["validation/loss"])["epoch"])
    assert len(set(best)) > 1
    # the best weights travel in the checkpoints of a fit that goes on
    again = MultiTaskEnsemble(3, {"number": "regression"}, SMALL, members=3, **options)
    again.fit(x, y, epochs=30, options=FitOptions(folder=tmp_path))
    assert torch.equal(again.predict_y(x), both.predict_y(x))


def test_options_that_look_inside_a_step_train_an_ensemble_too():
    x, y = data()
    heads = {name: HEADS[name] for name in ("number", "kind")}
    y = {name: y[name] for name in heads}
    # four members and two heads, so that no dimension can stand for the other
    both = MultiTaskEnsemble(
        3, heads, SMALL, balance="uncertainty", conservative={"goals": {"number": "max"}}
    )
    both.fit(x, y, epochs=3, batch_size=32)
    assert set(both.balance.factors()) == set(heads)
    assert both.member(3).balance.factors() == both.balance.factors()
    assert both.history[-1]["train/loss"] < both.history[0]["train/loss"]


def test_a_member_learns_from_its_own_designs_only():
    x, y = data(90)
    x[1::2] = x[::2]
    y = {"number": x.sum(1) ** 2}
    options = {"epochs": 2, "batch_size": 30, "validation": 0.0, "bootstrap": 0.6}
    first = MultiTaskEnsemble(3, {"number": "regression"}, SMALL, members=2, **options)
    first.fit(x, y, seed=5)
    # the scales are those of the first fit, so that other labels cannot reach a member through them
    seen = draw_designs(first.features(x), 2, 0.6, seed=6)
    assert bool((seen[1::2] == seen[::2]).all())
    assert seen.sum(0).tolist() == [54, 54]
    other = first.member(0), first.member(1)
    ways = []
    for labels in (y["number"], torch.where(seen[:, 0], y["number"], -50.0)):
        again = MultiTaskEnsemble(3, {"number": "regression"}, SMALL, members=2, **options)
        again.load_state_dict(first.state_dict())
        again.fit(x, {"number": labels}, seed=6)
        ways.append([again.member(i).predict(x)["number"] for i in range(2)])
    assert torch.equal(ways[0][0], ways[1][0])
    assert float((ways[0][1] - ways[1][1]).abs().max()) > 0.1
    assert float((ways[0][0] - other[0].predict(x)["number"]).abs().max()) > 1e-3


def test_the_spread_is_that_of_the_mixture_of_the_members(ensemble):
    plain = fitted(calibrate=False)
    x = data(40, seed=2)[0]
    members = [plain.member(i) for i in range(3)]
    mean = torch.stack([m.predict(x)["noisy"] for m in members])
    with torch.no_grad():
        noise = torch.stack([m.spread_y(x)[:, 3] for m in members])
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(3).double().expand(40, 3)),
        torch.distributions.Normal(mean.T, noise.T),
    )
    total = plain.predict_spread(x)["noisy"]
    torch.testing.assert_close(total, mixture.stddev, rtol=1e-4, atol=0)
    torch.testing.assert_close(plain.spread_y(x)[:, 3].detach(), total, rtol=1e-4, atol=0)
    # calibrated or not, the parts add up
    for model in (plain, ensemble):
        parts = [model.predict_spread(x, part)["noisy"] for part in ("disagreement", "noise")]
        whole = (parts[0] ** 2 + parts[1] ** 2).sqrt()
        torch.testing.assert_close(model.predict_spread(x)["noisy"], whole, rtol=1e-4, atol=0)
    assert set(plain.predict_spread(x, "noise")) == {"noisy", "count"}


def test_log_probabilities_are_those_of_the_mean(ensemble):
    x = data(20, seed=2)[0]
    latent = ensemble.latent_of_wide(ensemble.scaler.wide(x))
    for name in ("kind", "grade"):
        mean = ensemble.predict(x)[name]
        found = ensemble.head_log_probability(name, latent).detach().double().exp()
        torch.testing.assert_close(found, mean, atol=1e-5, rtol=0)


def test_spread_and_prediction_have_the_right_gradients(ensemble):
    x = data(4, seed=3)[0].requires_grad_()
    for function in (ensemble.predict_y, ensemble.spread_y):
        value = function(x)[:, 0].sum()
        (gradient,) = torch.autograd.grad(value, x)
        step = torch.zeros_like(x)
        step[2, 1] = 1e-2
        with torch.no_grad():
            rise = (function(x + step)[:, 0].sum() - function(x - step)[:, 0].sum()) / 2e-2
        # networks are float32, so the difference is coarse
        assert float(rise) == pytest.approx(float(gradient[2, 1]), rel=0.05, abs=2e-3)


def test_factor_and_floor_have_the_largest_likelihood():
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(3000, 1, generator=generator, dtype=torch.float64) ** 2
    noise = torch.randn(3000, 1, generator=generator, dtype=torch.float64)
    error = (9.0 * spread.square() + 0.04).sqrt() * noise
    factor, floor = likeliest(error, spread)
    assert float(factor) == pytest.approx(3.0, rel=0.06)
    assert float(floor) == pytest.approx(0.2, rel=0.1)

    def nll(logs: np.ndarray) -> float:
        variance = np.exp(2 * logs[0]) * spread.numpy() ** 2 + np.exp(2 * logs[1])
        return float(np.mean(np.log(variance) + error.numpy() ** 2 / variance) / 2)

    best = minimize(nll, [0.0, 0.0], method="Nelder-Mead")
    # the share of the floor is one of a grid
    assert nll(np.log([float(factor), float(floor)])) == pytest.approx(best.fun, abs=1e-3)


def test_too_few_labels_leave_a_claim_as_it_is():
    error = torch.tensor([[1.0, 2.0]] * 20, dtype=torch.float64)
    error[3:, 1] = math.nan
    factor, floor = likeliest(error, torch.ones(20, 2, dtype=torch.float64))
    assert (factor.square() + floor.square()).tolist() == pytest.approx([1.0, 1.0])
    assert factor[1] == 1.0
    assert floor[1] == 0.0


def test_a_fit_makes_validation_errors_as_large_as_claimed():
    x, y = data(300)
    y_space = Space.of(number=(0.0, 9.0), noisy=(-1.0, 2.0))
    split = ("train",) * 200 + ("validation",) * 100
    labels = torch.stack([y["number"], y["noisy"]], 1)
    x_space = Space.of(a=(0.0, 1.0), b=(0.0, 1.0), c=(0.0, 1.0))
    table = Table(x, labels, x_space, y_space, split=split)
    heads = {"number": "regression", "noisy": "heteroscedastic"}
    model = MultiTaskEnsemble.for_spaces(x_space, y_space, heads, SMALL, members=2, epochs=5)
    model.fit_table(table, FitOptions())
    held = table.part("validation")
    with torch.no_grad():
        score = (held.y - model.predict_y(held.x)) / model.spread_y(held.x)
    assert score.square().nanmean(0).tolist() == pytest.approx([1.0, 1.0], rel=1e-3)
    other = MultiTaskEnsemble.for_spaces(
        x_space, y_space, heads, SMALL, members=2, epochs=5, calibrate=False
    )
    other.fit_table(table, FitOptions())
    assert torch.equal(other.predict_y(held.x), model.predict_y(held.x))
    assert not torch.allclose(other.spread_y(held.x), model.spread_y(held.x), rtol=0.1)


def test_a_later_fit_keeps_the_calibration_of_the_other_heads_and_warns_of_few_labels():
    x, y = data()
    model = MultiTaskEnsemble(3, {"number": "regression"}, SMALL, members=2, epochs=3)
    model.fit(x, {"number": y["number"]})
    claimed = model.predict_spread(x)["number"]
    model.add_head("noisy", "regression").freeze("encoder")
    few = torch.where(torch.arange(len(x)) < 8, y["noisy"], torch.nan)
    with pytest.warns(UserWarning, match="calibrate the spread of noisy"):
        model.fit(x, {"noisy": few})
    assert torch.equal(model.predict_spread(x)["number"], claimed)


def test_files_keep_members_and_calibration(ensemble, tmp_path):
    x = data(20, seed=4)[0]
    again = MultiTaskEnsemble.load(ensemble.save(tmp_path / "ensemble.ckpt"))
    assert torch.equal(again.predict_y(x).nan_to_num(), ensemble.predict_y(x).nan_to_num())
    assert torch.equal(again.spread_y(x).nan_to_num(), ensemble.spread_y(x).nan_to_num())
    assert again.members == 3
    ensemble.member(1).save(tmp_path / "one.ckpt")
    with pytest.raises(GenoptError, match=r"single model.*FlexibleMultiTaskModel\.load"):
        MultiTaskEnsemble.load(tmp_path / "one.ckpt")


def test_a_fit_that_was_cut_off_goes_on(tmp_path):
    x, y = data()
    y = {"number": y["number"]}
    model = MultiTaskEnsemble(3, {"number": "regression"}, SMALL, members=2, bootstrap=0.5)
    options = FitOptions(folder=tmp_path)
    model.fit(x, y, epochs=2, options=options)
    again = MultiTaskEnsemble(3, {"number": "regression"}, SMALL, members=2, bootstrap=0.5)
    again.fit(x, y, epochs=4, options=options)
    assert [entry["epoch"] for entry in again.history] == [0, 1, 2, 3]
    assert again.history[:2] == model.history


def test_heads_come_go_and_hold_still_for_all_members():
    x, y = data()
    model = MultiTaskEnsemble(3, {"number": "regression"}, SMALL, members=2, epochs=2)
    model.fit(x, {"number": y["number"]})
    before = model.predict(x)["number"]
    model.add_head("noisy", "heteroscedastic").freeze("encoder", "number")
    model.fit(x, {"number": y["number"], "noisy": y["noisy"]})
    assert torch.equal(model.predict(x)["number"], before)
    each = [model.member(i).predict(x)["noisy"] for i in range(2)]
    assert not torch.allclose(each[0], each[1], atol=1e-3)
    torch.testing.assert_close(model.predict(x)["noisy"], (each[0] + each[1]) / 2)
    model.remove_head("number")
    assert set(model.predict_spread(x)) == {"noisy"}
    held = MultiTaskEnsemble(3, {"number": "regression"}, SMALL, members=2, frozen=["encoder"])
    assert held.encoder.frozen
    assert not any(p.requires_grad for p in held.encoder.parameters())


def test_class_designs_reconstruct_and_predict():
    x_space = Space(
        (Variable("a", 0, 1), Variable("k", labels=("u", "v", "w"), kind="categorical"))
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 2, generator=generator, dtype=torch.float64)
    x[:, 1] = (3 * x[:, 1]).floor()
    model = MultiTaskEnsemble.for_spaces(
        x_space, Space.of(c=(0, 1)), "auto_autoencoder", SMALL, members=3, epochs=100
    )
    model.fit(x, {"c": x[:, 0]})
    said = model.predict(x)["reconstruction"]
    assert float((said[:, 1] == x[:, 1]).double().mean()) > 0.9


def test_a_search_claims_what_the_members_say_on_average(ensemble):
    x = data(3, seed=6)[0]
    found = ensemble.optimize_latent("number", x, mode="min", steps=15, num_restarts=2)
    best = found["best_input"]
    each = torch.stack([ensemble.member(i).predict(best)["number"] for i in range(3)])
    torch.testing.assert_close(found["best_target"][:, 0], each.mean(0), atol=1e-5, rtol=1e-5)
    assert bool((each.mean(0) < ensemble.predict(x)["number"]).all())
    with pytest.raises(GenoptError, match="space='input'"):
        ensemble.optimize_latent("number", x, space="latent", ae_task_name="design", steps=1)


def test_bad_options_are_refused():
    with pytest.raises(GenoptError, match="members must be at least 2"):
        MultiTaskEnsemble(3, HEADS, SMALL, members=1)
    with pytest.raises(GenoptError, match="bootstrap must be a share"):
        MultiTaskEnsemble(3, HEADS, SMALL, bootstrap=1.5)
    model = MultiTaskEnsemble(3, {"number": "regression"}, SMALL, members=2)
    with pytest.raises(GenoptError, match="member 2 does not exist"):
        model.member(2)
    with pytest.raises(UnknownNameError, match="part"):
        model.predict_spread(data()[0], "all")
    assert isinstance(model.member(0), FlexibleMultiTaskModel)
