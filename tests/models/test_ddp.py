"""A fit by several processes is the fit by one: shares that add up, and two real processes."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger

from genopt.data.batches import BatchLoader
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.flow.reflow import Straight
from genopt.models.multitask.ensemble import MultiTaskEnsemble
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.options import FitOptions
from genopt.models.processes import (
    Tasks,
    check_trainer,
    count_of,
    gpus_of,
    tasks_of_slurm,
    usable_precision,
)
from genopt.models.share import ALONE, Share
from genopt.models.team import one_team, packed
from genopt.space import Space

X = Space.of(a=(0.0, 1.0), b=(0.0, 1.0), c=(0.0, 1.0))
Y = Space.of(u=(-3.0, 3.0), v=(-3.0, 3.0))
ONE = {"accelerator": "cpu"}
TWO = {"accelerator": "cpu", "strategy": "ddp", "devices": 2}


def rows(n=151, gaps=0.3):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    y = torch.stack([x.sum(1), (3 * x[:, 0]).sin() * x[:, 1]], 1)
    y[torch.rand(n, 2, generator=generator) < gaps] = torch.nan
    return Table(x, y, X, Y)


# -- shares ----------------------------------------------------------------------------------------
@given(n=st.integers(1, 500), count=st.integers(1, 9))
def test_every_row_of_a_mini_batch_counts_once(n, count):
    counted, weights = Counter(), []
    for rank in range(count):
        share = Share(rank, count)
        own = list(range(n))[share.rows(n)]
        assert own
        weights.append(share.weight(n))
        assert weights[-1] in (len(own) / n, 0.0)
        if weights[-1]:
            counted.update(own)
    assert counted == Counter(range(n))
    assert sum(weights) == pytest.approx(1.0)
    assert max(weights) - min(weights) <= 1.0 / n + 1e-12


@given(
    n=st.integers(1, 200),
    size=st.integers(1, 60),
    block=st.integers(1, 4),
    count=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=50)
def test_every_row_comes_once_an_epoch_over_all_processes(n, size, block, count, seed):
    seen, steps = Counter(), set()
    for rank in range(count):
        share = Share(rank, count)
        loader = BatchLoader((torch.arange(n),), size, block, seed=seed)
        taken = 0
        for (whole,) in loader:
            for batch in whole.split(loader.batch_size):
                taken += 1
                if share.weight(len(batch)):
                    seen.update(batch[share.rows(len(batch))].tolist())
        steps.add(taken)
    assert seen == Counter(range(n))
    # optimiser and schedule take as many steps as with one process
    assert steps == {-(-n // min(size, n))}


# -- parts of a loss add up ------------------------------------------------------------------------
def labels(n):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 3, generator=generator)
    number = x.sum(1, keepdim=True)
    kinds = (x[:, :1] > 0.5).float() + (x[:, 1:2] > 0.8).float()
    curve = torch.stack([x[:, 0] * t for t in (0.0, 0.5, 1.0)], 1)
    out = {"number": number, "kind": kinds, "curve": curve, "events": (4 * number).round()}
    for name, values in out.items():
        values[torch.rand(values.shape, generator=generator) < 0.4] = torch.nan
        out[name] = values.double()
    return x.double(), out


HEADS = {
    "number": "heteroscedastic",
    "kind": {"kind": "classification", "num_classes": 3, "class_weights": [1.0, 2.0, 5.0]},
    "curve": {"kind": "sequence", "grid": [0.0, 0.5, 1.0]},
    "events": "count",
    "design": "autoencoder",
}


def multitask(kind, **options):
    x, y = labels(60)
    model = kind(input_dim=3, heads=HEADS, epochs=1, **options)
    return model.fit(x, y, options=FitOptions(trainer=ONE)).train()


def of_model(model):
    """The tensors of a mini-batch, as the model's own fit makes them."""
    from genopt.models.multitask.labels import check_labels, scaled_labels

    x, y = labels(60)
    targets = check_labels(y, len(x), model.heads, model.label_widths)
    return model.features(x), scaled_labels(model.heads, model.label_widths, targets)


def bootstrapped(model):
    seen = torch.rand(60, 3, generator=torch.Generator().manual_seed(2)) < 0.6
    return (*of_model(model), seen)


