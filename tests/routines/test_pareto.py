"""Fronts of trade-offs: filters against brute force, volumes in closed form, whole searches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genopt import ConditionalFlow, Mixture
from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.problems import Problem, Zdt1
from genopt.routines import nondominated as filters
from genopt.routines.hypervolume import hypervolume, reference_point, score_front, true_front
from genopt.routines.nondominated import (
    Objectives,
    beaten,
    nondominated,
    spread_out,
    worthwhile,
)
from genopt.routines.pareto import check_pareto, pareto
from genopt.routines.pareto_search import Limits, directions
from genopt.space import Space, Variable

pytest.importorskip("moocore")


class Truth:
    """A model that knows the simulator."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.x_space, self.y_space = problem.x_space, problem.y_space

    def predict_y(self, x: Tensor) -> Tensor:
        return self.problem.simulate(x)


class Disk(Problem):
    """Minimise x and y outside of the disk x^2 + y^2 < 1: the front is a quarter of its rim."""

    def __init__(self, goal: dict[str, Any] | None = None) -> None:
        super().__init__(
            "disk",
            Space.of(a=(0.0, 2.0), b=(0.0, 2.0)),
            Space.of(u=(0.0, 2.0), v=(-2.0, 0.0), rim=(0.0, 8.0)),
            goal or {"u": "min", "v": "max", "rim": {"at_least": 1.0}},
            default_rows=128,
        )

    def simulate(self, x: Tensor) -> Tensor:
        a, b = self.columns(x)
        return torch.stack([a, -b, a**2 + b**2], -1)

    def front_designs(self, n: int = 100) -> Tensor:
        angle = torch.linspace(0.0, 0.5 * math.pi, n, dtype=torch.float64)
        x = torch.stack([angle.sin(), angle.cos()], -1)
        # rounding must not put a design inside the disk
        return x / x.norm(dim=-1, keepdim=True) * (1.0 + 1e-12)


def goal_of(problem: Problem, spec: dict[str, Any] | None = None) -> Goal:
    return Goal(spec or problem.default_goal, problem.x_space, problem.y_space)


# -- filters and volumes ---------------------------------------------------------------------------
points = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=0, max_size=25)


@settings(max_examples=60, deadline=None)
@given(points)
def test_the_filter_agrees_with_comparing_all_pairs(rows):
    values = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
    kept = nondominated(values)
    for p, keeps in zip(rows, kept.tolist(), strict=True):
        loses = any(all(b <= a for a, b in zip(p, q, strict=True)) and q != p for q in rows)
        assert keeps == (not loses)


def test_blocks_change_nothing(monkeypatch):
    values = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)).double()
    whole, against = nondominated(values), beaten(values, values[:40])
    monkeypatch.setattr(filters, "_BLOCK", 7)
    assert torch.equal(nondominated(values), whole)
    assert torch.equal(beaten(values, values[:40]), against)


def test_rows_without_numbers_or_outside_take_no_part():
    values = torch.tensor([[torch.nan, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert nondominated(values).tolist() == [False, False, True]
    assert nondominated(values, torch.tensor([True, True, False])).tolist() == [False, True, False]


def test_equal_points_do_not_beat_one_another_but_add_nothing():
    twice = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    assert nondominated(twice).all()
    assert beaten(twice, twice[:1]).all()


@settings(max_examples=60, deadline=None)
@given(points, st.integers(0, 1000))
def test_trade_offs_of_what_is_worthwhile_are_bounded(rows, seed):
    values = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
    noise = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed))
    values = values + 1e-3 * noise.double()
    kept = worthwhile(values)
    assert kept.any() or not len(values)
    left = values[kept]
    if len(left) < 2:
        return
    scaled = left / (left.amax(0) - left.amin(0))
    gain = scaled[:, None] - scaled[None]
    most, loss = gain.amax(-1), (-gain).amax(-1)
    assert not bool(((most > 0) & (100.0 * loss < most)).any())


def test_a_face_that_is_a_hair_better_is_no_front():
    generator = torch.Generator().manual_seed(0)
    f1 = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
    front = torch.stack([f1, 1.0 - f1.sqrt()], -1)
    face = torch.stack([torch.zeros(50), 1.1 + 4.0 * torch.rand(50, generator=generator)], -1)
    face[:, 0] -= 1e-4 * face[:, 1]
    both = torch.cat([front, face.double()])
    assert int(nondominated(both).sum()) == 151
    assert worthwhile(both).tolist() == 101 * [True] + 50 * [False]


def test_hypervolume_of_two_boxes_by_inclusion_and_exclusion():
    corner = torch.tensor([2.0, 3.0, 4.0])
    a, b = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, 0.0, 2.0])
    both = (corner - torch.maximum(a, b)).prod()
    expected = (corner - a).prod() + (corner - b).prod() - both
    behind = torch.tensor([1.5, 1.5, 2.5])
    for extra in (behind, corner + 1.0, torch.full((3,), torch.nan)):
        assert hypervolume(torch.stack([a, b, extra]), corner) == pytest.approx(float(expected))
    assert hypervolume(corner[None], corner) == 0.0


