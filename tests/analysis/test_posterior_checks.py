"""Calibration tools on models that are exact, too narrow, too wide or moved, by closed forms."""

import math

import pytest
import torch
from scipy.stats import kstest, norm

from genopt import Mixture, Space
from genopt.analysis.calibrate import calibrate
from genopt.analysis.conditional_draws import conditional_draws, log_densities
from genopt.analysis.coverage import Coverage, expected_coverage
from genopt.analysis.exact_posterior import compare_with_exact
from genopt.analysis.levels import held_shares, rank_levels
from genopt.analysis.plots import plot_coverage, plot_pairs, plot_ranks
from genopt.analysis.ranks import rank_calibration
from genopt.analysis.tarp import tarp_coverage
from genopt.analysis.two_sample import c2st
from genopt.errors import GenoptError
from genopt.problems.base import Answer
from genopt.problems.linear_gaussian import LinearGaussian

PROBLEM = LinearGaussian(3)
ROWS = PROBLEM.table(1500, seed=11)


class Scaled:
    """The exact posterior with other widths, or moved by a number."""

    def __init__(self, width=1.0, move=0.0):
        self.width, self.move, self.x_space = width, move, PROBLEM.x_space
        self.calls = 0

    def sample(self, y, n, generator=None):
        self.calls += 1
        mean, covariance = PROBLEM.moments(y)
        normal = torch.randn(len(y), n, 3, dtype=torch.float64, generator=generator)
        factor = torch.linalg.cholesky(covariance)
        return mean[:, None] + self.move + self.width * normal @ factor.mT

    def log_prob(self, x, y):
        mean, covariance = PROBLEM.moments(y)
        scaled = covariance * self.width**2
        return torch.distributions.MultivariateNormal(mean + self.move, scaled).log_prob(x)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -- levels ----------------------------------------------------------------------------------------
def test_levels_by_hand():
    draws = torch.tensor([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]])
    levels = rank_levels(draws, torch.tensor([2.5, 0.0]), generator())
    assert 0.5 < float(levels[0]) < 0.75
    assert 0.0 < float(levels[1]) < 0.25
    shares = held_shares(torch.tensor([0.1, 0.2, 0.9]).double(), torch.tensor([0.05, 0.2, 1.0]))
    assert shares.tolist() == pytest.approx([0.0, 2 / 3, 1.0])


@pytest.mark.parametrize("count", [1, 4, 50])
def test_levels_are_uniform_with_ties_and_few_draws(count):
    die = torch.randint(3, (4000, count + 1), generator=generator(3)).double()
    levels = rank_levels(die[:, 1:], die[:, 0], generator(4))
    assert kstest(levels.numpy(), "uniform").pvalue > 1e-3


# -- ranks, coverage, TARP -------------------------------------------------------------------------
def test_an_exact_model_is_calibrated():
    model = Scaled()
    found = calibrate(model, ROWS.x, ROWS.y, draws=60)
    assert model.calls == 1
    scores = found.summary()
    for name in ("p_value", "tarp/p_value", *(f"ranks/p_value/x{i}" for i in (1, 2, 3))):
        assert scores[name] > 1e-3, name
    for level in (50, 80, 95):
        assert abs(scores[f"coverage_{level}"] - level / 100) < 4 * scores[f"error_{level}"]
    assert "no fault that so many can show" in found.verdict()
    assert "1500 unseen conditions" in found.verdict()


def test_a_mixture_that_is_one_gaussian_is_calibrated():
    table = PROBLEM.table(4000, seed=1)
    mixture = Mixture(PROBLEM.x_space, PROBLEM.y_space, max_components=1)
    found = calibrate(mixture.fit(table.x, table.y), ROWS.x[:400], ROWS.y[:400], draws=40)
    assert found.summary()["p_value"] > 1e-3
    assert found.ranks.columns == ("x1", "x2", "x3")


def test_conditions_may_leave_properties_free():
    y = ROWS.y.clone()
    y[:, 1] = math.nan
    assert calibrate(Scaled(), ROWS.x, y).summary()["p_value"] > 1e-3
    assert calibrate(Scaled(0.7), ROWS.x, y).summary()["p_value"] < 1e-6