def flow(**options):
    table = rows(60)
    model = ConditionalFlow(X, Y, epochs=1, network={"kind": "adaln", "width": 16}, **options)
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(0.1)
    model.transform.fit(table.x, torch.Generator().manual_seed(0))
    model.conditions.fit(table.y)
    return model.train()


def of_flow(model):
    table = rows(60)
    return model._tensors(table.x, table.y)


def weighted(model):
    model._weighted = True
    return (*of_flow(model), torch.linspace(0.1, 3.0, 60)[:, None])


def straight():
    model = flow()
    return Straight(model.network, 1e-3, 0.0, 1.0, 0.9).train()


def of_straight(_):
    generator = torch.Generator().manual_seed(3)
    start, end = torch.randn(2, 60, 3, generator=generator)
    condition = torch.randn(60, 4, generator=generator)
    return start, end, condition, (torch.rand(60, 3, generator=generator) < 0.7).float()


CASES = {
    "multitask": (lambda: multitask(FlexibleMultiTaskModel), of_model),
    "uncertainty": (lambda: multitask(FlexibleMultiTaskModel, balance="uncertainty"), of_model),
    "conservative": (
        lambda: multitask(FlexibleMultiTaskModel, conservative={"goals": {"number": "max"}}),
        of_model,
    ),
    "ensemble": (lambda: multitask(MultiTaskEnsemble, members=3), bootstrapped),
    "flow": (flow, of_flow),
    "weights": (flow, weighted),
    "given_x": (lambda: flow(given_x=0.4, coupling="conditional_ot"), of_flow),
    "straight": (straight, of_straight),
}


def loss_and_gradients(module, share, loss, batch):
    module.share = share
    module.zero_grad()
    torch.manual_seed(7)
    value = getattr(module, loss)(*batch)
    if value.requires_grad:
        value.backward()
    module.share = ALONE
    gradients = [
        torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()
    ]
    return value.detach(), gradients


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_of_shares_add_up_to_those_of_all_rows(case):
    make, tensors = CASES[case]
    module = make()
    whole = tensors(module)
    for n, count in ((60, 3), (7, 2), (1, 2)):
        batch = tuple(part[:n] for part in whole)
        for loss in ("batch_loss", "held_out_loss"):
            if loss == "held_out_loss":
                batch = batch[:2] if case == "ensemble" else batch
            value, gradients = loss_and_gradients(module, ALONE, loss, batch)
            parts = [loss_and_gradients(module, Share(r, count), loss, batch) for r in range(count)]
            torch.testing.assert_close(sum(part[0] for part in parts), value, rtol=1e-4, atol=1e-5)
            size = max(float(gradient.abs().max()) for gradient in gradients)
            for i, gradient in enumerate(gradients):
                summed = sum(part[1][i] for part in parts)
                torch.testing.assert_close(summed, gradient, rtol=1e-3, atol=1e-4 * size)


def test_units_are_dropped_differently_but_the_next_mini_batch_is_drawn_alike():
    drawn, dropped = [], []
    for rank in range(2):
        module = ConditionalFlow(X, Y, network={"kind": "adaln", "width": 8, "dropout": 0.5})
        module.share = Share(rank, 2)
        module._seeds = torch.Generator().manual_seed(5)
        torch.manual_seed(0)
        for _ in range(2):
            with module._own_draws():
                drawn.append(torch.rand(4))
                module.own_rows(7)
                # shares of 3 and 4 rows take unequal numbers of draws
                dropped.append(torch.rand(3 + rank)[:3])
        drawn.append(torch.rand(4))
    assert all(torch.equal(drawn[i], drawn[i + 3]) for i in range(3))
    assert len({tuple(part.tolist()) for part in (*drawn[:3], *dropped)}) == 7


