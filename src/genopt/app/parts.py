"""One place that turns configuration nodes into objects, and makes their errors speak of keys."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf

from genopt.app.schema.groups import ConfigSchema
from genopt.errors import GenoptError, UnknownNameError

PARTS = ("encoder", "heads", "network", "path", "coupling", "time_sampling", "sampler")


def make(node: Any, key: str, **extra: Any) -> Any:
    """The object that a node describes; its parts stay plain dictionaries.

    Args:
        node: a mapping with ``_target_``.
        key: the node's key, for messages.
        **extra: further keyword arguments.

    Returns:
        The object, or a callable where the node says ``_partial_``.

    Raises:
        GenoptError: if it cannot be built; the message names the key.
    """
    try:
        return instantiate(node, **extra, _recursive_=False, _convert_="all")
    except InstantiationException as error:
        cause: BaseException = error
        # what genopt says in place of another package's error is the better message
        while cause.__cause__ is not None and not isinstance(cause, GenoptError):
            cause = cause.__cause__
        if isinstance(cause, GenoptError):
            raise GenoptError(str(cause)) from error
        raise GenoptError(f"{key}: {cause}") from error


def make_all(nodes: Mapping[str, Any] | None, key: str) -> list[Any]:
    """The objects of a group whose entries each have a ``_target_``, such as loggers.

    Args:
        nodes: name to node.
        key: the group's key, for messages.

    Returns:
        The objects in order.
    """
    return [make(node, f"{key}.{name}") for name, node in (nodes or {}).items()]


def call(function: Callable[..., Any], *arguments: Any, **offered: Any) -> Any:
    """Call a function with those of the offered keywords that its signature names.

    So a routine of one's own takes just what it needs.

    Args:
        function: the function, possibly a partial one.
        *arguments: positional arguments.
        **offered: keyword arguments on offer.

    Returns:
        What the function returns.
    """
    known = inspect.signature(function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        return function(*arguments, **offered)
    return function(*arguments, **{k: v for k, v in offered.items() if k in known})


def without_unused(config: DictConfig, overridden: list[str]) -> DictConfig:
    """The configuration without the parts that the chosen model does not use.

    Args:
        config: the composed configuration, interpolations unresolved.
        overridden: keys that the user set.

    Returns:
        A copy; groups such as ``encoder`` that nothing refers to are gone.

    Raises:
        GenoptError: if the user set a part that has no effect with the chosen model.
    """
    known = [field.name for field in fields(ConfigSchema)]
    for key in config:
        if key not in (*known, "hydra"):
            raise UnknownNameError("config key", str(key), known)
    text = OmegaConf.to_yaml(config, resolve=False)
    unused = [part for part in PARTS if f"${{{part}}}" not in text]
    if "epochs" not in (config.model or {}):
        unused += ["trainer", "callbacks"]
    _check_used(config, overridden, unused)
    if not _takes(config.routine, "judge"):
        unused.append("judge")
        _check_used(config, overridden, ["judge"])
    out = config.copy()
    OmegaConf.set_struct(out, False)
    for part in (*unused, "hydra"):
        out.pop(part, None)
    # unresolved: what a key refers to may be known only in the job
    for name in _blanks(OmegaConf.to_container(out, resolve=False)):
        raise GenoptError(f"{name} has no value: give {name}=...")
    return out


def _blanks(plain: Any, path: str = "") -> list[str]:
    """Keys without a value, in plain data."""
    if isinstance(plain, dict):
        parts = [(f"{path}.{key}" if path else str(key), value) for key, value in plain.items()]
    elif isinstance(plain, list):
        parts = [(f"{path}[{i}]", value) for i, value in enumerate(plain)]
    else:
        return [path] if plain == "???" else []
    return [name for key, value in parts for name in _blanks(value, key)]


def _check_used(config: DictConfig, overridden: list[str], unused: list[str]) -> None:
    """Refuse what the user set where nothing uses it."""
    for key in overridden:
        # model@judge=... chooses a model for the key judge
        group = key.split(".")[0].rpartition("@")[2]
        if group in unused:
            raise GenoptError(
                f"{key} has no effect with the chosen model ({config.model.get('_target_')}) and "
                "routine: drop it, or choose others that use it"
            )


def _takes(node: Any, name: str) -> bool:
    """Whether the function of a node has an argument of a name; yes where it cannot be told."""
    try:
        target = str(node["_target_"])
        written = _written_arguments(target)
        if written is not None:
            return name in written
        known = inspect.signature(get_method(target)).parameters
    except (ImportError, KeyError, TypeError, ValueError):
        return True
    return name in known or any(p.kind is p.VAR_KEYWORD for p in known.values())


def _written_arguments(target: str) -> list[str] | None:
    """The arguments of a function as its file says, where importing it would import torch.

    None where the file alone does not tell.
    """
    module, _, function = target.rpartition(".")
    if module in sys.modules:
        return None
    spec = importlib.util.find_spec(module)
    if spec is None or not str(spec.origin).endswith(".py"):
        return None
    for node in ast.parse(Path(str(spec.origin)).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            given = node.args
            if given.kwarg is not None:
                return None
            return [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return None


def overridden_keys(overrides: list[str]) -> list[str]:
    """The keys of command-line overrides.

    Args:
        overrides: such as ``model.epochs=5`` or ``~goal``.

    Returns:
        The keys without Hydra's signs.
    """
    return [override.lstrip("+~").split("=")[0] for override in overrides]
