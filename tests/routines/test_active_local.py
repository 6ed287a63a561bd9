"""The part of `active` that looks near the best row: when, in how wide a box, with what effect."""

from __future__ import annotations

import functools
from itertools import pairwise

import pytest
import torch

from genopt import Goal, Mixture, Problem, Space, Table
from genopt.routines import active_round
from genopt.routines.active import active
from genopt.routines.active_local import Stance, distinct_rows, nearest_rows, region
from genopt.routines.active_progress import scale_of_round


def stances(values):
    return [Stance.of(values[: n + 1]) for n in range(len(values))]


def test_nothing_is_spent_near_the_best_row_while_all_goes_well():
    assert {stance.share for stance in stances([float(-i) for i in range(20)])} == {0.0}


def test_more_is_spent_near_it_with_every_idle_round_but_never_all():
    shares = [stance.share for stance in stances([1.0] * 12)]
    assert shares == sorted(shares)
    assert shares[0] == 0.0 < shares[1] < shares[2]
    assert 0.5 < shares[-1] < 1.0
    # an improvement does not take back all of it at once
    after = Stance.of([1.0] * 12 + [0.5]).share
    assert 0.0 < after < shares[-1]


def test_the_box_halves_without_success_opens_again_and_doubles_with_success():
    factors = [stance.factor for stance in stances([1.0] * 14)]
    # the first idle round was not spent near the best row
    assert factors[0] == factors[1]
    for before, after in pairwise(factors[1:]):
        assert after == before / 2 or after == max(factors)
    assert factors.count(max(factors)) >= 2
    assert Stance.of([1.0] * 14).opened == factors.count(max(factors))
    assert Stance.of([*[1.0] * 14, 0.5]).opened == 0
    narrow = [1.0] * 4
    assert Stance.of([*narrow, 0.9, 0.8]).factor == 2 * Stance.of(narrow).factor
    assert Stance.of([*narrow, 0.9]).factor == Stance.of(narrow).factor


def test_the_box_has_the_spread_of_the_best_rows_in_each_column():
    # 8 best rows on a cross around (5, 5): twice as far in the second column
    cross = [[-1, 0], [1, 0], [0, -2], [0, 2], [-1, 0], [1, 0], [0, 0]]
    x = torch.tensor([[0, 0], *cross], dtype=torch.float64) + 5.0
    far = torch.tensor([[0.0, 0.0], [10.0, 10.0]], dtype=torch.float64)
    value = torch.tensor([0.0, *range(1, 8), 50.0, 60.0], dtype=torch.float64)
    centre, share = region(torch.cat([x, far]), value, torch.full((2,), 10.0), 2.0, 0.0)
    assert centre.tolist() == [[5.0, 5.0]]
    # root of 4/8 and of 8/8, in tenths of the column, twice
    torch.testing.assert_close(share, torch.tensor([0.1 * 2**0.5, 0.2], dtype=torch.float64))


def test_near_is_what_is_near_in_the_units_of_the_box():
    x = torch.tensor([[0.0, 0.0], [0.3, 0.0], [0.0, 0.05], [0.0, 0.5], [0.9, 0.0]]).double()
    around = (x[:1], torch.tensor([1.0, 0.01], dtype=torch.float64))
    assert nearest_rows(x, torch.arange(5.0), around, torch.ones(2), 3).tolist() == [0, 1, 4]


class Groove(Problem):
    """A pit of width .01 in six columns; a plain with waves around it."""

    def __init__(self) -> None:
        names = "abcdeg"
        space = Space.of(**dict.fromkeys(names, (0.0, 1.0)))
        super().__init__("groove", space, Space.of(f=(0.0, 3.0)), {"f": "min"})

    def simulate(self, x):
        away = (x - torch.linspace(0.3, 0.7, 6, dtype=x.dtype)) / 0.01
        waves = torch.sin(40.0 * x).mean(-1)
        return (2.0 - 2.0 * torch.exp(-away.square().mean(-1) / 8.0) + 0.1 * waves)[..., None]


