"""Rastrigin, ZDT1 and the two problems of Ren et al.: digits, fronts and exact posteriors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize

from genopt.errors import GenoptError
from genopt.problems.rastrigin import Rastrigin
from genopt.problems.rejection import collect, copies
from genopt.problems.robot_arm import RobotArm
from genopt.problems.roots import root_shares, simple_roots
from genopt.problems.sine_wave import SineWave
from genopt.problems.zdt1 import Zdt1


class TestRoots:
    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(-95, 95), min_size=1, max_size=5, unique=True))
    def test_all_roots_of_a_polynomial(self, tenths: list[int]) -> None:
        wanted = torch.tensor(sorted(tenths), dtype=torch.float64) / 10
        found = simple_roots(lambda x: (x[:, None] - wanted).prod(-1), -10.0, 10.0)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)

    def test_a_root_on_the_grid_counts_once_and_is_exact(self) -> None:
        assert simple_roots(lambda x: x, -1.0, 1.0, cells=4).tolist() == [0.0]
        assert simple_roots(lambda x: -x, -1.0, 1.0, cells=4).tolist() == [0.0]
        assert simple_roots(lambda x: x**2 + 1.0, -1.0, 1.0).tolist() == []

    def test_shares_are_those_of_uniform_points(self) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            return torch.sin(x) * torch.exp(0.3 * x)

        roots = simple_roots(function, 1.0, 10.0)
        grid = torch.linspace(1.0, 10.0, 4_000_001, dtype=torch.float64)
        near = grid[function(grid).abs() < 1e-3]
        owner = (near[:, None] - roots).abs().argmin(-1)
        share = owner.bincount() / len(owner)
        torch.testing.assert_close(root_shares(function, roots), share.double(), rtol=0, atol=2e-3)


class TestRastrigin:
    AXIS = (-1.989912, -1.507641, -0.994959, -0.502546, 0.0, 0.502546, 0.994959, 1.507641, 1.989912)

    def test_published_digits(self) -> None:
        assert Rastrigin().axis_points.tolist() == pytest.approx(self.AXIS, abs=5e-7)

    def test_a_finer_search_finds_no_more(self) -> None:
        def slope(x: float) -> float:
            return 2 * x + 20 * np.pi * np.sin(2 * np.pi * x)

        # uneven steps, so that no root lies on the grid
        grid = np.linspace(-2.5, 2.5, 33_334)
        signs = np.sign([slope(x) for x in grid])
        roots = [
            optimize.brentq(slope, grid[i], grid[i + 1], xtol=1e-15)
            for i in np.flatnonzero(signs[:-1] != signs[1:])
        ]
        np.testing.assert_allclose(Rastrigin().axis_points.numpy(), roots, atol=1e-12)

    def test_81_answers_of_which_25_are_minima(self) -> None:
        problem = Rastrigin()
        x = torch.stack([answer.x for answer in problem.answers])
        assert x.unique(dim=0).shape == (81, 2)
        torch.testing.assert_close(
            problem.simulate(x), torch.zeros(81, 2, dtype=torch.float64), rtol=0, atol=1e-12
        )
        steps = torch.tensor(list(itertools.product((-1e-3, 0.0, 1e-3), repeat=2)))
        around = problem.height(x[:, None] + steps)
        assert int((around.argmin(-1) == 4).sum()) == 25
        assert sum(answer.weight for answer in problem.answers) == pytest.approx(1.0)

    def test_weights_of_two_axes(self) -> None:
        """The shares of one axis by counting points of a fine grid, multiplied."""
        grid = torch.linspace(-2.5, 2.5, 1_000_001, dtype=torch.float64)
        problem = Rastrigin(dimension=1)
        hit = grid[problem.simulate(grid[:, None]).abs().squeeze(-1) < 0.05]
        owner = (hit[:, None] - problem.axis_points).abs().argmin(-1)
        share = (owner.bincount() / len(owner)).double()
        weights = torch.tensor([a.weight for a in Rastrigin().answers]).reshape(9, 9)
        torch.testing.assert_close(
            weights, torch.outer(share, share).to(weights), rtol=0.05, atol=0
        )

    def test_the_properties_are_the_slopes_of_the_function(self) -> None:
        problem = Rastrigin(dimension=3)
        assert len(problem.answers) == 729
        assert Rastrigin(dimension=4).answers == ()

        def height(point: np.ndarray) -> float:
            return problem.height(torch.from_numpy(point)).item()

        for row in problem.design(4, seed=1).numpy():
            slope = optimize.approx_fprime(row, height, 1e-7)
            own = problem.simulate(torch.from_numpy(row)).numpy()
            np.testing.assert_allclose(own, slope, atol=1e-4)

    def test_no_dimension(self) -> None:
        with pytest.raises(GenoptError, match="dimension must be at least 1, got 0"):
            Rastrigin(dimension=0)


class TestZdt1:
    def test_a_hand_computed_point(self) -> None:
        # g = 1 + 9 * .5 = 5.5, f2 = 5.5 (1 - sqrt(.25 / 5.5))
        y = Zdt1().simulate(torch.tensor([0.25, 0.4, 0.6]))
        assert y.tolist() == pytest.approx([0.25, 5.5 * (1 - (0.25 / 5.5) ** 0.5)], abs=1e-6)

    @pytest.mark.parametrize("dimension", [2, 3, 30])
    def test_nothing_dominates_the_front(self, dimension: int) -> None:
        problem = Zdt1(dimension)
        best = problem.front_designs(201)
        assert bool(problem.x_space.contains(best, tolerance=0.0).all())
        y = problem.simulate(best)
        torch.testing.assert_close(y[:, 1], problem.front(y[:, 0]), rtol=0, atol=1e-12)
        assert [y[0].tolist(), y[-1].tolist()] == [[0.0, 1.0], [1.0, 0.0]]
        others = problem.simulate(
            torch.cat([problem.design(4096), problem.design(512) * problem.design(512).round()])
        )
        assert bool((others[:, 1] >= problem.front(others[:, 0]) - 1e-12).all())

    def test_one_dimension(self) -> None:
        with pytest.raises(GenoptError, match="dimension must be at least 2"):
            Zdt1(1)


def distance(own: np.ndarray, reference: np.ndarray, weight: np.ndarray) -> float:
    """Largest difference between the distribution of draws and that of a weighted sample."""
    order = np.argsort(reference)
    cumulative = weight[order].cumsum() / weight.sum()
    share = np.searchsorted(np.sort(own), reference[order], side="right") / len(own)
    return float(np.abs(share - cumulative).max())


class TestSineWave:
    PROBLEM = SineWave()

    @pytest.mark.parametrize("height", [1.0, -0.3, 1.9])
    def test_the_distribution_of_the_sine(self, height: float) -> None:
        """p(a | y) ~ 1 / sqrt((1 - a^2) (1 - (y - a)^2)): two arcsine laws with a given sum."""
        n = 8000
        x = self.PROBLEM.posterior(torch.tensor([height]), n, seed=1).numpy()
        low, high = max(height - 1.0, -1.0), min(height + 1.0, 1.0)
        middle, half = 0.5 * (low + high), 0.5 * (high - low)

        def density(angle: float) -> float:
            # a = middle - half cos(angle) takes the two infinite ends away
            a = middle - half * np.cos(angle)
            ends = (high - a) * (a - low)
            return half * np.sin(angle) / np.sqrt((1 - a**2) * (1 - (height - a) ** 2)) * (ends > 0)

        angles = np.linspace(1e-6, np.pi - 1e-6, 40_001)
        cumulative = integrate.cumulative_trapezoid([density(t) for t in angles], angles, initial=0)
        sines = np.sort(np.sin(3 * np.pi * x[:, 0]))
        exact = np.interp(sines, middle - half * np.cos(angles), cumulative / cumulative[-1])
        assert np.abs(exact - (np.arange(n) + 0.5) / n).max() < 1.8 / n**0.5

    @pytest.mark.parametrize("height", [1.0, -0.3])
    def test_the_posterior_is_that_of_the_prior(self, height: float) -> None:
        n = 8000
        exact = self.PROBLEM.posterior(torch.tensor([height]), n, seed=1).numpy()
        x = np.random.default_rng(0).uniform(-1.0, 1.0, (3_000_000, 2))
        y = np.sin(3 * np.pi * x[:, 0]) + np.cos(3 * np.pi * x[:, 1])
        reference = x[np.abs(y - height) < 0.003]
        limit = 1.8 * np.sqrt(1 / n + 1 / len(reference))
        for view in np.array([[1, 0], [0, 1], [1, 1], [1, -1], [2, 1]]):
            assert distance(exact @ view, reference @ view, np.ones(len(reference))) < limit

    def test_every_draw_is_an_answer(self) -> None:
        y = torch.tensor([[1.0], [-1.7], [0.2]], dtype=torch.float64)
        x = self.PROBLEM.posterior(y, 200, seed=3)
        assert x.shape == (3, 200, 2)
        expected = y.unsqueeze(1).expand(3, 200, 1)
        torch.testing.assert_close(self.PROBLEM.simulate(x), expected, rtol=0, atol=1e-12)
        assert bool(self.PROBLEM.x_space.contains(x, tolerance=0.0).all())
        torch.testing.assert_close(x[1], self.PROBLEM.posterior(y[1], 200, seed=4))

    @pytest.mark.parametrize("height", [0.0, 2.0, -3.0])
    def test_heights_without_a_posterior(self, height: float) -> None:
        with pytest.raises(GenoptError, match="has no posterior"):
            self.PROBLEM.posterior(torch.tensor([height]))

    def test_the_design_is_uniform(self) -> None:
        x = self.PROBLEM.design(20_000, seed=0)
        cells = ((x + 1.0) * 2.0).long()
        counts = (4 * cells[:, 0] + cells[:, 1]).bincount(minlength=16).numpy()
        # five standard deviations of a count of 20,000/16
        assert np.abs(counts - 1250).max() < 5 * 1250**0.5


class TestRobotArm:
    ARM = RobotArm()

    @settings(max_examples=25, deadline=None)
    @given(x=st.lists(st.floats(-1.5, 1.5), min_size=4, max_size=4))
    def test_each_joint_turns_against_those_before_it(self, x: list[float]) -> None:
        hand = x[0] * 1j
        hand += 0.5 * np.exp(1j * x[1])
        hand += 0.5 * np.exp(1j * (x[2] - x[1]))
        hand += 1.0 * np.exp(1j * (x[3] - x[2] - x[1]))
        y = self.ARM.simulate(torch.tensor(x, dtype=torch.float64))
        assert y.tolist() == pytest.approx([hand.real, hand.imag], abs=1e-12)

    @pytest.mark.parametrize(
        ("y", "n", "draws"), [((1.7, 0.5), 6000, 3_000_000), ((1.2, -0.6), 4000, 2_000_000)]
    )
    def test_the_posterior_is_that_of_the_prior(
        self, y: tuple[float, float], n: int, draws: int
    ) -> None:
        exact = self.ARM.posterior(torch.tensor(y), n, seed=2).numpy()
        angles = np.random.default_rng(0).normal(0.0, 0.5, (draws, 3))
        links = [angles[:, 0], angles[:, 1] - angles[:, 0]]
        links.append(angles[:, 2] - angles[:, 1] - angles[:, 0])
        along = 0.5 * np.cos(links[0]) + 0.5 * np.cos(links[1]) + np.cos(links[2])
        near = np.abs(along - y[0]) < 0.004
        across = 0.5 * np.sin(links[0]) + 0.5 * np.sin(links[1]) + np.sin(links[2])
        rail = (y[1] - across)[near]
        weight = np.exp(-0.5 * (rail / 0.25) ** 2)
        reference = np.column_stack([rail, angles[near]])
        effective = weight.sum() ** 2 / np.square(weight).sum()
        assert effective > 300
        limit = 1.8 * np.sqrt(1 / n + 1 / effective)
        views = np.vstack([np.eye(4), [0, 1, -1, 0], [0, 0, 1, -1], [0, 2, 1, 0], [0, -1, -1, 1]])
        for view in views:
            assert distance(exact @ view, reference @ view, weight) < limit

    def test_every_draw_is_an_answer_inside_the_bounds(self) -> None:
        y = torch.tensor([[1.7, 0.5], [1.2, -1.2]], dtype=torch.float64)
        x = self.ARM.posterior(y, 300, seed=1)
        expected = y.unsqueeze(1).expand(2, 300, 2)
        torch.testing.assert_close(self.ARM.simulate(x), expected, rtol=0, atol=1e-12)
        assert bool(self.ARM.x_space.contains(x, tolerance=0.0).all())

    def test_out_of_reach_and_hardly_possible(self) -> None:
        with pytest.raises(GenoptError, match="out of reach"):
            self.ARM.posterior(torch.tensor([2.0, 0.0]))
        with pytest.raises(GenoptError, match="too rare under the prior"):
            self.ARM.posterior(torch.tensor([1.99, 3.3]), n=100_000)
        with pytest.raises(GenoptError, match=r"expected \(2,\) or \(C, 2\)"):
            self.ARM.posterior(torch.zeros(2, 2, 2))

    def test_the_design_follows_the_prior(self) -> None:
        x = self.ARM.design(40_000, seed=0)
        np.testing.assert_allclose(x.std(0).numpy(), [0.25, 0.5, 0.5, 0.5], rtol=0.02)
        assert float((x.T.corrcoef() - torch.eye(4)).abs().max()) < 0.025


class TestRejection:
    def test_a_weight_is_the_mean_number_of_copies(self) -> None:
        generator = torch.Generator().manual_seed(0)
        weight = torch.tensor([0.0, 0.3, 1.0, 2.6], dtype=torch.float64)
        counts = copies(weight.expand(20_000, 4), generator).double()
        np.testing.assert_allclose(counts.mean(0).numpy(), weight.numpy(), atol=0.02)
        assert counts[:, 3].unique().tolist() == [2.0, 3.0]

    def test_rounds_go_on_until_there_are_enough(self) -> None:
        rounds = iter(torch.arange(100.0).reshape(-1, 4, 1))
        drawn = collect(lambda _: next(rounds), 10, 0, "y = 1")
        assert drawn.squeeze(-1).tolist() == list(range(10))
