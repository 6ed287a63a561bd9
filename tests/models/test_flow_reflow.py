"""Reflow: straight ways give by a few calls what the first flow gives by many."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats

from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.flow import reflow
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.flow.parts import choose_sampler
from genopt.models.flow.paths import LinearPath
from genopt.models.flow.plan import TrainingPlan
from genopt.models.flow.samplers import Few, Midpoint
from genopt.models.flow.velocity import LatentVelocity
from genopt.models.options import FitOptions
from genopt.nn.velocity import AdaLNVelocity
from genopt.space import Space, Variable

torch.set_num_threads(1)
F64 = torch.float64
NAN = math.nan
SMALL = {"network": {"kind": "adaln", "width": 32, "depth": 2, "embedding": 32}}
QUICK = {**SMALL, "learning_rate": 3e-3, "ema": 0.99}
X_SPACE = Space((Variable("x", -1.5, 1.5), Variable("w", -1.0, 1.0)))
Y_SPACE = Space((Variable("y"),))


@pytest.fixture(autouse=True, scope="module")
def few_pairs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reflow, "PAIRS", 10_000)
        yield


def rows(n, seed=0):
    """Y = |x|, so that x has two signs; w follows x."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.3, 1.2, n) * rng.choice([-1, 1], n)
    w = 0.5 * x + rng.uniform(-0.2, 0.2, n)
    y = np.abs(x) + rng.normal(0, 0.03, n)
    return torch.from_numpy(np.stack([x, w], 1)), torch.from_numpy(y)[:, None]


@pytest.fixture(scope="module")
def flows():
    """A flow, and the same one made straight."""
    x, y = rows(3000)
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **QUICK, given_x=0.3)
    flow.fit(x, y, epochs=60, batch_size=256)
    straight = copy.deepcopy(flow).straighten(x, y, steps=500)
    return flow, straight


@pytest.mark.parametrize("y", [[0.5], [1.0], [NAN]])
def test_two_calls_carry_noise_where_many_calls_of_the_first_flow_do(flows, y):
    flow, straight = flows
    noise = torch.randn(1, 2000, 2, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([y], dtype=F64)
    there = flow.transport(noise, y, {"kind": "rk4", "steps": 40})

    def miss(model, sampler):
        gap = (model.transport(noise, y, sampler) - there).square().sum(-1).sqrt()
        # where two ways part, noise of no width may be carried to either side
        return float(gap.median())

    plain = min(
        miss(flow, {"kind": kind, "calls": 2, "grading": grading})
        for kind in ("euler", "midpoint", "heun", "adams_bashforth")
        for grading in (1.0, 2.0)
    )
    assert miss(straight, {"calls": 2}) < min(0.35 * plain, 0.03)


def test_draws_by_two_calls_follow_the_rows(flows):
    _, straight = flows
    y = torch.tensor([[0.8]], dtype=F64)
    x = straight.sample(y, 2000, sampler={"calls": 2})[0, :, 0].numpy()
    assert abs((x > 0).mean() - 0.5) < 0.08
    assert np.median(np.abs(np.abs(x) - 0.8)) < 0.05
    assert (np.abs(x) < 0.4).mean() < 0.03
    free = straight.sample(torch.tensor([[NAN]]), 2000, sampler={"calls": 2})[0, :, 0].numpy()
    assert stats.ks_2samp(free, rows(2000, 1)[0][:, 0].numpy()).statistic < 0.08


def test_held_columns_stay_held(flows):
    _, straight = flows
    x = straight.sample(torch.tensor([[0.8]]), 500, sampler={"calls": 2}, fixed={"w": 0.4})[0]
    assert bool((x[:, 1] == 0.4).all())
    # w = .4 belongs to a positive x alone
    assert float((x[:, 0] > 0).double().mean()) > 0.97
    assert abs(float(x[:, 0].median()) - 0.8) < 0.06


def test_the_density_of_a_straight_flow_is_one_in_all_and_that_of_its_draws(flows):
    _, straight = flows
    y = torch.tensor([[NAN]], dtype=F64)
    side = torch.linspace(-1.5, 1.5, 91, dtype=F64), torch.linspace(-1.0, 1.0, 61, dtype=F64)
    grid = torch.cartesian_prod(*side)
    density = straight.log_prob(grid, y, sampler="few").exp().reshape(91, 61)
    inner = torch.trapezoid(density, side[1], dim=1)
    total = float(torch.trapezoid(inner, side[0]))
    assert total == pytest.approx(1.0, abs=0.04)
    right = float(torch.trapezoid(inner[45:], side[0][45:])) / total
    drawn = straight.sample(y, 4000, sampler={"calls": 16})[0, :, 0]
    assert right == pytest.approx(float((drawn > 0).double().mean()), abs=0.04)


def test_a_saved_straight_flow_is_straight(flows, tmp_path):
    _, straight = flows
    again = ConditionalFlow.load(straight.save(tmp_path / "flow.ckpt"))
    y = torch.tensor([[0.5]])
    torch.testing.assert_close(
        again.sample(y, 50, sampler={"calls": 2}), straight.sample(y, 50, sampler={"calls": 2})
    )
    with pytest.raises(GenoptError, match="reflow ties them"):
        again.sample(y, 5, sampler="sde")
    names = {name for entry in again.history for name in entry}
    assert {"reflow/train/loss", "reflow/validation/loss", "train/loss"} <= names


def test_a_fit_with_reflow_ends_straight_goes_on_and_starts_bent_again(tmp_path):
    x, y = rows(300)
    table = Table(x, y, X_SPACE, Y_SPACE).with_split(0.2, 0.0, 0)
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, reflow=True, epochs=3)
    flow.fit_table(table, FitOptions(folder=tmp_path))
    assert flow.straight
    # the plan knows how many steps the first training takes
    plan = TrainingPlan.of(len(table.part("train").x), 3, None, None)
    assert flow.global_step == plan.steps
    assert (tmp_path / "reflow" / "checkpoints" / "last.ckpt").exists()
    # the same command finds both trainings finished
    again = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, reflow=True, epochs=3)
    again.fit_table(table, FitOptions(folder=tmp_path))
    ask = torch.tensor([[0.5]])
    torch.testing.assert_close(again.sample(ask, 20), flow.sample(ask, 20))
    flow.reflow = False
    assert not flow.fit(x, y, epochs=1).straight


