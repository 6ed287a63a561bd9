"""Distinct designs among what a search returns, discrete columns, and what a search refuses."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch

from genopt.data.sampling import sample_space
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.multitask.ensemble import MultiTaskEnsemble
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.routines.checks import check_routine
from genopt.routines.diverse import choose
from genopt.routines.latent_candidates import optimize_latent_candidates
from genopt.space import Space, Variable

SMALL = {"kind": "mlp", "hidden_dims": [24], "latent_dim": 12}
X = Space(tuple(Variable(n, 0.0, 1.0) for n in "abc"), simplexes=(("a", "b", "c"),))
Y = Space.of(f=(0.0, 2.0), g=(-1.0, 1.0))
FEW = {"starts": 12, "restarts": 3, "steps": 60}


def simulate(x):
    f = (x[..., 0] - 0.6).square() + 2.0 * (x[..., 1] - 0.3).square()
    return torch.stack([f, x[..., 0] - x[..., 1]], -1).double()


@pytest.fixture(scope="module")
def blends() -> tuple[FlexibleMultiTaskModel, Table]:
    torch.set_num_threads(1)
    x = sample_space(X, 300)
    table = Table(x, simulate(x), X, Y)
    model = FlexibleMultiTaskModel.for_spaces(X, Y, "auto", SMALL, epochs=60, batch_size=64)
    model.fit_table(table)
    return model, table


def rms(x):
    unit = X.encode(x)
    return [float((p - q).square().mean().sqrt()) for p, q in itertools.combinations(unit, 2)]


def test_choose_is_the_greedy_choice_by_hand():
    unit = torch.tensor(
        [[[0.0], [0.03], [0.2], [0.5], [0.52]], [[0.0], [1.0], [0.95], [0.4], [0.1]]]
    )
    rank = torch.tensor([[2.0, 1.0, 3.0, 9.0, 8.0], [torch.inf, 5.0, 1.0, 2.0, 3.0]])
    assert choose(unit, rank, 4, 0.1).tolist() == [[1, 2, 4, -1], [2, 3, 4, -1]]
    away = torch.tensor([[[0.2]], [[torch.nan]]])
    assert choose(unit, rank, 2, 0.1, away).tolist() == [[1, 4], [2, 3]]


def test_one_optimum_comes_with_the_best_designs_around_it(blends):
    model, table = blends
    goal = Goal({"f": "min"}, X, Y)
    plain = optimize_latent_candidates(model, goal, table=table, diverse=None, **FEW)
    assert len(plain.top(5).x[0]) == 1
    found = optimize_latent_candidates(model, goal, table=table, trajectory=True, **FEW)
    top = found.top(5)
    assert top.shape == (1, 5)
    assert min(rms(top.x[0])) >= 0.05 - 1e-12
    assert bool((top.loss.diff(dim=1) >= 0).all())
    # the best one is the optimum, the next ones are no accident: better than most of the rows
    assert float(top.loss[0, 0]) == pytest.approx(float(plain.loss.min()), abs=1e-6)
    best = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    torch.testing.assert_close(top.x[0, 0], best, atol=0.1, rtol=0)
    typical = float(simulate(table.x)[:, 0].quantile(0.3)) / 2.0
    assert float(top.loss.max()) < typical
    assert bool(X.contains(found.x).all())
    with torch.no_grad():
        assert torch.equal(found.y_predicted, model.predict_y(found.x))
    assert found.trajectory is not None
    assert found.trajectory.shape == (1, 12, 61, 3)
    torch.testing.assert_close(found.trajectory[:, :, -1], found.x, atol=1e-9, rtol=0)


def test_exact_values_are_not_watered_down(blends):
    model, table = blends
    goal = Goal({"f": [0.2, 0.4], "g": [0.1, 0.0]}, X, Y)
    found = optimize_latent_candidates(model, goal, table=table, **FEW)
    assert found.shape == (2, 12)
    assert bool((found.loss < 1e-8).all())
    for b in range(2):
        single = Goal({"f": [0.2, 0.4][b], "g": [0.1, 0.0][b]}, X, Y)
        alone = optimize_latent_candidates(model, single, table=table, **FEW).best()
        torch.testing.assert_close(alone.loss[0], found.best().loss[b], atol=1e-8, rtol=0)


def test_search_and_ranking_mean_the_same():
    # g is far narrower than its training spread says: a search in spreads would end elsewhere
    torch.set_num_threads(1)
    x_space = Space.of(u=(0.0, 1.0))
    y_space = Space.of(f=(0.0, 1.0), g=(0.0, 10.0))
    x = torch.linspace(0.0, 1.0, 200, dtype=torch.float64)[:, None]
    model = FlexibleMultiTaskModel.for_spaces(x_space, y_space, "auto", SMALL, epochs=80)
    model.fit_table(Table(x, torch.cat([x, 1.0 - x], 1), x_space, y_space))
    # loss (u - 1)^2 + ((1 - u) - 1)^2 / 100 is least at u = 100/101
    goal = Goal({"f": 1.0, "g": 1.0}, x_space, y_space)
    best = optimize_latent_candidates(model, goal, starts=4, restarts=2).best()
    assert float(best.x) == pytest.approx(100 / 101, abs=5e-3)


# -- discrete columns ------------------------------------------------------------------------------
def test_numbers_make_up_for_the_rounding_of_the_others():
    torch.set_num_threads(1)
    x_space = Space(
        (
            Variable("t", 0.0, 2.0),
            Variable("n", 0.0, 4.0, kind="integer"),
            Variable("s", kind="categorical", labels=("lo", "hi")),
        )
    )
    y_space = Space.of(r=(0.0, 8.0))
    x = sample_space(x_space, 400)
    y = (x[:, 0] + x[:, 1] + 1.5 * x[:, 2])[:, None]
    model = FlexibleMultiTaskModel.for_spaces(x_space, y_space, "auto", SMALL, epochs=80)
    model.fit_table(Table(x, y, x_space, y_space))
    goal = Goal({"r": 3.3}, x_space, y_space)
    for optimizer in ("lbfgs", "adam_lbfgs"):
        found = optimize_latent_candidates(model, goal, optimizer=optimizer, **FEW)
        assert bool(x_space.contains(found.x, 1e-12).all())
        # rounding a relaxed n and s alone would miss by up to half a unit
        assert float((found.y_predicted - 3.3).abs().median()) < 1e-3
    # the columns that are held stay at what the first part of the search chose
    result = model.optimize_latent(
        "r", x[:3], target_value=3.3, steps=40, return_trajectory=True, fixed={"s": "hi"}
    )
    way = result["input_trajectory"]
    assert bool((way[..., 2] == 1.0).all())
    assert bool((way[:, :, 30:, 1] == way[:, :, -1:, 1]).all())
    assert float((way[:, :, 30, 0] - way[:, :, -1, 0]).abs().max()) > 1e-3


# -- ensembles, disabled heads, checks -------------------------------------------------------------
def test_an_ensemble_is_searched_and_its_disagreement_is_a_penalty(blends):
    _, table = blends
    model = MultiTaskEnsemble(
        members=3, x_space=X, y_space=Y, heads="auto_autoencoder", encoder=SMALL, epochs=15
    )
    model.fit_table(table)
    goal = Goal({"f": 0.9}, X, Y)
    free = optimize_latent_candidates(model, goal, table=table, diverse=None, **FEW)
    shy = optimize_latent_candidates(
        model, goal, table=table, diverse=None, spread_penalty=1000.0, **FEW
    )
    unit = float(model.head_unit("f")[0])

    def spread(found):
        with torch.no_grad():
            latent = model.latent_of_wide(found.x)
            return float((model.head_spread("f", latent, noise=False) / unit).mean())

    assert spread(shy) < 0.9 * spread(free)
    assert shy.y_spread is not None
    with pytest.raises(GenoptError, match="each member of an ensemble has its own"):
        optimize_latent_candidates(model, goal, table=table, space="latent", **FEW)
    result = model.optimize_latent(
        "f", table.x[:2], target_value=0.3, steps=40, density_penalty=0.1, num_restarts=3
    )
    torch.testing.assert_close(
        result["optimized_target"].reshape(-1),
        model.predict(result["optimized_input"].reshape(-1, 3))["f"],
    )


def test_disabled_heads_are_refused(blends):
    model = FlexibleMultiTaskModel.for_spaces(X, Y, "auto", SMALL)
    model.disable_heads("g")
    with pytest.raises(GenoptError, match="'g' is disabled"):
        optimize_latent_candidates(model, Goal({"g": "max"}, X, Y), **FEW)
    # the only head that is left needs no name
    assert model.optimize_latent(initial_input=[[0.2, 0.3, 0.5]], steps=1)["target_names"] == ["f"]
    with pytest.raises(GenoptError, match="diverse must be a distance"):
        optimize_latent_candidates(blends[0], Goal({"f": "min"}, X, Y), diverse=0.0)


def test_fractions_that_cannot_sum_to_one_are_refused_before_training():
    fractions = Space(
        tuple(Variable(n, 0.0, 1.0) for n in ("u", "v", "w")), simplexes=(("u", "v", "w"),)
    )
    model = FlexibleMultiTaskModel.for_spaces(X, fractions, "auto", SMALL)
    routine = functools.partial(optimize_latent_candidates, density="mixture", density_penalty=0.1)
    for wanted in (
        {"u": 0.7, "v": 0.6},
        {"u": {"at_most": 0.2}, "v": {"at_most": 0.3}, "w": {"between": [0.1, 0.4]}},
        {"u": [0.2, 0.9], "v": {"at_least": 0.3}},
    ):
        with pytest.raises(GenoptError, match="u, v, w sum to one"):
            check_routine(routine, model, Goal(wanted, X, fractions))
    check_routine(routine, model, Goal({"u": 0.7, "v": {"at_most": 0.6}}, X, fractions))
    with pytest.raises(GenoptError, match="no blend that sums to one"):
        Goal({"u": 0.5, "a": 0.8, "b": 0.4}, X, fractions)


@pytest.mark.parametrize("kind", [FlexibleMultiTaskModel, MultiTaskEnsemble])
def test_heads_of_all_kinds_are_searched_together(kind):
    torch.set_num_threads(1)
    x_space = Space.of(a=(0.0, 1.0), b=(0.0, 1.0))
    x = sample_space(x_space, 200)
    heads = {
        "cp": {"kind": "sequence", "grid": [300.0, 400.0]},
        "n": "count",
        "o": {"kind": "ordinal", "num_classes": 3},
        "h": "heteroscedastic",
    }
    labels = {
        "cp": torch.stack([x[:, 0] + x[:, 1], 1.3 * x[:, 0] + x[:, 1]], 1),
        "n": (6.0 * x[:, 0]).round(),
        "o": (1.49 * x.sum(1)).floor(),
        "h": x[:, 0] - x[:, 1],
    }
    members = {} if kind is FlexibleMultiTaskModel else {"members": 2}
    model = kind(heads=heads, x_space=x_space, encoder=SMALL, epochs=25, **members)
    model.fit(x, labels)
    first = model.y_space.names[0]
    goal = Goal(
        {
            first: {"at_least": 1.2},
            "n": {"at_most": 5.0},
            "o": {"label": "2"},
            "h": {"between": [-0.2, 0.2]},
        },
        x_space,
        model.y_space,
    )
    for optimizer in ("adam", "lbfgs"):
        result = model.optimize_latent(
            initial_input=[[0.1, 0.1]], goal=goal, steps=80, optimizer=optimizer, num_restarts=4
        )
        claims = model.predict_y(result["best_input"])
        assert bool(goal.satisfied(claims).all())
        a, b = result["best_input"][0].tolist()
        # the truth lies in a + b >= 1.35 with |a - b| <= .2
        assert a + b > 1.2
        assert abs(a - b) < 0.3
