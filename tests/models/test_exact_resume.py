"""A fit that was stopped and goes on ends as if it had never stopped."""

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from genopt import ConditionalFlow, FlexibleMultiTaskModel
from genopt.models import job
from genopt.models.options import FitOptions
from genopt.problems.plug_flow import PlugFlow


class Killed(Exception):
    pass


class Killer(Callback):
    """Ends the process, as far as a test can, when an epoch begins."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise Killed


def new_model(kind, problem):
    spaces = {"x_space": problem.x_space, "y_space": problem.y_space}
    if kind == "flow":
        return ConditionalFlow(**spaces, epochs=8, batch_size=16)
    return FlexibleMultiTaskModel(**spaces, epochs=8, batch_size=16)


@pytest.mark.parametrize("kind", ["multitask", "flow"])
def test_weights_and_losses_are_those_of_an_undisturbed_fit(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_CHECKPOINT_SECONDS", 0.0)
    problem = PlugFlow()
    table = problem.table(64, seed=0).with_split(0.2, 0.0, 0)

    whole = new_model(kind, problem)
    whole.fit_table(table, FitOptions(folder=tmp_path / "whole", progress=False))
    for epoch in (2, 6):
        killed = new_model(kind, problem)
        options = FitOptions(folder=tmp_path / "cut", progress=False, callbacks=[Killer(epoch)])
        with pytest.raises(Killed):
            killed.fit_table(table, options)
    resumed = new_model(kind, problem)
    resumed.fit_table(table, FitOptions(folder=tmp_path / "cut", progress=False))

    assert [dict(e) for e in resumed.history] == [dict(e) for e in whole.history]
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0, msg=name)
