"""Checkpoints of a multi-task model: plain data and tensors, read without unpickling code."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from genopt.errors import GenoptError

FORMAT = "genopt multi-task model 1"


def write(model: pl.LightningModule, path: str | Path) -> Path:
    """Write a checkpoint that Lightning, too, can load.

    Args:
        model: the model.
        path: the file; its folder is made.

    Returns:
        Its path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint: dict[str, Any] = {
        "pytorch-lightning_version": version("pytorch-lightning"),
        model.CHECKPOINT_HYPER_PARAMS_KEY: dict(model.hparams),
        "state_dict": model.state_dict(),
    }
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def read(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of a multi-task model.

    Args:
        path: the file.

    Returns:
        Its content, on the CPU.

    Raises:
        GenoptError: if the file is missing or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise GenoptError(f"checkpoint {path} does not exist")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GenoptError(f"{path} is no checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("genopt") != FORMAT:
        raise GenoptError(f"{path} is no checkpoint of a multi-task model")
    return checkpoint