@pytest.mark.parametrize("width", [0.5, 1.6])
def test_wrong_widths_miss_as_much_as_they_must(width):
    found = calibrate(Scaled(width), ROWS.x, ROWS.y, draws=400)
    scores = found.summary()
    for level in (0.5, 0.8, 0.95):
        # the region is |z| < width * radius, z standard normal in three dimensions
        radius = width * math.sqrt(chi2_quantile(level))
        expected = chi2_share(radius**2)
        # 400 draws blur the level a little
        assert scores[f"coverage_{100 * level:.0f}"] == pytest.approx(expected, abs=0.05)
        one = norm.cdf(width * norm.ppf(0.5 + level / 2)) * 2 - 1
        inside = (2 * found.ranks.levels - 1).abs() <= level
        assert inside.double().mean(0).tolist() == pytest.approx([one] * 3, abs=0.05)
    narrow = width < 1
    assert ("too sure" if narrow else "wider than needed") in found.verdict()
    assert "ranks uneven in x1, x2, x3" in found.verdict()
    for name in ("x1", "x2", "x3"):
        assert (scores[f"ranks/dispersion/{name}"] > 1) == narrow
        assert abs(scores[f"ranks/shift/{name}"]) < 0.05
    assert scores["p_value"] < 1e-6
    assert scores["tarp/p_value"] < 1e-6


def chi2_quantile(level):
    from scipy.stats import chi2

    return chi2(3).ppf(level)


def chi2_share(square):
    from scipy.stats import chi2

    return chi2(3).cdf(square)


def test_a_moved_model_is_told_by_its_direction():
    ranks = rank_calibration(Scaled(move=0.4), ROWS.x, ROWS.y).summary()
    assert all(ranks[f"shift/x{i}"] < -0.1 for i in (1, 2, 3))
    assert tarp_coverage(Scaled(move=0.4), ROWS.x, ROWS.y).summary()["p_value"] < 1e-3


class Prior:
    """A model that does not look at y."""

    def sample(self, y, n, generator=None):
        return torch.randn(len(y), n, 3, dtype=torch.float64, generator=generator)


def test_random_points_that_know_y_see_a_model_that_does_not():
    assert tarp_coverage(Prior(), ROWS.x, ROWS.y).summary()["p_value"] > 1e-3
    near = PROBLEM.moments(ROWS.y)[0]
    assert tarp_coverage(Prior(), ROWS.x, ROWS.y, references=near).summary()["p_value"] < 1e-6
    assert tarp_coverage(Scaled(), ROWS.x, ROWS.y, references=near).summary()["p_value"] > 1e-3
    with pytest.raises(GenoptError, match=r"references has shape \(2, 3\)"):
        tarp_coverage(Prior(), ROWS.x, ROWS.y, references=near[:2])


class Classes(Prior):
    """Draws of a class column, without a density."""

    x_space = Space.from_bounds([(-9.0, 9.0)])

    def log_prob(self, x, y):
        raise GenoptError("log_prob has no meaning for the class columns")


def test_a_density_that_is_refused_is_an_error_unless_there_are_classes():
    with pytest.raises(GenoptError, match="class columns"):
        calibrate(Classes(), ROWS.x, ROWS.y)


def test_class_columns_are_ranked_without_a_density():
    from genopt.variable import Variable

    class Coin:
        x_space = Space((Variable("side", kind="categorical", labels=("head", "tail")),))

        def sample(self, y, n, generator=None):
            return (torch.rand(len(y), n, 1, generator=generator) < 0.3).double()

        def log_prob(self, x, y):
            raise GenoptError("no density")

    y = torch.zeros(800, 1)
    x = Coin().sample(y, 1, generator(7))[:, 0]
    found = calibrate(Coin(), x, y)
    assert found.coverage is None
    assert found.summary()["ranks/p_value/side"] > 1e-3
    assert "p_value" not in found.summary()
    assert "no fault" in found.verdict()
    unfair = calibrate(Coin(), 1.0 - x, y)
    assert "not calibrated" in unfair.verdict()


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (ROWS.x[:5], ROWS.y[:4], r"x has shape \(5, 3\) and y \(4, 3\)"),
        (ROWS.x[:1], ROWS.y[:1], "at least 2"),
        (ROWS.x[:5] * math.nan, ROWS.y[:5], "must be complete"),
    ],
)
def test_bad_pairs_are_refused(x, y, match):
    with pytest.raises(GenoptError, match=match):
        calibrate(Scaled(), x, y)