def test_the_area_behind_the_rim_is_that_of_a_quarter_disk():
    disk = Disk()
    score = score_front(goal_of(disk), disk.simulate(disk.front_designs(2000)), problem=disk)
    # the reference point is (1.1, 0.1 behind v = 0): the square minus the quarter disk
    assert torch.allclose(score.reference, torch.tensor([1.1, 1.1]).double())
    assert score.hypervolume == pytest.approx(1.1**2 - math.pi / 4.0, abs=1e-3)
    assert score.share == pytest.approx(1.0, abs=1e-3)


def test_a_reference_point_lies_behind_a_front_of_one_value():
    point = reference_point(torch.tensor([[0.0, 5.0]]))
    assert bool((point > torch.tensor([0.0, 5.0])).all())


def test_the_true_front_answers_the_problems_own_question_only():
    disk = Disk()
    assert true_front(disk, goal_of(disk)) is not None
    assert true_front(disk, goal_of(disk, {"u": "min", "v": "max"})) is None
    other = {"u": "min", "v": "max", "rim": {"at_least": 1.5}}
    assert true_front(disk, goal_of(disk, other)) is None
    assert true_front(disk, goal_of(disk, {**disk.default_goal, "a": 1.0})) is None
    weighted = {**disk.default_goal, "u": {"direction": "min", "weight": 3.0}}
    assert true_front(disk, goal_of(disk, weighted)) is not None


def test_spread_out_takes_the_ends_first_and_then_the_widest_gap():
    line = torch.tensor([[0.0, 4.0], [1.0, 3.0], [1.9, 2.1], [4.0, 0.0]])
    assert spread_out(line, 3).tolist() == [0, 3, 2]
    assert spread_out(line, 1, taken=line[:1]).tolist() == [3]
    assert len(spread_out(line[[0, 0]], 5)) == 1


@pytest.mark.parametrize("objectives", [2, 3])
def test_directions_reach_every_corner_and_no_weight_is_zero(objectives):
    weights = directions(40, objectives)
    assert bool((weights > 0).all())
    assert torch.allclose(weights.amax(1), torch.ones(40).double())
    heaviest = (weights == 1.0).sum(0)
    assert bool((heaviest > 0).all())


def test_violations_are_in_widths_and_grow_with_doubt():
    space = Space.of(low=(0.0, 2.0), high=(0.0, 4.0), band=(0.0, 1.0))
    goal = Goal(
        {"low": {"at_least": 1.0}, "high": {"at_most": 2.0}, "band": {"between": [0.4, 0.6]}},
        Space.of(a=(0.0, 1.0)),
        space,
    )
    limits = Limits.of(goal)
    assert float(limits.violation(torch.tensor([0.0, 4.0, 0.5]))) == pytest.approx(0.5 + 0.5)
    inside = torch.tensor([1.1, 1.9, 0.5])
    assert float(limits.violation(inside)) == 0.0
    doubt = torch.tensor([0.3, 0.3, 5.0]).double()
    # the interval of band only shrinks by half, so its middle still keeps it
    assert float(limits.violation(inside, doubt)) == pytest.approx(0.2 / 2.0 + 0.2 / 4.0)


# -- the routine -----------------------------------------------------------------------------------
def test_a_search_on_the_truth_finds_the_front_of_a_hollow_constraint():
    disk = Disk()
    goal = goal_of(disk)
    found = pareto(
        Truth(disk), goal, table=disk.table(), problem=disk, n=60, directions=30, starts=4,
        steps=60, caution=0.0,
    )  # fmt: skip
    x = found.x[0]
    assert bool(goal.satisfied(found.y_verified[0]).all())
    assert float((x.norm(dim=-1) - 1.0).abs().quantile(0.9)) < 1e-2
    numbers = found.header["numbers"]
    assert numbers["calls"] == 60
    # sixty points on a hollow quarter of a circle leave a few percent between them
    assert numbers["hypervolume_share"] > 0.94
    assert numbers["rows_hypervolume"] < numbers["hypervolume"]
    (words,) = found.header["says"]
    assert words.startswith(f"front of {numbers['front_designs']} designs, hypervolume ")
    assert found.header["front"]["columns"] == ["u", "v"]
    # max keeps its own sign for the figure
    assert found.header["front"]["reference"] == pytest.approx([1.1, -1.1])


