"""The flow's parts against closed forms, finite differences, scipy and torchdiffeq."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchdiffeq import odeint

from genopt.build import build
from genopt.errors import GenoptError, UnknownNameError
from genopt.models.flow.conditions import ConditionEncoder, drop_conditions
from genopt.models.flow.couplings import IndependentCoupling
from genopt.models.flow.familiarity import Familiarity
from genopt.models.flow.parts import PARTS, choose_sampler
from genopt.models.flow.paths import CosinePath, LinearPath, gaussian_guess, point_on_path
from genopt.models.flow.samplers import RK4, Dopri5, Euler, Heun, Midpoint
from genopt.models.flow.times import PowerTimes, UniformTimes, stratified_times, time_grid
from genopt.models.flow.velocity import LatentVelocity, velocity_and_divergence
from genopt.nn.velocity import AdaLNVelocity
from genopt.space import Space, Variable

torch.set_num_threads(1)
CONF = Path(__file__).resolve().parents[2] / "conf"
F64 = torch.float64


# -- samplers --------------------------------------------------------------------------------------
def turning(t, x):
    """A rotation at the rate 1 + 4t, which turns by 1 + 2 = 3 between t = 0 and t = 1."""
    return (1.0 + 4.0 * t) * torch.stack([-x[..., 1], x[..., 0]], -1)


TURN = 3.0
START = torch.tensor([1.0, 0.0], dtype=F64)
END = torch.tensor([math.cos(TURN), math.sin(TURN)], dtype=F64)


@pytest.mark.parametrize("grading", [1.0, 2.0])
@pytest.mark.parametrize(("rule", "order"), [(Euler, 1), (Midpoint, 2), (Heun, 2), (RK4, 4)])
@pytest.mark.parametrize("backward", [False, True])
def test_order_of_convergence(rule, order, grading, backward):
    start, exact = (END, START) if backward else (START, END)
    errors = [
        float((rule(steps, grading).solve(turning, start, backward=backward).end - exact).norm())
        for steps in (100, 200)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(
    ("rule", "name"), [(Euler, "euler"), (Midpoint, "midpoint"), (Heun, "heun2"), (RK4, "rk4")]
)
def test_same_as_torchdiffeq_on_the_same_grid(rule, name):
    # for a linear field all explicit rules of order 4 with four stages agree
    matrix = torch.tensor([[0.0, 2.0], [-3.0, -0.5]], dtype=F64)
    x = torch.tensor([[1.0, 0.5], [-2.0, 0.1]], dtype=F64)
    sampler = rule(6, 2.0)
    times = torch.tensor(sampler.grid(), dtype=F64)
    reference = odeint(lambda _, s: s @ matrix.T, x, times, method=name)
    solution = sampler.solve(lambda _, s: s @ matrix.T, x, keep=True)
    torch.testing.assert_close(solution.trajectory, reference, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(solution.end, solution.trajectory[-1])


def test_dopri5_meets_its_tolerance_both_ways():
    end = Dopri5(tolerance=1e-8).solve(turning, START).end
    torch.testing.assert_close(end, END, atol=1e-6, rtol=0)
    back = Dopri5(tolerance=1e-8).solve(turning, END, backward=True, keep=True, steps=5)
    assert back.trajectory.shape == (6, 2)
    torch.testing.assert_close(back.end, START, atol=1e-6, rtol=0)


def test_graded_steps_serve_narrow_posteriors():
    """The exact flow to N(m, s^2): a graded grid gets the width right where equal steps do not."""
    mean, width = 0.5, 0.03

    def velocity(t, x):
        slope = (width**2 * t - (1 - t)) / ((1 - t) ** 2 + (width * t) ** 2)
        return mean + slope * (x - mean * t)

    x = torch.tensor([1.0], dtype=F64)
    graded, equal = (
        abs(float(Midpoint(16, g).solve(velocity, x).end) - mean - width) / width
        for g in (2.0, 1.0)
    )
    assert graded < 0.01
    assert equal > 0.1


def test_bad_samplers_are_refused():
    with pytest.raises(GenoptError, match="steps=0"):
        Midpoint(0)
    with pytest.raises(GenoptError, match="tolerance"):
        Dopri5(tolerance=0.0)
    with pytest.raises(GenoptError, match="n_steps"):
        Midpoint().solve(turning, START, steps=0)
    with pytest.raises(UnknownNameError, match="midpoint"):
        choose_sampler("midpiont", Midpoint())


# -- paths, couplings and times --------------------------------------------------------------------
@given(t=st.floats(0.02, 0.98), x_0=st.floats(-3, 3), x_1=st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("path", [LinearPath(), CosinePath()])
def test_velocity_of_a_path_is_its_derivative(path, t, x_0, x_1):
    ends = torch.tensor([[x_0]], dtype=F64), torch.tensor([[x_1]], dtype=F64)

    def at(time):
        return point_on_path(path, *ends, torch.tensor([time], dtype=F64))

    step = 1e-5
    difference = (at(t + step).x_t - at(t - step).x_t) / (2 * step)
    torch.testing.assert_close(at(t).dx_t, difference, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("path", [LinearPath(), CosinePath()])
def test_a_path_runs_from_noise_to_data(path):
    x_0, x_1 = torch.randn(4, 3, dtype=F64), torch.randn(4, 3, dtype=F64)
    start = point_on_path(path, x_0, x_1, torch.zeros(4, dtype=F64))
    end = point_on_path(path, x_0, x_1, torch.ones(4, dtype=F64))
    torch.testing.assert_close(start.x_t, x_0)
    torch.testing.assert_close(end.x_t, x_1)


@pytest.mark.parametrize("path", [LinearPath(), CosinePath()])
def test_gaussian_guess_is_the_regression_on_normal_ends(path):
    generator = torch.Generator().manual_seed(0)
    x_0, x_1 = torch.randn(2, 400_000, 1, dtype=F64, generator=generator)
    for t in (0.1, 0.5, 0.8):
        point = point_on_path(path, x_0, x_1, torch.full((len(x_0),), t, dtype=F64))
        line = stats.linregress(point.x_t[:, 0].numpy(), point.dx_t[:, 0].numpy())
        left = point.dx_t[:, 0].numpy() - line.slope * point.x_t[:, 0].numpy()
        guess = gaussian_guess(path, torch.tensor(t, dtype=F64))
        assert float(guess.gain) == pytest.approx(line.slope, abs=0.01)
        assert float(guess.spread) == pytest.approx(left.std(), rel=0.01)
        assert float(guess.size) == pytest.approx(float(point.x_t.std()), rel=0.01)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_power_times_follow_their_density(exponent):
    sampling = UniformTimes() if exponent == 0 else PowerTimes(exponent)
    generator = torch.Generator().manual_seed(1)
    t = stratified_times(sampling, 500, torch.zeros(1, dtype=F64), generator)
    assert stats.kstest(t.numpy(), stats.beta(exponent + 1.0, 1.0).cdf).statistic < 1 / 500 + 1e-9
    grid = time_grid(sampling, 200, torch.zeros(1, dtype=F64)).numpy()
    mean = (exponent + 1.0) / (exponent + 2.0)
    assert grid.mean() == pytest.approx(mean, abs=1e-3)


def test_coupling_is_standard_normal_and_knows_nothing_of_the_data():
    generator = torch.Generator().manual_seed(2)
    x_1, condition = torch.randn(5000, 1, generator=generator), torch.zeros(5000, 1)
    noise = IndependentCoupling().noise(x_1, condition, generator)
    assert stats.kstest(noise[:, 0].numpy(), "norm").pvalue > 0.01
    assert stats.pearsonr(noise[:, 0].numpy(), x_1[:, 0].numpy()).pvalue > 0.01


# -- networks --------------------------------------------------------------------------------------
def shaken(x_dim, condition_dim, seed=0):
    torch.manual_seed(seed)
    network = AdaLNVelocity(x_dim, condition_dim, width=16, depth=2, embedding=8)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return LatentVelocity(network, LinearPath()).double()


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_divergence_is_the_trace_of_the_jacobian(dim):
    velocity = shaken(dim, 2)
    x, t = torch.randn(5, dim, dtype=F64), torch.tensor(0.3, dtype=F64)
    embedded = velocity.embed(torch.randn(5, 2, dtype=F64))
    v, divergence = velocity_and_divergence(velocity, x, t, embedded)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda point, i=i: velocity(point, t, embedded[i]), x[i]
        )
        assert float(divergence[i]) == pytest.approx(float(jacobian.trace()), abs=1e-10)
    torch.testing.assert_close(v, velocity(x, t, embedded).detach())


def test_untrained_velocity_carries_noise_to_the_unit_gaussian():
    velocity = LatentVelocity(AdaLNVelocity(2, 3), LinearPath())
    embedded = velocity.embed(torch.randn(1, 3))
    noise = torch.randn(50, 2)
    with torch.no_grad():
        end = RK4(16).solve(lambda t, x: velocity(x, torch.tensor(t), embedded), noise).end
    torch.testing.assert_close(end, noise, rtol=1e-3, atol=1e-3)


def test_rows_may_share_an_embedding():
    velocity = shaken(2, 3)
    condition, x = torch.randn(4, 3, dtype=F64), torch.randn(4, 7, 2, dtype=F64)
    t = torch.tensor(0.6, dtype=F64)
    shared = velocity(x, t, velocity.embed(condition).unsqueeze(1))
    single = velocity(
        x.reshape(28, 2), t.expand(28), velocity.embed(condition.repeat_interleave(7, 0))
    )
    torch.testing.assert_close(shared.reshape(28, 2), single)


# -- conditions ------------------------------------------------------------------------------------
Y_SPACE = Space(
    (Variable("a"), Variable("phase", kind="categorical", labels=("s", "l", "g")), Variable("b"))
)


def test_conditions_are_standardised_over_what_is_known():
    encoder = ConditionEncoder(Y_SPACE)
    y = torch.tensor([[1.0, 0, 7.0], [3.0, 2, math.nan], [math.nan, 1, 7.0]], dtype=F64)
    encoder.fit(y)
    values, mask = encoder.encode(y)
    expected = [[-1, 1, 0, 0, 0], [1, 0, 0, 1, 0], [0, 0, 1, 0, 0]]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float32))
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0], [0, 1, 1]]
    assert encoder.join(values, mask).shape == (3, encoder.dim)


def test_conditions_that_cannot_be_used_are_refused():
    encoder = ConditionEncoder(Y_SPACE)
    with pytest.raises(GenoptError, match="'b' has no label"):
        encoder.fit(torch.tensor([[1.0, 0.0, math.nan]] * 3))
    with pytest.raises(GenoptError, match=r"phase.*class code from 0 to 2"):
        encoder.check(torch.tensor([[1.0, 3.0, 0.0]]))
    with pytest.raises(GenoptError, match="'a' is infinite"):
        encoder.check(torch.tensor([[math.inf, 0.0, 0.0]]))
    with pytest.raises(GenoptError, match="expected"):
        encoder.check(torch.zeros(2, 2))


def test_dropped_conditions_leave_every_subset_and_add_none():
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(40_000, 3)
    mask[:, 2] = 0.0
    kept = drop_conditions(mask, 0.6, generator)
    assert not bool(kept[:, 2].any())
    # a uniform keep rate makes 0, 1 and 2 of two columns equally likely among the chosen 60 %
    counts = torch.bincount(kept.sum(-1).long(), minlength=3) / len(kept)
    np.testing.assert_allclose(counts.numpy(), [0.2, 0.2, 0.6], atol=0.01)
    torch.testing.assert_close(drop_conditions(mask, 0.0, generator), mask)


def test_familiarity_is_calibrated_and_grows_with_distance():
    generator = torch.Generator().manual_seed(0)
    space = Space.of(a=(-5.0, 5.0), b=(-5.0, 5.0))
    encoder, familiarity = ConditionEncoder(space), Familiarity(space)
    y = torch.randn(3000, 2, generator=generator, dtype=F64)
    encoder.fit(y)
    familiarity.fit(encoder.encode(y[:2000]), encoder.encode(y[:0]), generator)
    fresh = familiarity.score(*encoder.encode(y[2000:]))
    assert float((fresh <= 1.0).double().mean()) == pytest.approx(0.99, abs=0.012)
    ray = torch.linspace(3.0, 8.0, 6, dtype=F64)[:, None] * torch.tensor([[1.0, -1.0]], dtype=F64)
    far = familiarity.score(*encoder.encode(ray))
    assert bool((far[1:] > far[:-1]).all())
    assert float(far[0]) > 1.0
    free = torch.tensor([[math.nan, math.nan], [math.nan, 0.1]], dtype=F64)
    scores = familiarity.score(*encoder.encode(free))
    assert float(scores[0]) == 0.0
    assert float(scores[1]) < 1.0


# -- configuration ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "file",
    [f for group in PARTS for f in sorted((CONF / group).glob("*.yaml"))],
    ids=lambda f: f"{f.parent.name}/{f.stem}",
)
def test_every_option_of_the_configuration_builds_its_namesake(file):
    spec = yaml.safe_load(file.read_text())
    assert spec["_target_"] == PARTS[file.parent.name][file.stem]
    if file.stem == "scheduled":
        # the one part that has no default: whose schedule it is has to be said
        with pytest.raises(GenoptError, match=r"path\.schedule is missing"):
            build(spec)
        return
    sizes = {"x_dim": 2, "condition_dim": 3} if file.parent.name == "network" else {}
    default = build({"_target_": spec["_target_"]}, **sizes)
    built = build(spec, **sizes)
    if file.parent.name != "network":
        assert built == default
    else:
        assert str(built) == str(default)


def test_every_part_has_a_file():
    for group, names in PARTS.items():
        assert {f.stem for f in (CONF / group).glob("*.yaml")} == set(names)
