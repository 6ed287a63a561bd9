"""What the shared `fit` does beside training."""

import signal

import pytest
import torch
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


@pytest.mark.parametrize("size", [0.1, 30.0])
def test_clipping_is_that_of_torch(size):
    from genopt.models.training import TabularModule

    def gradients():
        generator = torch.Generator().manual_seed(0)
        parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 2), (4,), ())]
        for p in parameters[:2]:
            p.grad = size * torch.randn(p.shape, generator=generator)
        return parameters

    ours, theirs = gradients(), gradients()
    TabularModule(clip=1.5).clip_gradients_of(ours)
    torch.nn.utils.clip_grad_norm_(theirs, 1.5)
    assert ours[2].grad is None
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    kept = gradients()
    TabularModule(clip=0.0).clip_gradients_of(kept)
    torch.testing.assert_close(kept[0].grad, gradients()[0].grad)


def lines(n: int = 120):
    x = torch.rand(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, {"a": x[:, 0], "b": noise}


@pytest.mark.parametrize("balance", ["fixed", "uncertainty", "pcgrad"])
def test_best_weights_and_patience_go_by_the_plain_validation_loss(balance):
    model = FlexibleMultiTaskModel(
        1, {"a": "regression", "b": "regression"}, balance=balance, patience=5, schedule="plateau"
    )
    x, y = lines()
    model.fit(x, y, epochs=60, batch_size=20, validation=0.3)
    losses = [entry["validation/loss"] for entry in model.history]
    # noise is learned by heart, so the validation loss rises and training stops
    assert len(losses) < 60
    assert losses.index(min(losses)) == len(losses) - 6
    from genopt.models.training import split_rows

    _, held = split_rows(len(x), 0.3, 0)
    misses = [
        float(
            ((model.predict(x[held])[n] - y[n][held]) / float(model.head_unit(n))).square().mean()
        )
        for n in ("a", "b")
    ]
    assert sum(misses) / 2 == pytest.approx(min(losses), rel=1e-4)


def test_frozen_parts_are_left_out_of_optimiser_and_warnings(recwarn):
    model = FlexibleMultiTaskModel(1, {"a": "regression", "b": "regression"})
    x, y = lines(60)
    model.fit(x, y, epochs=1)
    model.freeze("encoder", "a")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.fit(x, y, epochs=2)
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"task_heads.b.network.0.weight", "task_heads.b.network.0.bias"}
    assert not [w for w in recwarn if "eval mode" in str(w.message)]
    model.freeze("b")
    with pytest.raises(GenoptError, match="train"):
        model.fit(x, y, epochs=1)


def test_heads_without_weight_leave_nothing_to_train():
    model = FlexibleMultiTaskModel(
        1, {"a": "regression", "b": "regression"}, task_weights={"a": 0.0}, disabled=["b"]
    )
    x, y = lines(60)
    with pytest.raises(GenoptError, match="nothing to train"):
        model.fit(x, y, epochs=1)
