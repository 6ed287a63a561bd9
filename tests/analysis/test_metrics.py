import math

import pytest
import torch

from genopt import Candidates, Goal, Space, Table, Variable
from genopt.analysis.metrics import (
    candidate_scores,
    diversity,
    mode_scores,
    nearest_rows,
    regression_scores,
)
from genopt.analysis.summary import best_rows_frame, top_frame, verdict
from genopt.problems.base import Answer

X = Space.of(a=(0.0, 10.0), b=(0.0, 1.0))
Y = Space.of(c=(0.0, 1.0))


def t(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def table() -> Table:
    return Table(t([[0, 0], [0, 0], [10, 1], [5, 0.5]]), t([[0.2], [0.4], [0.9], [0.5]]), X, Y)


def test_nearest_rows_are_measured_in_the_unit_box():
    near = nearest_rows(t([[[1.0, 0.0], [9.0, 1.0]]]), table())
    assert near.distance.tolist()[0] == pytest.approx([0.1 / math.sqrt(2), 0.1 / math.sqrt(2)])
    assert near.row[0, 1] == 2


def test_regression_scores_skip_missing_labels():
    space = Space((Variable("c"), Variable("k", labels=("u", "v"), kind="categorical")))
    nan = math.nan
    y = t([[1.0, 0], [2.0, 1], [3.0, nan], [nan, 1]])
    guess = t([[1.0, 0], [2.0, 0], [4.0, 1], [9.0, 1]])
    scores = regression_scores(y, guess, space)
    # residuals 0, 0, 1 around a variance sum of 2
    assert scores["r2/c"] == pytest.approx(0.5)
    assert scores["rmse/c"] == pytest.approx(math.sqrt(1 / 3))
    assert scores["accuracy/k"] == pytest.approx(2 / 3)


def test_mode_scores_by_hand():
    answers = [
        Answer(t([0.0, 0.0]), t([0.5]), 0.25),
        Answer(t([10.0, 1.0]), t([0.5]), 0.5),
        Answer(t([10.0, 0.0]), t([0.5]), 0.25),
    ]
    x = t([[0.0, 0.0], [0.2, 0.0], [10.0, 0.98], [5.0, 0.9]])
    scores = mode_scores(x, answers, X, tolerance=0.05)
    assert scores["mode_recall"] == pytest.approx(2 / 3)
    assert scores["mode_precision"] == pytest.approx(3 / 4)
    # half of the samples belong to each of the first two answers, none to the third
    assert scores["weight_tv"] == pytest.approx(0.25)


def test_diversity_is_the_mean_distance():
    assert diversity(t([[0.0, 0.0], [10.0, 1.0]]), X) == pytest.approx(1.0)
    assert diversity(t([[0.0, 0.0]]), X) == 0.0


def test_claims_stand_beside_verified_values_and_the_best_row():
    goal = Goal({"c": 0.5}, X, Y)
    x = t([[[0.0, 0.0], [5.0, 0.5], [12.0, 0.0]]])
    candidates = Candidates.from_claims(goal, x, t([[[0.5], [0.52], [0.5]]]))
    candidates = candidates.verified_by(t([[[0.8], [0.5], [0.5]]]))
    scores = candidate_scores(candidates, goal, (), table())
    assert scores["claimed/best_loss"] == 0.0
    # the best claim is far off in truth, another design is right
    assert scores["verified/loss_of_best_claim"] == pytest.approx(0.09)
    assert scores["verified/best_loss"] == 0.0
    assert candidates.best().x[0, 0].tolist() == [5.0, 0.5]
    assert candidates.best("claimed").x[0, 0].tolist() == [0.0, 0.0]
    assert scores["verified/satisfied"] == pytest.approx(2 / 3)
    assert scores["inside_space"] == pytest.approx(2 / 3)
    assert scores["round_trip_rmse/c"] == pytest.approx(math.sqrt(0.09 / 3))
    assert scores["baseline/best_row_loss"] == 0.0
    words = verdict(candidates, goal, scores)
    assert "2 of 3 designs reach the goal (verified)" in words
    assert "1 of 3 designs outside the bounds" in words


def test_a_missing_simulator_is_said():
    goal = Goal({"c": "min"}, X, Y)
    candidates = Candidates.from_claims(goal, t([[[0.0, 0.0]]]), t([[[0.1]]]))
    scores = candidate_scores(candidates, goal, (), table())
    assert "measure before you trust it" in verdict(candidates, goal, scores)
    assert "verified/best_loss" not in scores


def test_classes_are_shown_by_name_and_no_complete_row_is_said():
    phase = Variable("phase", labels=("gas", "liquid", "solid"), kind="categorical")
    y_space = Space((*Y, phase))
    rows = t([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [9.0, 1.0]])
    nan = math.nan
    # two of three replicates are solid; the mean of the codes would be liquid
    y = t([[nan, 2.0], [nan, 0.0], [nan, 2.0], [0.5, nan]])
    data = Table(rows, y, X, y_space)
    goal = Goal({"c": 0.5, "phase": "liquid"}, X, y_space)
    claims = t([[[0.5, 1.0], [0.4, 2.0]]])
    candidates = Candidates.from_claims(goal, t([[[0.1, 0.0], [9.0, 1.0]]]), claims)
    frame = top_frame(candidates, data, 2)
    assert frame["phase_predicted"].tolist() == ["liquid", "solid"]
    assert frame["phase_nearest"].tolist()[0] == "solid"
    assert frame["phase_nearest"].isna().tolist() == [False, True]
    assert "solid" in best_rows_frame(goal, data, 2)["phase_nearest"].tolist()
    words = verdict(candidates, goal, candidate_scores(candidates, goal, (), data))
    assert "no measured row has all labels of the goal" in words
    assert "nan" not in words


def test_the_top_stands_beside_the_nearest_row_with_replicates_averaged():
    goal = Goal({"c": "min"}, X, Y)
    candidates = Candidates.from_claims(goal, t([[[0.1, 0.0], [9.0, 1.0]]]), t([[[0.1], [0.7]]]))
    frame = top_frame(candidates, table(), 2)
    assert frame["c_nearest"].tolist() == pytest.approx([0.3, 0.9])
    assert frame["nearest_row"].tolist()[1] == "2"
    best = best_rows_frame(goal, table(), 2)
    assert best["c_nearest"].tolist() == pytest.approx([0.3, 0.5])
    assert best["a"].tolist() == [0.0, 5.0]


def test_a_verdict_counts_answers_residuals_and_what_was_lost():
    goal = Goal({"c": {"equals": 0.5, "tolerance": 0.01}}, X, Y)
    x = t([[[0.0, 0.0], [10.0, 1.0], [9.99, 1.0], [math.nan, math.nan]]])
    claims = t([[[0.5], [0.5], [0.4], [math.nan]]])
    candidates = Candidates.from_claims(goal, x, claims, ood=t([[0.2, 3.0, 0.3, math.nan]]))
    candidates = candidates.verified_by(t([[[0.5], [0.504], [0.4], [math.nan]]]))
    answers = [Answer(t([0.0, 0.0]), t([0.5]), 0.25), Answer(t([10.0, 1.0]), t([0.5]), 0.75)]
    scores = candidate_scores(candidates, goal, answers)
    # the row of NaN is no design
    assert scores["candidates"] == 3
    assert scores["verified/satisfied"] == pytest.approx(2 / 3)
    assert scores["ood/outside"] == pytest.approx(1 / 3)
    assert scores["residual/c"] == 0.0
    assert scores["weight_tv"] == pytest.approx(0.75 - 2 / 3)
    words = verdict(candidates, goal, scores, answers, lost=["the simulator failed for 1 of 4"])
    assert words.startswith("2 of 2 exact answers found, 100% of the designs at one, their shares")
    assert "2 of 3 designs reach the goal (verified)" in words
    assert "1 of 3 designs are extrapolated" in words
    assert words.endswith("the simulator failed for 1 of 4.")


def test_residuals_are_those_of_converged_rows():
    goal = Goal({"c": 0.5}, X, Y)
    x = t([[[0.0, 0.0], [5.0, 0.5], [10.0, 1.0]]])
    y = t([[[0.5], [0.51], [0.9]]])
    converged = torch.tensor([[True, True, False]])
    candidates = Candidates.from_claims(goal, x, y, converged=converged).verified_by(y)
    scores = candidate_scores(candidates, goal)
    assert scores["converged"] == pytest.approx(2 / 3)
    assert scores["residual/c"] == pytest.approx(0.01)
    words = verdict(candidates, goal, scores)
    assert "the solver converged for 2 of 3; largest residual of the converged 0.01" in words
    # what was claimed is what the simulator said
    assert "best claim" not in words


def test_the_best_designs_of_a_front_are_its_ends_and_what_lies_between():
    two = Space.of(c=(0.0, 1.0), d=(0.0, 1.0))
    goal = Goal({"c": "min", "d": "min"}, X, two)
    first = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)
    y = torch.stack([first, (1.0 - first).square()], -1)
    y = torch.cat([y, t([[0.9, 0.9]])])[None]
    x = torch.stack([10.0 * y[0, :, 0], y[0, :, 1]], -1)[None]
    candidates = Candidates.from_claims(goal, x, y, header={"routine": "pareto"})
    rows = Table(x[0], y[0], X, two)
    frame = top_frame(candidates.verified_by(y), rows, 3)
    assert frame["c_verified"].tolist() == pytest.approx([0.0, 0.45, 1.0], abs=0.06)
    # any other routine ranks by the loss, whose best is near c = 0.5
    plain = top_frame(Candidates.from_claims(goal, x, y), rows, 1)
    assert plain["c_predicted"].tolist() == pytest.approx([0.5], abs=0.06)


