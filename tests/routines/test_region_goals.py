"""Intervals and half-lines asked of the mixture: against rejection, integrals and plain algebra."""

import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from genopt import GenoptError, Goal, Mixture, Space, Table, Variable
from genopt.models.mixture.region_goals import Region, sample_region
from genopt.routines.sample import condition
from genopt.routines.targets import confined_columns, reachable_targets

X = Space.of(a=(-2.0, 2.0), b=(-2.0, 2.0))
Y = Space.of(s=(-6.0, 6.0), q=(-2.0, 8.0))


def curved_table(n: int = 500) -> Table:
    rng = torch.Generator().manual_seed(0)
    x = 4 * torch.rand(n, 2, generator=rng, dtype=torch.float64) - 2
    noise = 0.1 * torch.randn(n, 2, generator=rng, dtype=torch.float64)
    y = torch.stack([x[:, 0] + x[:, 1], x[:, 0] ** 2 - 0.5 * x[:, 1]], 1) + noise
    return Table(x, y, X, Y)


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    table = curved_table()
    return Mixture(X, Y, max_components=6, min_components=6, criterion="bic").fit(table.x, table.y)


def rejection(model: Mixture, holds) -> np.ndarray:
    """Designs of joint draws inside the Space whose properties satisfy the goal."""
    draws = model.gmm.sample(400_000, random_state=1)
    inside = (np.abs(draws[:, :2]) <= 2).all(1) & holds(draws)
    return draws[inside, :2]


class TestCondition:
    @pytest.mark.parametrize(
        ("wanted", "holds"),
        [
            ({"s": {"at_least": 1.5}}, lambda d: d[:, 2] >= 1.5),
            ({"q": {"between": [1.0, 2.0]}}, lambda d: (d[:, 3] >= 1) & (d[:, 3] <= 2)),
            (
                {"s": {"at_most": 0.5}, "q": {"at_least": 1.0}},
                lambda d: (d[:, 2] <= 0.5) & (d[:, 3] >= 1.0),
            ),
        ],
    )
    def test_designs_are_those_of_rejection_from_the_joint(self, mixture, wanted, holds):
        found = condition(mixture, Goal(wanted, X, Y), samples=2000)
        assert found.shape == (1, 2000)
        expected = rejection(mixture, holds)
        # draws that stay outside the Space are projected: a few lie on its edge
        x = found.x[0].numpy()
        free = (np.abs(x) < 2).all(1)
        assert free.mean() > 0.97
        for projection in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]):
            test = stats.ks_2samp(x[free] @ projection, expected[:20_000] @ projection)
            assert test.pvalue > 1e-3

    def test_log_density_is_that_of_the_joint_integrated_over_the_region(self, mixture):
        found = condition(mixture, Goal({"s": {"between": [0.0, 1.0]}}, X, Y), samples=20)
        grid = np.linspace(0.0, 1.0, 801)
        rows = found.x[0].numpy()
        three = mixture.gmm.marginal([0, 1, 2])
        points = np.concatenate([rows.repeat(801, 0), np.tile(grid, 20)[:, None]], 1)
        over = np.trapezoid(np.exp(three.log_prob(points)).reshape(20, 801), grid, axis=1)
        one = mixture.gmm.marginal([2])
        share = np.trapezoid(np.exp(one.log_prob(grid[:, None])), grid)
        assert found.log_density is not None
        np.testing.assert_allclose(found.log_density[0].numpy(), np.log(over / share), atol=1e-4)

    def test_two_intervals_have_the_density_of_their_integral(self, mixture):
        goal = Goal({"s": {"between": [0.0, 2.0]}, "q": {"between": [0.0, 1.5]}}, X, Y)
        found = condition(mixture, goal, samples=6)
        side = np.stack(np.meshgrid(np.linspace(0, 2, 161), np.linspace(0, 1.5, 161)), -1)
        cell = (2 / 160) * (1.5 / 160)
        trapezoid = np.outer(*[np.r_[0.5, np.ones(159), 0.5]] * 2).reshape(-1)
        flat = side.reshape(-1, 2)
        share = np.exp(mixture.gmm.marginal([2, 3]).log_prob(flat)) @ trapezoid * cell
        assert found.log_density is not None
        for row, log_density in zip(found.x[0].numpy(), found.log_density[0], strict=True):
            points = np.c_[np.tile(row, (len(flat), 1)), flat]
            over = np.exp(mixture.gmm.log_prob(points)) @ trapezoid * cell
            assert float(log_density) == pytest.approx(np.log(over / share), abs=0.02)

    def test_a_region_beside_a_value_a_held_column_and_a_batch(self, mixture):
        goal = Goal({"s": [0.5, 1.0], "q": {"at_least": 1.0}, "b": 0.25}, X, Y)
        found = condition(mixture, goal, samples=400)
        assert bool((found.x[..., 1] == 0.25).all())
        # s = a + b leaves a alone; q = a^2 - b / 2 >= 1 is not reached there, the density decides
        for c, s in enumerate([0.5, 1.0]):
            exact = mixture.gmm.condition_region([3], [1.0], [np.inf], given=[1, 2], X=[[0.25, s]])
            draws = exact.sample(4000, seed=0)[0, :, 0]
            draws = draws[np.abs(draws) <= 2]
            assert stats.ks_2samp(found.x[c, :, 0].numpy(), draws).pvalue > 1e-3

    def test_a_wish_still_takes_the_best_rows_and_keeps_the_region_open(self, mixture):
        table = curved_table()
        goal = Goal({"q": "max", "s": {"at_least": 1.0}}, X, Y)
        targets = reachable_targets(goal, table, 4, regions=True)
        assert targets.shape == (1, 4, 2)
        assert bool(targets[..., 0].isnan().all())
        best = table.y[table.y[:, 0] >= 1.0, 1].sort(descending=True).values[:4]
        assert sorted(targets[0, :, 1].tolist()) == sorted(best.tolist())
        found = condition(mixture, goal, table=table, samples=200, targets=4)
        assert found.shape == (1, 200)
        assert float((found.y_predicted[0, :, 0] > 0.8).double().mean()) > 0.9

    def test_an_interval_without_width_is_the_value(self, mixture):
        narrow = condition(mixture, Goal({"s": {"between": [0.7, 0.7]}}, X, Y), samples=1500)
        value = condition(mixture, Goal({"s": 0.7}, X, Y), samples=1500, seed=1)
        for column in (0, 1):
            test = stats.ks_2samp(narrow.x[0, :, column].numpy(), value.x[0, :, column].numpy())
            assert test.pvalue > 1e-3
        assert narrow.ood is not None
        assert value.ood is not None
        torch.testing.assert_close(narrow.ood[0, 0], value.ood[0, 0], atol=1e-9, rtol=0)

    def test_confined_columns_read_the_goal(self):
        goal = Goal({"s": {"at_most": [1.0, 2.0]}, "q": {"between": [0.0, 3.0]}}, X, Y)
        columns, lower, upper = confined_columns(goal)
        assert columns == (0, 1)
        assert lower.tolist() == [[-np.inf, 0.0], [-np.inf, 0.0]]
        assert upper.tolist() == [[1.0, 3.0], [2.0, 3.0]]
        assert reachable_targets(goal, None, 3, regions=True).shape == (2, 1, 2)

    def test_classes_stand_beside_a_region(self):
        space = Space((Variable("a", 0, 1), Variable("k", labels=("u", "v"), kind="categorical")))
        rng = torch.Generator().manual_seed(0)
        x = torch.rand(300, 2, generator=rng, dtype=torch.float64)
        x[:, 1] = x[:, 1].round()
        y = Space.of(c=(0.0, 2.0))
        model = Mixture(space, y, max_components=4).fit(x, x.sum(1, keepdim=True))
        found = condition(model, Goal({"c": {"at_least": 1.2}}, space, y), samples=100)
        # c = a + k: beyond 1.2 only k = v can be, with a above .2
        assert float((found.x[0, :, 1] == 1).double().mean()) > 0.95
        assert float(found.x[0, :, 0].quantile(0.1)) > 0.15

    def test_misuse_is_refused(self, mixture):
        y = torch.full((1, 2), torch.nan, dtype=torch.float64)
        ends = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
        y[0, 0] = 0.5
        with pytest.raises(GenoptError, match="'s' is both known and in a region"):
            sample_region(mixture, y, Region((0,), *ends), 5)
        table = curved_table(60)
        few = table.y.clone()
        few[1:, 1] = torch.nan
        with pytest.warns(UserWarning, match="q"):
            model = Mixture(X, Y, max_components=1).fit(table.x, few)
        with pytest.raises(GenoptError, match="'q' had too few labels"):
            condition(model, Goal({"q": {"at_least": 1.0}}, X, Y), samples=5)


