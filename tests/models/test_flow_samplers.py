"""Every sampler on every path against exact marginals; calls counted; the SDE keeps them too."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genopt.build import build, normalise
from genopt.errors import GenoptError
from genopt.models.flow import ConditionalFlow
from genopt.models.flow.multistep import AdamsBashforth, adams_weights
from genopt.models.flow.parts import PARTS
from genopt.models.flow.paths import CosinePath, LinearPath, VPPath
from genopt.models.flow.samplers import RK4, Dopri5, Euler, Heun, Midpoint
from genopt.models.flow.stochastic import SDE, drawing
from genopt.space import Space

torch.set_num_threads(1)
F64 = torch.float64
MEAN = torch.tensor([0.7, -0.4], dtype=F64)
ROOT = torch.tensor([[0.5, 0.0], [-0.3, 0.2]], dtype=F64)
COVARIANCE = ROOT @ ROOT.T
PATHS = {"linear": LinearPath(), "cosine": CosinePath(), "vp": VPPath()}


def exact_velocity(path):
    """E[dx_t | x_t] when the data are N(MEAN, COVARIANCE): a regression of two joint normals."""
    one = torch.eye(2, dtype=F64)

    def velocity(t, x):
        s = path.schedule(torch.tensor(t, dtype=F64))
        own = s.alpha**2 * COVARIANCE + s.sigma**2 * one
        cross = s.alpha * s.d_alpha * COVARIANCE + s.sigma * s.d_sigma * one
        return s.d_alpha * MEAN + (x - s.alpha * MEAN) @ torch.linalg.solve(own, cross)

    return velocity


def spread_of(rule, path):
    """Mean and covariance of what an affine flow makes of a standard normal, without drawing."""
    velocity = exact_velocity(path)
    origin = rule.solve(velocity, torch.zeros(1, 2, dtype=F64)).end
    linear = rule.solve(velocity, torch.eye(2, dtype=F64)).end - origin
    return origin[0], linear.T @ linear


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize(
    ("rule", "tolerance"),
    [
        (Euler(400), 0.03),
        (Midpoint(32), 0.01),
        (Heun(48), 0.01),
        (RK4(16), 0.003),
        (AdamsBashforth(100, order=2), 0.01),
        (AdamsBashforth(64, order=4), 0.003),
        (AdamsBashforth(64), 0.003),
        (Dopri5(1e-7), 1e-4),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else "",
)
def test_noise_becomes_the_data(path, rule, tolerance):
    mean, covariance = spread_of(rule, path)
    torch.testing.assert_close(mean, MEAN, atol=tolerance, rtol=0)
    torch.testing.assert_close(covariance, COVARIANCE, atol=tolerance, rtol=0)


# -- multistep -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("places", "classical"),
    [
        ([0, -1], [3 / 2, -1 / 2]),
        ([0, -1, -2], [23 / 12, -16 / 12, 5 / 12]),
        ([0, -1, -2, -3], [55 / 24, -59 / 24, 37 / 24, -9 / 24]),
    ],
)
def test_equal_steps_have_the_classical_weights(places, classical):
    np.testing.assert_allclose(adams_weights(places), classical, rtol=1e-12)


def test_unequal_steps_integrate_cubics_exactly():
    # all cubic velocities of time alone are integrated without error once four are remembered
    def velocity(t, x):
        return torch.full_like(x, 4 * t**3 - 6 * t**2 + 2 * t - 1.0)

    def integral(t):
        return t**4 - 2 * t**3 + t**2 - t

    way = AdamsBashforth(12, 2.0, 4).solve(velocity, torch.zeros(1, dtype=F64), keep=True)
    times = AdamsBashforth(12, 2.0, 4).grid()
    steps = way.trajectory[:, 0].diff().numpy()
    exact = np.diff([integral(t) for t in times])
    np.testing.assert_allclose(steps[3:], exact[3:], atol=1e-13)
    assert abs(steps[0] - exact[0]) > 1e-6


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("backward", [False, True])
def test_order_of_convergence(order, backward):
    def turning(t, x):
        return (1.0 + 4.0 * t) * torch.stack([-x[..., 1], x[..., 0]], -1)

    ends = (torch.tensor([[1.0, 0.0], [math.cos(3), math.sin(3)]], dtype=F64)).unbind(0)
    start, exact = ends[::-1] if backward else ends
    errors = [
        float((AdamsBashforth(n, 2.0, order).solve(turning, start, backward=backward).end - exact)
              .norm())
        for n in (150, 300)
    ]  # fmt: skip
    # the first steps, which remember less, hold the asymptotic order of the fourth at three
    assert math.log2(errors[0] / errors[1]) > min(order, 3) - 0.1


def test_more_memory_is_more_accurate_than_the_midpoint_rule():
    path = CosinePath()
    errors = [
        float((spread_of(rule.with_calls(24), path)[1] - COVARIANCE).norm())
        for rule in (Midpoint(), AdamsBashforth(order=2), AdamsBashforth(order=4))
    ]
    assert errors[2] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]


# -- calls -----------------------------------------------------------------------------------------
FIXED = [name for name in PARTS["sampler"] if name != "dopri5"]


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("budget", [5, 8, 33])
def test_calls_are_what_is_stated(name, budget):
    count = 0

    def field(_, x):
        nonlocal count
        count += 1
        return -x

    rule = build(normalise(name, PARTS["sampler"], "sampler"), "sampler").with_calls(budget)
    ready = drawing(rule, LinearPath(), torch.Generator().manual_seed(0))
    ready.solve(field, torch.ones(3, 2))
    assert count == rule.calls()
    assert count <= budget < rule.calls(rule.steps + 1)


def test_budgets_that_cannot_be_kept_are_refused():
    with pytest.raises(GenoptError, match="3 network calls are too few; RK4 needs at least 4"):
        RK4().with_calls(3)
    with pytest.raises(GenoptError, match="tolerance decides"):
        Dopri5().with_calls(32)
    assert Dopri5().calls() is None
    with pytest.raises(GenoptError, match=r"sampler\.order"):
        AdamsBashforth(order=5)


# -- the stochastic sampler ------------------------------------------------------------------------
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_the_sde_has_the_marginals_of_the_ode_all_the_way(path, noise):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(20_000, 2, generator=generator, dtype=F64)
    rule = SDE(96, noise=noise)
    way = drawing(rule, path, generator).solve(exact_velocity(path), start, keep=True).trajectory
    for k in (24, 60, 96):
        s = path.schedule(torch.tensor(rule.grid()[k], dtype=F64))
        covariance = s.alpha**2 * COVARIANCE + s.sigma**2 * torch.eye(2, dtype=F64)
        root = torch.linalg.cholesky(covariance)
        white = torch.linalg.solve_triangular(root, (way[k] - s.alpha * MEAN).T, upper=False)
        # five standard errors of 20,000 draws are .035 for a mean and .05 for a variance
        np.testing.assert_allclose(white.mean(1).numpy(), 0.0, atol=0.035)
        np.testing.assert_allclose(torch.cov(white).numpy(), np.eye(2), atol=0.05)


def test_the_sde_forgets_its_start_and_the_ode_does_not():
    start = torch.randn(5000, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    path = LinearPath()
    kept = []
    for noise in (0.0, 4.0):
        generator = torch.Generator().manual_seed(2)
        end = drawing(SDE(64, noise=noise), path, generator).solve(exact_velocity(path), start).end
        kept.append(abs(stats.pearsonr(start[:, 0].numpy(), end[:, 0].numpy()).statistic))
    assert kept[0] > 0.9
    assert kept[1] < 0.5 * kept[0]
    midpoint = Midpoint(64).solve(exact_velocity(path), start).end
    silent = drawing(SDE(64, noise=0.0), path, None).solve(exact_velocity(path), start).end
    torch.testing.assert_close(silent, midpoint)


def test_the_sde_draws_and_does_nothing_else():
    x = torch.linspace(-1, 1, 64, dtype=F64)[:, None]
    flow = ConditionalFlow(Space.of(x=(-1, 1)), Space.of(y=(0, 1)), sampler="sde", epochs=1)
    flow.fit(x, x.abs())
    y = torch.tensor([[0.5]])
    drawn = flow.sample(y, 20, torch.Generator().manual_seed(3))
    assert bool((drawn.abs() <= 1).all())
    again = flow.sample(y, 20, torch.Generator().manual_seed(3))
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, flow.sample(y, 20, torch.Generator().manual_seed(4)))
    with pytest.raises(GenoptError, match="draws noise of its own"):
        flow.transport(torch.zeros(1, 2, 1), y)
    with pytest.raises(GenoptError, match="log_prob"):
        flow.log_prob(x[:2], y)
    assert bool(torch.isfinite(flow.log_prob(x[:2], y, sampler="adams_bashforth")).all())
    with pytest.raises(GenoptError, match=r"sampler\.noise"):
        SDE(noise=-1.0)
    # transport ties noise and data, and then the velocity does not tell the score
    tied = {"coupling": "conditional_ot", "epochs": 1}
    with pytest.raises(GenoptError, match="independent of the data"):
        ConditionalFlow(flow.x_space, flow.y_space, sampler="sde", **tied)
    other = ConditionalFlow(flow.x_space, flow.y_space, **tied).fit(x, x.abs())
    with pytest.raises(GenoptError, match="ConditionalOTCoupling ties them"):
        other.sample(y, 3, sampler="sde")
    # a sampler that is already built is taken as it is
    few = flow.sample(y, 5, sampler=Midpoint().with_calls(8))
    torch.testing.assert_close(few, flow.sample(y, 5, sampler="midpoint", n_steps=4))
