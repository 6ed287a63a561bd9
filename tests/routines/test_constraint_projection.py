"""Projection onto constraints: closed forms, scipy's optimiser, and what may not move."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from genopt import Constraint, Space, Variable
from genopt.constraint import read_constraints
from genopt.routines.constraints.projection import project
from genopt.routines.constraints.rules import Rules, rules_of


def rules(texts, space: Space, held: tuple[int, ...] = ()) -> Rules:
    found = rules_of(read_constraints(texts, space), space, held)
    assert found is not None
    return found


def points(space: Space, n: int, seed: int = 0) -> torch.Tensor:
    unit = torch.rand(n, space.dim, generator=torch.Generator().manual_seed(seed)).double()
    return space.project(space.lower + unit * (space.upper - space.lower))


def test_a_plane_is_met_at_its_nearest_point_in_the_metric():
    space = Space.from_bounds([(-50.0, 50.0)] * 3)
    generator = torch.Generator().manual_seed(1)
    factors = torch.randn(20, 3, 3, generator=generator, dtype=torch.float64)
    metric = factors @ factors.mT + 0.1 * torch.eye(3)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    done = project(rules("x1 - 2 * x2 + x3 == 2", space), x, metric)
    a = torch.tensor([1.0, -2.0, 1.0]).double()
    pull = (metric @ a) / (metric @ a @ a)[:, None]
    torch.testing.assert_close(done.x, x - pull * (x @ a - 2.0)[:, None])
    assert bool(done.kept.all())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_linear_rules_that_can_be_kept_are_kept_near_by(seed):
    rng = np.random.default_rng(seed)
    space = Space.from_bounds([(0.0, 1.0)] * 4)
    inside = rng.random(4)
    a = rng.normal(size=(3, 4)).round(2)
    b = a @ inside
    # one equality through a point of the box, two inequalities that it keeps
    text = [
        " + ".join(f"{v!r} * x{i + 1}" for i, v in enumerate(row.tolist()))
        + (f" == {limit!r}" if k == 0 else f" <= {limit + 0.02!r}")
        for k, (row, limit) in enumerate(zip(a, b.tolist(), strict=True))
    ]
    found = rules(text, space)
    x = points(space, 8, seed)
    done = project(found, x)
    assert bool(done.kept.all())
    assert bool(((done.x >= 0) & (done.x <= 1)).all())
    moved = (done.x - x).norm(dim=1)
    for start, distance in zip(x.numpy(), moved.tolist(), strict=True):
        best = minimize(
            lambda z, s=start: ((z - s) ** 2).sum(),
            inside,
            bounds=[(0, 1)] * 4,
            constraints=[
                {"type": "eq", "fun": lambda z: a[0] @ z - b[0]},
                {"type": "ineq", "fun": lambda z: b[1:] + 0.02 - a[1:] @ z},
            ],
            method="SLSQP",
        )
        assert distance <= 1.5 * math.sqrt(best.fun) + 1e-6


def test_curved_rules_in_a_corner_of_the_box():
    space = Space.from_bounds([(0.0, 1.0)] * 3)
    found = rules(["x1**2 + x2**2 == 1.2", "x1 * x3 >= 0.7", "exp(x3) <= 2.6"], space)
    done = project(found, points(space, 400))
    x = done.x[done.kept]
    assert len(x) >= 390
    assert float((x[:, 0] ** 2 + x[:, 1] ** 2 - 1.2).abs().max()) <= 1e-8
    assert float((0.7 - x[:, 0] * x[:, 2]).max()) <= 1e-8
    assert float((x[:, 2].exp() - 2.6).max()) <= 1e-8
    assert bool(((x >= 0) & (x <= 1)).all())


def test_a_row_that_keeps_its_rules_stays_where_it_is():
    space = Space.from_bounds([(0.0, 1.0)] * 2)
    x = points(space, 50)
    done = project(rules("x1 + x2 <= 1", space), x)
    fine = x.sum(1) <= 1.0
    assert bool(fine.any())
    assert torch.equal(done.x[fine], x[fine])
    # the others end on the line, and on its right side
    sums = done.x[~fine].sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-7, rtol=0)
    assert bool((sums <= 1.0).all())


def test_a_black_box_is_projected_by_differences():
    space = Space.from_bounds([(0.0, 2.0)] * 2)

    def circle(x):
        return torch.from_numpy(np.hypot(*x.detach().numpy().T).T ** 2 - 1.0)

    rule = Constraint(circle, kind="equality", differentiable=False)
    done = project(rules([rule], space), points(space, 60))
    assert bool(done.kept.all())
    assert float((done.x.norm(dim=1) - 1.0).abs().max()) <= 1e-8


def test_integers_classes_and_held_columns_do_not_move():
    space = Space(
        (
            Variable("n", 0, 5, kind="integer"),
            Variable("kind", kind="categorical", labels=("p", "q")),
            Variable("held", 0.0, 1.0),
            Variable("free", 0.0, 10.0),
        )
    )
    x = points(space, 40)
    found = rules("n * free + held + 2 * (kind == 'q') == 4", space, held=(2,))
    done = project(found, x)
    assert torch.equal(done.x[:, :3], x[:, :3])
    # n free = 4 - held - 2 [q] has an answer unless n is zero
    assert torch.equal(done.kept, x[:, 0] > 0)


def test_fractions_still_sum_to_one():
    space = Space.from_bounds([(0.0, 1.0)] * 4)
    space = Space(space.variables, (("x1", "x2", "x3"),))
    done = project(rules(["x1 == 2 * x2", "x3 + x4 <= 0.5"], space), points(space, 100))
    assert bool(done.kept.all())
    x = done.x
    torch.testing.assert_close(x[:, :3].sum(1), torch.ones(100).double(), atol=1e-11, rtol=0)
    assert float((x[:, 0] - 2 * x[:, 1]).abs().max()) <= 1e-8
    assert float((x[:, 2] + x[:, 3]).max()) <= 0.5 + 1e-8


def test_what_cannot_be_kept_is_said_to_have_failed():
    space = Space.from_bounds([(0.0, 1.0)] * 2)
    done = project(rules("x1**2 + x2**2 >= 2.5", space), points(space, 30))
    assert not bool(done.kept.any())
    undefined = project(rules("sqrt(x1 - 0.5) == 0.1", space), points(space, 30))
    assert bool(undefined.kept.any())
    assert not bool(undefined.kept[points(space, 30)[:, 0] < 0.5].any())


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_units_do_not_decide_what_is_kept(size):
    space = Space.from_bounds([(0.0, size), (0.0, 3.0 * size)])
    done = project(rules(f"x1 * x2 == {0.7 * size * size!r}", space), points(space, 40))
    assert bool(done.kept.all())
    product = done.x.prod(1) / size**2
    torch.testing.assert_close(product, torch.full_like(product, 0.7), atol=1e-8, rtol=0)


def test_redundant_rules_do_no_harm():
    space = Space.from_bounds([(0.0, 1.0)] * 3)
    text = ["x1 + x2 == 1", "2 * x1 + 2 * x2 == 2", "x1 + x2 <= 1", "x1 >= 0", "x3 <= 0.2"]
    done = project(rules(text, space), points(space, 60))
    assert bool(done.kept.all())


def test_the_oracle_agrees_on_what_is_empty():
    # the same linear system for scipy: the projection fails exactly where there is no point
    space = Space.from_bounds([(0.0, 1.0)] * 2)
    for limit in (1.9, 2.1):
        found = linprog([0, 0], A_ub=[[-1, -1]], b_ub=[-limit], bounds=[(0, 1)] * 2)
        done = project(rules(f"x1 + x2 >= {limit}", space), points(space, 10))
        assert bool(done.kept.all()) == (found.status == 0)
