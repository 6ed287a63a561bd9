"""A flow between two sets of points: exact optimal maps, way back, files, readable mistakes."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from genopt import GenoptError, SampleFlow
from genopt.errors import UnknownNameError

SMALL = {"kind": "adaln", "width": 32, "depth": 2}
STD_0, STD_1 = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])
SHIFT = torch.tensor([3.0, -500.0])


def normal(n, seed=0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def gaussians():
    flow = SampleFlow(2, network=SMALL, epochs=20, batch_size=256, learning_rate=4e-3)
    return flow.fit(normal(3000) * STD_0, SHIFT + normal(3000, 1) * STD_1)


def moons(n, seed):
    rng = np.random.default_rng(seed)
    angle, upper = np.pi * rng.random(n), rng.random(n) < 0.5
    arc = np.stack([np.cos(angle), np.sin(angle)], 1)
    arc = np.where(upper[:, None], arc, np.array([1.0, 0.5]) - arc)
    return torch.from_numpy(arc + 0.05 * rng.normal(size=(n, 2)))


@pytest.fixture(scope="module")
def moons_to_normal():
    flow = SampleFlow(2, network=SMALL, epochs=25, batch_size=256, learning_rate=4e-3)
    return flow.fit(moons(3000, 0), normal(3000, 1))


def test_between_gaussians_it_is_the_map_of_optimal_transport(gaussians):
    points = normal(2000, 5) * STD_0
    # of diagonal Gaussians: a shift and a scale for each column
    exact = SHIFT + points * (STD_1 / STD_0)
    error = (gaussians.transport(points) - exact) / STD_1
    assert float(error.square().mean().sqrt()) < 0.15
    moved = gaussians.transport(points)
    torch.testing.assert_close(moved.mean(0), SHIFT.double(), atol=0.3, rtol=0)
    torch.testing.assert_close(moved.std(0), STD_1.double(), atol=0, rtol=0.1)


def test_pairs_at_random_reach_the_same_set_on_another_map():
    # the velocity is then the mean over crossing lines; the ends are as good, the ways are not
    start, end = normal(2000) * STD_0, normal(2000, 1) * STD_0
    far = {}
    for coupling in ("ot", "independent"):
        flow = SampleFlow(2, network=SMALL, coupling=coupling, epochs=8, learning_rate=4e-3)
        moved = flow.fit(start, end).transport(start)
        torch.testing.assert_close(moved.std(0), STD_0.double(), atol=0, rtol=0.12)
        way = flow.transport(start, return_trajectory=True)
        length = (way[:, 1:] - way[:, :-1]).norm(dim=-1).sum(1)
        far[coupling] = float(length.mean())
    # equal sets: the optimal map leaves every point where it is
    assert far["ot"] < 0.5 * far["independent"]


def test_two_moons_become_normal_and_come_back(moons_to_normal):
    fresh = moons(2000, 7)
    moved = moons_to_normal.transport(fresh)
    for column in moved.T:
        # Kolmogorov-Smirnov distance to the normal; .036 is the 1 % point of exact draws
        assert kstest(column.numpy(), "norm").statistic < 0.09
    assert abs(float(torch.corrcoef(moved.T)[0, 1])) < 0.1
    torch.testing.assert_close(moons_to_normal.inverse(moved, n_steps=32), fresh, atol=0.03, rtol=0)


def test_normal_points_become_moons(moons_to_normal):
    drawn = moons_to_normal.inverse(normal(1000, 9))
    true = moons(4000, 11)
    # how far draws lie from the moons, beside fresh draws of the moons themselves
    far = torch.cdist(drawn, true).min(1).values.median()
    typical = torch.cdist(moons(1000, 13), true).min(1).values.median()
    assert float(far) < 4 * float(typical)


def test_trajectories_lead_from_the_points_to_where_they_go(gaussians):
    points = normal(50, 3) * STD_0
    way = gaussians.transport(points, return_trajectory=True)
    assert way.shape == (50, len(gaussians.times), 2)
    torch.testing.assert_close(way[:, 0], points.double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(way[:, -1], gaussians.transport(points))
    back = gaussians.inverse(points, n_steps=4, return_trajectory=True)
    torch.testing.assert_close(back[:, -1], gaussians.inverse(points, n_steps=4))
    assert back.shape == (50, 5, 2)


def test_points_do_not_influence_one_another_and_gradients_flow(gaussians):
    points = (normal(6, 3) * STD_0).double().requires_grad_(True)
    moved = gaussians.transport(points)
    torch.testing.assert_close(moved[2:3], gaussians.transport(points[2:3]), atol=1e-3, rtol=0)
    (slope,) = torch.autograd.grad(moved[0, 0], points)
    # the exact map scales the first column by a half
    assert float(slope[0, 0]) == pytest.approx(0.5, abs=0.15)
    assert not slope[1:].any()


def test_a_saved_flow_moves_points_alike(gaussians, tmp_path):
    points = normal(20, 4)
    again = SampleFlow.load(gaussians.save(tmp_path / "flow.ckpt"))
    assert torch.equal(again.transport(points), gaussians.transport(points))
    assert again.history == gaussians.history


def test_the_same_seed_gives_the_same_flow():
    sets = normal(200), 2 + normal(200, 1)
    one, two = (SampleFlow(2, SMALL, epochs=2, seed=3).fit(*sets) for _ in range(2))
    assert torch.equal(one.transport(sets[0]), two.transport(sets[0]))
    other = SampleFlow(2, SMALL, epochs=2, seed=4).fit(*sets)
    assert not torch.equal(one.transport(sets[0]), other.transport(sets[0]))


def test_a_column_that_never_moves_stays():
    start = torch.cat([normal(300)[:, :1], torch.full((300, 1), 7.0)], 1)
    flow = SampleFlow(2, SMALL, epochs=3).fit(start, start + torch.tensor([1.0, 0.0]))
    moved = flow.transport(start)
    assert bool(torch.isfinite(moved).all())
    assert float((moved[:, 1] - 7.0).abs().max()) < 0.5


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: SampleFlow(0), "dim=0"),
        (lambda: SampleFlow(2, group=1), "group=1"),
        (lambda: SampleFlow(2, epochs=0), "epochs"),
        (lambda: SampleFlow(2, sampler="sde"), "sampler=sde"),
        (lambda: SampleFlow(2).transport(normal(3)), "not fitted"),
        (lambda: SampleFlow(2).fit(normal(50), normal(50)[:, :1]), r"x1 has shape \(50, 1\)"),
        (lambda: SampleFlow(2).fit(normal(50) / 0, normal(50)), "x0 holds entries"),
        (lambda: SampleFlow(2).fit(normal(50), normal(2)), "x1 has 2 points"),
        (lambda: SampleFlow(2).fit(normal(50), normal(50), validation=1.0), "validation=1.0"),
        (lambda: SampleFlow(2).fit("ab", normal(50)), "x0 must be an array"),
    ],
)
def test_mistakes_are_named(work, message):
    with pytest.raises(GenoptError, match=message):
        work()


def test_unknown_couplings_are_named():
    with pytest.raises(UnknownNameError, match="coupling"):
        SampleFlow(2, coupling="conditional_ot")
