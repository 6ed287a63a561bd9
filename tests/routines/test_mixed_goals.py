"""Goals that wish (``min``, ``max``) beside a value: the value holds, no wish buys it off."""

import pytest
import torch

from genopt import Goal, Space, Table
from genopt.analysis.metrics import candidate_scores
from genopt.analysis.summary import best_rows_frame
from genopt.candidates import Candidates
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.problems import PlaneProjection
from genopt.routines.latent_candidates import optimize_latent_candidates, start_designs
from genopt.routines.targets import ranked_rows

X = Space.of(u=(-2.0, 2.0), v=(-2.0, 2.0))
Y = Space.of(f=(0.0, 8.0), r=(-5.0, 3.0))
# f = u^2 + v^2, r = u + v - 1: the row of the lowest sum of f/8 and (r/8)^2 misses r = 0
ROWS = torch.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, 0.0], [2.0, -1.0], [-1.0, -1.0]])


def values(x):
    return torch.stack([x.square().sum(-1), x.sum(-1) - 1.0], -1).double()


def table() -> Table:
    y = values(ROWS)
    y[4, 0] = torch.nan
    return Table(ROWS.double(), y, X, Y)


def test_rows_that_hold_the_value_come_first():
    goal = Goal({"f": "min", "r": 0.0}, X, Y)
    assert ranked_rows(goal, table().y).tolist() == [[1, 2, 3, 0, 4]]
    assert start_designs(goal, table(), 4, seed=0)[0, :2].tolist() == [[0.5, 0.5], [1.0, 0.0]]
    frame = best_rows_frame(goal, table(), 1)
    assert frame[["u", "v"]].to_numpy().tolist() == [[0.5, 0.5]]


def test_each_goal_of_a_batch_has_its_own_ranking():
    goal = Goal({"f": "max", "r": [0.0, -1.0]}, X, Y)
    assert ranked_rows(goal, table().y)[:, 0].tolist() == [3, 0]


def test_the_baseline_is_a_row_that_holds_the_value():
    goal = Goal({"f": "min", "r": 0.0}, X, Y)
    x = torch.tensor([[[0.5, 0.5]]])
    scores = candidate_scores(Candidates.from_claims(goal, x, values(x)), goal, (), table())
    # f = .5 of a width of 8, averaged with the value that is met
    assert scores["baseline/best_row_loss"] == pytest.approx(0.5 / 8 / 2)


def test_a_search_finds_the_nearest_point_of_a_plane():
    torch.set_num_threads(1)
    problem = PlaneProjection()
    data = problem.table(512)
    model = FlexibleMultiTaskModel(x_space=problem.x_space, y_space=problem.y_space)
    model.fit(data.x, {"f": data.y[:, 0], "residual": data.y[:, 1]}, epochs=120, seed=0)
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    found = optimize_latent_candidates(model, goal, table=data, starts=4, restarts=4, steps=300)
    assert bool(found.feasible.all())
    best = found.best()
    torch.testing.assert_close(best.x[0, 0], problem.answers[0].x.double(), atol=0.06, rtol=0)
