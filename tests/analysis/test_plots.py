"""Figures are drawn for every kind of column and show what they were given."""

import math

import pytest
import torch

from genopt import Goal, Space, Variable
from genopt.analysis import plots
from genopt.problems.base import Answer

X = Space((Variable("a", 0, 1, "m"), Variable("k", labels=("u", "v"), kind="categorical")))
Y = Space.of(c=(0.0, 1.0), d=(0.0, 2.0))
ANSWER = Answer(torch.tensor([0.5, 1.0]).double(), torch.tensor([0.5, 1.0]).double())


def draws(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def designs(n: int) -> torch.Tensor:
    x = draws(n, 2)
    x[:, 1] = x[:, 1].round()
    return x


def test_conditional_marks_answers_and_names_classes(tmp_path):
    figure = plots.plot_conditional(designs(50), X, designs(80), [ANSWER], "title")
    a, k = figure.axes
    assert a.get_xlabel() == "a [m]"
    assert [label.get_text() for label in k.get_xticklabels()] == ["u", "v"]
    assert [line.get_xdata()[0] for line in a.lines] == [0.5]
    figure.savefig(tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 5000


def test_long_titles_and_legends_stay_inside_their_figure():
    title = "a problem of mine: Wide Words for predicted against measured values, held-out rows"
    found = {f"multitask encoder=transformer heads={name}": draws(5, 2) for name in "abcdef"}
    figure = plots.plot_properties(
        Goal({"c": 0.5, "d": 1.0}, X, Y), draws(9, 2), found, title=title
    )
    figure.canvas.draw()
    assert figure.get_suptitle().split() == title.split()
    for part in (*figure.texts, *figure.legends):
        box = part.get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1


def test_parity_skips_missing_entries():
    y = draws(20, 2)
    y[::2, 0] = math.nan
    figure = plots.plot_parity(y, draws(20, 2), Y, {"r2/c": 0.5, "rmse/c": 0.1})
    assert len(figure.axes[0].collections[0].get_offsets()) == 10
    assert "R² 0.500" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize("space", [X, Space.of(a=(0, 1))])
def test_trajectories_of_one_and_of_more_columns(space):
    ways = draws(9, 5, space.dim)
    times = [0.0, 0.1, 0.3, 0.6, 1.0]
    answer = Answer(ANSWER.x[: space.dim], ANSWER.y)
    flow = plots.plot_flow_trajectories(ways, space, times, [answer], most=4)
    assert list(flow.axes[-1].lines[0].get_xdata()) == times
    search = plots.plot_search_trajectories(ways, space, best=3, answers=[answer])
    assert len(search.axes) == len(flow.axes) == space.dim + (space.dim > 1)


@pytest.mark.parametrize("spec", [{"c": 0.5}, {"c": "min"}, {"c": 0.5, "d": {"at_most": 1}}])
def test_properties_and_claims(spec):
    goal = Goal(spec, X, Y)
    figure = plots.plot_properties(goal, draws(30, 2), {"found": draws(5, 2)}, title="t")
    assert figure.axes[0].get_xlabel() == "c"
    claims = plots.plot_claimed_verified(goal, draws(1, 30, 2), draws(1, 30, 2))
    assert len(claims.axes) == 2 * len(goal.terms)


def test_learning_curves_mark_the_best_epoch():
    history = [
        {"epoch": float(e), "train/loss": 1.0 / (e + 1), "validation/loss": 1 + (e - 3) ** 2}
        for e in range(8)
    ]
    (axes,) = plots.plot_learning_curves(history).axes
    labels = axes.get_legend_handles_labels()[1]
    assert "best, epoch 4" in labels
    assert axes.get_yscale() == "log"
