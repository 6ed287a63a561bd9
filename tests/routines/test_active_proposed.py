"""`active` with what a routine proposes, as it is, and a few designs that the model doubts."""

from __future__ import annotations

import pytest
import torch

from genopt import GenoptError, Goal, Space
from genopt.candidates import Candidates
from genopt.problems import Problem
from genopt.routines.active import active, check_active
from genopt.routines.active_doubt import doubtful
from genopt.routines.active_pool import Room


class Valley(Problem):
    """u squared plus v; notes what is asked."""

    def __init__(self):
        space = Space.of(u=(-1.0, 1.0), v=(0.0, 1.0))
        super().__init__("valley", space, Space.of(f=(0.0, 2.0)), {"f": "min"})
        self.asked: list[list[float]] = []

    def simulate(self, x):
        self.asked += x.tolist()
        return (x[:, :1].square() + x[:, 1:]).to(x)


class Unsure:
    """Knows f, and doubts only what is far to the right."""

    x_space, y_space = Valley().x_space, Valley().y_space
    has_spread = True

    def predict_y(self, x):
        return x[..., :1].square() + x[..., 1:]

    def spread_y(self, x):
        return x[..., :1].clamp_min(0.0) ** 3


WANTED = torch.tensor([[0.5, 0.5], [0.25, 0.75], [-0.5, 0.125], [0.0, 0.5]], dtype=torch.float64)


def listed(model, goal):
    y = model.predict_y(WANTED)[None]
    return Candidates.from_claims(goal, WANTED[None], y)


def goal_of(problem):
    return Goal(problem.default_goal, problem.x_space, problem.y_space)


def run(problem, **options):
    table = problem.table(8)
    problem.asked.clear()
    options = {"proposals": listed, "acquisition": "proposed", "surrogate": "model", **options}
    return active(Unsure(), goal_of(problem), problem=problem, table=table, **options)


def test_what_is_proposed_is_simulated_in_its_order_and_never_twice():
    problem = Valley()
    run(problem, batch=2, budget=4, explore=0.0)
    assert problem.asked == WANTED.tolist()
    # when all are known there is nothing left to ask
    found = run(problem, batch=3, budget=9, explore=0.0)
    assert problem.asked == WANTED.tolist()
    assert found.header["numbers"]["calls"] == 4


def test_a_share_of_the_batch_tries_what_the_model_doubts():
    problem = Valley()
    run(problem, batch=4, budget=4, explore=0.25)
    assert problem.asked[1:] == WANTED[:3].tolist()
    assert problem.asked[0][0] > 0.9


def test_doubts_differ_from_a_best_row_in_one_column():
    problem = Valley()
    table = problem.table(32)
    goal = goal_of(problem)
    generator = torch.Generator().manual_seed(0)
    x = doubtful(Unsure(), goal, table, Room(goal), 4, generator)
    assert x.shape == (1, 4, 2)
    same = (x[0, :, None] == table.x[None]).sum(-1)
    assert bool((same.amax(1) == 1).all())
    # each is a stratum's most doubtful one, the largest first
    u = x[0, :, 0]
    assert float(u[0]) > 0.75
    assert bool((u.diff() <= 0).all())
    assert len({tuple(row) for row in x[0].tolist()}) == 4


def test_a_held_column_is_not_tried():
    problem = Valley()
    goal = Goal({"f": "min", "u": 0.25}, problem.x_space, problem.y_space)
    generator = torch.Generator().manual_seed(0)
    x = doubtful(Unsure(), goal, problem.table(32), Room(goal), 4, generator)
    assert bool((x[..., 0] == 0.25).all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proposals": "none"}, "acquisition=proposed simulates what a routine proposes"),
        ({"explore": 1.0}, "routine.explore is a share of a batch"),
        ({"acquisition": "propose"}, "did you mean 'proposed'"),
    ],
)
def test_options_that_cannot_work_are_refused_before_any_training(options, words):
    problem = Valley()
    given = {"acquisition": "proposed", **options}
    with pytest.raises(GenoptError, match=words):
        check_active(Unsure(), goal_of(problem), given)
