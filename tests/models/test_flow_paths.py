"""Paths against their definitions and against mistakes in a schedule of one's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from genopt.errors import GenoptError
from genopt.models.flow import ConditionalFlow
from genopt.models.flow.paths import LinearPath, VPPath, gaussian_guess, point_on_path
from genopt.models.flow.scheduled import ScheduledPath
from genopt.models.flow.times import LogitNormalTimes, stratified_times, time_grid
from genopt.space import Space

torch.set_num_threads(1)
F64 = torch.float64

SCHEDULES = """
import torch

from genopt.models.flow.paths import ScheduleValue


def straight(t):
    one = torch.ones_like(t)
    return t, 1 - t, one, -one


def named(t):
    one = torch.ones_like(t)
    return ScheduleValue(alpha=t, sigma=1 - t, d_alpha=one, d_sigma=-one)


def slow_start(t):
    return t**2, 1 - t**2, 2 * t, -2 * t


def wrong_slope(t):
    return t**2, 1 - t, 3 * t, -torch.ones_like(t)


def reversed_time(t):
    one = torch.ones_like(t)
    return 1 - t, t, -one, one


def short_of_data(t):
    one = torch.ones_like(t)
    return 0.9 * t, 1 - t, 0.9 * one, -one


def resting(t):
    alpha, slope = 0.5 + 4 * (t - 0.5) ** 3, 12 * (t - 0.5) ** 2
    return alpha, 1 - alpha, slope, -slope


def steep_end(t):
    sigma = torch.sqrt(1 - t**2)
    return t, sigma, torch.ones_like(t), -t / sigma


def two(t):
    return t, 1 - t


def floats(t):
    return t, 1 - t, 1.0, -1.0


