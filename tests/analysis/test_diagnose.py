"""Each fault is recognised where it is and not where it is not."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from genopt import Candidates, ConditionalFlow, Goal, Mixture, Space, Table
from genopt.analysis.diagnose import diagnose
from genopt.analysis.diagnose_designs import (
    collapsed,
    missing_answers,
    overclaimed,
    too_few_steps,
    unlike_held_out,
)
from genopt.analysis.diagnose_fit import (
    FitTimes,
    loss_not_falling,
    reference_step,
    slow_training,
    too_few_components,
    variance_too_high,
)
from genopt.analysis.diagnose_table import constant_columns, outside_data, unscaled_columns
from genopt.analysis.findings import Finding, findings_in_words
from genopt.analysis.heldout import HeldOut

F64 = torch.float64


def uniform(n: int, columns: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.rand(n, columns, generator=generator, dtype=F64) - 1.0


def table_of(x: torch.Tensor, y: torch.Tensor, bounds=None) -> Table:
    names = "abcd"[: x.shape[1]]
    low, high = bounds or (-1.0, 1.0)
    y_space = Space.of(**dict.fromkeys("yz"[: y.shape[1]], (-9.0, 9.0)))
    return Table(x, y, Space.of(**dict.fromkeys(names, (low, high))), y_space)


def goal_of(table: Table, **spec) -> Goal:
    return Goal(spec, table.x_space, table.y_space)


@pytest.fixture(scope="module")
def parabola() -> Table:
    """Y = x^2: two designs for each y."""
    x = uniform(400)
    return table_of(x, x.square()).with_split(0.1, 0.3)


@pytest.fixture(scope="module")
def fitted(parabola) -> Mixture:
    train = parabola.part("train")
    return Mixture(parabola.x_space, parabola.y_space, max_components=8).fit(train.x, train.y)


# -- tables ----------------------------------------------------------------------------------------
def test_columns_that_hardly_vary():
    x = uniform(100, 2)
    healthy = table_of(x, x[:, :1])
    assert constant_columns(healthy) is None
    still = table_of(torch.stack([x[:, 0], 0.5 + 1e-9 * x[:, 1]], 1), x[:, :1])
    found = constant_columns(still)
    assert found is not None
    assert found.what.startswith("b hardly varies")
    assert "problem.x" in found.advice


def test_a_small_spread_within_far_bounds_is_no_constant():
    # the bounds are far, but the numbers themselves vary
    x = 1e-3 * uniform(100)
    assert constant_columns(table_of(x, x, (-1e6, 1e6))) is None


def test_columns_over_orders_of_magnitude_and_columns_in_a_corner_of_their_bounds():
    x = uniform(200)
    assert unscaled_columns(table_of(x, x)) is None
    tail = unscaled_columns(table_of(x, torch.exp(5.0 * uniform(200, seed=2) + 5.0 * x)))
    assert tail is not None
    assert "y runs over orders of magnitude" in tail.what
    assert "logarithm" in tail.advice
    corner = unscaled_columns(table_of(x, x, (-1000.0, 1000.0)))
    assert corner is not None
    assert corner.numbers["filled"] == pytest.approx(2.0 / 2000.0, rel=0.05)
    assert "problem.bounds.a" in corner.advice


def test_goals_outside_the_data(parabola):
    inside = goal_of(parabola, y=0.5)
    assert outside_data(parabola, inside) is None
    found = outside_data(parabola, goal_of(parabola, y=3.0))
    assert found is not None
    best = float(parabola.y.max())
    assert found.numbers["distance"] == pytest.approx(
        (3.0 - best) / float(parabola.y.std(correction=0))
    )
    assert "routine.abstain=true" in found.advice
    # half-lines and wishes ask for nothing that cannot be
    assert outside_data(parabola, goal_of(parabola, y={"at_least": 0.2})) is None
    assert outside_data(parabola, goal_of(parabola, y="max")) is None
    assert outside_data(parabola, goal_of(parabola, y={"at_least": 3.0})) is not None
    batch = outside_data(parabola, goal_of(parabola, y=[0.5, 3.0, 4.0]))
    assert batch is not None
    assert batch.what.startswith("2 of 3 goals lie outside the data")


def test_values_that_are_usual_alone_but_not_together_are_outside():
    x = uniform(500)
    table = table_of(x, torch.cat([x, x], 1))
    assert outside_data(table, goal_of(table, y=0.5, z=0.5)) is None
    assert outside_data(table, goal_of(table, y=0.5, z=-0.5)) is not None


# -- fits ------------------------------------------------------------------------------------------
def test_too_few_components(parabola):
    train = parabola.part("train")
    small = Mixture(parabola.x_space, parabola.y_space, max_components=2).fit(train.x, train.y)
    found = too_few_components(small)
    assert found is not None
    assert "model.max_components=4" in found.advice
    assert found.numbers["gain"] > 0
    line = Mixture(parabola.x_space, parabola.y_space, max_components=6).fit(
        train.x, 3.0 * train.x + 0.1 * uniform(len(train.x), seed=3)
    )
    assert too_few_components(line) is None
    assert too_few_components(torch.nn.Linear(1, 1)) is None


def test_a_loss_that_does_not_fall():
    falling = [{"epoch": e, "validation/loss": 1.0 / (e + 1)} for e in range(5)]
    assert loss_not_falling(falling) is None
    flat = [{"epoch": e, "train/loss": 1.0 / (e + 1), "validation/loss": 1.0 + e} for e in range(5)]
    found = loss_not_falling(flat)
    assert found is not None
    assert "model.learning_rate" in found.advice
    assert found.numbers["best"] == 1.0
    # negative losses (log densities) fall too
    assert loss_not_falling([{"train/loss": -1.0}, {"train/loss": -3.0}]) is None
    assert loss_not_falling(None) is None
    assert loss_not_falling([{"train/loss": 1.0}]) is None


def test_a_model_that_knows_less_than_its_rows(parabola, fitted):
    goal = goal_of(parabola, y=0.5)
    good = HeldOut.of(fitted, parabola)
    assert variance_too_high(good, parabola, goal, fitted) is None
    blind = replace(good, predicted=torch.full_like(good.predicted, float(parabola.y.mean())))
    found = variance_too_high(blind, parabola, goal, fitted)
    assert found is not None
    assert "model.max_components" in found.advice
    assert found.numbers["error"] > 10 * found.numbers["local_error"]
    # noise is no fault of the model
    noisy = table_of(parabola.x, uniform(400, seed=9))
    noisy = replace(noisy, split=parabola.split)
    mean = HeldOut(noisy.part("test"), torch.zeros(len(noisy.part("test")), 1, dtype=F64))
    assert variance_too_high(mean, noisy, goal, fitted) is None
    assert variance_too_high(None, parabola, goal) is None


def test_a_training_that_takes_much_longer_than_its_steps_need():
    network = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Linear(32, 1))
    step = reference_step(network)
    assert 0 < step < 1
    steps = round(30.0 / step)
    assert slow_training(network, FitTimes(60.0, 60.0, steps)) is None
    slow = slow_training(network, FitTimes(600.0, 600.0, round(1.0 / step)))
    assert slow is not None
    assert "threads=1" in slow.advice
    waiting = slow_training(network, FitTimes(100.0, 20.0, steps))
    assert waiting is not None
    assert "waited for other work" in waiting.what
    # short fits, fits without a network and unknown ones say nothing
    assert slow_training(network, FitTimes(5.0, 1.0, 10)) is None
    assert slow_training(SimpleNamespace(), FitTimes(600.0, 600.0, 10)) is None
    assert slow_training(network, None) is None


# -- designs ---------------------------------------------------------------------------------------
def designs(goal: Goal, x: torch.Tensor) -> Candidates:
    y = x.square().sum(-1, keepdim=True)
    return Candidates.from_claims(goal, x[None], y[None]).verified_by(y[None])


def test_answers_that_the_rows_show_and_the_designs_miss(parabola):
    goal = goal_of(parabola, y={"equals": 0.5, "tolerance": 0.1})
    root = math.sqrt(0.5)
    both = torch.tensor([[root], [-root], [root]], dtype=F64)
    assert missing_answers(designs(goal, both), parabola, goal, None) is None
    one = designs(goal, both.abs())
    found = missing_answers(one, parabola, goal, None)
    assert found is not None
    assert found.numbers == {"groups_in_data": 2.0, "groups_found": 1.0}
    assert found.advice.startswith("more routine.starts")
    dense = replace(one, log_density=torch.zeros(one.shape, dtype=F64))
    kept = missing_answers(dense, parabola, goal, None)
    assert kept is not None
    assert kept.advice.startswith("routine.highest_density=1")
    mixture = missing_answers(dense, parabola, goal, Mixture(parabola.x_space, parabola.y_space))
    assert mixture is not None
    assert mixture.advice.startswith("model.max_components")
    wish = goal_of(parabola, y="min")
    assert missing_answers(designs(wish, both.abs()), parabola, wish, None) is None


def test_draws_that_are_all_alike():
    x = uniform(500, 2)
    table = table_of(x, x.square().sum(1, keepdim=True))
    goal = goal_of(table, y=0.5)
    model = Mixture(table.x_space, table.y_space, max_components=2)
    angle = torch.linspace(0.0, 6.0, 50, dtype=F64)
    ring = math.sqrt(0.5) * torch.stack([angle.cos(), angle.sin()], -1)
    assert collapsed(designs(goal, ring), table, goal, model) is None
    point = ring[:1] + 1e-4 * ring
    found = collapsed(designs(goal, point), table, goal, model)
    assert found is not None
    assert found.numbers["diversity"] < 0.01 * found.numbers["diversity_of_rows"]
    # a search may end in one point, and as many wanted values as columns leave one design
    assert collapsed(designs(goal, point), table, goal, torch.nn.Linear(1, 1)) is None
    narrow = goal_of(table, y=0.5, a=0.5)
    assert collapsed(designs(narrow, point), table, narrow, model) is None
    # what a search brought to one optimum is alike because it is right
    solved = replace(designs(goal, point), header={"routine": "refine"})
    assert collapsed(solved, table, goal, model) is None


class _Draws:
    """A conditional model that draws x ~ N(y, (width s)^2) where the rows have x ~ N(y, s^2)."""

    def __init__(self, table: Table, width: float, shift: float = 0.0) -> None:
        self.x_space, self.y_space = table.x_space, table.y_space
        self.width, self.shift = width, shift

    def fit(self, x, y):
        return self

    def sample(self, y, n, generator=None):
        noise = torch.randn(len(y), n, 1, generator=generator, dtype=F64)
        return y[:, None, :1] + 0.1 * self.width * noise + self.shift

    def log_prob(self, x, y):
        return torch.zeros(len(x))

    def ood_score(self, y):
        return torch.zeros(len(y))


@pytest.mark.parametrize(
    ("width", "shift", "how"),
    [(1.0, 0.0, None), (0.2, 0.0, "too narrow"), (5.0, 0.0, "too wide"), (1.0, 0.2, "moved up")],
)
def test_draws_that_do_not_scatter_as_unseen_rows_do(width, shift, how):
    generator = torch.Generator().manual_seed(5)
    y = uniform(600)
    x = y + 0.1 * torch.randn(600, 1, generator=generator, dtype=F64)
    table = table_of(x, y, (-3.0, 3.0)).with_split(0.1, 0.3)
    found = unlike_held_out(_Draws(table, width, shift), table)
    if how is None:
        assert found is None
    else:
        assert found is not None
        assert how in found.what
    assert unlike_held_out(torch.nn.Linear(1, 1), table) is None


def test_too_few_solver_steps(parabola):
    flow = ConditionalFlow(
        parabola.x_space, parabola.y_space, epochs=40,
        network={"_target_": "genopt.nn.velocity.AdaLNVelocity", "width": 32, "depth": 2},
    )  # fmt: skip
    train = parabola.part("train")
    flow.fit(train.x, train.y)
    assert too_few_steps(flow, parabola) is None
    flow.sampler = replace(flow.sampler, steps=1)
    found = too_few_steps(flow, parabola)
    assert found is not None
    assert found.advice == "sampler.steps=4"
    assert too_few_steps(Mixture(parabola.x_space, parabola.y_space), parabola) is None


def test_claims_that_the_simulator_contradicts(parabola):
    goal = goal_of(parabola, y={"equals": 0.5, "tolerance": 0.01})
    x = torch.tensor([[[0.9], [0.1]]], dtype=F64)
    lied = Candidates.from_claims(goal, x, torch.full_like(x, 0.5)).verified_by(x.square())
    found = overclaimed(lied, goal, parabola)
    assert found is not None
    assert found.numbers["true"] == pytest.approx(((0.81 - 0.5) / 18.0) ** 2)
    true = torch.full_like(x, math.sqrt(0.5))
    held = Candidates.from_claims(goal, true, torch.full_like(x, 0.5)).verified_by(true.square())
    assert overclaimed(held, goal, parabola) is None
    unverified = Candidates.from_claims(goal, x, torch.full_like(x, 0.5))
    assert overclaimed(unverified, goal, parabola) is None
    # a routine that asked the simulator knows already
    asked = replace(lied, header={"numbers": {"calls": 13}})
    assert overclaimed(asked, goal, parabola) is None


# -- all together ----------------------------------------------------------------------------------
def test_a_healthy_study_has_no_finding_and_a_sick_one_says_each(parabola, fitted):
    goal = goal_of(parabola, y={"equals": 0.5, "tolerance": 0.1})
    draws = fitted.sample(torch.tensor([[0.5]], dtype=F64), 50)[0]
    healthy = designs(goal, draws)
    found = diagnose(parabola, goal, fitted, healthy, held_out=HeldOut.of(fitted, parabola))
    assert [f.fault for f in found if f.fault != "too few components"] == []
    sick = diagnose(
        parabola,
        goal_of(parabola, y=5.0),
        fitted,
        history=[{"validation/loss": 1.0}, {"validation/loss": 1.0}],
    )
    assert {"goal outside the data", "loss not falling"} <= {f.fault for f in sick}
    assert all(f.numbers and f.advice and str(f) for f in sick)


def test_findings_are_kept_as_plain_data_and_told_in_a_few_lines():
    found = Finding("fault", "it is 3", "make it 4", {"it": 3.0}, "designs.png")
    assert Finding.from_dict(found.to_dict()) == found
    assert str(found) == "it is 3. Change: make it 4"
    lines = findings_in_words([found] * 6, 4)
    assert len(lines) == 5
    assert lines[-1] == "and 2 more: genopt diagnose"