def test_classes_come_out_in_their_shares():
    rng = np.random.default_rng(0)
    space = Space((Variable("kind", kind="categorical", labels=("p", "q", "r")),))
    codes = rng.choice(3, 3000, p=[0.6, 0.3, 0.1])
    x = torch.from_numpy(codes).double()[:, None]
    y = torch.from_numpy(rng.normal(0, 1, (3000, 1)))
    flow = ConditionalFlow(space, Y_SPACE, **QUICK).fit(x, y, epochs=20, batch_size=256)
    flow.straighten(x, y, steps=200)
    drawn = flow.sample(torch.tensor([[0.0]]), 3000, sampler={"calls": 2})[0, :, 0].long()
    shares = torch.bincount(drawn, minlength=3) / 3000
    np.testing.assert_allclose(shares.numpy(), [0.6, 0.3, 0.1], atol=0.06)


def test_ends_of_an_untrained_flow_are_its_noise():
    # it moves a standard normal to a standard normal, along the scale of the path alone
    velocity = LatentVelocity(AdaLNVelocity(3, 2), LinearPath())
    ways = reflow.Ways(velocity, lambda values, mask: (torch.cat([values, mask], -1), None), 3)
    start, end, condition, moves = ways.ends((torch.randn(50, 1), torch.ones(50, 1)), 120)
    assert start.shape == (120, 3)
    torch.testing.assert_close(end, start, rtol=0.0, atol=2e-3)
    assert bool((moves == 1).all())
    # every row has its turn before one comes again
    _, counts = condition[:, 0].unique(return_counts=True)
    assert sorted(set(counts.tolist())) == [2, 3]


def test_calls_choose_steps():
    own = Midpoint()
    assert choose_sampler({"calls": 8}, own).calls() == 8
    assert choose_sampler({"kind": "adams_bashforth", "calls": 6}, own).calls() == 6
    assert choose_sampler({"calls": 2}, own, straight=True) == Few(2)
    assert choose_sampler({"calls": 12}, own, straight=True) == Midpoint(6)
    assert choose_sampler({"kind": "midpoint", "calls": 2}, own, straight=True) == Midpoint(1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"calls": 0}, "calls=0 must be a positive number"),
        ({"calls": 2.5}, "calls=2.5 must be"),
        ({"kind": "euler", "calls": 2, "steps": 2}, "without steps"),
        ({"kind": "dopri5", "calls": 8}, "Dopri5 chooses its own number of calls"),
        ({"calls": 1}, "1 network calls are too few"),
    ],
)
def test_calls_that_mean_nothing_are_refused(spec, message):
    with pytest.raises(GenoptError, match=message):
        choose_sampler(spec, Midpoint())


def test_what_cannot_be_made_straight_is_refused_before_any_work():
    with pytest.raises(GenoptError, match="use path=linear"):
        ConditionalFlow(X_SPACE, Y_SPACE, path="cosine", reflow=True)
    with pytest.raises(GenoptError, match="reflow=false"):
        ConditionalFlow(X_SPACE, Y_SPACE, sampler="sde", reflow=True)
    x, y = rows(40)
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL)
    with pytest.raises(GenoptError, match="not fitted"):
        flow.straighten(x, y)
    flow.fit(x, y, epochs=1)
    with pytest.raises(GenoptError, match="steps must be at least 1"):
        flow.straighten(x, y, steps=0)
    with pytest.raises(GenoptError, match="x has no rows"):
        flow.straighten(x[:0], y[:0])
    with pytest.raises(GenoptError, match="expected"):
        flow.straighten(x[:, :1], y)