number = 3
"""


@pytest.fixture(autouse=True)
def _schedules(tmp_path, monkeypatch):
    (tmp_path / "own_schedules.py").write_text(SCHEDULES)
    monkeypatch.syspath_prepend(tmp_path)


# -- variance preserving ---------------------------------------------------------------------------
def test_vp_is_the_diffusion_with_linear_noise_rates():
    path = VPPath()

    def plain(s):
        return math.exp(-0.5 * integrate.quad(lambda r: 0.1 + 19.9 * r, 0.0, s)[0])

    rest = plain(1.0)
    for t in (0.05, 0.3, 0.6, 0.95):
        s = path.schedule(torch.tensor(t, dtype=F64))
        shifted = (plain((1 - t) ** 2) - rest) / (1 - rest)
        assert float(s.alpha) == pytest.approx(shifted, abs=1e-12)
        assert float(s.alpha) == pytest.approx(plain((1 - t) ** 2), abs=0.007)
        assert float(s.alpha**2 + s.sigma**2) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("betas", [(0.1, 20.0), (1.0, 1.0), (0.01, 30.0)])
def test_vp_has_the_derivative_of_its_value_and_exact_ends(betas):
    path, step = VPPath(*betas), 1e-6
    t = torch.linspace(0.01, 0.99, 60, dtype=F64)
    after, before, at = path.schedule(t + step), path.schedule(t - step), path.schedule(t)
    for name in ("alpha", "sigma"):
        slope = (getattr(after, name) - getattr(before, name)) / (2 * step)
        torch.testing.assert_close(getattr(at, f"d_{name}"), slope, rtol=1e-6, atol=1e-7)
    for dtype in (torch.float32, F64):
        ends = path.schedule(torch.tensor([0.0, 1.0], dtype=dtype))
        assert ends.alpha.tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
        assert ends.sigma.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
        guess = gaussian_guess(path, torch.tensor([0.0, 0.5, 1.0], dtype=dtype))
        assert bool(torch.isfinite(guess.spread).all())
        assert float(guess.spread.min()) > 0.01


def test_vp_guess_is_the_regression_on_normal_ends():
    generator = torch.Generator().manual_seed(0)
    x_0, x_1 = torch.randn(2, 200_000, 1, dtype=F64, generator=generator)
    for t in (0.2, 0.7):
        point = point_on_path(VPPath(), x_0, x_1, torch.full((len(x_0),), t, dtype=F64))
        line = stats.linregress(point.x_t[:, 0].numpy(), point.dx_t[:, 0].numpy())
        left = point.dx_t[:, 0].numpy() - line.slope * point.x_t[:, 0].numpy()
        guess = gaussian_guess(VPPath(), torch.tensor(t, dtype=F64))
        assert float(guess.gain) == pytest.approx(line.slope, abs=0.02)
        assert float(guess.spread) == pytest.approx(left.std(), rel=0.01)


def test_bad_rates_are_refused():
    for betas in ((0.0, 20.0), (2.0, 1.0), (0.1, math.inf)):
        with pytest.raises(GenoptError, match="beta_min"):
            VPPath(*betas)


# -- a schedule of one's own -----------------------------------------------------------------------
@pytest.mark.parametrize("name", ["straight", "named"])
def test_a_schedule_of_ones_own_is_the_path_that_it_writes_down(name):
    t = torch.rand(3, 4, dtype=F64)
    own, plain = ScheduledPath(f"own_schedules.{name}").schedule(t), LinearPath().schedule(t)
    for part in ("alpha", "sigma", "d_alpha", "d_sigma"):
        torch.testing.assert_close(getattr(own, part), getattr(plain, part))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong_slope", r"d_alpha .* is 2\.97 at t = 0\.99, but alpha changes at the rate 1\.98"),
        ("reversed_time", r"alpha .* is 0 at t = 1, not 1: t = 0 is noise"),
        ("short_of_data", r"alpha .* is 0\.9 at t = 1, not 1"),
        ("resting", r"stands still or turns back at t = 0\.5"),
        ("steep_end", r"d_sigma .* is not finite at t = 1"),
        ("two", r"returned tuple; expected four tensors: alpha, sigma, d_alpha, d_sigma"),
        ("floats", r"d_alpha .* is float of shape \(\)"),
        ("number", "is int, not a function"),
        ("absent", "cannot import 'own_schedules.absent'"),
    ],
)
def test_mistakes_are_named_before_any_training(name, words):
    with pytest.raises(GenoptError, match=words):
        ScheduledPath(f"own_schedules.{name}")


def test_a_schedule_is_named_by_its_import_path():
    with pytest.raises(GenoptError, match=r"path\.schedule is missing"):
        ScheduledPath()
    with pytest.raises(GenoptError, match="as text"):
        ScheduledPath(lambda t: t)
    with pytest.raises(GenoptError, match="cannot import 'nowhere'"):
        ScheduledPath("nowhere")


def test_a_flow_on_a_path_of_ones_own_is_saved_as_plain_data(tmp_path):
    x = torch.linspace(-1, 1, 64, dtype=F64)[:, None]
    path = {"kind": "scheduled", "schedule": "own_schedules.slow_start"}
    flow = ConditionalFlow(Space.of(x=(-1, 1)), Space.of(y=(0, 1)), path=path, epochs=1)
    flow.fit(x, x.abs())
    loaded = ConditionalFlow.load(flow.save(tmp_path / "flow.ckpt"))
    assert loaded.path == flow.path
    y = torch.tensor([[0.5]])
    torch.testing.assert_close(loaded.sample(y, 9), flow.sample(y, 9))


# -- learned ---------------------------------------------------------------------------------------
def test_a_flow_of_unusual_parts_learns_the_conditional():
    """Given y, x is N(2 y, .3^2); every part is another one than the default."""
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(4000, 1, generator=generator, dtype=F64) * 2 - 1
    x = 2 * y + 0.3 * torch.randn(4000, 1, generator=generator, dtype=F64)
    flow = ConditionalFlow(
        Space.of(x=(-math.inf, math.inf)),
        Space.of(y=(-1, 1)),
        path="vp",
        coupling="conditional_ot",
        time_sampling={"kind": "logit_normal", "mean": 1.0, "std": 1.5},
        network={"kind": "concat", "width": 48, "depth": 2},
        sampler="adams_bashforth",
        draws=1,
        learning_rate=4e-3,
        ema=0.99,
    )
    flow.fit(x, y, epochs=24, batch_size=128)
    asked = torch.tensor([[-0.6], [0.0], [0.7]], dtype=F64)
    for sampler in ("adams_bashforth", "rk4"):
        drawn = flow.sample(asked, 3000, sampler=sampler)[..., 0].numpy()
        np.testing.assert_allclose(drawn.mean(1), 2 * asked[:, 0].numpy(), atol=0.06)
        np.testing.assert_allclose(drawn.std(1), 0.3, atol=0.05)
    points = torch.linspace(-0.5, 0.5, 20, dtype=F64)[:, None]
    exact = stats.norm(0.0, 0.3).logpdf(points[:, 0].numpy())
    found = flow.log_prob(points, asked[1:2]).numpy()
    assert np.abs(found - exact).mean() < 0.15


# -- times -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.0, 0.5)])
def test_logit_normal_times_have_normal_logits(mean, std):
    sampling = LogitNormalTimes(mean, std)
    generator = torch.Generator().manual_seed(1)
    t = stratified_times(sampling, 400, torch.zeros(1, dtype=F64), generator).numpy()
    logit = np.log(t / (1 - t))
    assert stats.kstest(logit, stats.norm(mean, std).cdf).statistic < 1 / 400 + 1e-9
    grid = time_grid(sampling, 101, torch.zeros(1, dtype=F64))
    assert float(grid[50]) == pytest.approx(1 / (1 + math.exp(-mean)), abs=1e-9)
    ends = sampling.quantile(torch.tensor([0.0, 1.0]))
    assert ends.tolist() == [0.0, 1.0]
    with pytest.raises(GenoptError, match=r"time_sampling\.std"):
        LogitNormalTimes(std=0.0)
