"""Rows close to a goal: denser there, with weights that keep densities what they are."""

from __future__ import annotations

import pytest
import torch

from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.problems.absolute_value import AbsoluteValue
from genopt.problems.adaptive import adaptive_table
from genopt.problems.base import Problem
from genopt.problems.peng_robinson import PengRobinson
from genopt.problems.stochastic import StochasticProblem
from genopt.problems.table import TableProblem
from genopt.space import Space


class Bowl(Problem):
    """y = a^2 + b; it counts its calls and fails where it is told to."""

    def __init__(self, fails: bool = False) -> None:
        space = Space.of(a=(-1.0, 1.0), b=(-1.0, 1.0))
        super().__init__("bowl", space, Space.of(f=(-1.0, 2.0)), {"f": "min"})
        self.calls = 0
        self.fails = fails

    def simulate(self, x):
        self.calls += len(x)
        f = x[..., :1].square() + x[..., 1:]
        return torch.where(x[..., :1] > 0.9, torch.nan, f) if self.fails else f


class Noisy(StochasticProblem):
    """y = a^2 + b with noise, so that y is guessed badly before it is measured."""

    def __init__(self) -> None:
        space = Space.of(a=(0.0, 1.0), b=(0.0, 1.0))
        super().__init__("noisy", space, Space.of(f=(0.0, 2.0)), {"f": 0.5})

    def simulate(self, x):
        return x[..., :1].square() + x[..., 1:]

    def respond(self, x, generator):
        noise = torch.randn(x.shape[:-1], generator=generator, dtype=torch.float64)
        return self.simulate(x) + 0.5 * noise[..., None]


def goal_of(problem: Problem, spec=None) -> Goal:
    return Goal(spec or problem.default_goal, problem.x_space, problem.y_space)


def test_rows_crowd_at_the_roots_and_joint_weights_give_the_prior_back():
    problem = PengRobinson()
    found = []
    for seed in range(5):
        table = adaptive_table(problem, goal_of(problem), 450, unbiased="joint", seed=seed)
        assert len(table) == 450
        z, w = table.x[:, 0], table.weight / table.weight.sum()
        near = (table.y[:, 0].abs() < 1e-3).double().mean()
        low = (z < 0.2).double()
        found.append(torch.stack([near, low.mean(), w @ z, w @ z.square(), w @ low]))
        # the bound that the docstring names
        assert float(table.weight.max()) < 3 / 1.6 * 1.03
    near, crowded, mean, square, share = torch.stack(found).mean(0).tolist()
    # a fiftieth of uniform rows would lie so near a root, a fifth of them below .2
    assert near > 0.25
    assert crowded > 0.5
    assert mean == pytest.approx(0.5, abs=0.02)
    assert square == pytest.approx((0.99**3 - 0.01**3) / (3 * 0.98), abs=0.02)
    assert share == pytest.approx(0.19 / 0.98, abs=0.02)


def test_conditional_weights_give_the_designs_of_a_property_their_share():
    problem = Noisy()
    window = (0.4, 0.6)
    prior = problem.table(100_000, seed=9)
    inside = (prior.y[:, 0] > window[0]) & (prior.y[:, 0] < window[1])
    exact = float(prior.x[inside, 1].square().mean())
    plain, weighted = [], []
    for seed in range(4):
        table = adaptive_table(problem, goal_of(problem), 3000, share=0.05, seed=seed)
        near = (table.y[:, 0] > window[0]) & (table.y[:, 0] < window[1])
        value, w = table.x[near, 1].square(), table.weight[near]
        plain.append(float(value.mean()))
        weighted.append(float((w * value).sum() / w.sum()))
    off = abs(sum(plain) / 4 - exact)
    assert off > 0.03
    assert abs(sum(weighted) / 4 - exact) < 0.4 * off


def test_the_two_kinds_of_weights_differ_by_a_function_of_the_properties():
    problem = Noisy()
    joint, conditional = (
        adaptive_table(problem, goal_of(problem), 900, unbiased=kind).weight
        for kind in ("joint", "conditional")
    )
    y = adaptive_table(problem, goal_of(problem), 900).y[:, 0]
    ratio = (conditional / joint)[y.argsort()]
    # the same for rows of the same y, and largest at the goal
    assert float((ratio.diff().abs() / ratio[1:]).median()) < 0.02
    assert float((y.sort().values[ratio.argmax()] - 0.5).abs()) < 0.05


@pytest.mark.parametrize(
    ("wish", "near"),
    [
        ({"f": "min"}, lambda y: y < -0.8),
        ({"f": "max"}, lambda y: y > 1.7),
        ({"f": {"at_least": 0.5}}, lambda y: (y - 0.5).abs() < 0.05),
        ({"f": {"between": [-0.5, 1.2]}}, lambda y: ((y - 0.35).abs() - 0.85).abs() < 0.05),
    ],
)
def test_optima_and_boundaries_are_oversampled_at_the_same_number_of_calls(wish, near):
    problem = Bowl()
    table = adaptive_table(problem, goal_of(problem, wish), 300)
    assert problem.calls == len(table) == 300
    usual = problem.table(3000).y[:, 0]
    share = near(table.y[:, 0]).double().mean()
    assert float(share) > 3 * float(near(usual).double().mean())


def test_failing_designs_are_lost_alone():
    with pytest.warns(UserWarning, match="failed for"):
        table = adaptive_table(Bowl(fails=True), goal_of(Bowl()), 200)
    assert 150 < len(table) < 200
    assert bool((table.x[:, 0] <= 0.9).all())
    assert float(table.weight.mean()) == pytest.approx(1.0)


def test_repeatable_by_its_seed():
    problem = Bowl()
    a, b, c = (adaptive_table(problem, goal_of(problem), 60, seed=s) for s in (1, 1, 2))
    assert torch.equal(a.x, b.x)
    assert not torch.equal(a.x, c.x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rounds": 1}, "at least 2"),
        ({"share": 0.0}, "data.share=0"),
        ({"plain": 0.0}, "data.plain=0"),
        ({"n": 10}, "too few for 3 rounds"),
        ({"unbiased": "condition"}, "data.unbiased"),
    ],
)
def test_options_that_cannot_work(options, words):
    problem = Bowl()
    with pytest.raises(GenoptError, match=words):
        adaptive_table(problem, goal_of(problem), **options)
    assert problem.calls == 0


def test_problems_without_a_simulator_or_with_own_tables(tmp_path):
    rows = Bowl().table(20)
    measured = TableProblem(str(rows.write(tmp_path / "rows.csv")), ["a", "b"], ["f"])
    with pytest.raises(GenoptError, match="measured data only"):
        adaptive_table(measured, goal_of(measured, {"f": "min"}))
    own = AbsoluteValue()
    with pytest.raises(GenoptError, match="makes its own table"):
        adaptive_table(own, goal_of(own))
