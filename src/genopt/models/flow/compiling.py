"""Compiled velocities: `torch.compile` where a compiler is, CUDA graphs where a GPU is.

The first steps of a fit then take many seconds, so it pays for long trainings and wide networks.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import torch
from torch import nn

from genopt.errors import GenoptError
from genopt.models.options import FitOptions

CUDA_GRAPHS = "cuda_graphs"


def check_compile(mode: bool | str) -> bool | str:
    """Refuse an unknown mode.

    Args:
        mode: False, True or ``cuda_graphs``.

    Returns:
        The mode.

    Raises:
        GenoptError: if it is something else.
    """
    if mode not in (False, True, CUDA_GRAPHS):
        raise GenoptError(f"compile={mode!r} is not known: give false, true or {CUDA_GRAPHS}")
    return mode


def require_compiler(mode: bool | str, options: FitOptions) -> None:
    """Refuse a mode that this machine cannot do, before any work.

    Args:
        mode: False, True or ``cuda_graphs``.
        options: how the fit is run, its accelerator among them.

    Raises:
        GenoptError: if there is no GPU or no compiler for it.
    """
    wish = options.trainer.get("accelerator", "auto")
    cuda = wish in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if mode == CUDA_GRAPHS and not cuda:
        raise GenoptError(
            f"compile={CUDA_GRAPHS} needs an NVIDIA GPU, and this fit runs without one: set "
            "model.compile=true or false"
        )
    if mode and not _can_compile(cuda):
        what = "the package triton" if cuda else "a C++ compiler (g++ or clang++, or CXX)"
        raise GenoptError(f"compile={mode} needs {what}, which was not found: set it to false")


def compile_velocity(velocity: nn.Module, mode: bool | str, device: torch.device) -> None:
    """Compile a velocity in place; its weights, their names and its files stay as they are.

    Args:
        velocity: the module.
        mode: False, True or ``cuda_graphs``.
        device: where it runs; a mode that cannot be used there leaves it as it is.
    """
    cuda = device.type == "cuda"
    if not mode or (mode == CUDA_GRAPHS and not cuda) or not _can_compile(cuda):
        return
    velocity.compile(mode="reduce-overhead" if mode == CUDA_GRAPHS else "default")


def _can_compile(cuda: bool) -> bool:
    if cuda:
        return find_spec("triton") is not None
    named = os.environ.get("CXX", "")
    return any(shutil.which(name) for name in (named, "g++", "clang++", "cl") if name)