class TestOutside:
    def test_the_warning_names_the_nearest_measured_value(self, mixture):
        highest = float(curved_table().y[:, 0].max())
        with pytest.warns(
            UserWarning, match=f"s 5.8 .*nearest measured values are s {highest:.4g}"
        ):
            condition(mixture, Goal({"s": 5.8}, X, Y), samples=5)
        with pytest.warns(UserWarning, match=f"s at least 5.8 .* are s {highest:.4g}"):
            condition(mixture, Goal({"s": {"at_least": 5.8}}, X, Y), samples=5)
        with pytest.warns(UserWarning, match=r"1 of 2 targets lie outside the data: s -5.9"):
            condition(mixture, Goal({"s": [0.0, -5.9]}, X, Y), samples=5)

    def test_two_columns_that_never_go_together(self, mixture):
        table = curved_table()
        wanted = torch.tensor([-3.0, -1.5], dtype=torch.float64)
        nearest = ((table.y - wanted) / table.y.std(0)).square().sum(1).argmin()
        s, q = table.y[nearest].tolist()
        with pytest.warns(UserWarning, match=f"are s {s:.4g}, q {q:.4g}"):
            condition(mixture, Goal({"s": -3.0, "q": -1.5}, X, Y), samples=5)

    @pytest.mark.parametrize(
        "wanted", [{"s": 1.0}, {"s": {"at_least": 1.0}}, {"q": {"at_most": 9}}]
    )
    def test_targets_inside_are_not_warned_of(self, mixture, wanted):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            found = condition(mixture, Goal(wanted, X, Y), samples=5)
        assert found.ood is not None
        assert float(found.ood.max()) <= 1.0
