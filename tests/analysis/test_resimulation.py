"""Re-simulation curves against numbers worked out by hand, with scipy and with known answers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist

from genopt import Goal, Space
from genopt.analysis.plots.resimulation import plot_resimulation
from genopt.analysis.resimulation import (
    PUBLISHED,
    ResimulationCurve,
    curve_scores,
    exact_draws,
    held_out_curves,
    mmd2,
    resimulation_curve,
    running_diversity,
)
from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.problems.robot_arm import RobotArm
from genopt.problems.sine_wave import SineWave

X = Space.of(a=(0.0, 2.0), b=(0.0, 2.0))
Y = Space.of(c=(0.0, 9.0), d=(0.0, 9.0))


def proposals(verified, goal, x=None):
    y = torch.tensor(verified, dtype=torch.float64)
    x = torch.zeros(*y.shape[:2], 2, dtype=torch.float64) if x is None else x
    return Candidates.from_claims(Goal(goal, X, Y), x, y).verified_by(y)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_curve_by_hand():
    # squared misses of the named column: (4, 1, 9) and (1, 16, 0)
    found = proposals(
        [[[3.0, 5.0], [2.0, 0.0], [4.0, 1.0]], [[1.0, 0.0], [6.0, 0.0], [2.0, 7.0]]],
        {"c": [1.0, 2.0]},
    )
    curve = resimulation_curve(found)
    assert curve.error.tolist() == [2.5, 1.0, 0.5]
    assert curve.proposals.tolist() == [1, 2, 3]
    assert curve.scores((1, 2, 10)) == {"r_1": 2.5, "r_2": 1.0, "diversity_2": 0.0}
    both = resimulation_curve(found, torch.tensor([[1.0, 1.0], [2.0, 0.0]]).double())
    assert both.at(1) == pytest.approx((10.0 + 0.5) / 2)


def test_a_failed_simulation_is_never_the_best():
    found = proposals([[[math.nan, 0.0], [3.0, 0.0]]], {"c": 1.0})
    assert resimulation_curve(found).error.tolist() == [math.inf, 4.0]


def test_diversity_of_the_first_proposals_against_scipy():
    points = torch.rand(3, 6, 4, dtype=torch.float64, generator=generator())
    every = running_diversity(points)
    assert every[0] == 0.0
    for count in (2, 4, 6):
        wanted = np.mean([pdist(p[:count].numpy()).mean() / 2.0 for p in points])
        assert float(every[count - 1]) == pytest.approx(wanted, rel=1e-9)


def test_discrepancy_against_pairwise_sums():
    a = torch.rand(2, 5, 3, dtype=torch.float64, generator=generator(1))
    b = torch.rand(2, 7, 3, dtype=torch.float64, generator=generator(2)) + 0.2

    def kernel(u, v):
        square = cdist(u.numpy(), v.numpy(), "sqeuclidean")
        return sum(1 / (1 + square / h**2) for h in (0.05, 0.2, 0.9))

    for got, u, v in zip(mmd2(a, b), a, b, strict=True):
        own = [k[~np.eye(len(k), dtype=bool)].mean() for k in (kernel(u, u), kernel(v, v))]
        assert float(got) == pytest.approx(sum(own) - 2 * kernel(u, v).mean(), rel=1e-9)


def test_discrepancy_is_unbiased_and_sees_collapse():
    draws = torch.randn(400, 2, 20, 1, dtype=torch.float64, generator=generator(3))
    same = mmd2(draws[:, 0], draws[:, 1])
    assert abs(float(same.mean())) < 4 * float(same.std()) / math.sqrt(len(same))
    collapsed = draws[:, 0, :1].expand(-1, 20, -1)
    assert float(mmd2(collapsed, draws[:, 1]).mean()) > 0.5


@pytest.mark.parametrize("problem", [RobotArm(), SineWave()])
def test_exact_draws_give_an_exact_curve(problem):
    targets = problem.table(3, seed=5).y
    exact = exact_draws(problem, targets, 120)
    goal = Goal(
        dict(zip(problem.y_space.names, targets.T.tolist(), strict=True)),
        problem.x_space,
        problem.y_space,
    )
    first, second = exact[:, :60], exact[:, 60:]
    found = Candidates.from_claims(goal, first, problem.simulate(first))
    found = found.verified_by(problem.simulate(first))
    curve = resimulation_curve(found, exact=second)
    assert curve.at(1) < 1e-20
    assert abs(curve.mmd2) < 0.05
    alike = Candidates.from_claims(goal, first[:, :1].expand(-1, 60, -1), found.y_verified)
    alike = alike.verified_by(found.y_verified)
    same = resimulation_curve(alike, exact=second)
    # re-simulation alone does not tell them apart
    assert same.at(50) < 1e-20
    assert same.mmd2 > 0.3
    assert float(same.diversity[-1]) == 0.0 < float(curve.diversity[-1])


def test_what_cannot_be_compared_is_said():
    found = proposals([[[1.0, 1.0]]], {"c": 1.0})
    claims = found.y_predicted
    with pytest.raises(GenoptError, match="verify them first"):
        resimulation_curve(Candidates.from_claims(Goal({"c": 1.0}, X, Y), found.x, claims))
    with pytest.raises(GenoptError, match=r"targets has shape \(2, 2\); expected \(1, 2\)"):
        resimulation_curve(found, torch.ones(2, 2))
    with pytest.raises(GenoptError, match="names no value"):
        resimulation_curve(proposals([[[1.0, 1.0]]], {"c": "max"}))
    with pytest.raises(GenoptError, match="r_5 needs 5 proposals"):
        resimulation_curve(found).at(5)
    with pytest.raises(GenoptError, match="two points"):
        mmd2(torch.ones(1, 2), torch.ones(3, 2))
    with pytest.raises(GenoptError, match="exact has shape"):
        resimulation_curve(found, exact=torch.ones(3, 2))
    assert exact_draws(object(), torch.ones(1, 2)) is None


class Half:
    """A model that is right where a is below one and off by five elsewhere; the truth is zero."""

    x_space, y_space = X, Y

    def predict_y(self, x):
        return torch.where(x[..., :1] < 1.0, 0.0, 5.0).expand_as(x)


def test_a_study_ranks_by_what_the_model_knows():
    x = 2.0 * torch.rand(200, 2, dtype=torch.float64, generator=generator(4))
    train = Table(x, torch.zeros_like(x), X, Y)
    designs = torch.tensor([[[1.8, 1.0], [0.2, 1.0]]], dtype=torch.float64)
    # both claim the same; only the second is true
    claims = torch.zeros(1, 2, 2, dtype=torch.float64)
    truth = torch.tensor([[[5.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    found = Candidates.from_claims(Goal({"c": 0.0}, X, Y), designs, claims).verified_by(truth)
    curves = held_out_curves(found, train, Half())
    assert curves["by claim"].error.tolist() == [25.0, 0.0]
    assert curves["by expected loss"].error.tolist() == [0.0, 0.0]
    scores = curve_scores(curves)
    assert scores["resimulation/r_1"] == 0.0
    assert scores["resimulation/claimed/r_1"] == 25.0
    assert list(held_out_curves(found, train)) == ["by claim"]
    own = replace(found, y_spread=torch.tensor([[[0.0, 9.0], [1.0, 9.0]]]).double())
    # a spread of its own goes first
    assert held_out_curves(own, train, Half())["by expected loss"].at(1) == 25.0


def test_figure_shows_curves_and_published_points(tmp_path):
    count = torch.arange(1, 51)
    curve = ResimulationCurve(count, 1e-6 / count, 5e-7 / count, count / 500.0)
    figure = plot_resimulation({"by claim": curve}, PUBLISHED["robot_arm"], "robot_arm")
    left, right = figure.axes
    assert left.get_xscale() == left.get_yscale() == "log"
    np.testing.assert_allclose(left.lines[0].get_ydata(), curve.error.numpy())
    assert {2.3e-4, 1.1e-5, 2.6e-6} <= {float(v) for line in left.lines for v in line.get_ydata()}
    assert len(right.lines[0].get_ydata()) == 49
    figure.savefig(tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 5000
