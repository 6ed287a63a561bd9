"""Studies whose models are trained by several processes, and the trainers that are shipped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from genopt.app.compose import compose, conf_folder
from genopt.app.distributed import check_machine, check_strategy
from genopt.app.study import run_study
from genopt.errors import GenoptError
from genopt.models.processes import is_shared

from .conftest import SMALL, TINY

NAMES = sorted(path.stem for path in (conf_folder() / "trainer").glob("*.yaml"))
QUIET = ["figures=false", "reach=0", "threads=1"]


@pytest.fixture
def no_slurm(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_trainer_composes_and_says_how_many_processes_it_is(name):
    config = compose(["problem=plug_flow", "model=flow", f"trainer={name}"])
    trainer = OmegaConf.to_container(config.trainer)
    assert is_shared(trainer) == (name in ("ddp", "ddp_spawn"))


@pytest.mark.usefixtures("no_slurm")
def test_ddp_in_a_sweep_needs_tasks_of_slurm(monkeypatch):
    ddp, spawn, mixture = (
        compose(["problem=plug_flow", *words])
        for words in (["trainer=ddp"], ["trainer=ddp_spawn"], ["model=mixture"])
    )
    for config in (spawn, mixture):
        check_strategy(config, multirun=True)
    check_strategy(ddp, multirun=False)
    with pytest.raises(GenoptError, match=r"trainer\.strategy=ddp .*trainer=ddp_spawn"):
        check_strategy(ddp, multirun=True)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    with pytest.raises(GenoptError, match="several tasks of Slurm"):
        check_strategy(ddp, multirun=True)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    check_strategy(ddp, multirun=True)


def test_the_check_of_a_strategy_imports_nothing_heavy():
    code = (
        "import sys, genopt.app.distributed;"
        "print([m for m in ('torch', 'pytorch_lightning', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_gpu_that_is_not_there_is_one_line_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = compose(["problem=plug_flow", "trainer=gpu"])
    with pytest.raises(GenoptError, match=r"^trainer\.accelerator=gpu: this machine has no GPU"):
        run_study(config, tmp_path / "study")
    assert not (tmp_path / "study").exists()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_machine(config)
    several = compose(["problem=plug_flow", "trainer=ddp", "trainer.devices=2"])
    with pytest.raises(GenoptError, match="this machine has 1 GPUs"):
        check_machine(several)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.strategy=fsdp"], "unknown trainer.strategy 'fsdp'"),
        (["trainer.devices=2"], "say trainer=ddp"),
        (["trainer.precision=64-true"], "weights are float32"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(words, message, tmp_path):
    with pytest.raises(GenoptError, match=message):
        run_study(compose(["problem=plug_flow", *words]), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def numbers(folder):
    return {
        k: v
        for k, v in json.loads((folder / "metrics.json").read_text()).items()
        if not k.endswith("_seconds")
    }


@pytest.mark.usefixtures("no_slurm")
def test_a_study_of_two_processes_is_the_study_of_one(tmp_path):
    words = [*SMALL, *QUIET, "problem=plug_flow", *TINY["multitask"], "data.folds=2"]
    results = {}
    for name in ("cpu", "ddp_spawn"):
        config = compose([*words, f"trainer={name}", "trainer.accelerator=cpu"])
        results[name] = run_study(config, tmp_path / name, show=False).folder
    one, two = results.values()
    assert numbers(two) == pytest.approx(numbers(one), rel=1e-3, abs=1e-6)
    # the same rows, folds and designs
    for name, tolerance in (("data.parquet", 0.0), ("candidates.parquet", 1e-3)):
        pd.testing.assert_frame_equal(
            pd.read_parquet(one / name), pd.read_parquet(two / name), rtol=tolerance
        )
    files = [
        sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        for folder in results.values()
    ]
    assert files[0] == files[1]
    assert json.loads((two / "status.json").read_text())["state"] == "finished"


@pytest.mark.usefixtures("no_slurm")
def test_tasks_of_slurm_are_one_study(tmp_path):
    """Two tasks run the same command; one has the study, the other helps it and ends."""
    step = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NTASKS": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODELIST": "localhost",
    }
    words = [*SMALL, *QUIET, "problem=plug_flow", *TINY["flow"], "trainer=ddp"]
    words += ["logger=wandb", "trainer.accelerator=cpu"]

    def both(*more):
        tasks = [
            subprocess.Popen(
                [sys.executable, "-m", "genopt.app.main", *words, *more],
                cwd=tmp_path,
                env={**os.environ, **step, "SLURM_PROCID": str(rank), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(2)
        ]
        return [(*task.communicate(timeout=300), task.returncode) for task in tasks]

    (said, _, code), (other, _, its_code) = both()
    assert (code, its_code) == (0, 0), said + other
    assert "everything is in" in said
    assert other == ""
    (folder,) = (tmp_path / "outputs" / "plug_flow").iterdir()
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert len(list(folder.glob("wandb/offline-run-*"))) == 1
    assert len(json.loads((folder / "history.json").read_text())) == 2
    assert not [p for p in folder.rglob("*") if "previous" in Path(p).parts]
