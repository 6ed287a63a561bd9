"""Problems with noise: their exact posteriors against the simulator itself, scipy and grids."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, multivariate_normal

from genopt.errors import GenoptError
from genopt.problems.base import Problem
from genopt.problems.linear_gaussian import LinearGaussian
from genopt.problems.stochastic import StochasticProblem
from genopt.problems.two_moons import TwoMoons
from genopt.problems.two_widths import TwoWidths
from genopt.space import Space

PROBLEMS = [TwoMoons(), TwoWidths(), LinearGaussian(3)]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_draws_and_density_belong_to_the_simulator(problem):
    rows = problem.table(400, seed=3)
    draws = problem.posterior(rows.y, 99, seed=1)
    assert problem.x_space.contains(draws).all()
    # the design behind an observation is one more draw from its posterior
    ranks = ((draws < rows.x[:, None]).sum(1) + 0.5) / 100
    for column in ranks.T:
        assert kstest(column.numpy(), "uniform").pvalue > 1e-3
    # and no denser or thinner than the draws
    dim = problem.x_space.dim
    density = problem.log_posterior(draws.reshape(-1, dim), rows.y.repeat_interleave(99, 0))
    own = problem.log_posterior(rows.x, rows.y)
    levels = ((density.reshape(400, 99) > own[:, None]).sum(1) + 0.5) / 100
    assert kstest(levels.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("problem", "y"),
    [
        (TwoMoons(), [0.0, 0.0]),
        (TwoMoons(), [-0.45, 0.72]),
        (TwoMoons(), [0.28, 0.3]),
        (TwoWidths(), [9.6, -10.3]),
    ],
)
def test_densities_sum_to_one(problem, y):
    y = torch.tensor([y], dtype=torch.float64)
    draws = problem.posterior(y[0], 4000)
    # a fine grid over the draws' own range holds all mass
    low, high = draws.min(0).values - 0.02, draws.max(0).values + 0.02
    low, high = low.clamp_min(problem.x_space.lower), high.clamp_max(problem.x_space.upper)
    count = 700
    steps = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    grid = torch.cartesian_prod(*(low + (high - low) * steps[:, None]).T)
    total = problem.log_posterior(grid, y).exp().sum() * ((high - low) / count).prod()
    assert float(total) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_the_simulator_is_the_mean_of_what_is_observed(problem):
    x = problem.design(3, seed=5)
    many = problem.observe(x.expand(20_000, *x.shape), seed=1)
    error = many.std(0) / math.sqrt(len(many))
    assert ((many.mean(0) - problem.simulate(x)).abs() < 5.0 * error).all()
    table = problem.table(50, seed=2)
    assert not torch.equal(table.y, problem.simulate(table.x))
    assert torch.equal(table.y, problem.table(50, seed=2).y)


def test_two_moons_are_two_crescents():
    draws = TwoMoons().posterior(torch.zeros(2, dtype=torch.float64), 4000)
    total = draws.sum(-1)
    # the moons of y = 0 mirror each other in the line theta1 + theta2 = 0, and none lies on it
    assert float(total.abs().min()) > 0.2
    assert abs(float((total > 0).double().mean()) - 0.5) < 0.04
    radius = torch.hypot(
        total.abs() / math.sqrt(2) - 0.25, (draws @ torch.tensor([1.0, -1]).double()) / math.sqrt(2)
    )
    assert float(radius.mean()) == pytest.approx(0.1, abs=1e-3)
    assert float(radius.std()) == pytest.approx(0.01, abs=1e-3)


def test_linear_gaussian_is_conditioning_of_one_gaussian():
    problem = LinearGaussian(4, noise=0.3)
    a = problem.matrix.numpy()
    joint = np.block([[np.eye(4), a.T], [a, a @ a.T + 0.09 * np.eye(4)]])
    y = torch.tensor([[0.3, -1.0, math.nan, 2.0]], dtype=torch.float64)
    known = [4, 5, 7]
    gain = joint[:4][:, known] @ np.linalg.inv(joint[np.ix_(known, known)])
    mean = gain @ y[0, [0, 1, 3]].numpy()
    covariance = joint[:4, :4] - gain @ joint[known][:, :4]
    found = problem.moments(y)
    assert found[0][0].numpy() == pytest.approx(mean)
    assert found[1][0].numpy() == pytest.approx(covariance)
    x = problem.design(5)
    expected = multivariate_normal(mean, covariance).logpdf(x.numpy())
    assert problem.log_posterior(x, y).numpy() == pytest.approx(expected)
    draws = problem.posterior(y[0], 20_000)
    assert draws.mean(0).numpy() == pytest.approx(mean, abs=0.03)
    assert np.cov(draws.T.numpy()) == pytest.approx(covariance, abs=0.03)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_outside_the_bounds_there_is_no_density(problem):
    y = problem.table(1).y
    outside = (1.01 * problem.x_space.upper)[None]
    assert problem.log_posterior(outside, y).tolist() == [-math.inf]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_shapes_are_checked(problem):
    y, x = problem.table(2).y, problem.table(3).x
    with pytest.raises(GenoptError, match=r"x has shape \(3, "):
        problem.log_posterior(x, y)
    with pytest.raises(GenoptError, match="y has shape"):
        problem.posterior(y[None], 3)


def test_unreachable_observations_are_said():
    far = torch.tensor([0.0, 1.5], dtype=torch.float64)
    with pytest.raises(GenoptError, match=r"y = \(0, 1.5\) is too rare"):
        TwoMoons().posterior(far, 10)
    with pytest.raises(GenoptError, match="out of reach"):
        TwoWidths().posterior(torch.tensor([80.0, 0.0]), 10)
    with pytest.raises(GenoptError, match="must be positive"):
        LinearGaussian(0)


def test_a_class_without_its_parts_says_so():
    bare = StochasticProblem("bare", Space.of(a=(0.0, 1.0)), Space.of(b=(0.0, 1.0)))
    assert isinstance(bare, Problem)
    x = torch.zeros(2, 1)
    for call in (
        lambda: bare.observe(x),
        lambda: bare.posterior(x),
        lambda: bare.log_posterior(x, x),
    ):
        with pytest.raises(GenoptError, match="StochasticProblem must define"):
            call()
