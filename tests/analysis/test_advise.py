"""The advice: figures measured on a table, and the choice that follows from them."""

import math

import pytest
import torch

from genopt import Goal, Space, Table, Variable
from genopt.analysis.advise import advise
from genopt.analysis.facts import errors_of, groups_of, local_errors, near_target, sizes_of
from genopt.errors import GenoptError
from genopt.problems import PlugFlow


def rows_of(n: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, columns, generator=generator, dtype=torch.float64)


def noise(n: int, columns: int = 1, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, columns, generator=generator, dtype=torch.float64)


def box(columns: int) -> Space:
    return Space.of(**{f"a{i}": (0.0, 1.0) for i in range(columns)})


def table_of(x: torch.Tensor, y: torch.Tensor, names: str = "c") -> Table:
    low, high = float(y.nan_to_num().min()) - 1.0, float(y.nan_to_num().max()) + 1.0
    return Table(x, y, box(x.shape[1]), Space.of(**dict.fromkeys(names, (low, high))))


def goal_of(table: Table, spec: dict) -> Goal:
    return Goal(spec, table.x_space, table.y_space)


# -- figures ---------------------------------------------------------------------------------------
def test_straight_fits_to_neighbours_leave_the_noise_and_nothing_of_a_plane():
    x = rows_of(800, 3)
    plane = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    assert float(local_errors(x, plane)) < 1e-6
    error = float(local_errors(x, plane + 0.1 * noise(800)))
    # the fit to eleven neighbours adds noise of its own, the trimming takes the largest away
    assert 0.07 < error < 0.14


@pytest.mark.parametrize(("columns", "centres"), [(1, 3), (2, 2), (4, 2)])
def test_separate_heaps_are_counted_and_one_heap_is_one(columns, centres):
    sizes = [40, 25, 12][:centres]
    heaps = [rows_of(n, columns, i) * 0.05 + 0.4 * i for i, n in enumerate(sizes)]
    groups = groups_of(torch.cat(heaps))
    assert sizes_of(groups) == sizes
    owner = torch.cat([torch.full((n,), i) for i, n in enumerate(sizes)])
    assert torch.equal(groups, owner)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_one_cloud_is_one_group(columns, seed):
    assert len(sizes_of(groups_of(rows_of(100, columns, seed)))) == 1
    assert len(sizes_of(groups_of(noise(100, columns, seed)))) == 1


def test_rows_near_the_target_are_the_nearest_ones():
    x = torch.linspace(0, 1, 200, dtype=torch.float64)[:, None]
    table = table_of(x, (x - 0.5).abs())
    near = near_target(table, goal_of(table, {"c": 0.25}))
    assert len(near) == 50
    assert sizes_of(groups_of(table.x[near])) == [25, 25]
    assert float((table.y[near] - 0.25).abs().max()) < 13 / 199


def test_errors_of_a_line_are_nothing_to_both_ways():
    x = rows_of(200, 1)
    errors = errors_of(table_of(x, 3.0 * x), [0])
    assert errors.names == ("c",)
    assert float(errors.local) < 1e-6
    assert float(errors.mixture) < 0.01 * float(errors.spread)
    assert float(errors.spread) == pytest.approx(float((3 * x).std(correction=0)))


# -- choices ---------------------------------------------------------------------------------------
def test_one_design_column_takes_the_mixture_and_says_how_many_answers_there_are():
    x = torch.linspace(-1, 1, 400, dtype=torch.float64)[:, None]
    table = Table(x, x.square(), Space.of(a0=(-1.0, 1.0)), Space.of(c=(0.0, 1.0)))
    advice = advise(table, goal_of(table, {"c": 0.5}))
    assert advice.engine == "mixture"
    assert advice.figures["groups_near_target"] == 2
    assert "fall into 2 groups" in advice.reasons[-1]
    assert advice.also[0] == "flow"


@pytest.mark.parametrize(("tolerance", "engine"), [(0.002, "flow"), (0.05, "mixture")])
def test_a_mixture_too_coarse_for_the_tolerance_gives_way_to_a_flow(tolerance, engine):
    table = PlugFlow().table()
    spec = {"F_A": 0.02, "F_B": 0.05}
    goal = goal_of(table, {n: {"equals": v, "tolerance": tolerance} for n, v in spec.items()})
    advice = advise(table, goal)
    assert advice.engine == engine
    assert (advice.figures["mixture_within_tolerance"] < 0.5) == (engine == "flow")


