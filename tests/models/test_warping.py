"""The learned scale of an output: monotone, invertible, and worth learning."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genopt import Space
from genopt.models.gaussian_process import GaussianProcess
from genopt.models.warping import PLAIN, unwarped, warped

numbers = st.lists(st.floats(-9.0, 4.0), min_size=4, max_size=4)
LINE = torch.linspace(-0.5, 1.5, 81, dtype=torch.float64)
BOX = Space.of(a=(-5.0, 5.0), b=(-5.0, 5.0), c=(-5.0, 5.0), d=(-5.0, 5.0))


@settings(max_examples=60, deadline=None)
@given(numbers)
def test_a_warp_rises_and_its_way_back_is_exact(logs):
    logs = torch.tensor(logs, dtype=torch.float64)
    value, slope = warped(LINE, logs)
    assert bool((value.diff() > 0).all())
    assert bool((slope >= 1.0).all())
    torch.testing.assert_close(unwarped(value, logs), LINE, atol=1e-9, rtol=0)


@settings(max_examples=30, deadline=None)
@given(numbers)
def test_slopes_are_derivatives_there_and_back(logs):
    logs = torch.tensor(logs, dtype=torch.float64)
    s = LINE.clone().requires_grad_()
    value, slope = warped(s, logs)
    (found,) = torch.autograd.grad(value.sum(), s)
    torch.testing.assert_close(found, slope.detach(), rtol=1e-9, atol=0)
    w = value.detach().requires_grad_()
    (back,) = torch.autograd.grad(unwarped(w, logs).sum(), w)
    torch.testing.assert_close(back, 1.0 / slope.detach(), rtol=1e-5, atol=0)


def test_batches_of_numbers_are_warped_as_one_by_one():
    logs = torch.tensor([PLAIN, (1.0, -5.0, 0.0, -1.0)], dtype=torch.float64)
    values = LINE.expand(2, -1)
    one = torch.stack([warped(LINE, row)[0] for row in logs])
    torch.testing.assert_close(warped(values, logs)[0], one)
    torch.testing.assert_close(unwarped(one, logs), values, atol=1e-9, rtol=0)


def funnel(x):
    """A funnel whose walls flatten out."""
    return 1.0 - torch.exp(-x.square().sum(-1, keepdim=True) / 20.0)


def valley(x):
    """A valley a thousand times lower than the hills."""
    return torch.exp(x.square().sum(-1, keepdim=True) / 8.0)


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    return 10.0 * torch.rand(300, 4, generator=generator, dtype=torch.float64) - 5.0


@pytest.mark.parametrize("function", [funnel, valley])
def test_the_order_of_designs_is_learned_where_values_flatten_out_or_fall_steeply(function, rows):
    known, fresh = rows[:80], rows[80:]
    near = fresh * 0.5
    agreement = []
    for warp in (False, True):
        process = GaussianProcess(BOX, Space.of(y=(0.0, 1.0)), warp=warp)
        process.fit(known, function(known))
        said = process.predict_y(near)[:, 0].argsort().argsort().double()
        true = function(near)[:, 0].argsort().argsort().double()
        agreement.append(float(torch.corrcoef(torch.stack([said, true]))[0, 1]))
    assert agreement[1] > max(0.97, agreement[0])


def test_belief_joint_law_and_slopes_agree_on_a_warped_scale(rows):
    process = GaussianProcess(BOX, Space.of(y=(0.0, 1.0)), warp=True)
    process.fit(rows[:80], funnel(rows[:80]))
    x = rows[80:84].clone().requires_grad_()
    y, spread = process.belief_y(x)
    torch.testing.assert_close(y, process.predict_y(x))
    torch.testing.assert_close(spread, process.spread_y(x))
    joint = process.joint_y(x.detach())[0]
    torch.testing.assert_close(joint.diagonal().sqrt(), spread[:, 0].detach())
    (slope,) = torch.autograd.grad(y.sum(), x)
    step = 1e-5 * torch.eye(4, dtype=torch.float64)
    with torch.no_grad():
        above = torch.stack([process.predict_y(x + s)[:, 0] for s in step], 1)
        below = torch.stack([process.predict_y(x - s)[:, 0] for s in step], 1)
    torch.testing.assert_close(slope, (above - below) / 2e-5, rtol=1e-3, atol=1e-6)