def best_of(table, problem):
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    options = {"batch": 10, "budget": 80, "proposals": "none"}
    return float(active(None, goal, problem=problem, table=table, **options).y_verified.min())


def test_a_narrow_pit_is_searched_to_its_ground(monkeypatch):
    problem = Groove()
    generator = torch.Generator().manual_seed(3)
    middle = torch.linspace(0.3, 0.7, 6, dtype=torch.float64)
    close = middle + 0.03 * torch.randn(40, 6, generator=generator, dtype=torch.float64)
    x = torch.cat([problem.design(60, 0), close])
    table = Table(x, problem.simulate(x), problem.x_space, problem.y_space)
    ground = float(problem.simulate(middle[None]))
    found = best_of(table, problem)
    monkeypatch.setattr(active_round, "_nearby", lambda *_: None)
    without = best_of(table, problem)
    assert found - ground < 0.2 * (float(table.y.min()) - ground)
    assert found - ground < without - ground


def test_a_place_where_the_rows_came_to_rest_counts_once():
    x = torch.tensor([[0.101], [0.1], [0.102], [0.3], [0.301]], dtype=torch.float64)
    value = torch.tensor([3.0, 2.0, 1.0, 5.0, 6.0], dtype=torch.float64)
    assert distinct_rows(x, value, 0.05).tolist() == [2, 3]
    # all rows are kept where the cells are narrow
    assert distinct_rows(x, value, 1e-4).tolist() == [0, 1, 2, 3, 4]


def test_pareto_proposes_for_several_wishes_under_conditions(monkeypatch):
    pytest.importorskip("pymoo")
    moocore = pytest.importorskip("moocore")
    from genopt.problems.pymoo_problem import PymooProblem
    from genopt.routines import pareto

    proposed = []
    own = pareto.pareto

    @functools.wraps(own)
    def watched(*args, **options):
        found = own(*args, **options)
        proposed.append(found.x)
        return found

    monkeypatch.setattr(pareto, "pareto", watched)
    problem = PymooProblem("bnh")
    table = problem.table(40, 0)
    model = Mixture(problem.x_space, problem.y_space, max_components=2).fit(table.x, table.y)
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    node = {"_target_": "genopt.routines.pareto.pareto", "n": 20, "directions": 10, "steps": 20}
    found = active(model, goal, problem=problem, table=table, batch=8, budget=16, proposals=node)
    assert [len(x[0]) for x in proposed] == [20, 20]
    assert found.header["numbers"]["calls"] == 16
    u, v = found.x[0].T
    torch.testing.assert_close(found.y_verified[0, :, 0], 4 * u**2 + 4 * v**2)
    assert bool(((u - 5) ** 2 + v**2 <= 25).all())
    assert bool(((u - 8) ** 2 + (v + 3) ** 2 >= 7.7).all())

    def volume(y):
        return moocore.hypervolume(y[:, :2].numpy(), ref=[140.0, 50.0])

    kept = goal.satisfied(table.y)
    whole = volume(problem.simulate(problem.front_designs(200)))
    assert volume(table.y[kept]) < volume(found.y_verified[0]) <= 1.001 * whole


def test_the_scale_that_gained_more_goes_on_and_both_have_their_turn():
    # both are tried, then the second, which gained more, until it gains less than the first did
    value = [20.0, 19.0, 15.0, 12.0, 11.5]
    turns = [scale_of_round([value[: n + 1]]) for n in range(len(value))]
    assert turns == [0, 1, 1, 1, 0]
    # nothing is gained: they take turns
    assert [scale_of_round([[1.0] * n]) for n in range(1, 6)] == [0, 1, 0, 1, 0]
    # no row with the held columns yet, and of several goals the one that gained most
    assert scale_of_round([[float("inf"), 3.0, 2.0]]) == 1
    assert scale_of_round([[5.0, 5.0, 5.0], [9.0, 8.0, 6.0]]) == 1
