"""The parts of adaptive sampling: guesses between rows, closeness to a goal, thinning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

from genopt.data.closeness import Closeness, best_seen, gaps
from genopt.data.interpolation import Interpolation
from genopt.data.sampling import sample_space
from genopt.data.table import Table
from genopt.data.thinning import along_curve, thin
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.space import Space, Variable

X, Y = Space.of(a=(0.0, 1.0)), Space.of(f=(0.0, 10.0), g=(0.0, 2.0))


def test_in_one_column_the_guess_is_the_natural_cubic_spline():
    x = torch.linspace(0, 1, 9, dtype=torch.float64)
    y = torch.stack([torch.sin(7 * x), x**3], 1)
    guess = Interpolation(Table(x[:, None], y, X, Y))
    between = torch.linspace(0, 1, 50, dtype=torch.float64)
    spline = CubicSpline(x.numpy(), y.numpy(), bc_type="natural")(between.numpy())
    assert np.allclose(guess(between[:, None]).numpy(), spline, atol=1e-6)


def test_noise_is_smoothed_and_classes_go_by_the_nearest_rows():
    generator = torch.Generator().manual_seed(0)
    space = Space(
        (Variable("phase", kind="categorical", labels=("solid", "gas")), Variable("f", 0.0, 1.0))
    )
    x = sample_space(X, 120)
    phase = (x > 0.5).double()
    noise = torch.randn(120, 1, generator=generator, dtype=torch.float64)
    y = torch.cat([phase, x + 0.3 * noise], 1)
    y[::7, 1] = torch.nan
    fresh = sample_space(X, 400, seed=5)
    phases, line = Interpolation(Table(x, y, X, space))(fresh).unbind(1)
    clear = (fresh[:, 0] - 0.5).abs() > 0.05
    assert torch.equal(phases[clear], (fresh[:, 0] > 0.5).double()[clear])
    assert float((line - fresh[:, 0]).square().mean().sqrt()) < 0.15


def test_fractions_and_classes_leave_no_singular_system():
    blend = Space(
        (
            *(Variable(n, 0.0, 1.0) for n in "abc"),
            Variable("kind", kind="categorical", labels=("u", "v")),
        ),
        simplexes=(("a", "b", "c"),),
    )
    x = sample_space(blend, 60)
    y = (x[:, :1] + 2 * x[:, 1:2] + x[:, 3:]) @ torch.tensor([[1.0, 0.2]], dtype=torch.float64)
    fresh = sample_space(blend, 40, seed=3)
    guess = Interpolation(Table(x, y, blend, Y))(fresh)
    exact = fresh[:, 0] + 2 * fresh[:, 1] + fresh[:, 3]
    assert torch.allclose(guess[:, 0], exact, atol=1e-6)


def test_too_few_labels_are_named():
    y = torch.full((5, 2), torch.nan, dtype=torch.float64)
    y[:, 0] = 1.0
    with pytest.raises(GenoptError, match="'g' has 0 labels"):
        Interpolation(Table(sample_space(X, 5), y, X, Y))


def test_gaps_by_hand():
    y = torch.tensor([[5.0, 1.0], [3.0, 0.5], [torch.nan, 1.0]], dtype=torch.float64)
    far = gaps(Goal({"f": 4.0}, X, Y), y)
    assert torch.allclose(far, torch.tensor([[[0.1, 0.1, torch.inf]]], dtype=torch.float64))
    # a boundary counts from both sides, and nothing else does
    far = gaps(Goal({"g": {"between": [0.4, 0.9]}}, X, Y), y)
    assert torch.allclose(far, torch.tensor([[[0.05, 0.05, 0.05]]], dtype=torch.float64))
    # the best row of those within the limit is the second; a wish beside a limit is two things
    goal = Goal({"f": "max", "g": {"at_most": 0.6}}, X, Y)
    best = best_seen(goal, y)
    assert best.tolist() == [[-0.3]]
    far = gaps(goal, y, best)
    assert far.shape == (1, 2, 3)
    # the first row is better than the best but breaks the limit by .4 of 2
    assert float(far[0, 0, 0]) == pytest.approx((0.2**2 / 2) ** 0.5)
    assert float(far[0, 0, 1]) == 0.0
    assert far[0, 1, :2].tolist() == pytest.approx([0.2, 0.05])


def test_closeness_takes_in_the_wanted_share():
    y = torch.cat([sample_space(Space.of(f=(0.0, 10.0)), 4096), torch.zeros(4096, 1)], 1)
    close = Closeness.of(Goal({"f": [2.0, 6.0]}, X, Y), y, y, 0.1)
    # .1 of the values lies within .05 of the width on either side
    assert close.width.flatten().tolist() == pytest.approx([0.05, 0.05], rel=0.02)
    at = torch.tensor([[2.0, 0.0], [2.5, 0.0], [4.0, 0.0]], dtype=torch.float64)
    value = close(at)
    assert float(value[0]) == pytest.approx(0.5, abs=0.01)
    assert float(value[1]) == pytest.approx(0.125, abs=0.01)
    assert float(value[2]) < 0.01


def test_thinning_keeps_every_interval_within_one_of_its_due():
    x = sample_space(X, 5000)
    share = (1 + 9 * (x[:, 0] > 0.8)).double()
    taken = thin(x, share, 100, X, seed=3)
    assert len(set(taken.tolist())) == 100
    for end in (0.1, 0.37, 0.8, 0.93):
        due = 100 * float(share[x[:, 0] < end].sum() / share.sum())
        assert abs(int((x[taken, 0] < end).sum()) - due) < 1.0


def test_thinning_takes_each_design_by_its_share():
    plane = Space.of(a=(0.0, 1.0), b=(0.0, 1.0))
    x = sample_space(plane, 64)
    share = torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.2
    counts = torch.zeros(64)
    for seed in range(400):
        counts[thin(x, share, 8, plane, seed)] += 1
    due = 8 * share / share.sum()
    assert float((counts / 400 - due).abs().max()) < 4 * (0.25 / 400) ** 0.5
    with pytest.raises(GenoptError, match="positive share"):
        thin(x, torch.zeros(64), 8, plane)


def test_neighbours_on_the_curve_are_near_in_space():
    unit = sample_space(Space.of(a=(0.0, 1.0), b=(0.0, 1.0)), 256)
    step = unit[along_curve(unit)].diff(dim=0).norm(dim=-1).mean()
    assert float(step) < 0.3 * float(unit.diff(dim=0).norm(dim=-1).mean())
