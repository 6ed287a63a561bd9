"""`offline`: beyond the data without the simulator."""

from __future__ import annotations

import pytest
import torch

from genopt import GenoptError, Goal, Mixture, compose, run_study
from genopt.problems.ackley import Ackley
from genopt.problems.offline import Offline
from genopt.problems.rastrigin_value import RastriginValue
from genopt.routines.offline import beyond_goal, offline


def setting(problem):
    table = problem.table()
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    model = Mixture(problem.x_space, problem.y_space, max_components=2).fit(table.x, table.y)
    return table, goal, model


def test_the_best_proposal_beats_the_data_and_the_simulator_is_asked_once():
    class Counted(RastriginValue):
        calls = 0

        def simulate(self, x):
            self.calls += x.shape[:-1].numel()
            return super().simulate(x)

    inner = Counted(4)
    problem = Offline(inner, draw=250, proposals=32)
    table, goal, model = setting(problem)
    inner.calls = 0
    found = offline(model, goal, table=table, problem=problem)
    assert inner.calls == 32
    assert found.shape == (1, 32)
    truth = problem.simulate(found.x)
    numbers = found.header["numbers"]
    assert numbers["best"] == float(truth.min())
    assert numbers["best"] < 0.5 * float(table.y.min())
    assert numbers["ratio"] == pytest.approx(float(table.y.min()) / numbers["best"])
    assert bool(problem.x_space.contains(found.x).all())


def test_more_pessimism_proposes_what_is_surer():
    problem = Offline(Ackley(3, bound=5.0), draw=100, proposals=16)
    table, goal, model = setting(problem)
    spreads = [
        float(offline(model, goal, table=table, pessimism=p, proposals=16).y_spread.median())
        for p in (0.0, 10.0)
    ]
    assert spreads[1] < spreads[0]


@pytest.mark.parametrize(("wish", "sign"), [("min", 1.0), ("max", -1.0)])
def test_values_beyond_the_best_row_are_asked_for(wish, sign):
    problem = Ackley(2)
    table = problem.table(101)
    goal = Goal({"f": wish}, problem.x_space, problem.y_space)
    asked = beyond_goal(goal, goal.terms[0], table, 0.5).condition()[:, 0]
    values = (sign * table.y[:, 0]).sort().values
    assert float(sign * asked[0]) == pytest.approx(float(values[0]))
    far = float(values[0] - 0.5 * (values[50] - values[0]))
    # f is never below 0, nor above 23
    within = max(far, 0.0) if wish == "min" else max(far, -23.0)
    assert float(sign * asked[-1]) == pytest.approx(within)


@pytest.mark.parametrize(
    ("wish", "options", "message"),
    [
        ({"f": 1.0}, {}, "needs a goal of one wish"),
        ({"f": "min"}, {"pessimism": -1.0}, "routine.pessimism=-1.0"),
        ({"f": "min"}, {"proposals": 0}, "routine.proposals must be at least 1"),
        ({"f": "min"}, {"surrogate": "trees"}, "routine.surrogate 'trees'"),
        ({"f": "min"}, {"table": None}, "give table="),
    ],
)
def test_what_cannot_be_proposed_is_refused(wish, options, message):
    problem = Ackley(2)
    goal = Goal(wish, problem.x_space, problem.y_space)
    model = Mixture(problem.x_space, problem.y_space)
    with pytest.raises(GenoptError, match=message):
        offline(model, goal, **{"table": problem.table(10), **options})


@pytest.mark.e2e
def test_a_study_scores_its_proposals(tmp_path):
    config = compose(
        [
            "problem=offline", "problem.of.dimension=3", "problem.draw=150", "problem.proposals=16",
            "model=mixture", "model.max_components=2", "routine=offline", "progress=false",
            "figures=false", "logger=none",
        ]
    )  # fmt: skip
    result = run_study(config, tmp_path, show=False)
    assert result.metrics["routine/ratio"] > 1.0
    assert "the best of 16 proposals is" in result.verdict
    truth = torch.as_tensor(result.candidates.y_verified)
    assert float(truth.min()) == pytest.approx(result.metrics["routine/best"])
