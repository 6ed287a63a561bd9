"""`optimize_latent` on heads whose optimum is known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.routines.optimize_latent import optimize_latent
from genopt.space import Space, Variable

SMALL = {"kind": "mlp", "hidden_dims": [24], "latent_dim": 12}
CENTRE = torch.tensor([0.4, -0.3])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Bowl(nn.Module):
    """|x - centre|^2."""

    def forward(self, latent):
        return (latent - CENTRE.to(latent)).square().sum(-1, keepdim=True)


class Line(nn.Module):
    """x1 + 2 x2."""

    def forward(self, latent):
        return latent[..., :1] + 2.0 * latent[..., 1:2]


def exact(**heads: nn.Module) -> FlexibleMultiTaskModel:
    """A model on the identity encoder with heads of known form."""
    specs = dict.fromkeys(heads, "regression")
    model = FlexibleMultiTaskModel(2, specs, SMALL)
    model.encoder = Pair()
    for name, head in heads.items():
        model.task_heads[name] = head
    return model


def test_finds_the_minimum_of_a_quadratic():
    result = optimize_latent(exact(a=Bowl()), "a", [[1.0, 1.0], [-1.0, 0.5]], mode="min", steps=300)
    torch.testing.assert_close(
        result["best_input"], CENTRE.double().expand(2, 2), atol=2e-3, rtol=0
    )
    assert float(result["best_target"].max()) < 1e-5


def test_stays_in_the_box_and_reaches_its_corner():
    result = optimize_latent(
        exact(a=Line()), "a", [[0.0, 0.0]], bounds=[(-1.0, 2.0), (-3.0, 0.5)], num_restarts=3
    )
    assert result["best_input"].tolist() == [[2.0, 0.5]]
    assert result["best_target"].tolist() == [[3.0]]


def test_two_targets_meet_where_their_level_sets_cross():
    # x1 + 2 x2 = 1 and |x - c|^2 = 0.5 cross in two points; every restart must end on one of them
    model = exact(a=Line(), b=Bowl())
    result = optimize_latent(
        model, task_targets={"a": 1.0, "b": 0.5}, initial_input=[[0.0, 0.0]], steps=600
    )
    x = result["best_input"][0]
    assert float(x[0] + 2 * x[1]) == pytest.approx(1.0, abs=1e-4)
    assert float((x - CENTRE).square().sum()) == pytest.approx(0.5, abs=1e-4)
    assert result["target_names"] == ["a", "b"]


def test_simplex_optimum_in_closed_form():
    # the nearest point of the simplex to (.9, .5, -.2) is (.7, .3, 0)
    space = Space(
        tuple(Variable(n, 0.0, 1.0) for n in ("u", "v", "w")), simplexes=(("u", "v", "w"),)
    )
    model = FlexibleMultiTaskModel(heads={"a": "regression"}, encoder=SMALL, x_space=space)

    class Far(nn.Module):
        def forward(self, z):
            goal = torch.tensor([0.9, 0.5, -0.2]).to(z)
            return (z - goal).square().sum(-1, keepdim=True)

    model.encoder, model.task_heads["a"] = Pair(), Far()
    result = optimize_latent(
        model, "a", [[0.2, 0.2, 0.6]], mode="min", steps=300, return_trajectory=True
    )
    torch.testing.assert_close(
        result["best_input"][0],
        torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64),
        atol=1e-3,
        rtol=0,
    )
    assert bool(space.contains(result["optimized_input"]).all())
    assert bool(space.contains(result["input_trajectory"]).all())


def test_weights_decide_between_contrary_targets():
    # x1 pulled to 0 with weight 3 and to 1 with weight 1 settles at 1/4
    class First(nn.Module):
        def forward(self, z):
            return z[..., :1]

    result = optimize_latent(
        exact(a=First(), b=First()),
        task_targets={"a": 0.0, "b": 1.0},
        task_weights={"a": 3.0},
        initial_input=[[0.9, 0.0]],
        steps=300,
    )
    assert float(result["best_input"][0, 0]) == pytest.approx(0.25, abs=1e-4)
    assert float(result["best_loss"]) == pytest.approx((3 * 0.0625 + 0.5625) / 4, abs=1e-6)


def test_density_penalty_shifts_the_optimum_as_the_calculus_says():
    # minimise |x - c|^2 + w |x|^2: x = c / (1 + w)
    result = optimize_latent(
        exact(a=Bowl()),
        "a",
        [[1.0, 1.0]],
        mode="min",
        steps=300,
        num_restarts=1,
        density_penalty=3.0,
        density=lambda x: -x.square().sum(-1),
    )
    torch.testing.assert_close(result["best_input"][0], CENTRE.double() / 4.0, atol=2e-3, rtol=0)
    spread = optimize_latent(
        exact(a=Bowl()),
        "a",
        [[1.0, 1.0]],
        mode="min",
        steps=300,
        num_restarts=1,
        spread_penalty=1.0,
        spread=lambda x: x.square().sum(-1),
    )
    torch.testing.assert_close(spread["best_input"][0], CENTRE.double() / 2.0, atol=2e-3, rtol=0)


def test_a_failing_sample_leaves_the_others_alone_and_nan_loses():
    class Root(nn.Module):
        def forward(self, z):
            return z[..., :1].sqrt()

    model = exact(a=Root())
    starts = [[-5.0, 0.0], [4.0, 0.0]]
    result = optimize_latent(model, "a", starts, target_value=3.0, steps=400, num_restarts=3)
    assert bool(torch.isnan(result["best_loss"][0]))
    assert bool(torch.isfinite(result["optimized_input"]).all())
    assert float(result["best_input"][1, 0]) == pytest.approx(9.0, abs=1e-2)
    mixed = optimize_latent(
        model, "a", [[-0.05, 0.0]], target_value=0.3, steps=2, num_restarts=30, perturbation_std=0.1
    )
    assert bool(torch.isnan(mixed["optimized_target"][0, 0]).all())
    assert bool(torch.isfinite(mixed["best_loss"]).all())


def test_early_stop_freezes_converged_rows():
    calls = []

    class Counted(Line):
        def forward(self, latent):
            calls.append(1)
            return super().forward(latent)

    box = [(0.0, 1.0), (0.0, 1.0)]
    _, details = optimize_latent(
        exact(a=Counted()), "a", [[0.9, 0.9]], bounds=box, steps=500, return_details=True
    )
    assert len(calls) < 100
    assert details["trajectory"].shape == (1, 10, 500, 1)
    assert bool((details["trajectory"][:, :, 100:] == 3.0).all())
    calls.clear()
    optimize_latent(exact(a=Counted()), "a", [[0.9, 0.9]], bounds=box, steps=120, patience=None)
    assert len(calls) > 120