def test_zdt1_is_solved_with_its_own_simulator_as_model():
    problem = Zdt1(4)
    found = pareto(
        Truth(problem), goal_of(problem), table=problem.table(256), problem=problem, n=40,
        starts=3, steps=160,
    )  # fmt: skip
    assert found.header["numbers"]["hypervolume_share"] > 0.98


def test_caution_keeps_designs_away_from_the_edge():
    disk = Disk()

    class Doubtful(Truth):
        has_spread = True

        def spread_y(self, x: Tensor) -> Tensor:
            return torch.full((*x.shape[:-1], 3), 0.05, dtype=x.dtype)

    options: dict[str, Any] = {"table": disk.table(), "n": 20, "directions": 10, "steps": 30}
    found = pareto(Doubtful(disk), goal_of(disk), caution=3.0, **options)
    rim = found.y_predicted[0, :, 2]
    # the bold half one standard deviation away, the careful half three
    assert float(rim.min()) >= 1.05 - 1e-9
    assert int((rim >= 1.15 - 1e-9).sum()) >= 10
    assert found.y_spread is not None


def test_a_budget_limits_the_calls_and_zero_means_none():
    disk = Disk()
    options: dict[str, Any] = {"table": disk.table(), "n": 20, "directions": 8, "steps": 5}
    some = pareto(Truth(disk), goal_of(disk), problem=disk, budget=7, **options)
    assert some.header["numbers"]["calls"] == 7
    assert int(torch.isfinite(some.y_verified[0, :, 0]).sum()) == 7
    none = pareto(Truth(disk), goal_of(disk), problem=disk, budget=0, **options)
    assert "calls" not in none.header["numbers"]
    assert not none.verified
    assert none.header["says"][0].startswith("claimed front")


def test_goals_of_a_batch_have_a_front_each(tmp_path):
    disk = Disk()
    goal = goal_of(disk, {"u": "min", "v": "max", "rim": {"at_least": [1.0, 2.25]}})
    found = pareto(
        Truth(disk), goal, table=disk.table(), n=12, directions=12, steps=40, caution=0.0
    )
    radius = found.x.norm(dim=-1)
    assert found.shape == (2, 12)
    assert torch.allclose(radius[0], torch.ones(12).double(), atol=0.05)
    assert torch.allclose(radius[1], torch.full((12,), 1.5).double(), atol=0.05)
    again = Candidates.load(found.save(tmp_path / "front"))
    assert again.header["front"] == found.header["front"]


def test_held_columns_and_classes_stay():
    space = Space(
        (
            Variable("a", 0.0, 1.0),
            Variable("b", 0.0, 1.0),
            Variable("kind", kind="categorical", labels=("p", "q")),
        )
    )

    class Kinds(Problem):
        def __init__(self) -> None:
            super().__init__("kinds", space, Space.of(f=(0.0, 3.0), g=(0.0, 3.0)))

        def simulate(self, x: Tensor) -> Tensor:
            a, b, kind = self.columns(x)
            # class q is better in g and worse in f
            return torch.stack([a + b + kind, 1.0 - a + b + (1.0 - kind)], -1)

    problem = Kinds()
    goal = goal_of(problem, {"f": "min", "g": "min", "b": 0.25})
    found = pareto(Truth(problem), goal, table=problem.table(64), n=16, directions=12, steps=60)
    assert torch.allclose(found.x[0, :, 1], torch.full((16,), 0.25).double())
    assert set(found.x[0, :, 2].tolist()) == {0.0, 1.0}
    # both lines are parts of one front, f + g = 2 + 2 * .25
    total = found.y_predicted[0].sum(-1)
    assert torch.allclose(total, torch.full((16,), 2.5).double(), atol=1e-6)


def test_searches_start_where_no_row_keeps_the_constraints():
    disk = Disk()
    table = disk.table()
    poor = table.rows(table.y[:, 2] < 1.0)
    found = pareto(
        Truth(disk), goal_of(disk), table=poor, n=10, directions=10, steps=60, caution=0.0
    )
    assert bool(found.feasible.all())


