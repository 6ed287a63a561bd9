"""The Gaussian process: what it learns, how sure it is, what it does beyond the rows."""

from __future__ import annotations

import math

import pytest
import torch

from genopt import GenoptError, Space, Variable
from genopt.models.gaussian_process import GaussianProcess

BOX = Space.of(a=(-1.0, 1.0), b=(-1.0, 1.0), c=(0.0, 5.0))


def designs(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    return BOX.lower + unit * (BOX.upper - BOX.lower)


def fitted(function, n=60, noise=0.0, **options):
    x = designs(n)
    y = function(x)
    noise = noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    process = GaussianProcess(BOX, Space.of(y=(0.0, 1.0)), **options)
    process.fit(x, y + noise.to(y))
    return process


def waves(x):
    return (torch.sin(4.0 * x[..., :1]) + x[..., 1:2].square() + torch.cos(2.0 * x[..., 2:])) / 2.0


@pytest.fixture(scope="module")
def smooth():
    return fitted(waves, n=80)


def test_unseen_values_of_a_sum_of_single_columns_are_found(smooth):
    x = designs(300, seed=3)
    miss = smooth.predict_y(x) - waves(x)
    assert float(miss.square().mean().sqrt()) < 0.05 * float(waves(x).std())


def test_it_is_sure_at_rows_and_honest_elsewhere(smooth):
    rows, x = designs(80), designs(300, seed=3)
    torch.testing.assert_close(smooth.predict_y(rows), waves(rows), atol=5e-3, rtol=0)
    assert float(smooth.spread_y(rows).median()) < float(smooth.spread_y(x).median())
    inside = ((smooth.predict_y(x) - waves(x)).abs() <= 2.0 * smooth.spread_y(x)).double().mean()
    assert float(inside) > 0.85


def test_the_joint_law_has_the_spread_on_its_diagonal_and_near_designs_go_together(smooth):
    x = torch.cat([designs(6, seed=4), designs(1, seed=4) + 1e-3])
    joint = smooth.joint_y(x)[0]
    torch.testing.assert_close(joint.diagonal().sqrt(), smooth.spread_y(x)[:, 0], rtol=1e-3, atol=0)
    assert float(torch.linalg.eigvalsh(joint).min()) > -1e-8
    correlation = joint / joint.diagonal().sqrt().outer(joint.diagonal().sqrt())
    assert float(correlation[0, 6]) > 0.99
    assert float(correlation[0, 1:6].abs().max()) < 0.99


def test_its_slopes_are_those_of_finite_differences(smooth):
    x = designs(4, seed=5).requires_grad_()
    (slope,) = torch.autograd.grad(smooth.predict_y(x).sum(), x)
    step = 1e-5 * torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        above = torch.stack([smooth.predict_y(x + s)[:, 0] for s in step], 1)
        below = torch.stack([smooth.predict_y(x - s)[:, 0] for s in step], 1)
    torch.testing.assert_close(slope, (above - below) / 2e-5, rtol=1e-4, atol=1e-5)


def test_a_parabola_goes_on_beyond_the_rows():
    x = designs(60)
    inner = x[(x[:, 0] < 0.2)]
    process = GaussianProcess(BOX, Space.of(y=(0.0, 1.0)))
    process.fit(inner, (inner[:, :1] - 0.5).square())
    beyond = torch.tensor([[0.5, 0.0, 2.5]], dtype=torch.float64)
    assert abs(float(process.predict_y(beyond))) < 0.1


def test_noise_is_told_from_signal():
    process = fitted(waves, n=200, noise=0.2)
    x = designs(300, seed=6)
    miss = (process.predict_y(x) - waves(x)).square().mean().sqrt()
    assert float(miss) < 0.13


def test_columns_that_are_not_modelled_are_empty_and_gaps_are_left_out():
    space = Space.of(y=(0.0, 1.0), z=(0.0, 1.0))
    x = designs(40)
    y = torch.cat([waves(x), x[:, :1]], 1)
    y[5, 1] = math.nan
    process = GaussianProcess(BOX, space, columns=(1,), steps=10)
    process.fit(x, y)
    answer = process.predict_y(x[:3])
    assert bool(torch.isnan(answer[:, 0]).all())
    torch.testing.assert_close(answer[:, 1], x[:3, 0], atol=0.05, rtol=0)
    assert float(process.joint_y(x[:3])[0].abs().max()) == 0.0


def test_classes_of_y_and_too_few_rows_are_refused():
    phase = Variable("phase", kind="categorical", labels=("solid", "liquid"))
    with pytest.raises(GenoptError, match="y column 'phase' is a class"):
        GaussianProcess(BOX, Space((phase,)), columns=(0,))
    with pytest.raises(GenoptError, match="needs two rows"):
        GaussianProcess(BOX, Space.of(y=(0.0, 1.0))).fit(designs(1), waves(designs(1)))
    with pytest.raises(GenoptError, match="learned nothing yet"):
        GaussianProcess(BOX, Space.of(y=(0.0, 1.0))).joint_y(designs(2))


def test_zoomed_lengths_do_not_know_how_wide_the_space_is():
    x = designs(60) * 1e-3
    y = waves(1e3 * x)
    answers, probe = [], designs(200, seed=7) * 1e-3
    for width in (1.0, 50.0):
        space = Space.of(a=(-width, width), b=(-width, width), c=(-width, width))
        process = GaussianProcess(space, Space.of(y=(0.0, 1.0)), zoomed=True)
        process.fit(x, y)
        answers.append(process.predict_y(probe))
    torch.testing.assert_close(*answers, atol=1e-4, rtol=0)
    miss = answers[0] - waves(1e3 * probe)
    assert float(miss.square().mean().sqrt()) < 0.1 * float(y.std())


def test_other_rows_have_another_covariance_even_if_they_are_as_many():
    process = GaussianProcess(BOX, Space.of(y=(0.0, 1.0)))
    flat, x, probe = designs(80, seed=8), designs(80), designs(300, seed=3)
    process.fit(flat, flat[:, :1])
    process.fit(x, waves(x))
    miss = process.predict_y(probe) - waves(probe)
    assert float(miss.square().mean().sqrt()) < 0.05 * float(waves(probe).std())