@pytest.mark.parametrize(
    ("value", "said"), [(0.41, "c 0.4, is not reached: the best is 0.41"), (0.401, "")]
)
def test_an_optimum_is_not_found_where_its_value_is_missed(value, said):
    goal = Goal({"c": "min"}, X, Space.of(b2=(0.0, 1.0), c=(0.0, 0.45)))
    x, y = t([[[5.0, 0.5], [0.0, 0.0]]]), t([[[0.9, value], [0.1, 0.44]]])
    candidates = Candidates.from_claims(goal, x, y).verified_by(y)
    answers = [Answer(t([5.1, 0.5]), t([0.9, 0.4]), 1.0)]
    words = verdict(candidates, goal, candidate_scores(candidates, goal, answers), answers)
    assert ("1 of 1 exact answers found" in words) is (said == "")
    assert said in words


def test_stationary_points_are_named():
    goal = Goal({"c": "min"}, X, Y)
    x, y = t([[[0.0, 0.5], [5.0, 0.5], [10.0, 0.5]]]), t([[[0.8], [0.2], [0.5]]])
    header = {"kinds": ["maximum", "minimum", "saddle"]}
    found = Candidates.from_claims(goal, x, y, header=header)
    frame = top_frame(found, Table(x[0], y[0], X, Y), 2)
    assert frame["kind"].tolist() == ["minimum", "saddle"]
