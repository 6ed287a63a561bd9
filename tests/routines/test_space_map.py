"""`space_map`: regions of outputs against closed forms of the area and the inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genopt import GenoptError, Goal, Mixture, Space
from genopt.problems import Problem
from genopt.problems.cstr_mapping import CstrMapping
from genopt.routines.space_map import OutOfReachWarning, check_space_map, space_map
from genopt.routines.space_map_region import Region

X = Space.of(a=(-1.0, 1.0), b=(-1.0, 1.0))
Y = Space.of(u=(-2.0, 2.0), v=(-2.0, 2.0))
DISK = ["(u - 0.5)**2 + v**2 <= 0.04"]
BOX = {"u": {"between": [0.0, 1.0]}, "v": {"between": [-0.5, 0.5]}}


class Turned(Problem):
    """A rotation by 30 degrees, whose inverse is its transpose."""

    matrix = torch.tensor(
        [[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]], dtype=torch.float64
    )

    def __init__(self) -> None:
        super().__init__("turned", X, Y, BOX)

    def simulate(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.float64) @ self.matrix.T


@pytest.fixture(scope="module")
def turned() -> Mixture:
    table = Turned().table(200)
    return Mixture(X, Y, max_components=2).fit(table.x, table.y)


class TestRegion:
    def test_points_are_uniform_in_a_disk(self) -> None:
        y = Region.of(Goal(BOX, X, Y), DISK).draw(4000)
        assert y.shape == (4000, 2)
        radius = (y - torch.tensor([0.5, 0.0])).norm(dim=1).numpy()
        assert radius.max() <= 0.2
        # of a uniform disk, r^2 is uniform
        shares = np.histogram(radius**2, bins=8, range=(0.0, 0.04))[0] / 4000
        np.testing.assert_allclose(shares, 1.0 / 8.0, atol=0.02)

    def test_a_polygon_is_one_rule_for_each_side(self) -> None:
        triangle = Region.of(Goal(BOX, X, Y), ["u + v <= 0.5", "v >= 0"])
        y = triangle.draw(3000)
        # the centroid of (0,0), (.5,0), (0,.5)
        np.testing.assert_allclose(y.mean(0).numpy(), [1.0 / 6.0, 1.0 / 6.0], atol=0.01)

    def test_a_value_is_the_interval_of_its_tolerance(self) -> None:
        goal = Goal({"u": {"equals": 0.5, "tolerance": 0.1}}, X, Y)
        region = Region.of(goal)
        assert (float(region.lower), float(region.upper)) == pytest.approx((0.4, 0.6))
        y = region.draw(50)
        assert bool(torch.isnan(y[:, 1]).all())
        assert bool(region.contains(y).all())

    def test_a_rule_widens_the_value_of_its_column(self) -> None:
        region = Region.of(Goal({"u": 0.5, "v": 0.0}, X, Y), DISK)
        assert region.lower.tolist() == [-2.0, -2.0]
        inside = region.contains(torch.tensor([[0.65, 0.1], [0.65, 0.15], [float("nan"), 0.0]]))
        assert inside.tolist() == [True, False, False]

    @pytest.mark.parametrize(
        ("spec", "rules", "message"),
        [
            ({"u": "min"}, None, "no region"),
            ({"u": [0.1, 0.2]}, None, "one region"),
            (BOX, ["u == v"], "only a line"),
            (BOX, ["u >= 1.5"], "none of 8192"),
        ],
    )
    def test_what_is_no_region_is_refused(
        self, spec: dict[str, object], rules: object, message: str
    ) -> None:
        with pytest.raises(GenoptError, match=message):
            check_space_map(Mixture(X, Y), Goal(spec, X, Y), region=rules)


class TestSpaceMap:
    def test_designs_are_the_turned_disk(self, turned: Mixture) -> None:
        problem = Turned()
        found = space_map(turned, Goal(BOX, X, Y), problem=problem, region=DISK, samples=300)
        assert found.shape == (1, 300)
        targets = torch.tensor(found.header["targets"])
        torch.testing.assert_close(
            found.x[0].float(), targets @ problem.matrix.float(), atol=2e-3, rtol=0
        )
        numbers = found.header["numbers"]
        assert numbers["inside"] >= 0.98
        assert numbers["round_trip_median"] < 1e-3
        assert numbers["calls"] == 300

    def test_steps_on_the_simulator_end_on_the_targets(self) -> None:
        problem = CstrMapping()
        table = problem.table(128)
        model = Mixture(problem.x_space, problem.y_space, max_components=4, criterion="bic")
        model.fit(table.x, table.y)
        goal = Goal(
            {"C_A": {"between": [0.5, 0.66]}, "C_B": {"between": [0.22, 0.38]}},
            problem.x_space,
            problem.y_space,
        )
        disk = ["(C_A - 0.58)**2 + (C_B - 0.30)**2 <= 0.0064"]
        rough = space_map(model, goal, problem=problem, region=disk, samples=100)
        exact = space_map(model, goal, problem=problem, region=disk, samples=100, refine=True)
        targets = torch.tensor(exact.header["targets"], dtype=torch.float64)
        torch.testing.assert_close(exact.x[0], problem.inverse(targets), atol=1e-6, rtol=0)
        assert rough.header["numbers"]["round_trip_median"] > 1e-3
        assert exact.header["numbers"]["calls"] > 100
        assert bool(problem.in_disk(exact.y_verified[0]).all())

    def test_a_held_column_stays(self, turned: Mixture) -> None:
        goal = Goal({"u": {"between": [0.0, 0.5]}, "b": 0.25}, X, Y)
        found = space_map(turned, goal, problem=Turned(), samples=50)
        assert bool((found.x[..., 1] == 0.25).all())
        # u = cos a - sin b
        reach = math.cos(0.5) * found.x[0, :, 0] - math.sin(0.5) * 0.25
        assert float(((reach > -0.01) & (reach < 0.51)).double().mean()) == 1.0

    def test_what_lies_outside_the_data_is_left_out_or_refused(self, turned: Mixture) -> None:
        far = Goal({"u": {"between": [-2.0, 2.0]}, "v": {"between": [-2.0, 2.0]}}, X, Y)
        with pytest.warns(OutOfReachWarning, match="no designs"):
            found = space_map(turned, far, problem=Turned(), samples=200, abstain=True)
        # the turned square of side 2 covers a quarter of the region; a Gaussian's edge is soft
        assert 0.15 < found.header["numbers"]["reach"] < 0.6
        beyond = Goal({"u": {"between": [1.9, 2.0]}, "v": {"between": [1.9, 2.0]}}, X, Y)
        table = Turned().table(200)
        with pytest.raises(GenoptError, match="nearest measured row has u = "):
            space_map(turned, beyond, table=table, samples=20, abstain=True)

    def test_mistakes_are_named(self, turned: Mixture) -> None:
        goal = Goal(BOX, X, Y)
        with pytest.raises(GenoptError, match="works with model=mixture or model=flow"):
            space_map(object(), goal)
        with pytest.raises(GenoptError, match="samples must be at least 1"):
            space_map(turned, goal, samples=0)
        with pytest.raises(GenoptError, match="needs a simulator"):
            space_map(turned, goal, refine=True)