def test_draws_of_a_mixture_go_beyond_the_best_rows():
    generator = torch.Generator().manual_seed(0)
    space = Space.of(a=(-4.0, 4.0), b=(-4.0, 4.0))
    outputs = Space.of(u=(-9.0, 9.0), v=(-9.0, 9.0))
    x = torch.randn(300, 2, generator=generator).double().clamp(-4, 4)
    y = torch.stack([x[:, 0] + 0.5 * x[:, 1], x[:, 1] - 0.5 * x[:, 0]], -1)
    table = Table(x, y, space, outputs)
    model = Mixture(space, outputs, max_components=2).fit(x, y)
    goal = Goal({"u": "min", "v": "min"}, space, outputs)
    found = pareto(model, goal, table=table, n=40, method="condition", stretch=0.3)
    assert found.header["method"] == "condition"
    numbers = found.header["numbers"]
    assert numbers["hypervolume"] > 1.05 * numbers["rows_hypervolume"]
    # the map is linear, so what is claimed is true
    truth = found.x[0, :, 0] + 0.5 * found.x[0, :, 1]
    there = torch.isfinite(truth)
    assert torch.allclose(found.y_predicted[0, there, 0], truth[there], atol=1e-2)


def test_a_flow_is_asked_for_its_targets_and_can_be_pushed():
    disk = Disk()
    flow = ConditionalFlow(disk.x_space, disk.y_space, epochs=1)
    table = disk.table()
    flow.fit_table(table.with_split(0.1, 0.0, 0))
    for method in ("auto", "guidance"):
        found = pareto(flow, goal_of(disk), table=table, problem=disk, n=12, method=method)
        assert found.shape == (1, 12)
        assert bool(disk.x_space.contains(found.x).all())
        assert found.header["method"] == ("condition" if method == "auto" else "guidance")
        assert found.header["numbers"]["calls"] == 12


# -- mistakes --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "weights"}, "routine.method"),
        ({"n": 0}, "routine.n must be positive"),
        ({"steps": 0}, "routine.steps must be positive"),
        ({"caution": -1.0}, "routine.caution must not be negative"),
        ({"budget": -1}, "routine.budget must not be negative"),
        ({"method": "condition"}, "draws designs from a mixture or a flow"),
        ({"reference": {"u": 1.0}}, "a value for each of u, v"),
        ({"reference": {"u": 1.0, "v": 0.0, "w": 0.0}}, "routine.reference"),
    ],
)
def test_options_that_cannot_be_used_are_said(options, words):
    disk = Disk()
    with pytest.raises(GenoptError, match=words):
        check_pareto(Truth(disk), goal_of(disk), **options)


def test_one_wish_and_missing_rows_are_said():
    disk = Disk()
    with pytest.raises(GenoptError, match=r"at least two columns with min or max, the goal has u"):
        pareto(Truth(disk), goal_of(disk, {"u": "min"}), table=disk.table())
    with pytest.raises(GenoptError, match="give table="):
        pareto(Truth(disk), goal_of(disk))
    with pytest.raises(UnknownNameError, match=r"routine\.method"):
        pareto(Truth(disk), goal_of(disk), table=disk.table(), method="scalarize")


def test_a_model_that_predicts_nothing_cannot_be_searched():
    disk = Disk()
    flow = ConditionalFlow(disk.x_space, disk.y_space)
    with pytest.raises(GenoptError, match=r"does not: use method=condition"):
        check_pareto(flow, goal_of(disk), method="scalarise")
    assert check_pareto(flow, goal_of(disk)) == "condition"
    with pytest.raises(GenoptError, match="is for flows"):
        check_pareto(Mixture(disk.x_space, disk.y_space), goal_of(disk), method="guidance")


def test_a_given_reference_point_is_used_in_the_goals_signs():
    disk = Disk()
    found = pareto(
        Truth(disk), goal_of(disk), table=disk.table(), n=30, directions=20, steps=40, caution=0.0,
        reference={"u": 2.0, "v": -2.0},
    )  # fmt: skip
    assert found.header["front"]["reference"] == [2.0, -2.0]
    assert found.header["numbers"]["hypervolume"] == pytest.approx(4.0 - math.pi / 4.0, abs=0.05)


def test_objectives_turn_max_around_and_back():
    objectives = Objectives.of(goal_of(Disk()))
    y = torch.tensor([[1.0, -3.0, 9.0]])
    assert objectives.values(y).tolist() == [[1.0, 3.0]]
    assert objectives.raw(objectives.values(y)).tolist() == [[1.0, -3.0]]