def test_wishes_take_a_search_and_noise_an_ensemble():
    x = rows_of(300, 2)
    smooth = table_of(x, (x - 0.3).square().sum(1, keepdim=True))
    assert advise(smooth, goal_of(smooth, {"c": "min"})).engine == "multitask"
    noisy = table_of(x, noise(300))
    advice = advise(noisy, goal_of(noisy, {"c": "min"}))
    assert advice.engine == "ensemble"
    assert advice.figures["unexplained"] > 0.5


def test_gaps_take_shared_heads():
    x = rows_of(300, 2)
    y = torch.stack([x.sum(1), x[:, 0]], 1)
    y[:200, 1] = math.nan
    y[200:280, 0] = math.nan
    table = table_of(x, y, "cd")
    advice = advise(table, goal_of(table, {"c": 1.0, "d": 0.5}))
    assert advice.engine == "multitask"
    assert advice.figures["missing_share"] == pytest.approx(280 / 600)


def test_many_columns_take_a_flow_and_few_rows_of_them_a_mixture_of_few_parameters():
    for n, engine in ((700, "flow"), (200, "mixture")):
        x = rows_of(n, 12)
        table = table_of(x, x.sum(1, keepdim=True))
        advice = advise(table, goal_of(table, {"c": 6.0}))
        assert advice.engine == engine
        assert ("model.covariance" in advice.settings) == (engine == "mixture")


def test_constraints_take_engines_that_keep_them():
    x = rows_of(300, 2)
    table = table_of(x, (x - 0.3).square().sum(1, keepdim=True))
    goal = goal_of(table, {"c": "min"})
    linear = advise(table, goal, constraints=["a0 + a1 == 0.5"])
    assert linear.engine == "mixture"
    assert linear.figures["constraints"] == 1
    assert advise(table, goal, constraints=["a0 * a1 == 0.1"]).engine == "flow"
    with pytest.raises(GenoptError, match="model=mixture and model=flow, not by multitask"):
        advise(table, goal, constraints=["a0 <= 0.5"], engines=["multitask"])


def test_held_columns_of_a_flow_are_trained_for():
    x = rows_of(700, 12)
    table = table_of(x, x.sum(1, keepdim=True))
    advice = advise(table, goal_of(table, {"c": 6.0, "a3": 0.5}))
    assert (advice.engine, advice.settings) == ("flow", {"model.given_x": 0.3})
    assert "a3 is held" in " ".join(advice.reasons)


def test_only_allowed_engines_are_chosen():
    x = rows_of(300, 2)
    table = table_of(x, x.sum(1, keepdim=True))
    goal = goal_of(table, {"c": 1.0})
    for engine in ("mixture", "flow", "multitask"):
        advice = advise(table, goal, engines=[engine])
        assert advice.engine == engine
        assert advice.also == ()
    with pytest.raises(GenoptError, match="choose among mixture, flow, multitask, ensemble"):
        advise(table, goal, engines=["forest"])


def test_classes_and_no_goal_are_no_obstacle():
    x = rows_of(200, 2)
    phase = Variable("phase", labels=("solid", "liquid"), kind="categorical")
    y = torch.stack([x.sum(1), (x[:, 0] > 0.5).double()], 1)
    table = Table(x, y, box(2), Space((Variable("c", 0.0, 2.0), phase)))
    advice = advise(table, goal_of(table, {"phase": "solid"}))
    assert advice.engine == "mixture"
    assert advice.figures["classes"] == 1
    assert advise(table).engine in ("mixture", "flow")


def test_the_advice_can_be_read_and_a_column_without_labels_is_refused():
    x = rows_of(200, 1)
    table = table_of(x, torch.cat([x, x * math.nan], 1), "cd")
    words = str(advise(table, goal_of(table, {"c": 0.5})))
    assert words.startswith("model=mixture\n  - ")
    assert "rows 200" in words
    with pytest.raises(GenoptError, match=r"no row has a label of the goal's columns \(d\)"):
        advise(table, goal_of(table, {"d": 0.5}))
