"""Coverage of intervals, checked against distributions whose calibration is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from genopt import GenoptError, Space, Variable
from genopt.analysis.calibration import (
    calibration_curves,
    calibration_scores,
    interval_levels,
    miscalibration_area,
)
from genopt.analysis.plots.calibration import plot_calibration

Y = Space((Variable("a"), Variable("k", labels=("u", "v"), kind="categorical"), Variable("b")))


def gaussian(n: int, claimed: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values of standard deviation 2 whose model claims another one; b has gaps, k is a class."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y = mean + 2.0 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y[::4, 2] = math.nan
    std = torch.full_like(y, claimed)
    std[:, 1] = math.nan
    return y, mean, std


def test_a_true_spread_covers_what_it_should():
    scores = calibration_scores(*gaussian(20_000, 2.0), Y)
    for column in "ab":
        # four standard errors of a share of 15,000 rows
        assert scores[f"coverage_50/{column}"] == pytest.approx(0.5, abs=0.016)
        assert scores[f"coverage_90/{column}"] == pytest.approx(0.9, abs=0.01)
        assert scores[f"miscalibration_area/{column}"] < 0.01
        assert scores[f"sharpness/{column}"] == 2.0
        assert scores[f"nll/{column}"] == pytest.approx(stats.norm(scale=2.0).entropy(), abs=0.03)
    assert not [name for name in scores if name.startswith("k")]


@pytest.mark.parametrize("claimed", [1.0, 4.0])
def test_a_wrong_spread_is_off_by_what_theory_says(claimed):
    scores = calibration_scores(*gaussian(20_000, claimed), Y)
    for level in (0.5, 0.9):
        edge = claimed / 2.0 * stats.norm.ppf(0.5 + level / 2)
        expected = stats.norm.cdf(edge) - stats.norm.cdf(-edge)
        assert scores[f"coverage_{level * 100:.0f}/a"] == pytest.approx(expected, abs=0.014)
    grid = (np.arange(2_000) + 0.5) / 2_000
    inside = 2.0 * stats.norm.cdf(claimed / 2.0 * stats.norm.ppf(0.5 + grid / 2)) - 1.0
    area = np.abs(inside - grid).mean()
    assert scores["miscalibration_area/a"] == pytest.approx(area, abs=0.01)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_the_area_is_the_distance_to_the_uniform_distribution(levels):
    grid = (np.arange(4_000) + 0.5) / 4_000
    observed = (np.array(levels)[:, None] <= grid).mean(0)
    area = miscalibration_area(torch.tensor(levels, dtype=torch.float64))
    assert area == pytest.approx(np.abs(observed - grid).mean(), abs=1e-3)
    assert 0.0 <= area <= 0.5 + 1e-12


def test_levels_of_no_doubt_and_of_gaps():
    zero, nan = torch.zeros(4), math.nan
    y = torch.tensor([0.0, 1.0, nan, 0.5])
    std = torch.tensor([0.0, 0.0, 1.0, nan])
    levels = interval_levels(y, zero, std)
    assert levels[:2].tolist() == [0.0, 1.0]
    assert bool(levels[2:].isnan().all())


def test_curves_count_the_values_inside():
    y = torch.tensor([[0.0, 0, 0.1], [1.0, 0, 0.0], [-3.0, 1, math.nan]])
    curves = calibration_curves(y, torch.zeros(3, 3), torch.ones(3, 3), Y, points=11)
    assert [curve.column for curve in curves] == ["a", "b"]
    assert [curve.rows for curve in curves] == [3, 2]
    # |z| = 0, 1 and 3 are inside from the levels 0, .683 and .9973 on
    assert curves[0].observed.tolist() == pytest.approx([1 / 3] * 7 + [2 / 3] * 3 + [1.0])


def test_shapes_and_negative_spreads_are_refused():
    ones = torch.ones(2, 3)
    with pytest.raises(GenoptError, match=r"expected \(N, 3\) for columns a, k, b"):
        calibration_scores(ones, ones, torch.ones(2, 2), Y)
    with pytest.raises(GenoptError, match="negative in column 'b'"):
        calibration_scores(ones, ones, ones * torch.tensor([1.0, 1.0, -1.0]), Y)


def test_the_figure_shows_curve_and_scores(tmp_path):
    data = gaussian(300, 1.0)
    curves, scores = calibration_curves(*data, Y), calibration_scores(*data, Y)
    figure = plot_calibration(curves, scores, "title")
    first = figure.axes[0]
    assert first.get_title() == "a"
    assert first.lines[1].get_ydata()[50] == pytest.approx(scores["coverage_50/a"])
    assert f"area {scores['miscalibration_area/a']:.3f}" in first.texts[0].get_text()
    figure.savefig(tmp_path / "calibration.png")