# -- how many processes, and where -----------------------------------------------------------------
def test_what_a_fit_asks_for(monkeypatch):
    assert count_of({"accelerator": "cpu"}) == 1
    assert count_of({"accelerator": "cpu", "strategy": "ddp", "devices": "auto"}) == 2
    assert count_of({"accelerator": "cpu", "strategy": "ddp_spawn", "devices": 3}) == 3
    assert count_of({"strategy": "ddp", "devices": "auto"}, Tasks(0, 4, "here", 1)) == 4
    with pytest.raises(GenoptError, match="Slurm started 4 tasks"):
        count_of({"strategy": "ddp", "devices": 2}, Tasks(0, 4, "here", 1))
    with pytest.raises(GenoptError, match="trains on one device; say trainer=ddp"):
        check_trainer({"devices": 2})
    with pytest.raises(GenoptError, match=r"unknown trainer\.strategy 'fsdp'"):
        check_trainer({"strategy": "fsdp"})
    with pytest.raises(GenoptError, match="must be auto, a number"):
        check_trainer({"devices": "two", "strategy": "ddp"})
    with pytest.raises(GenoptError, match="at least 1"):
        check_trainer({"devices": 0, "strategy": "ddp"})
    with pytest.raises(GenoptError, match=r"trainer\.precision=16-mixed"):
        check_trainer({"precision": "16-mixed"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert count_of({"strategy": "ddp", "devices": "auto"}) == 4
    assert gpus_of({"strategy": "ddp", "devices": [1, 3]}, 2) == (1, 3)
    assert gpus_of({"strategy": "ddp", "devices": 2}, 2) == (0, 1)
    assert gpus_of({"strategy": "ddp", "devices": "auto"}, 6) == (0, 1, 2, 3, 0, 1)
    with pytest.raises(GenoptError, match="has 4 GPUs"):
        count_of({"strategy": "ddp", "devices": 5})


def test_bfloat16_is_used_where_the_gpu_has_it(monkeypatch):
    trainer = {"accelerator": "gpu", "precision": "bf16-mixed"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old card")
    for has, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        if has:
            assert usable_precision(trainer) == expected
            continue
        with pytest.warns(UserWarning, match="an old card has no bfloat16"):
            assert usable_precision(trainer) == expected
    assert usable_precision({**trainer, "accelerator": "cpu"}) == "bf16-mixed"


def test_tasks_of_slurm(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    assert tasks_of_slurm({"strategy": "ddp"}) is None
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_NODELIST", "node7")
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    found = tasks_of_slurm({"strategy": "ddp"})
    assert (found.rank, found.count, found.host) == (1, 2, "node7")
    # another job, or another step of this one, on the same machine meets elsewhere
    ports = {found.port}
    for name, value in (("SLURM_STEP_ID", "1"), ("SLURM_JOB_ID", "1235")):
        monkeypatch.setenv(name, value)
        ports.add(tasks_of_slurm({"strategy": "ddp"}).port)
    assert len(ports) == 3
    assert tasks_of_slurm({"strategy": "ddp_spawn"}) is None
    assert tasks_of_slurm({}) is None
    # one step with one task in a job that has room for two
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert tasks_of_slurm({"strategy": "ddp"}) is None


def test_what_cannot_be_sent_is_said():
    from genopt.models.job import FitJob

    table = rows(20)
    job = FitJob(flow(), (table.x,), None, 1, 5, None, "loss", FitOptions(callbacks=[iter_of()]))
    with pytest.raises(GenoptError, match="cannot be sent to other processes"):
        packed(job)


def iter_of():
    yield 1


# -- two processes ---------------------------------------------------------------------------------
class Diary(Callback):
    """What a process saw, written by each into a file of its own."""

    def __init__(self, folder, fail=-1, kill=False):
        self.folder = folder
        self.fail = fail
        self.kill = kill

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.global_rank == self.fail:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("out of luck")

    def on_train_end(self, trainer, pl_module):
        # a fit is over when it is over in all processes, however late one is
        time.sleep(trainer.global_rank)
        state = {k: v.double().tolist() for k, v in pl_module.state_dict().items()}
        seen = {
            "state": state,
            "loader": type(trainer.train_dataloader).__name__,
            "stopped": trainer.current_epoch,
            "step": trainer.global_step,
            "rate": trainer.optimizers[0].param_groups[0]["lr"],
            "loss": float(trainer.callback_metrics["validation/loss"]),
            "pid": os.getpid(),
        }
        (Path(self.folder) / f"{trainer.global_rank}.json").write_text(json.dumps(seen))


def diaries(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("?.json"))]


def distance(a, b):
    return max(
        float((v.double() - w.double()).abs().max())
        for v, w in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_two_processes_train_as_one(tmp_path):
    table = rows().with_split(0.2, 0.0, 0)
    options = {"x_space": X, "y_space": Y, "batch_size": 33}
    models = {
        "multitask": FlexibleMultiTaskModel(
            **options, balance="pcgrad", epochs=60, patience=3, learning_rate=0.02
        ),
        "ensemble": MultiTaskEnsemble(
            **options, members=2, bootstrap=0.8, balance="uncertainty", epochs=4
        ),
        "flow": ConditionalFlow(**options, epochs=4, network={"kind": "adaln", "width": 16}),
    }
    before = signal.getsignal(signal.SIGINT)
    with one_team() as team:
        for name, model in models.items():
            alone = copy.deepcopy(model)
            alone.fit_table(table, FitOptions(seed=1, trainer=ONE))
            folder = tmp_path / name
            folder.mkdir()
            logger = CSVLogger(folder, name=None, version="csv")
            model.fit_table(
                table,
                FitOptions(
                    seed=1, folder=folder, trainer=TWO, loggers=[logger], callbacks=[Diary(folder)]
                ),
            )
            first, second = diaries(folder)
            assert first["pid"] == os.getpid() != second["pid"]
            # no process knows anything else than the other, to the last digit
            assert {**first, "pid": 0} == {**second, "pid": 0}
            assert first["loader"] == "BatchLoader"
            # and both know what one process would
            assert len(model.history) == len(alone.history) == first["stopped"]
            for ours, theirs in zip(model.history, alone.history, strict=True):
                assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
            assert distance(model, alone) < 1e-3
            # one log, written by the first
            assert len(list(folder.rglob("metrics.csv"))) == 1
            checkpoints = {path.name for path in (folder / "checkpoints").iterdir()}
            # a fit that stops early and within seconds leaves no last one
            assert {"best.ckpt"} <= checkpoints <= {"best.ckpt", "last.ckpt"}
        assert 4 < diaries(tmp_path / "multitask")[0]["stopped"] < 60
        (helper,) = team[0]._helpers
        assert helper.pid == second["pid"]
        # a fit that goes on from its checkpoint, in both processes
        longer = ConditionalFlow(**options, epochs=6, network={"kind": "adaln", "width": 16})
        longer.fit_table(table, FitOptions(seed=1, folder=tmp_path / "flow", trainer=TWO))
        assert [entry["epoch"] for entry in longer.history] == [0, 1, 2, 3, 4, 5]
        # a helper in trouble ends the fit with a reason, and nothing is left behind
        broken = FlexibleMultiTaskModel(**options, epochs=3)
        with pytest.raises(GenoptError, match=r"process 1 of the 2 .* ValueError: out of luck"):
            broken.fit_table(table, FitOptions(trainer=TWO, callbacks=[Diary(tmp_path, fail=1)]))
        assert helper.poll() is not None
        assert team == []
    assert not torch.distributed.is_initialized()
    assert signal.getsignal(signal.SIGINT) is before
    assert "MASTER_ADDR" not in os.environ


SCRIPT = """
import os, time
from pytorch_lightning.callbacks import Callback
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.options import FitOptions
import torch

class Slow(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        open(str(trainer.global_rank) + ".pid", "w").write(str(os.getpid()))
        time.sleep(0.1)

x = torch.rand(60, 2, dtype=torch.float64)
model = FlexibleMultiTaskModel(input_dim=2, heads={"y": "regression"}, epochs=1000)
trainer = {"accelerator": "cpu", "strategy": "ddp_spawn", "devices": 2}
model.fit(x, {"y": x.sum(1)}, options=FitOptions(trainer=trainer, callbacks=[Slow()]))
"""


def test_a_killed_fit_leaves_no_process_behind(tmp_path):
    import time

    # the callback is a class of the script: it travels with the fit
    (tmp_path / "script.py").write_text(SCRIPT)
    main = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not all((tmp_path / f"{rank}.pid").exists() for rank in range(2)):
        assert main.poll() is None, main.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.2)
    helper = int((tmp_path / "1.pid").read_text())
    main.kill()
    main.communicate()
    while True:
        try:
            os.kill(helper, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < deadline, "the helper goes on alone"
        time.sleep(0.1)