def test_bad_models_are_named():
    with pytest.raises(GenoptError, match="draws must be at least 2"):
        expected_coverage(Scaled(), ROWS.x, ROWS.y, draws=1)

    class Short(Prior):
        def sample(self, y, n, generator=None):
            return super().sample(y, n, generator)[:, 1:]

        def log_prob(self, x, y):
            return torch.full((len(x),), math.nan)

    with pytest.raises(GenoptError, match=r"sample returned shape \(3, 4, 3\)"):
        conditional_draws(Short(), ROWS.y[:3], 5, generator(), 3)
    with pytest.raises(GenoptError, match="NaN for a design of condition 0"):
        log_densities(Short(), ROWS.x[:4, None], ROWS.y[:4])


# -- beside exact draws ----------------------------------------------------------------------------
def test_divergence_is_that_of_two_gaussians():
    width, move = 1.3, 0.1
    y = ROWS.y[:4]
    found = compare_with_exact(Scaled(width, move), PROBLEM, y, draws=4000)
    _, covariance = PROBLEM.moments(y)
    precision = torch.linalg.inv(covariance[0]) / width**2
    shift = torch.full((3,), move).double()
    expected = 0.5 * (3 / width**2 - 3 + shift @ precision @ shift + 6 * math.log(width))
    assert found.kl.tolist() == pytest.approx([float(expected)] * 4, abs=0.05)
    assert found.outside == 0.0
    assert len(found.c2st) == 0
    assert compare_with_exact(Scaled(9.0), PROBLEM, y).outside > 0.1
    with pytest.raises(GenoptError, match="y has shape"):
        compare_with_exact(Scaled(), PROBLEM, y[0])


def test_the_classifier_is_as_good_as_it_can_be():
    first, second = torch.randn(2, 600, 1, generator=generator(1)).double()
    assert c2st(first, second).accuracy == pytest.approx(0.5, abs=0.05)
    apart = c2st(first, second + 2.0).summary()
    assert apart["c2st"] == pytest.approx(norm.cdf(1.0), abs=0.03)
    assert 0.0 < apart["c2st_error"] < 0.03
    # a column that never varies is no reason to divide by zero
    flat = torch.cat([first, torch.ones_like(first)], 1)
    assert c2st(flat[:60], flat[60:120]).accuracy < 0.75
    for bad, match in ((first[:5], "at least 10 rows"), (first * math.nan, "not finite")):
        with pytest.raises(GenoptError, match=match):
            c2st(bad, second)


# -- figures ---------------------------------------------------------------------------------------
def test_rank_bars_hold_every_condition():
    ranks = rank_calibration(Scaled(), ROWS.x[:300], ROWS.y[:300], draws=20)
    figure = plot_ranks(ranks, "ranks")
    for axes, name in zip(figure.axes, ranks.columns, strict=True):
        bars = [patch.get_height() for patch in axes.patches[1:]]
        assert sum(bars) == 300
        assert len(bars) == 20
        assert axes.get_title().startswith(f"{name}: p = ")


def test_coverage_curve_passes_its_own_numbers():
    levels = torch.linspace(0.0, 1.0, 101).double() ** 2
    figure = plot_coverage([Coverage(levels), Coverage(1.0 - levels, "other")])
    first, other = figure.axes
    assert other.get_title() == "other"
    x, y = first.lines[1].get_data()
    # the share of squares below .25 is the share of numbers below .5
    assert y[list(x).index(0.25)] == pytest.approx(51 / 101)
    assert "50 %: 70 % inside" in first.texts[0].get_text()


def test_pairs_show_draws_exact_draws_and_answers():
    draws = ROWS.x[:200]
    answer = Answer(torch.tensor([4.0, 0.0, -4.0]).double(), torch.zeros(3))
    figure = plot_pairs(draws, PROBLEM.x_space, [answer], ROWS.x[200:400], "pairs")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 9
    lower = figure.axes[3]
    points = lower.lines[0].get_xydata()
    assert points == pytest.approx(draws[:, :2].numpy())
    assert lower.lines[1].get_xydata().tolist() == [[4.0, 0.0]]
    assert lower.get_xlim()[1] > 4.0
    assert lower.get_xlabel() == ""
    assert figure.axes[6].get_xlabel() == "x1"
    assert figure.axes[6].get_ylabel() == "x3"
    upper = figure.axes[1].lines[0].get_xydata()
    assert upper == pytest.approx(ROWS.x[200:400][:, [1, 0]].numpy())
    few = plot_pairs(draws * torch.tensor([1.0, 9.0, 5.0]), PROBLEM.x_space, most=2)
    assert [a.get_xlabel() for a in few.axes if a.get_xlabel()] == ["x2", "x3"]
    assert sum(a.get_visible() for a in few.axes) == 3
