"""What can be said against a configuration before torch is imported or a problem is built."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genopt.app.logs.loggers import check_loggers
from genopt.errors import GenoptError, UnknownNameError
from genopt.models.processes import check_trainer

_PACKAGE, _FILE, _CLASS = "pytorch_lightning", "trainer/trainer.py", "Trainer"
_SET_BY_STUDY = {
    "max_epochs": "set model.epochs",
    "logger": "choose logger=...",
    "callbacks": "choose callbacks=...",
    "enable_checkpointing": "a study always keeps checkpoints",
    "default_root_dir": "set paths.outputs",
    "fast_dev_run": "set model.epochs=1 and data.rows for a quick look",
}


def check_early(config: DictConfig) -> None:
    """Refuse numbers, keywords of the trainer and loggers that cannot work.

    Args:
        config: a composed configuration, as `genopt.app.compose.used_parts` gives it.

    Raises:
        GenoptError: if there is one; the message names its key.
    """
    if "trainer" in config:
        _check_keys(config.trainer)
    if config.top < 1 or config.threads < 1 or config.seed < 0:
        raise GenoptError(
            f"top={config.top} and threads={config.threads} must be positive, "
            f"seed={config.seed} must not be negative"
        )
    if config.data.rows is not None and config.data.rows < 1:
        raise GenoptError(f"data.rows must be at least 1, or null, got {config.data.rows}")
    check_loggers(config)


def _check_keys(trainer: DictConfig) -> None:
    """Refuse keywords that the trainer does not have or that the study sets itself."""
    known = trainer_keywords()
    for name in map(str, trainer):
        if name not in known and not name.startswith("_"):
            raise UnknownNameError(
                "config key", f"trainer.{name}", [f"trainer.{key}" for key in known]
            )
    for name, instead in _SET_BY_STUDY.items():
        if name in trainer:
            raise GenoptError(f"trainer.{name} has no effect: {instead}")
    plain: Any = OmegaConf.to_container(trainer, resolve=True)
    check_trainer(plain)


@cache
def trainer_keywords() -> tuple[str, ...]:
    """The keywords of `pytorch_lightning.Trainer`, read off its file: importing it takes seconds.

    Returns:
        Their names.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    path = Path(str(spec.origin if spec else "")).parent / _FILE
    if path.is_file():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == _CLASS:
                for part in node.body:
                    if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                        given = part.args
                        names = (*given.posonlyargs, *given.args, *given.kwonlyargs)
                        return tuple(each.arg for each in names[1:])
    # another layout of the package
    import inspect

    from pytorch_lightning import Trainer

    return tuple(inspect.signature(Trainer).parameters)
