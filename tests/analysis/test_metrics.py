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
