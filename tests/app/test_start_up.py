"""What is imported when: help, errors of the configuration and launchers do without torch."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest
from pytorch_lightning import Trainer

from genopt.app.early import trainer_keywords
from genopt.app.help import help_text
from genopt.errors import GenoptError

HEAVY = (
    "torch", "pytorch_lightning", "pandas", "pyarrow", "sklearn", "scipy", "matplotlib", "wandb",
    "mlflow", "ray", "optuna", "submitit", "plotly", "sqlalchemy",
)  # fmt: skip
SPY = f"""
import atexit, sys
def tell(*_, **__):
    print("LOADED", *[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)
"""
COMMAND = f"""{SPY}
atexit.register(tell)
from genopt.app.main import main
main()
"""
# what comes when the jobs are done may import what it likes
LAUNCHER = f"""{SPY}
from genopt.app.report import SweepReport
SweepReport.on_multirun_end = tell
from genopt.app.main import main
main()
"""


def loaded(code: str, *arguments: str, folder=None) -> tuple[list[str], str]:
    """The heavy modules that a command line imported, and all that it said on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        check=False,
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("LOADED")]
    return line.split()[1:], done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "== Groups"),
        (["model=flwo"], "did you mean 'flow'"),
        (["model=multitask", "model.epohcs=3"], "did you mean 'model.epochs'"),
        (["seed=abc"], "seed: Value 'abc'"),
        (["seed=-1"], "must not be negative"),
        (["problem=table"], "problem.path has no value"),
        (["model=mixture", "encoder=residual"], "encoder has no effect"),
        (["+trainer.max_epoch=3"], "did you mean 'trainer.max_epochs'"),
        (["+trainer.max_epochs=3"], "set model.epochs"),
        (["trainer.devices=7"], "trainer.devices=7"),
        (["-m", "seed=1,2", "model=mixture", "encoder=residual"], "encoder has no effect"),
    ],
)
def test_help_and_errors_of_the_configuration_import_nothing_heavy(arguments, said, tmp_path):
    modules, text = loaded(COMMAND, *arguments, folder=tmp_path)
    assert said in text
    assert modules == []


@pytest.mark.e2e
def test_the_process_that_launches_jobs_leaves_the_heavy_imports_to_them(tmp_path):
    modules, text = loaded(
        LAUNCHER, "-m", "hydra/launcher=joblib", "seed=0,1", "problem=plug_flow", "data.rows=60",
        "model=mixture", "model.max_components=2", "figures=false", "reach=0", "logger=none",
        folder=tmp_path,
    )  # fmt: skip
    assert modules == [], text
    assert len(list(tmp_path.glob("multirun/*/*/candidates.parquet"))) == 2


def test_the_keywords_read_off_the_trainers_file_are_those_of_its_class():
    assert trainer_keywords() == tuple(inspect.signature(Trainer).parameters)


def test_the_help_lists_what_can_be_chosen_and_the_settings_of_the_choice(tmp_path):
    own = tmp_path / "conf"
    (own / "problem").mkdir(parents=True)
    (own / "problem/mine.yaml").write_text("_target_: mine.Problem\n")
    text = help_text(["--help", "model=mixture", "--config-dir", str(own)])
    groups = dict(line.split(": ", 1) for line in text.splitlines() if line.startswith("model: "))
    assert groups == {"model": "auto, ensemble, flow, mixture, multitask, none"}
    lines = {line.partition(": ")[0]: line.partition(": ")[2] for line in text.splitlines()}
    assert "mine" in lines["problem"].split(", ")
    assert {"basic", "joblib"} <= set(lines["hydra/launcher"].split(", "))
    # parts of other options are nobody's choice
    assert "base_" not in text.partition("== Settings")[0]
    assert "for_mixture" not in lines["routine"]
    assert "max_components: 20" in text
    with pytest.raises(GenoptError, match="is no folder"):
        help_text(["--config-dir=nowhere"])


def test_the_command_leaves_the_environment_as_it_was(monkeypatch, capsys):
    from genopt.app.main import main

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["genopt", "--help"])
    main()
    assert "genopt problem=" in capsys.readouterr().out
    assert "HYDRA_FULL_ERROR" not in os.environ
