"""What factors lose, for sets of rows and as a figure."""

import pytest
import torch

from genopt import Space, Table
from genopt.analysis import plots
from genopt.analysis.reconstruction import lost_by_rows
from genopt.errors import GenoptError


class Halved:
    """Loses the mean of x, so that sets of rows can be told apart."""

    def reconstruction_error(self, x=None, y=None):
        return {"a": 0.25 if x is None else float(x.mean())}


class Full:
    def reconstruction_error(self, x=None, y=None):
        return {}


def rows(*split):
    x = torch.arange(len(split), dtype=torch.float64)[:, None]
    return Table(x, x, Space.of(a=(0, 9)), Space.of(b=(0, 9)), split=split)


def test_seen_and_unseen_rows_are_told_apart():
    found = lost_by_rows(Halved(), rows("train", "test", "train", "test"))
    assert found == {"training": {"a": 0.25}, "held out": {"a": 2.0}}
    assert lost_by_rows(Halved(), rows("train", "train")) == {"training": {"a": 0.25}}


@pytest.mark.parametrize("model", [Full(), object()])
def test_a_model_without_factors_loses_nothing(model):
    assert lost_by_rows(model, rows("train", "test")) == {}


def test_the_figure_has_a_bar_for_each_column_the_worst_on_top():
    lost = {"training": {"a": 0.1, "b": 0.4}, "held out": {"a": 0.2, "b": 0.5}}
    (axes,) = plots.plot_reconstruction(lost, "title").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    assert widths == [pytest.approx([10.0, 40.0]), pytest.approx([20.0, 50.0])]
    assert [bars.get_label() for bars in axes.containers] == ["training", "held out"]
    # of the two bars of a column, the first set is above the second
    assert axes.containers[0][0].get_y() > axes.containers[1][0].get_y()


def test_no_column_is_no_figure():
    with pytest.raises(GenoptError, match="no column"):
        plots.plot_reconstruction({"training": {}})
