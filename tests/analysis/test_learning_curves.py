"""Learning curves from a fit, its history, or what the CSV logger wrote."""

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger

from genopt import FitOptions, FlexibleMultiTaskModel, GenoptError, Space, Table
from genopt import plot_learning_curves as plot
from genopt.analysis.plots.learning import read_history


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    x = torch.rand(200, 1, generator=torch.Generator().manual_seed(0))
    table = Table(x, x**2, Space.of(a=(0, 1)), Space.of(b=(0, 1))).with_split(0.2, 0.0)
    model = FlexibleMultiTaskModel(
        x_space=table.x_space, y_space=table.y_space, epochs=6, schedule="one_cycle"
    )
    logger = CSVLogger(str(folder), name="csv")
    model.fit_table(table, FitOptions(loggers=[logger]))
    logger.finalize("success")
    return model, folder


def test_a_model_its_history_and_its_files_show_the_same(fitted):
    model, folder = fitted
    figures = [plot(model), plot(model.history), plot(folder)]
    figures.append(plot(folder / "csv" / "version_0" / "metrics.csv"))
    for figure in figures:
        losses, rates = figure.axes
        drawn = {line.get_label(): line.get_ydata() for line in losses.lines}
        for name in ("train", "validation"):
            expected = [entry[f"{name}/loss"] for entry in model.history]
            assert list(drawn[name]) == pytest.approx(expected, rel=1e-4)
        assert losses.lines[0].get_xdata()[0] == 1
        # one cycle: up and down again
        rate = rates.lines[0].get_ydata()
        assert max(rate) > 5 * rate[-1]
        assert 0 < max(rate) <= model.learning_rate


def test_the_best_epoch_of_a_flow_is_that_of_the_density():
    history = [
        {"epoch": float(i), "train/loss": 2.0 - i, "validation/loss": loss}
        for i, loss in enumerate((1.0, 0.5, 0.7))
    ]
    figure = plot(history)
    assert len(figure.axes) == 1
    assert "best, epoch 2" in [line.get_label() for line in figure.axes[0].lines]
    for i, density in ((0, 1.0), (2, -3.0)):
        history[i] |= {"validation/nll": density, "validation/kept_epoch": i + 1.0}
    losses, densities = plot(history).axes
    assert "best, epoch 3" in [line.get_label() for line in losses.lines]
    assert list(densities.lines[0].get_ydata()) == [1.0, -3.0]


def test_files_of_an_interrupted_fit_are_joined_and_the_later_epoch_counts(tmp_path):
    for version, rows in ((0, "0,1,3.0\n1,3,2.0\n"), (2, "1,3,2.5\n2,5,1.5\n"), (10, "2,5,1.0\n")):
        folder = tmp_path / f"version_{version}"
        folder.mkdir()
        (folder / "metrics.csv").write_text(f"epoch,step,train/loss\n{rows}")
    history = read_history(tmp_path)
    assert [entry["epoch"] for entry in history] == [0, 1, 2]
    assert [entry["train/loss"] for entry in history] == [3.0, 2.5, 1.0]


def test_losses_of_one_epoch_on_several_lines_are_one_entry(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,step,train/loss,validation/loss\n0,1,,0.5\n0,1,0.7,\n1,3,nan,0.4\n")
    assert read_history(file) == [
        {"epoch": 0.0, "step": 1.0, "validation/loss": 0.5, "train/loss": 0.7},
        {"epoch": 1.0, "step": 3.0, "validation/loss": 0.4},
    ]
    (axes,) = plot(file).axes
    assert [line.get_label() for line in axes.lines][:2] == ["train", "validation"]


def test_what_holds_no_losses_is_named(tmp_path):
    with pytest.raises(GenoptError, match="no loss"):
        plot([])
    with pytest.raises(GenoptError, match="logger=csv"):
        plot(tmp_path)
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(GenoptError, match="column epoch"):
        plot(tmp_path)
