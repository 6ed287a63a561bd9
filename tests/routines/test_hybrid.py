"""`hybrid`: draws moved onto the goal by a surrogate, near where they were drawn."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from genopt.data.sampling import sample_space
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.mixture.engine import Mixture
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.routines.checks import check_routine
from genopt.routines.hybrid import hybrid
from genopt.routines.nearby import improve
from genopt.routines.propose import propose
from genopt.space import Space, Variable

X, Y = Space.of(a=(0.0, 1.0), b=(0.0, 10.0)), Space.of(f=(0.0, 3.0))
SMALL = {"kind": "mlp", "hidden_dims": [32], "latent_dim": 16}
MIXED = Space(
    (
        *(Variable(n, 0.0, 1.0) for n in "abc"),
        Variable("n", 0, 5, kind="integer"),
        Variable("kind", kind="categorical", labels=("u", "v")),
    ),
    simplexes=(("a", "b", "c"),),
)


def plane(x):
    return x[..., :1] + 0.2 * x[..., 1:2]


@pytest.fixture(scope="module")
def learned() -> tuple[Mixture, FlexibleMultiTaskModel, Table]:
    torch.set_num_threads(1)
    x = sample_space(X, 300)
    table = Table(x, plane(x), X, Y)
    surrogate = FlexibleMultiTaskModel.for_spaces(X, Y, "auto", SMALL, epochs=150, batch_size=64)
    surrogate.fit_table(table)
    # noise in y, so that its draws miss
    loose = Mixture(X, Y, max_components=1).fit(x, plane(x) + 0.2 * torch.randn_like(x[:, :1]))
    return loose, surrogate, table


def test_draws_move_straight_onto_the_plane(learned):
    _, surrogate, _ = learned
    x = torch.tensor([[[0.5, 5.0], [0.4, 6.5], [0.6, 4.0]]], dtype=torch.float64)
    moved = improve(surrogate, Goal({"f": 1.5}, X, Y), x, radius=0.5)
    # in the unit box y = u + 2 v: the foot of the perpendicular
    normal = torch.tensor([1.0, 2.0], dtype=torch.float64)
    unit = X.encode(x)
    foot = unit + (1.5 - unit @ normal)[..., None] * normal / 5.0
    assert float((X.encode(moved) - foot).abs().max()) < 0.02
    assert float((plane(moved) - 1.5).abs().max()) < 0.02


def test_no_column_moves_farther_than_the_radius(learned):
    _, surrogate, _ = learned
    x = sample_space(X, 40)[None]
    moved = improve(surrogate, Goal({"f": 2.9}, X, Y), x, radius=0.03)
    step = (X.encode(moved) - X.encode(x)).abs()
    assert float(step.max()) < 0.03 + 1e-9
    far = plane(x)[..., 0] < 2.5
    # those that cannot get there go as far as they may
    assert float((step[far].amax(-1) - 0.03).abs().max()) < 1e-6


def test_discrete_columns_and_held_ones_stay_and_fractions_sum_to_one():
    torch.set_num_threads(1)
    x = sample_space(MIXED, 200)
    y = x[:, :1] + 0.1 * x[:, 3:4] + 0.5 * x[:, 4:5]
    table = Table(x, y, MIXED, Y)
    surrogate = FlexibleMultiTaskModel.for_spaces(MIXED, Y, "auto", SMALL, epochs=60)
    surrogate.fit_table(table)
    goal = Goal({"f": 0.9, "b": 0.2}, MIXED, Y)
    start = sample_space(MIXED, 30, seed=4)
    start[:, 1] = 0.2
    start[:, 0] = 0.8 * torch.rand(30, generator=torch.Generator().manual_seed(1))
    start[:, 2] = 0.8 - start[:, 0]
    moved = improve(surrogate, goal, start[None], radius=0.3)[0]
    assert torch.equal(moved[:, 3:], start[:, 3:])
    assert torch.allclose(moved[:, 1], torch.full((30,), 0.2, dtype=torch.float64))
    assert torch.allclose(moved[:, :3].sum(1), torch.ones(30, dtype=torch.float64))
    assert bool(MIXED.contains(moved).all())
    assert float((moved[:, 0] - start[:, 0]).abs().max()) > 0.1


def test_designs_reach_the_goal_better_and_stay_the_set_that_was_drawn(learned):
    model, surrogate, table = learned
    goal = Goal({"f": [1.0, 2.0]}, X, Y)
    options = {"samples": 60, "seed": 3}
    found = hybrid(model, goal, table=table, surrogate=surrogate, diverse=None, **options)
    drawn = propose(model, goal, 60, table=table, seed=3)
    wanted = torch.tensor([[1.0], [2.0]])
    miss, before = ((plane(c.x)[..., 0] - wanted).abs().median(1).values for c in (found, drawn))
    assert bool((miss < 0.05 * before).all())
    assert found.header["routine"] == "hybrid"
    # each is near one of the draws, and no draw is used twice
    gaps = torch.cdist(X.encode(found.x), X.encode(drawn.x))
    assert float(gaps.amin(2).max()) < 0.1 * 2**0.5
    assert found.shape == (2, 60)
    assert found.y_spread is not None
    assert float(found.header["numbers"]["moved"]) > 0.0


def test_distinct_designs_come_first_and_keep_cuts_the_rest(learned):
    model, surrogate, table = learned
    goal = Goal({"f": 1.5}, X, Y)
    options = {"table": table, "surrogate": surrogate, "samples": 50, "diverse": 0.1}
    every = hybrid(model, goal, **options)
    unit = X.encode(every.x)[0]
    count = 0
    while all(float((unit[count] - u).square().mean().sqrt()) >= 0.1 for u in unit[:count]):
        count += 1
    assert count >= 3
    # whatever comes later is too like one of the first
    for later in unit[count:]:
        assert float((unit[:count] - later).square().mean(1).sqrt().min()) < 0.1
    few = hybrid(model, goal, **options, keep=count)
    assert torch.equal(few.x, every.x[:, :count])


def test_a_surrogate_is_trained_kept_and_found_again(learned, tmp_path):
    model, _, table = learned
    spec = {"encoder": SMALL, "epochs": 3}
    goal = Goal({"f": 1.5}, X, Y)
    first = hybrid(model, goal, table=table, surrogate=spec, samples=5, folder=tmp_path / "own")
    assert (tmp_path / "own" / "surrogate.ckpt").exists()
    other = {**spec, "epochs": 30}
    again = hybrid(model, goal, table=table, surrogate=other, samples=5, folder=tmp_path / "own")
    assert torch.equal(first.x, again.x)
    with pytest.raises(GenoptError, match="give table="):
        hybrid(model, goal, surrogate=spec, samples=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 0}, "routine.samples"),
        ({"keep": 0}, "routine.keep"),
        ({"radius": 0.0}, "routine.radius"),
        ({"diverse": 2.0}, "routine.diverse"),
        ({"steps": -1}, "steps"),
        ({"polish": -1}, "routine.polish"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"surrogate": {"_target_": "genopt.models.mixture.engine.Mixture"}}, "by its gradients"),
        ({"surrogate": {"epoch": 3}}, "epoch"),
        ({"surrogate": {"heads": {"g": "regression"}}}, "g"),
    ],
)
def test_options_that_cannot_work_are_refused_before_training(options, words):
    goal = Goal({"f": 1.0}, X, Y)
    with pytest.raises(GenoptError, match=words):
        check_routine(partial(hybrid, **options), Mixture(X, Y), goal)


def test_a_model_that_draws_nothing_is_refused(learned):
    with pytest.raises(GenoptError, match="model=flow or model=mixture"):
        check_routine(partial(hybrid), learned[1], Goal({"f": 1.0}, X, Y))
