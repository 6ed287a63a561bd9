"""Draws of highest density: what is kept, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genopt import ConditionalFlow, GenoptError, Goal, Mixture, Space, Table, Variable
from genopt.routines.checks import check_routine
from genopt.routines.densest import densest, surplus
from genopt.routines.sample import condition, generate

X, Y = Space.of(a=(0.0, 1.0), b=(0.0, 1.0)), Space.of(s=(0.0, 2.0))


def rows(n=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return Table(x, x.sum(-1, keepdim=True), X, Y)


@pytest.fixture(scope="module")
def mixture():
    return Mixture(X, Y, max_components=3).fit(rows().x, rows().y)


@pytest.fixture(scope="module")
def flow():
    table = rows()
    model = ConditionalFlow(X, Y, epochs=15, network={"kind": "adaln", "width": 16, "depth": 1})
    return model.fit(table.x, table.y)


@given(st.integers(1, 50), st.floats(0.05, 1.0), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_densest_are_as_many_as_wanted_in_the_order_of_the_draws(n, share, seed):
    most = surplus(n, share)
    assert n <= most < n / share + 1
    log_density = torch.randn(3, most, generator=torch.Generator().manual_seed(seed))
    log_density[0, 0] = math.nan
    kept = densest(log_density, n)
    assert kept.shape == (3, n)
    assert bool((kept.diff(dim=1) > 0).all())
    for row, index in zip(log_density.nan_to_num(nan=-math.inf), kept, strict=True):
        left = torch.ones(most, dtype=torch.bool)
        left[index] = False
        if bool(left.any()):
            assert float(row[index].min()) >= float(row[left].max())


@pytest.mark.parametrize("engine", ["mixture", "flow"])
def test_designs_come_from_the_region_of_highest_density(engine, request):
    model = request.getfixturevalue(engine)
    routine = condition if engine == "mixture" else generate
    goal = Goal({"s": [0.6, 1.2]}, X, Y)
    every = routine(model, goal, samples=400)
    kept = routine(model, goal, samples=200, highest_density=0.5)
    assert every.shape == (2, 400)
    assert kept.shape == (2, 200)
    assert kept.log_density is not None
    for i, wanted in enumerate((0.6, 1.2)):
        own = model.log_prob(kept.x[i], torch.full((200, 1), wanted, dtype=torch.float64))
        others = model.log_prob(every.x[i], torch.full((400, 1), wanted, dtype=torch.float64))
        # half of all draws are denser than the least dense design
        assert float(own.min()) == pytest.approx(float(others.median()), abs=0.6)
        torch.testing.assert_close(kept.log_density[i], own, atol=2e-2, rtol=0)


def test_intervals_have_a_region_of_highest_density_too(mixture):
    goal = Goal({"s": {"between": [0.5, 0.9]}}, X, Y)
    found = condition(mixture, goal, samples=100, highest_density=0.5)
    assert found.shape == (1, 100)
    every = condition(mixture, goal, samples=200)
    assert found.log_density is not None
    assert every.log_density is not None
    assert float(found.log_density.min()) > float(every.log_density.quantile(0.3))


def test_ways_from_noise_to_data_are_those_of_the_designs_that_are_kept(flow):
    found = generate(flow, Goal({"s": 0.8}, X, Y), samples=20, highest_density=0.7, trajectory=True)
    assert found.trajectory is not None
    torch.testing.assert_close(found.trajectory[..., -1, :], found.x)


def test_held_columns_are_given_to_the_density():
    table = rows()
    network = {"kind": "adaln", "width": 16, "depth": 1}
    model = ConditionalFlow(X, Y, epochs=10, network=network, given_x=0.5).fit(table.x, table.y)
    found = generate(model, Goal({"s": 0.8, "a": 0.3}, X, Y), samples=30, highest_density=0.5)
    assert bool((found.x[..., 0] == 0.3).all())
    assert found.log_density is not None
    assert bool(found.log_density.isfinite().all())


def test_what_cannot_be_done_is_refused_before_training():
    from functools import partial

    goal = Goal({"s": 0.8}, X, Y)
    for share in (0.0, -1.0, 1.5):
        with pytest.raises(GenoptError, match=r"routine\.highest_density"):
            check_routine(partial(generate, highest_density=share), ConditionalFlow(X, Y), goal)
    rule = ["a + b <= 1"]
    with pytest.raises(GenoptError, match=r"does not go with routine\.constraints"):
        check_routine(
            partial(condition, highest_density=0.5, constraints=rule), Mixture(X, Y), goal
        )
    space = Space((*X.variables, Variable("kind", kind="categorical", labels=("u", "v"))))
    with pytest.raises(GenoptError, match=r"class columns kind of x .*leave it at 1"):
        check_routine(
            partial(generate, highest_density=0.5),
            ConditionalFlow(space, Y),
            Goal({"s": 0.8}, space, Y),
        )
