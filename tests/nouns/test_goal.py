import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genopt import GenoptError, Goal, Space, Variable

X = Space(
    (Variable("T", 250, 400), Variable("solvent", labels=("water", "oil"), kind="categorical"))
)
Y = Space(
    (
        Variable("density", 0.0, 10.0),
        Variable("cost", 0.0, 100.0),
        Variable("phase", labels=("solid", "liquid"), kind="categorical"),
    )
)
nan = float("nan")


def test_condition_has_values_where_they_are_exact_and_nan_elsewhere():
    goal = Goal({"density": 5.0, "cost": "min", "phase": "liquid", "T": 300}, X, Y)
    torch.testing.assert_close(
        goal.condition(), torch.tensor([5.0, nan, 1.0]).double(), equal_nan=True
    )
    assert {i: float(v) for i, v in goal.fixed.items()} == {0: 300.0}
    assert goal.hold(torch.tensor([[260.0, 1.0]])).tolist() == [[300.0, 1.0]]


def test_a_goal_reads_as_a_sentence():
    goal = Goal({"density": 5.0, "cost": "min", "phase": "liquid", "solvent": "oil"}, X, Y)
    assert str(goal) == (
        "density = 5, cost as low as possible, phase in class liquid, solvent fixed at oil"
    )


def test_losses_by_hand():
    y = torch.tensor([[4.0, 50.0, 1.0], [5.0, 20.0, 0.0]], dtype=torch.float64)
    assert Goal({"density": 5.0}, X, Y).loss(y).tolist() == pytest.approx([0.01, 0.0])
    assert Goal({"cost": "min"}, X, Y).loss(y).tolist() == pytest.approx([0.5, 0.2])
    assert Goal({"cost": "max"}, X, Y).loss(y).tolist() == pytest.approx([-0.5, -0.2])
    assert Goal({"cost": {"at_most": 30}}, X, Y).loss(y).tolist() == pytest.approx([0.04, 0.0])
    assert Goal({"cost": {"at_least": 30}}, X, Y).loss(y).tolist() == pytest.approx([0.0, 0.01])
    between = Goal({"density": {"between": [4.5, 4.8]}}, X, Y)
    assert between.loss(y).tolist() == pytest.approx([0.0025, 0.0004])
    assert Goal({"phase": {"label": "liquid"}}, X, Y).loss(y).tolist() == [0.0, 1.0]
    both = Goal({"density": {"equals": 5.0, "weight": 3.0}, "cost": "min"}, X, Y)
    assert both.loss(y).tolist() == pytest.approx([(3 * 0.01 + 0.5) / 4, 0.2 / 4])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 10), min_size=2, max_size=4),
    st.lists(st.floats(-5, 15), min_size=3, max_size=3),
)
def test_a_batch_of_goals_equals_its_goals_one_by_one(values, densities):
    y = torch.zeros(len(values), 3, 3, dtype=torch.float64)
    y[..., 0] = torch.tensor(densities, dtype=torch.float64)
    batch = Goal({"density": values, "cost": {"at_most": 3.0}}, X, Y)
    assert batch.batch_size == len(values)
    for b, value in enumerate(values):
        one = Goal({"density": value, "cost": {"at_most": 3.0}}, X, Y)
        torch.testing.assert_close(batch.loss(y)[b], one.loss(y[b]))
        assert batch.satisfied(y)[b].tolist() == one.satisfied(y[b]).tolist()
        torch.testing.assert_close(batch.condition()[b], one.condition(), equal_nan=True)


def test_satisfied_respects_tolerances_and_missing_values():
    goal = Goal({"density": {"equals": 5.0, "tolerance": 0.5}, "cost": {"at_most": 30}}, X, Y)
    y = torch.tensor([[5.4, 10.0, 0.0], [5.6, 10.0, 0.0], [5.0, 31.0, 0.0], [nan, 10.0, 0.0]])
    assert goal.satisfied(y).tolist() == [True, False, False, False]
    assert bool(goal.loss(y)[-1].isnan())


def test_the_gradient_points_towards_the_goal():
    y = torch.tensor([[4.0, 50.0, 0.0]], dtype=torch.float64, requires_grad=True)
    Goal({"density": 5.0, "cost": "max"}, X, Y).loss(y).sum().backward()
    assert y.grad is not None
    assert y.grad[0].tolist() == pytest.approx([-0.01, -0.005, 0.0])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "goal is empty"),
        ({"densty": 1.0}, "unknown goal column 'densty': did you mean 'density'"),
        ({"density": "big"}, "goal.density: expected a finite number"),
        ({"density": nan}, "goal.density: expected a finite number"),
        ({"density": {"above": 3}}, "unknown kind of goal.density 'above'"),
        ({"density": {"at_most": 3, "at_least": 1}}, "exactly one of"),
        ({"density": {"between": [3, 1]}}, "lower end 3 exceeds"),
        ({"density": {"equals": 1, "weight": 0}}, "weight must be positive"),
        ({"phase": "max"}, "does not fit a categorical column"),
        ({"phase": "gas"}, "unknown class of 'phase' 'gas'"),
        ({"density": 1.0, "T": 500}, "goal.T: 500 lies outside the bounds"),
        ({"density": 1.0, "T": "max"}, "can only be held at a value"),
        ({"T": 300}, "names only columns of x"),
        ({"density": [1.0, 2.0], "cost": [1.0, 2.0, 3.0]}, "different lengths"),
    ],
)
def test_bad_goals_say_what_is_wrong(spec, message):
    with pytest.raises(GenoptError, match=message):
        Goal(spec, X, Y)


def test_an_integer_column_is_held_at_integers_only():
    x = Space((Variable("stages", 1, 9, kind="integer"),))
    assert Goal({"density": 1.0, "stages": [2, 3]}, x, Y).fixed[0].tolist() == [2.0, 3.0]
    with pytest.raises(GenoptError, match=r"goal\.stages: .*2\.5.* is no integer"):
        Goal({"density": 1.0, "stages": [2, 2.5]}, x, Y)


def test_a_batch_refuses_values_of_another_batch():
    with pytest.raises(GenoptError, match=r"expected \(2, \.\.\., 3\)"):
        Goal({"density": [1.0, 2.0]}, X, Y).loss(torch.zeros(3, 3))
