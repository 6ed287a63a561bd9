"""The second-order finish against least squares, and what it must leave alone."""

import pytest
import torch
from torch import nn

from genopt.errors import GenoptError
from genopt.models import polish as module_of_polish
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.options import FitOptions
from genopt.models.polish import Polish, polish
from genopt.models.training import MONITOR, TabularModule, seeded


class Linear(TabularModule):
    """y = w x + b under squared error; `log_scale` is a weight that no loss uses."""

    def __init__(self, inputs, hidden=0):
        super().__init__()
        with seeded(0):
            self.network = (
                nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1))
                if hidden
                else nn.Linear(inputs, 1)
            )
        self.log_scale = nn.Parameter(torch.ones(()))

    def batch_loss(self, *batch):
        x, y = batch
        return (self.network(x) - y).square().mean()


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def least_squares(x, y):
    wide = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    return torch.linalg.lstsq(wide, y.double()).solution[:, 0]


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_it_reaches_least_squares_in_any_unit(scale):
    x = draws(60, 3) * torch.tensor([1.0, 5.0, 0.2])
    y = (x.sum(1, keepdim=True).sin() + 0.5) * scale
    model = Linear(3).double()
    polish(model, (x.double(), y.double()), None, steps=200)
    found = torch.cat([model.network.weight[0], model.network.bias])
    torch.testing.assert_close(found / scale, least_squares(x, y) / scale, rtol=0, atol=1e-6)
    assert model.log_scale.item() == 1.0
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_pieces_of_the_rows_give_the_same_finish(monkeypatch):
    x, y = draws(50, 2), draws(50, 1, seed=1)
    ends = []
    for piece in (50, 7):
        monkeypatch.setattr(module_of_polish, "_CHUNK", piece)
        model = Linear(2, hidden=4).double()
        passes = polish(model, (x.double(), y.double()), None, steps=15)
        ends.append(model.network[0].weight.detach())
        assert passes >= 15
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-8)


def test_the_best_validation_loss_is_kept():
    # eight noisy rows and forty hidden units: fitting them exactly is worse on others
    x, noise = draws(8, 1), draws(8, 1, seed=2)
    held = draws(200, 1, seed=3)
    model = Linear(1, hidden=40)
    polish(model, (x, noise), (held, torch.zeros(200, 1)), steps=400)
    losses = [entry[MONITOR] for entry in model.history]
    kept = model.network(held).square().mean().item()
    first = Linear(1, hidden=40).network(held).square().mean().item()
    assert kept == pytest.approx(min([first, *losses]), rel=1e-5)
    assert model.history[-1]["train/loss"] < 0.5 * float(noise.square().mean())
    assert model.history[-1][MONITOR] > kept
    # it ended once the validation loss had not improved for a hundred steps
    assert len(losses) < 20
    epochs = [entry["epoch"] for entry in model.history]
    assert epochs == sorted(set(epochs))


def test_frozen_weights_stay():
    model = Linear(2, hidden=4)
    model.network[0].requires_grad_(False)
    before = model.network[0].weight.clone()
    polish(model, (draws(30, 2), draws(30, 1, seed=1)), None, steps=10)
    torch.testing.assert_close(model.network[0].weight, before, rtol=0, atol=0)


def test_a_fit_that_ends_with_it_gets_further(tmp_path):
    x = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)).double()
    y = torch.stack([(4 * x[:, 0]).sin() * x[:, 1], x.sum(1).square()], 1)
    y[:200:3, 0] = torch.nan
    errors = []
    for callbacks in ((), (Polish(100),)):
        model = FlexibleMultiTaskModel(
            input_dim=2,
            heads={"a": "regression", "b": "regression"},
            encoder={"kind": "mlp", "hidden_dims": [32], "latent_dim": 32},
            epochs=30,
            validation=0.2,
        )
        options = FitOptions(callbacks=callbacks, folder=tmp_path / str(len(callbacks)))
        model.fit(x[:200], {"a": y[:200, 0], "b": y[:200, 1]}, options=options)
        found = model.predict(x[200:])
        error = torch.stack([found["a"], found["b"]], 1) - y[200:]
        errors.append(error.square().mean(0))
        assert all(p.grad is None for p in model.parameters())
    assert bool((errors[1] < 0.2 * errors[0]).all())
    epochs = [entry["epoch"] for entry in model.history]
    assert epochs == sorted(set(epochs))
    assert epochs[-1] > 100


class Averaged(Linear):
    """Validates with other weights than it trains."""

    def held_out_loss(self, *batch):
        with torch.no_grad():
            return self.batch_loss(*batch)


def test_a_model_that_validates_other_weights_is_refused():
    model = Averaged(2)
    with pytest.raises(GenoptError, match="Averaged cannot be polished"):
        polish(model, (draws(5, 2), draws(5, 1)), None, steps=5)


def test_nothing_to_do_and_bad_input():
    rows = (draws(5, 2), draws(5, 1))
    model = Linear(2)
    before = model.network.weight.clone()
    assert polish(model, rows, None, steps=0) == 0
    torch.testing.assert_close(model.network.weight, before)
    with pytest.raises(GenoptError, match="steps must be 0 for none"):
        polish(model, rows, None, steps=-1)
    with pytest.raises(GenoptError, match="validation has no row"):
        polish(model, rows, (rows[0][:0], rows[1][:0]), steps=1)
