"""Checkpoints and rows of a flow: refused when they do not fit, read without running code."""

from __future__ import annotations

import pickle
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.space import Space


def write_checkpoint(module: pl.LightningModule, path: str | Path) -> Path:
    """Write weights and hyperparameters in Lightning's format.

    Args:
        module: the module.
        path: the file.

    Returns:
        Its path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint: dict[str, Any] = {
        "pytorch-lightning_version": version("pytorch-lightning"),
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
    }
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def read_checkpoint(path: str | Path, model: str) -> dict[str, Any]:
    """Read a checkpoint, as plain data.

    Args:
        path: the file.
        model: the name of the model that must have written it.

    Returns:
        The checkpoint.

    Raises:
        GenoptError: if there is no such file, it is no checkpoint, or one of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise GenoptError(f"checkpoint: {path} does not exist (looked from {Path.cwd()})")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise GenoptError(
            f"checkpoint: {path} cannot be read as a checkpoint of {model}: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    found = checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if found != model or "state_dict" not in checkpoint:
        raise GenoptError(
            f"checkpoint: {path} is not a checkpoint of {model}"
            + (f" but of {found}" if found else "")
            + f": give one that {model}.save or its training wrote"
        )
    return checkpoint


def check_same_spaces(x: tuple[Space, Space], y: tuple[Space, Space]) -> None:
    """Refuse a model of another problem.

    Args:
        x: the model's Space of designs and the one that is asked for.
        y: the same for the properties.

    Raises:
        GenoptError: if columns differ in name, order, kind, labels or bounds; it names them.
    """
    for role, (own, other) in (("x", x), ("y", y)):
        if own.names != other.names:
            missing = [name for name in own.names if name not in other]
            extra = [name for name in other.names if name not in own]
            details = [
                f"{what} {', '.join(names)}"
                for what, names in (("the model alone has", missing), ("it does not know", extra))
                if names
            ]
            raise GenoptError(
                f"the model was fitted to {role} columns {', '.join(own.names)}, not to "
                f"{', '.join(other.names)} ({'; '.join(details) or 'their order differs'}): use a "
                "model of this problem or fit a new one"
            )
        for a, b in zip(own, other, strict=True):
            fits = (a.kind, a.labels) == (b.kind, b.labels)
            if fits and role == "x":
                fits = (a.lower, a.upper) == (b.lower, b.upper)
            if not fits:
                raise GenoptError(
                    f"{role} column {a.name!r} of the model is {a.kind} in [{a.lower:.6g}, "
                    f"{a.upper:.6g}] {', '.join(a.labels)}, but {b.kind} in [{b.lower:.6g}, "
                    f"{b.upper:.6g}] {', '.join(b.labels)} here: fit a new model"
                )
        if {frozenset(g) for g in own.simplexes} != {frozenset(g) for g in other.simplexes}:
            raise GenoptError(
                f"the model's {role} simplexes {list(map(list, own.simplexes))} are not "
                f"{list(map(list, other.simplexes))}: fit a new model"
            )


def check_pairs(x: Tensor, y: Tensor, x_space: Space, y_space: Space) -> None:
    """Refuse pairs of the wrong shape.

    Args:
        x: designs (N, P).
        y: properties (N, K).
        x_space: Space of the designs.
        y_space: Space of the properties.

    Raises:
        GenoptError: if a shape does not fit.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise GenoptError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected "
            f"(N, {x_space.dim}) and (N, {y_space.dim})"
        )
    x_space.check(x, "x")
    y_space.check(y, "y")
