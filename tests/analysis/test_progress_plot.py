"""The figure of a search: every goal's best value at the calls that it took."""

from __future__ import annotations

import torch

from genopt import Candidates, Space
from genopt.analysis.plots import plot_study_progress
from genopt.problems import Answer


def candidates(header):
    x_space, y_space = Space.of(u=(0.0, 1.0)), Space.of(f=(0.0, 9.0))
    x = torch.zeros(1, 1, 1, dtype=torch.float64)
    flat = torch.zeros(1, 1, dtype=torch.float64)
    return Candidates(
        x=x, x_space=x_space, y_space=y_space, y_predicted=x, loss=flat, feasible=flat.bool(),
        goal={"f": "min"}, header=header,
    )  # fmt: skip


def test_lines_are_the_history_and_the_answer_is_marked():
    history = {"calls": [0, 10, 20], "best": [[5.0, 3.0, 2.5], [7.0, 7.0, 1.0]], "what": "f"}
    answer = Answer(torch.zeros(1), torch.tensor([0.5]))
    figure = plot_study_progress(candidates({"history": history}), (answer,))
    (axes,) = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(drawn["goal 1"]) == [5.0, 3.0, 2.5]
    assert list(drawn["goal 2"]) == [7.0, 7.0, 1.0]
    assert set(drawn["best possible"]) == {0.5}
    assert axes.get_ylabel() == "best f so far"


def test_other_routines_have_no_such_figure():
    assert plot_study_progress(candidates({})) is None
    assert plot_study_progress(candidates({"history": [1, 2]})) is None
