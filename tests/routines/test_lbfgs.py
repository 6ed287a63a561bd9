"""The batched L-BFGS: against scipy and closed forms, on boxes, simplexes and hard valleys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, rosen, rosen_der
from torch import nn

from genopt.errors import UnknownNameError
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.nn.scalers import InputScaler
from genopt.routines.coordinates import Coordinates
from genopt.routines.lbfgs import lbfgs
from genopt.routines.optimize_latent import optimize_latent
from genopt.routines.search import Evaluation, Log, SearchOptions, adam
from genopt.space import Space, Variable

SMALL = {"kind": "mlp", "hidden_dims": [8], "latent_dim": 4}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def run(method, function, space, start, steps, **options):
    """The end of a search on a function of coordinates, and how many rows were worked out."""
    coordinates = Coordinates(space, InputScaler([0] * space.dim), None, {})
    worked = []

    def evaluate(u, _rows):
        worked.append(u.shape[0] * u.shape[1])
        total = function(u)
        return Evaluation(u, u[..., :1], total, torch.zeros_like(total))

    with torch.no_grad():
        end = method(start, evaluate, coordinates, SearchOptions(steps=steps, **options), Log())
    return end, sum(worked)


def quadratic(dim, seed):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(dim, dim))
    matrix = half @ half.T + 0.05 * np.eye(dim)
    return matrix, rng.uniform(-0.5, 1.5, dim)


@settings(max_examples=15, deadline=None)
@given(dim=st.integers(1, 8), seed=st.integers(0, 10_000))
def test_convex_boxes_as_scipy_solves_them(dim, seed):
    matrix, centre = quadratic(dim, seed)
    a, c = torch.from_numpy(matrix), torch.from_numpy(centre)
    start = torch.rand(3, 1, dim, generator=torch.Generator().manual_seed(seed)).double()
    end, _ = run(
        lbfgs,
        lambda u: 0.5 * ((u - c) @ a * (u - c)).sum(-1),
        Space.from_bounds([(0.0, 1.0)] * dim),
        start,
        150,
    )
    solved = minimize(
        lambda z: 0.5 * (z - centre) @ matrix @ (z - centre),
        np.full(dim, 0.5),
        jac=lambda z: matrix @ (z - centre),
        bounds=[(0.0, 1.0)] * dim,
        method="L-BFGS-B",
        options={"ftol": 1e-16, "gtol": 1e-12},
    )
    loss = 0.5 * ((end - c) @ a * (end - c)).sum(-1)
    assert float(loss.max()) <= solved.fun + 1e-12
    torch.testing.assert_close(
        end[:, 0], torch.from_numpy(solved.x).expand(3, dim), atol=1e-5, rtol=0
    )


def test_a_curved_valley_to_1e_8_where_adam_stays_far():
    space = Space.from_bounds([(-2.0, 2.0)] * 4)
    start = torch.rand(6, 1, 4, generator=torch.Generator().manual_seed(0)).double()

    def valley(u):
        x = 4.0 * u - 2.0
        return (100.0 * (x[..., 1:] - x[..., :-1] ** 2) ** 2 + (1.0 - x[..., :-1]) ** 2).sum(-1)

    # the minimum of scipy's own function from the same starts
    ends = [minimize(rosen, 4.0 * s - 2.0, jac=rosen_der, method="BFGS").x for s in start[:, 0]]
    here = torch.tensor(np.array(ends))[:, None] / 4.0 + 0.5
    found, _ = run(lbfgs, valley, space, start, 200)
    slow, _ = run(adam, valley, space, start, 200)
    best = torch.full((4,), 0.75, dtype=torch.float64)
    reached = (found - best).abs().amax(-1)
    assert float(reached.median()) < 1e-8
    assert float((found - here).abs().amax(-1).median()) < 1e-5
    assert float((slow - best).abs().amax(-1).median()) > 1e-4


def test_a_simplex_as_its_conditions_of_optimality_say():
    names = tuple("abcdef")
    space = Space(tuple(Variable(n, 0.0, 1.0) for n in names), simplexes=(names,))
    matrix, centre = quadratic(6, 3)
    a, c = torch.from_numpy(matrix), torch.from_numpy(centre)
    start = torch.rand(5, 1, 6, generator=torch.Generator().manual_seed(1)).double()
    end, _ = run(
        lbfgs,
        lambda u: 0.5 * ((u - c) @ a * (u - c)).sum(-1),
        space,
        start / start.sum(-1, keepdim=True),
        200,
    )
    gradient = (end - c) @ a
    inside = end > 1e-9
    # one multiplier for all fractions inside, larger slopes at those of zero
    level = gradient[inside].min()
    assert float((end.sum(-1) - 1.0).abs().max()) < 1e-12
    assert float((gradient[inside] - level).abs().max()) < 1e-6
    assert bool((gradient[~inside] > level - 1e-6).all())
    assert not bool(inside.all())


def test_rows_do_not_know_each_other_and_rest_when_they_are_done():
    space = Space.from_bounds([(0.0, 1.0)] * 3)
    start = torch.rand(7, 1, 3, generator=torch.Generator().manual_seed(2)).double()

    def bumps(u):
        return (6.0 * u).sin().sum(-1) + (u - 0.3).square().sum(-1)

    whole, worked = run(lbfgs, bumps, space, start, 400)
    assert worked < 7 * 100
    for i in range(7):
        alone, _ = run(lbfgs, bumps, space, start[i : i + 1], 400)
        torch.testing.assert_close(alone[0], whole[i], atol=1e-10, rtol=0)


def test_a_bad_row_stays_and_the_others_arrive():
    def half(u):
        return (u[..., 0] - 0.25).sqrt() * 2.0 + (u - 0.5).square().sum(-1) * 4.0

    space = Space.from_bounds([(0.0, 1.0)])
    start = torch.tensor([[[0.1]], [[0.9]]], dtype=torch.float64)
    end, _ = run(lbfgs, half, space, start, 60)
    assert float(end[0]) == pytest.approx(0.1)
    # a step onto the NaN side is refused: it ends above .25, lower than it began
    assert 0.25 <= float(end[1]) < 0.9


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Bowl(nn.Module):
    def forward(self, latent):
        centre = torch.tensor([0.4, -0.3]).to(latent)
        return 3.0 + (latent - centre).square().sum(-1, keepdim=True)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam_lbfgs"])
def test_optimize_latent_ends_exactly(optimizer):
    model = FlexibleMultiTaskModel(2, {"a": "regression"}, SMALL)
    model.encoder, model.task_heads["a"] = Pair(), Bowl()
    arguments = {"mode": "min", "initial_input": torch.tensor([[1.0, 1.0], [-1.0, 0.5]]).double()}
    result = optimize_latent(model, "a", steps=60, optimizer=optimizer, **arguments)
    centre = torch.tensor([0.4, -0.3]).double().expand(2, 2)
    torch.testing.assert_close(result["best_input"], centre, atol=1e-7, rtol=0)
    _, details = optimize_latent(
        model, "a", steps=20, optimizer=optimizer, return_details=True, **arguments
    )
    way = details["trajectory"]
    assert way.shape == (2, 10, 20, 1)
    assert torch.equal(way[:, :, -1], details["all_restarts"]["optimized_target"])
    if optimizer == "lbfgs":
        # a step is taken only where the loss falls
        assert bool((way.diff(dim=2) <= 0).all())
    with pytest.raises(UnknownNameError, match="optimizer"):
        optimize_latent(model, "a", optimizer="newton", **arguments)
