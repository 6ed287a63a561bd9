"""Draws under constraints follow the law they promise: Gaussians with known conditionals."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genopt import Constraint, GenoptError, Space
from genopt.constraint import read_constraints
from genopt.routines.constraints.drawing import Constrained, constrained_draws
from genopt.routines.constraints.rules import Rules, rules_of
from genopt.routines.constraints.source import Source

ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.3, 0.2, 0.5]]).double()
COVARIANCE = ROOT @ ROOT.T
MEAN = torch.tensor([0.5, -0.2, 0.1]).double()
SPACE = Space.from_bounds([(-20.0, 20.0)] * 3)
PLANE = Space.from_bounds([(-20.0, 20.0)] * 2)


def gaussian(shift=(0.0,), seed: int = 0, noise: bool = True) -> Source:
    """Gaussians with one mean for each condition."""
    moved = torch.tensor(shift).double()

    def carry(z, rows):
        return MEAN + moved[rows, None, None] + z @ ROOT.T

    generator = torch.Generator().manual_seed(seed)

    def draw(rows, n):
        return carry(torch.randn(len(rows), n, 3, generator=generator).double(), rows)

    if noise:
        return Source(len(shift), SPACE, generator, transport=carry, width=3)
    return Source(len(shift), SPACE, generator, draw)


def standard(seed: int = 0) -> Source:
    """A standard normal law in the plane."""
    generator = torch.Generator().manual_seed(seed)
    return Source(1, PLANE, generator, transport=lambda z, _: z, width=2)


def rules(texts, space: Space = SPACE) -> Rules:
    found = rules_of(read_constraints(texts, space), space)
    assert found is not None
    return found


def given_plane(a, b: float, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the Gaussian given a @ x = b."""
    a = torch.tensor(a).double()
    gain = COVARIANCE @ a / (a @ COVARIANCE @ a)
    return mean + gain * (b - a @ mean), COVARIANCE - torch.outer(gain, a @ COVARIANCE)


@pytest.mark.parametrize(("method", "noise"), [("select", True), ("select", False), ("smc", True)])
def test_a_linear_equality_gives_the_gaussians_conditional(method, noise):
    source = gaussian((0.0, 0.7), noise=noise)
    found = constrained_draws(source, rules("x1 + 2 * x2 - x3 == 1"), 1500, method=method)
    assert bool(found.valid.all())
    assert float((found.x @ torch.tensor([1.0, 2.0, -1.0]).double() - 1).abs().max()) <= 1e-8
    for x, shift in zip(found.x, (0.0, 0.7), strict=True):
        mean, covariance = given_plane([1.0, 2.0, -1.0], 1.0, MEAN + shift)
        scatter = covariance.diagonal().sqrt()
        assert float(((x.mean(0) - mean) / scatter).abs().max()) < 0.1
        assert float((torch.cov(x.T) - covariance).norm() / covariance.norm()) < 0.12


def test_a_rare_equality_is_reached_through_the_noise():
    # eight standard deviations off
    a = [1.0, 2.0, -1.0]
    off = math.sqrt(float(torch.tensor(a).double() @ COVARIANCE @ torch.tensor(a).double()))
    b = float(torch.tensor(a).double() @ MEAN) + 8.0 * off
    found = constrained_draws(gaussian(), rules(f"x1 + 2 * x2 - x3 == {b!r}"), 1500)
    assert found.report["method"] == "smc"
    assert found.report["targets_without_law"] == 0
    mean, covariance = given_plane(a, b, MEAN)
    x = found.x[0]
    assert float(((x.mean(0) - mean) / covariance.diagonal().sqrt()).abs().max()) < 0.15
    assert float((torch.cov(x.T) - covariance).norm() / covariance.norm()) < 0.15


def test_wider_shells_serve_where_few_draws_fall_within_the_narrow_ones():
    # two and a half standard deviations off: .2 % within a shell of .05, .9 % within one of .25
    a = [1.0, 2.0, -1.0]
    off = math.sqrt(float(torch.tensor(a).double() @ COVARIANCE @ torch.tensor(a).double()))
    b = float(torch.tensor(a).double() @ MEAN) + 2.5 * off
    found = constrained_draws(gaussian(), rules(f"x1 + 2 * x2 - x3 == {b!r}"), 1500, tries=300)
    assert found.report["method"] == "select"
    assert found.report["acceptance"] * 300 < 1.0
    assert found.report["targets_without_law"] == 0
    mean, covariance = given_plane(a, b, MEAN)
    x = found.x[0]
    assert float(((x.mean(0) - mean) / covariance.diagonal().sqrt()).abs().max()) < 0.1
    assert float((torch.cov(x.T) - covariance).norm() / covariance.norm()) < 0.12


def angle_law(slope) -> tuple[np.ndarray, np.ndarray]:
    """Distribution function of the angle on the ellipse x^2 + 4 y^2 = 4: density over slope."""
    angle = np.linspace(-np.pi, np.pi, 20_001)
    x, y = 2.0 * np.cos(angle), np.sin(angle)
    arc = np.hypot(2.0 * np.sin(angle), np.cos(angle))
    density = np.exp(-0.5 * (x**2 + y**2)) * arc / slope(x, y)
    total = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return angle, total / total[-1]


