"""The contract of `optimize_latent`, row by row, on a small trained model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.space import Space

SMALL = {"kind": "mlp", "hidden_dims": [24], "latent_dim": 12}
HEADS = {
    "a": "regression",
    "b": "regression",
    "v": {"kind": "regression", "dim": 2},
    "c": {"kind": "classification", "num_classes": 3},
    "back": "autoencoder",
}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained() -> FlexibleMultiTaskModel:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(300, 2, generator=generator, dtype=torch.float64) * 4
    y = {
        "a": (x[:, 0] - 1.0).square() + x[:, 1],
        "b": 10.0 * x[:, 0] * x[:, 1],
        "v": torch.stack([x[:, 0], 5 * x[:, 1]], 1),
        "c": (x[:, 0] * 0.74).floor(),
    }
    space = Space.of(p=(0.0, 4.0), q=(0.0, 4.0))
    model = FlexibleMultiTaskModel(heads=HEADS, encoder=SMALL, x_space=space)
    return model.fit(x, y, epochs=60, batch_size=64)


X_0 = torch.tensor([[1.0, 1.0], [3.0, 2.5], [0.2, 3.7]], dtype=torch.float64)


# -- truth and shapes ------------------------------------------------------------------------------
@pytest.mark.parametrize("space", ["input", "latent"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predicting_again_gives_the_claim(trained, space, dtype):
    result = trained.optimize_latent(
        task_targets={"b": 20.0, "v": [1.0, 8.0], "c": 1},
        initial_input=X_0.to(dtype),
        steps=25,
        num_restarts=4,
        ae_task_name="back",
        space=space,
    )
    x = result["optimized_input"]
    assert x.shape == (3, 4, 2)
    assert x.dtype == dtype
    assert result["optimized_target"].shape == (3, 4, 6)
    out = trained.predict(x.reshape(-1, 2))
    again = torch.cat([out["b"][:, None], out["v"], out["c"]], 1)
    assert torch.equal(result["optimized_target"].reshape(-1, 6), again)
    back = trained.predict(result["reconstructed_input"].reshape(-1, 2))["b"]
    assert torch.equal(result["reconstructed_target"].reshape(-1, 6)[:, 0], back)
    decoded = trained.predict(x.reshape(-1, 2))["back"]
    assert torch.equal(result["reconstructed_input"].reshape(-1, 2), decoded)
    assert bool(trained.x_space.contains(x).all())
    assert ("optimized_latent" in result) == (space == "latent")


def test_latent_search_decodes_its_latent_and_improves(trained):
    options = {"target_value": 20.0, "ae_task_name": "back", "space": "latent", "num_restarts": 3}
    result = trained.optimize_latent("b", X_0, steps=150, **options)
    start = trained.optimize_latent("b", X_0, steps=0, **options)
    assert bool((result["best_loss"] < start["best_loss"]).all())
    assert float((result["best_target"] - 20.0).abs().max()) < 1.0
    z = result["optimized_latent"].float()
    decoded = trained.task_heads["back"](z).detach().double().clamp(0.0, 4.0)
    torch.testing.assert_close(result["optimized_input"], decoded, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        result["latent_target"], trained.task_heads["b"](z).detach().double(), atol=1e-3, rtol=1e-4
    )


def test_selection_is_per_sample_by_the_unpenalised_loss(trained):
    result = trained.optimize_latent(
        "b", X_0, target_value=11.0, steps=3, num_restarts=6, density_penalty=5.0
    )
    miss = (result["optimized_target"][..., 0] - 11.0).abs()
    assert torch.equal(result["best_index"], miss.argmin(1))
    rows = torch.arange(3)
    everything = result["all_restarts"]
    assert torch.equal(result["best_input"], everything["optimized_input"][rows, miss.argmin(1)])
    assert torch.equal(result["best_loss"], everything["loss"].amin(1))
    spread = float(trained.task_heads["b"].scaler.scale)
    torch.testing.assert_close(everything["loss"], (miss / spread).square())


def test_details_form(trained):
    options = {"steps": 7, "num_restarts": 3, "return_details": True}
    main, details = trained.optimize_latent("b", X_0, target_value=20.0, **options)
    assert set(main) == {"optimized_input", "optimized_score"}
    assert details["trajectory"].shape == (3, 3, 7, 1)
    assert torch.equal(details["trajectory"][:, :, -1], main["optimized_score"])
    torch.testing.assert_close(details["initial_score"][:, 0], trained.predict(X_0)["b"])
    both = trained.optimize_latent("b", X_0, target_value=20.0, return_trajectory=True, **options)
    walked = both[1]["input_trajectory"]
    assert torch.equal(walked[:, :, -1], main["optimized_input"])
    again = trained.predict(walked.reshape(-1, 2))["b"].reshape(3, 3, 7)
    torch.testing.assert_close(details["trajectory"][..., 0], again, atol=1e-4, rtol=1e-5)
    # the first entry is the point after one step, which is no longer the start
    assert float((walked[:, 0, 0] - X_0).abs().max()) > 0.1


# -- independence ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "wanted",
    [
        {"task_name": "a", "mode": "min"},
        {"task_name": "b", "target_value": [5.0, 20.0, 60.0]},
        {"task_targets": {"v": [1.0, 8.0], "c": 1}},
    ],
)
def test_batched_equals_one_by_one(trained, wanted):
    options = {"steps": 60, "num_restarts": 4}
    whole = trained.optimize_latent(initial_input=X_0, **wanted, **options)
    for i in range(3):
        own = dict(wanted)
        if "target_value" in own:
            own["target_value"] = own["target_value"][i]
        one = trained.optimize_latent(initial_input=X_0[i], **own, **options)
        for key in ("optimized_input", "optimized_target", "best_loss"):
            torch.testing.assert_close(one[key][0], whole[key][i], atol=1e-5, rtol=1e-5)


def test_restart_zero_is_the_start_and_steps_zero_returns_it(trained):
    result = trained.optimize_latent("a", X_0, steps=0, num_restarts=5)
    assert torch.equal(result["optimized_input"][:, 0], X_0)
    assert not torch.equal(result["optimized_input"][:, 1], X_0)
    details = trained.optimize_latent("a", X_0, steps=0, return_details=True)[1]
    assert details["trajectory"].shape == (3, 10, 0, 1)
    width = (result["optimized_input"][:, 1:] - X_0[:, None]).std() / 4.0
    assert 0.03 < float(width) < 0.25


def test_generator_repeats_and_differs(trained):
    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return trained.optimize_latent("a", X_0, steps=2, generator=generator)["optimized_input"]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


# -- side effects ----------------------------------------------------------------------------------
class Broken(nn.Module):
    def forward(self, latent):
        raise RuntimeError("broken head")


@pytest.mark.parametrize("breaks", [False, True])
def test_model_and_generators_are_untouched(trained, breaks):
    model = copy.deepcopy(trained)
    model.train()
    model.task_heads["a"].eval()
    model.encoder.network.layers[0].weight.requires_grad_(False)
    for p in model.task_heads["b"].parameters():
        p.grad = torch.ones_like(p)
    if breaks:
        model.task_heads["v"] = Broken()

    def state():
        return (
            [m.training for m in model.modules()],
            [p.requires_grad for p in model.parameters()],
            [None if p.grad is None else p.grad.clone() for p in model.parameters()],
            [v.clone() for v in model.state_dict().values()],
            torch.get_rng_state(),
        )

    before = state()
    options = {"steps": 3, "num_restarts": 2, "density_penalty": 0.1}
    if breaks:
        with pytest.raises(RuntimeError, match="broken head"):
            model.optimize_latent(task_targets={"v": [1.0, 1.0]}, initial_input=X_0, **options)
    else:
        with torch.no_grad():
            model.optimize_latent("b", X_0, **options)
    after = state()
    assert before[:2] == after[:2]
    for old, new in zip(before[2], after[2], strict=True):
        assert (old is None) == (new is None)
        assert old is None or torch.equal(old, new)
    assert all(torch.equal(a, b) for a, b in zip(before[3], after[3], strict=True))
    assert torch.equal(before[4], after[4])


def test_start_tensor_is_not_changed(trained):
    x = X_0.clone().requires_grad_(True)
    trained.optimize_latent("a", x, steps=3)
    assert torch.equal(x.detach(), X_0)
    assert x.grad is None


# -- fixed columns, bounds, penalties --------------------------------------------------------------
def test_fixed_columns_stay(trained):
    held = trained.optimize_latent("b", X_0, target_value=20.0, steps=40, fixed=["q"])
    assert torch.equal(held["optimized_input"][..., 1], X_0[:, 1:].expand(3, 10).to(torch.float64))
    assert float((held["optimized_input"][..., 0] - X_0[:, :1]).abs().max()) > 0.5
    valued = trained.optimize_latent("b", X_0, steps=5, fixed={1: 2.0, "p": [1.0, 2.0, 3.0]})
    assert valued["optimized_input"][:, 3].tolist() == [[1.0, 2.0], [2.0, 2.0], [3.0, 2.0]]


def test_bounds_false_leaves_the_box_and_starts_outside_are_moved(trained):
    free = trained.optimize_latent("b", X_0, bounds=False, steps=60)
    assert bool((free["optimized_input"] > 4.0).any())
    with pytest.warns(UserWarning, match="outside the bounds"):
        moved = trained.optimize_latent("b", [[9.0, 1.0]], steps=0)
    assert moved["best_input"].shape == (1, 2)
    assert moved["optimized_input"][0, 0].tolist() == [4.0, 1.0]


def test_dropout_spread_is_repeatable_and_needs_dropout(trained):
    with pytest.raises(GenoptError, match="spread_penalty needs"):
        trained.optimize_latent("a", X_0, spread_penalty=1.0)
    model = FlexibleMultiTaskModel(2, {"a": "regression"}, {**SMALL, "dropout": 0.2})
    options = {"steps": 4, "num_restarts": 2, "spread_penalty": 1.0}
    state = torch.get_rng_state()
    runs = [model.optimize_latent("a", X_0, **options)["optimized_input"] for _ in range(2)]
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m.training for m in model.modules())


# -- goals -----------------------------------------------------------------------------------------
def test_goal_with_an_interval_a_bound_and_a_class(trained):
    goal = Goal(
        {
            "a": {"between": [2.2, 2.6], "tolerance": 0.05},
            "b": {"at_most": 15.0},
            "c": {"label": "0"},
            "q": 2.0,
        },
        trained.x_space,
        trained.y_space,
    )
    result = trained.optimize_latent(initial_input=X_0, goal=goal, steps=200)
    y = trained.predict_y(result["best_input"])
    assert bool(goal.satisfied(y).all())
    assert torch.equal(result["optimized_input"][..., 1], torch.full((3, 10), 2.0).double())


def test_goal_values_match_direct_targets(trained):
    goal = Goal({"b": [5.0, 20.0, 60.0]}, trained.x_space, trained.y_space)
    by_goal = trained.optimize_latent(initial_input=X_0, goal=goal, steps=30)
    direct = trained.optimize_latent("b", X_0, target_value=[5.0, 20.0, 60.0], steps=30)
    # one unit of y is the width of a column without bounds, the other its training spread
    torch.testing.assert_close(
        by_goal["optimized_input"], direct["optimized_input"], atol=1e-4, rtol=0
    )
    one_start = trained.optimize_latent(initial_input=X_0[0], goal=goal, steps=30)
    torch.testing.assert_close(one_start["best_input"][0], by_goal["best_input"][0])
    assert one_start["best_input"].shape == (3, 2)


def test_class_target_maximises_its_log_probability(trained):
    result = trained.optimize_latent("c", X_0, target_value=2, steps=150)
    probability = trained.predict(result["best_input"])["c"]
    assert bool((probability[:, 2] > 0.95).all())
    torch.testing.assert_close(result["best_loss"], -probability[:, 2].log(), atol=1e-4, rtol=1e-3)
