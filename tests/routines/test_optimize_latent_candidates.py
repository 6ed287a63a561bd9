"""The routine on Goals: starts, fixed columns, classes, integers, simplexes; coordinates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.nn.scalers import InputScaler
from genopt.routines.coordinates import Coordinates, project_sum
from genopt.routines.latent_candidates import optimize_latent_candidates, start_designs
from genopt.space import Space, Variable

SMALL = {"kind": "mlp", "hidden_dims": [32], "latent_dim": 16}
X_SPACE = Space(
    (
        Variable("t", 0.0, 10.0),
        Variable("n", 1.0, 5.0, kind="integer"),
        Variable("solvent", kind="categorical", labels=("water", "oil", "ether")),
        Variable("f", 0.0, 1.0),
        Variable("g", 0.0, 0.8),
    ),
    simplexes=(("f", "g"),),
)
Y_SPACE = Space((Variable("rate", 0.0, 8.0), Variable("cost", 0.0, 20.0)))
OFFSET = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)


def simulate(x: torch.Tensor) -> torch.Tensor:
    rate = 0.3 * x[..., 0] + OFFSET[x[..., 2].long()] + 2.0 * x[..., 3]
    return torch.stack([rate, 2.0 * x[..., 1] + x[..., 0]], -1)


@pytest.fixture(scope="module")
def case() -> tuple[FlexibleMultiTaskModel, Table]:
    torch.set_num_threads(1)
    from genopt.data.sampling import sample_space

    x = sample_space(X_SPACE, 400)
    table = Table(x, simulate(x), X_SPACE, Y_SPACE)
    model = FlexibleMultiTaskModel.for_spaces(
        X_SPACE, Y_SPACE, "auto", SMALL, epochs=80, batch_size=64
    )
    model.fit_table(table)
    return model, table


def test_candidates_reach_the_goal_with_valid_designs(case):
    model, table = case
    goal = Goal({"rate": "max", "cost": {"at_most": 8.0}}, X_SPACE, Y_SPACE)
    found = optimize_latent_candidates(
        model, goal, table=table, starts=12, restarts=4, steps=120, trajectory=True
    )
    assert bool(X_SPACE.contains(found.x).all())
    assert found.trajectory is not None
    assert found.trajectory.shape == (1, 12, 121, 5)
    torch.testing.assert_close(found.trajectory[:, :, -1], found.x, atol=1e-6, rtol=0)
    with torch.no_grad():
        assert torch.equal(found.y_predicted, model.predict_y(found.x))
    # oil (+2), all of f (+2), and the cost shared so that 2 n + t = 8 with n = 1, t = 6: rate 5.8
    assert bool(found.feasible.any())
    assert bool(found.best().feasible.all())
    best = found.best().x[0, 0]
    assert best[2] == 1.0
    assert best[1] == 1.0
    assert float(best[3]) > 0.97
    assert float(simulate(best)[0]) == pytest.approx(5.8, abs=0.35)
    measured = table.y[table.y[:, 1] <= 8.0, 0].max()
    assert float(simulate(best)[0]) > float(measured)


def test_batched_goals_are_separate_and_fixed_columns_hold(case):
    model, table = case
    goal = Goal({"rate": [2.0, 5.0], "solvent": "ether", "n": 3}, X_SPACE, Y_SPACE)
    found = optimize_latent_candidates(model, goal, table=table, starts=6, restarts=3, steps=150)
    assert found.shape == (2, 6)
    assert bool((found.x[..., 2] == 2.0).all())
    assert bool((found.x[..., 1] == 3.0).all())
    best = found.best().y_predicted[:, 0, 0]
    torch.testing.assert_close(best, torch.tensor([2.0, 5.0]).double(), atol=1e-2, rtol=0)
    true = simulate(found.best().x)[:, 0, 0]
    torch.testing.assert_close(true, torch.tensor([2.0, 5.0]).double(), atol=0.3, rtol=0)


def test_same_seed_same_candidates(case):
    model, table = case
    goal = Goal({"rate": 4.0}, X_SPACE, Y_SPACE)
    runs = [
        optimize_latent_candidates(
            model, goal, table=table, starts=4, restarts=2, steps=5, seed=seed
        ).x
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_starts_hold_the_best_rows_and_skip_missing_labels(case):
    _, table = case
    y = table.y.clone()
    y[:200, 0] = torch.nan
    gaps = Table(table.x, y, X_SPACE, Y_SPACE)
    goal = Goal({"rate": "max"}, X_SPACE, Y_SPACE)
    starts = start_designs(goal, gaps, 8, seed=0)
    assert starts.shape == (1, 8, 5)
    order = (200 + y[200:, 0].argsort(descending=True))[:4]
    assert torch.equal(starts[0, :4], table.x[order])
    assert bool(X_SPACE.contains(starts).all())


def test_errors_before_work(case):
    model, _ = case
    other = Goal({"rate": "max"}, Space.of(z=(0, 1)), Y_SPACE)
    with pytest.raises(GenoptError, match="another problem"):
        optimize_latent_candidates(model, other)
    free = Space((Variable("z"),))
    with pytest.raises(GenoptError, match="columns z have no bounds"):
        start_designs(Goal({"rate": "max"}, free, Y_SPACE), None, 4, seed=0)
    with pytest.raises(GenoptError, match="starts must be positive"):
        optimize_latent_candidates(model, Goal({"rate": "max"}, X_SPACE, Y_SPACE), starts=0)


# -- coordinates -----------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(
    x=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    upper=st.lists(st.floats(0.4, 1.0), min_size=3, max_size=3),
)
def test_project_sum_is_the_nearest_point(x, upper):
    point = torch.tensor([x], dtype=torch.float64)
    low, high = torch.zeros(3, dtype=torch.float64), torch.tensor(upper, dtype=torch.float64)
    found = project_sum(point, low, high)[0]
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-9)
    assert bool(((found >= 0) & (found <= high + 1e-12)).all())
    solved = minimize(
        lambda z: ((z - point[0].numpy()) ** 2).sum(),
        [1 / 3] * 3,
        jac=lambda z: 2 * (z - point[0].numpy()),
        bounds=[(0.0, u) for u in upper],
        constraints={"type": "eq", "fun": lambda z: z.sum() - 1.0},
        options={"ftol": 1e-14},
    )
    distance = float((found - point[0]).square().sum())
    assert distance <= solved.fun + 1e-7


def test_coordinates_round_trip_and_fixed_simplex_parts():
    scaler = InputScaler([len(v.labels) for v in X_SPACE])
    held = {3: torch.tensor([0.4, 0.9], dtype=torch.float64)}
    coordinates = Coordinates(X_SPACE, scaler, None, held)
    x = torch.tensor([[[7.0, 2.0, 1.0, 0.3, 0.7]], [[1.0, 5.0, 0.0, 0.5, 0.5]]]).double()
    u = coordinates.project(coordinates.from_raw(x))
    back = coordinates.raw(u)
    expected = x.clone()
    expected[:, 0, 3] = held[3]
    expected[:, 0, 4] = 1.0 - held[3]
    torch.testing.assert_close(back, expected)
    torch.testing.assert_close(coordinates.project(u), u)
    with pytest.raises(GenoptError, match="simplex f, g"):
        Coordinates(X_SPACE, scaler, None, {3: torch.tensor([0.1]).double()})


def test_the_unit_of_a_search_does_not_depend_on_the_column():
    wide = Space.of(a=(0.0, 1e6), b=(0.0, 1e-6))
    coordinates = Coordinates(wide, InputScaler([0, 0]), None, {})
    corner = torch.tensor([[[1e6, 1e-6]]], dtype=torch.float64)
    assert coordinates.from_raw(corner).tolist() == [[[1.0, 1.0]]]
