"""What the shared `fit` does beside training."""

import signal

import pytest
from pytorch_lightning.callbacks import Callback

from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.options import FitOptions
from genopt.space import Space


class Interrupt(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        raise KeyboardInterrupt


def test_ctrl_c_reaches_the_caller_and_keeps_working():
    import torch

    x, y = Space.of(a=(0.0, 1.0)), Space.of(b=(0.0, 1.0))
    rows = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    model = FlexibleMultiTaskModel(x_space=x, y_space=y, epochs=3)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        model.fit_table(Table(rows, rows, x, y), FitOptions(callbacks=(Interrupt(),)))
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("name", ["epochs", "batch_size", "patience"])
@pytest.mark.parametrize("model", [FlexibleMultiTaskModel, ConditionalFlow])
def test_zero_is_not_the_default(model, name):
    space = Space.of(a=(0.0, 1.0)), Space.of(b=(0.0, 1.0))
    with pytest.raises(GenoptError, match=f"{name} must be at least 1"):
        model(x_space=space[0], y_space=space[1], **{name: 0})
