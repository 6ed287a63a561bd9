"""The front figure: what is drawn is what was given, and nothing where there is no front."""

import pytest
import torch

from genopt.analysis.plots import plot_front, plot_study_front
from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.space import Space

X = Space.of(a=(0.0, 1.0))
Y = Space.of(f=(0.0, 1.0), g=(0.0, 1.0), limit=(0.0, 1.0))
GOAL = Goal({"f": "min", "g": "max", "limit": {"at_most": 0.5}}, X, Y)


def test_three_objectives_have_a_panel_for_each_pair():
    rows = torch.rand(5, 3)
    figure = plot_front(["f", "g", "h"], rows, rows, reference=torch.ones(3))
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]
    assert labels == [("f", "g"), ("f", "h"), ("g", "h")]


def test_a_study_shows_the_designs_that_keep_the_constraints():
    claimed = torch.tensor([[[0.25, 0.75, 0.2], [0.5, 0.5, 0.9]]]).double()
    header = {"front": {"columns": ["f", "g"], "reference": [1.0, 0.0], "true": [[0.0, 1.0]]}}
    found = Candidates.from_claims(GOAL, torch.tensor([[[0.1], [0.2]]]), claimed, header=header)
    table = Table(torch.tensor([[0.5]]), torch.tensor([[0.5, 0.5, 0.1]]), X, Y)
    figure = plot_study_front(found.verified_by(claimed), GOAL, table, "t")
    assert figure is not None
    (axes,) = figure.axes
    drawn = {c.get_label(): c.get_offsets().data.tolist() for c in axes.collections}
    assert drawn["verified"] == [[0.25, 0.75]]
    assert len(drawn["claimed"]) == 2
    assert drawn["measured"] == [[0.5, 0.5]]
    assert drawn["reference point"] == [[1.0, 0.0]]


def test_no_front_no_figure():
    found = Candidates.from_claims(GOAL, torch.zeros(1, 1, 1), torch.zeros(1, 1, 3))
    table = Table(torch.zeros(1, 1), torch.zeros(1, 3), X, Y)
    assert plot_study_front(found, GOAL, table) is None
    with pytest.raises(GenoptError, match="two objectives"):
        plot_front(["f"], torch.zeros(1, 1), torch.zeros(1, 1))