@pytest.mark.parametrize(
    ("text", "slope"),
    [
        ("x1**2 + 4 * x2**2 == 4", lambda x, y: np.hypot(2 * x, 8 * y)),
        # the same curve, written with another slope, is another law
        (
            "exp(x1) * (x1**2 + 4 * x2**2 - 4) == 0",
            lambda x, y: np.exp(x) * np.hypot(2 * x, 8 * y),
        ),
    ],
)
@pytest.mark.parametrize("method", ["select", "smc"])
def test_a_curved_equality_has_the_law_of_thin_shells(text, slope, method):
    found = constrained_draws(standard(1), rules(text, PLANE), 2000, method=method)
    x = found.x[0].numpy()
    angle = np.arctan2(x[:, 1], x[:, 0] / 2.0)
    grid, law = angle_law(slope)
    gap = stats.kstest(angle, lambda a: np.interp(a, grid, law)).statistic
    assert gap < 0.06
    other = angle_law(lambda x, y: np.hypot(2 * x, 8 * y))[1]
    if "exp" in text:
        assert stats.kstest(angle, lambda a: np.interp(a, grid, other)).statistic > 0.12


def test_an_inequality_gives_the_truncated_law():
    found = constrained_draws(gaussian(noise=False), rules("x1 >= 1.5"), 2000, method="select")
    x = found.x[0]
    assert float(x[:, 0].min()) >= 1.5
    truth = stats.truncnorm(1.0, np.inf, loc=0.5, scale=1.0)
    assert stats.kstest(x[:, 0].numpy(), truth.cdf).statistic < 0.04
    # the other columns follow along the regression line
    rest = x[:, 1] - 0.6 * (x[:, 0] - 0.5)
    assert stats.kstest(rest.numpy(), stats.norm(-0.2, 0.8).cdf).statistic < 0.04


def test_a_rare_black_box_inequality_is_reached_through_the_noise():
    rule = Constraint(
        lambda x: torch.from_numpy(5.0 - x.detach().numpy()[..., 0]),
        kind="inequality",
        differentiable=False,
    )
    found = constrained_draws(gaussian(), rules([rule]), 1500)
    assert found.report["method"] == "smc"
    assert found.report["acceptance"] == 0.0
    first = found.x[0, :, 0]
    assert float(first.min()) >= 5.0 - 1e-8
    truth = stats.truncnorm(4.5, np.inf, loc=0.5, scale=1.0)
    assert stats.kstest(first.numpy(), truth.cdf).statistic < 0.12


def test_each_condition_takes_the_way_it_needs():
    found = constrained_draws(gaussian((0.0, -9.0)), rules("x1 >= 1"), 400)
    assert found.report["method"] == "select+smc"
    assert bool(found.valid.all())
    assert float(found.x[..., 0].min()) >= 1.0 - 1e-8


def test_the_gradient_finds_the_most_usual_design():
    found = constrained_draws(gaussian(), rules("x1 + 2 * x2 - x3 == 4"), 20, method="gradient")
    # the most probable point of a Gaussian on a plane is the mean given the plane
    mean, _ = given_plane([1.0, 2.0, -1.0], 4.0, MEAN)
    assert float((found.x[0] - mean).abs().max()) < 0.1

    def objective(x, rows):
        assert len(rows) == len(x)
        return (x[..., 0] - 2.0).square() + x[..., 1].square()

    found = constrained_draws(
        gaussian(), rules("x1 <= 1"), 20, method="gradient", objective=objective
    )
    assert float((found.x[0, :, 0] - 1.0).abs().max()) < 0.03
    assert float(found.x[0, :, 1].abs().max()) < 0.05


def test_integers_are_selected_exactly():
    space = Space.from_bounds([(0.0, 9.0)] * 2)
    space = Space(tuple(type(v)(v.name, 0, 9, kind="integer") for v in space))
    generator = torch.Generator().manual_seed(0)

    def draw(rows, n):
        return torch.randint(0, 10, (len(rows), n, 2), generator=generator).double()

    found = constrained_draws(Source(1, space, generator, draw), rules("x1 * x2 == 12", space), 400)
    pairs = {tuple(pair) for pair in found.x[0].tolist()}
    assert pairs == {(2.0, 6.0), (6.0, 2.0), (3.0, 4.0), (4.0, 3.0)}
    assert found.report["targets_without_law"] == 0


@pytest.mark.parametrize("noise", [True, False])
def test_what_nothing_keeps_ends_with_a_report(noise):
    calls = []

    def never(x):
        calls.append(x[..., 0].numel())
        return 1.0 + x[..., 0] ** 2

    rule = Constraint(never, kind="inequality", name="never")
    with pytest.raises(GenoptError, match=r"no design keeps .*0 % of .* draws keep 'never'"):
        constrained_draws(gaussian(noise=noise), rules([rule]), 50, tries=40)
    # the tries bound the draws; the projection adds its steps for the designs themselves
    assert sum(calls) < 40 * 50 + 100_000


def test_the_same_seed_gives_the_same_designs():
    def run(seed: int) -> Constrained:
        return constrained_draws(gaussian(seed=seed), rules("x1 * x2 == 0.3"), 100, method="smc")

    assert torch.equal(run(3).x, run(3).x)
    assert not torch.equal(run(3).x, run(4).x)


def test_tries_bound_the_draws():
    with pytest.warns(UserWarning, match="few of the model's draws come near"):
        found = constrained_draws(
            gaussian(noise=False), rules("x1 + x2 + x3 == 6"), 100, tries=10, method="select"
        )
    assert found.report["tries"] <= 10 * 100
    # too few came near: the nearest were moved, and it is said
    assert found.report["targets_without_law"] == 1
    assert float((found.x.sum(-1) - 6).abs().max()) <= 1e-8
