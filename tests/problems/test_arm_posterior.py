"""The exact posterior of arm_kinematics against a brute-force importance sample of the prior."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genopt.errors import GenoptError
from genopt.problems import ArmKinematics
from genopt.problems.arm_kinematics import CONDITIONAL_SIGMA, conditional_mean

ARM = ArmKinematics()


def brute_force(y: tuple[float, float], draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles of the prior with y1 within .004, and x1 from y2, with weights (n, 4), (n,)."""
    rng = np.random.default_rng(0)
    angles = rng.normal(0.0, 0.5, (draws, 3))
    turned = angles.cumsum(1)
    along = 0.5 * np.cos(turned[:, 0]) + 0.5 * np.cos(turned[:, 1]) + np.cos(turned[:, 2])
    near = np.abs(along - y[0]) < 0.004
    turned, angles = turned[near], angles[near]
    across = 0.5 * np.sin(turned[:, 0]) + 0.5 * np.sin(turned[:, 1]) + np.sin(turned[:, 2])
    rail = y[1] - across
    weight = np.exp(-0.5 * (rail / 0.25) ** 2)
    return np.column_stack([rail, angles]), weight / weight.sum()


@pytest.mark.parametrize(
    ("y", "n", "draws"),
    [
        ((1.7, 0.5), 10_000, 4_000_000),
        ((1.95, 0.1), 4000, 1_000_000),
        ((0.999, 1.4), 2000, 1_500_000),
    ],
)
def test_distribution(y: tuple[float, float], n: int, draws: int) -> None:
    exact = ARM.posterior(torch.tensor(y), n=n, seed=4).numpy()
    reference, weight = brute_force(y, draws)
    effective = 1.0 / np.square(weight).sum()
    assert effective > 300
    limit = 1.8 * np.sqrt(1 / n + 1 / effective)
    # the four coordinates and some combinations that tell the branches apart
    views = np.vstack([np.eye(4), [0, 1, -1, 0], [0, 0, 1, -1], [0, 2, 1, 0], [0, 0, 1, 1]])
    for view in views:
        order = np.argsort(reference @ view)
        points = (reference @ view)[order]
        cumulative = weight[order].cumsum()
        own = np.searchsorted(np.sort(exact @ view), points, side="right") / len(exact)
        assert np.abs(own - cumulative).max() < limit


def test_the_prior_of_one_link_given_the_others() -> None:
    """Gaussian conditioning by the precision matrix of the directions."""
    walk = np.tril(np.ones((3, 3)))
    precision = np.linalg.inv(walk @ np.diag([0.5**2] * 3) @ walk.T)
    links = np.random.default_rng(1).normal(size=(3, 3))
    for i in range(3):
        others = [j for j in range(3) if j != i]
        mean = -links[:, others] @ precision[i, others] / precision[i, i]
        own = conditional_mean(torch.from_numpy(links), torch.full((3,), i))
        np.testing.assert_allclose(own.numpy(), mean, atol=1e-14)
        assert pytest.approx(precision[i, i] ** -0.5) == CONDITIONAL_SIGMA[i]


def test_every_draw_is_an_answer_inside_the_bounds() -> None:
    y = torch.tensor([[1.7, 0.5], [1.2, -1.2]], dtype=torch.float64)
    x = ARM.posterior(y, n=300, seed=1)
    assert x.shape == (2, 300, 4)
    torch.testing.assert_close(
        ARM.simulate(x), y.unsqueeze(1).expand(2, 300, 2), rtol=0, atol=1e-12
    )
    assert bool(ARM.x_space.contains(x, tolerance=0.0).all())


def test_seeds() -> None:
    y = torch.tensor([1.7, 0.5])
    assert torch.equal(ARM.posterior(y, 50, seed=2), ARM.posterior(y, 50, seed=2))
    assert not torch.equal(ARM.posterior(y, 50, seed=2), ARM.posterior(y, 50, seed=4))


@pytest.mark.parametrize("y1", [2.0, -2.5])
def test_out_of_reach(y1: float) -> None:
    with pytest.raises(GenoptError, match="out of reach"):
        ARM.posterior(torch.tensor([y1, 0.0]))


def test_hardly_possible() -> None:
    with pytest.raises(GenoptError, match="too rare under the prior"):
        ARM.posterior(torch.tensor([1.99, 3.2]), n=1000)


def test_the_design_follows_the_prior() -> None:
    x = ARM.design(40_000, seed=0)
    spread = torch.tensor([0.25, 0.5, 0.5, 0.5], dtype=torch.float64)
    torch.testing.assert_close(x.std(0) / spread, torch.ones_like(spread), rtol=0.02, atol=0)
    assert float((x / spread).mean(0).abs().max()) < 0.025
    assert float(((x / spread).abs() < 1.0).double().mean()) == pytest.approx(0.6827, abs=0.005)
