"""Parts named by import path: one place turns ``{"_target_": ..., ...}`` into an object.

A model's parts stay plain dictionaries, so they fit in a checkpoint and are rebuilt when it is
loaded; a part of one's own needs an import path and no registration. A checkpoint names its parts
in the same way: load it only if you trust whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from genopt.errors import GenoptError, UnknownNameError

Spec = str | Mapping[str, Any]


def normalise(spec: Spec, known: Mapping[str, str], what: str) -> dict[str, Any]:
    """The full form of a part's specification.

    Args:
        spec: a short name, or a mapping with ``_target_`` (an import path) or ``kind`` (a short
            name) and options.
        known: short names and their import paths.
        what: the part, for messages, for example ``"encoder"``.

    Returns:
        A plain dictionary with ``_target_`` and the options.

    Raises:
        UnknownNameError: if a short name is not known.
        GenoptError: if the mapping names nothing.
    """
    entry: dict[str, Any] = {"kind": spec} if isinstance(spec, str) else _plain(spec)
    if "_target_" not in entry:
        name = entry.pop("kind", None)
        if name is None:
            raise GenoptError(
                f"{what}: give a name ({', '.join(known)}) or a mapping with _target_"
            )
        if name not in known:
            raise UnknownNameError(what, str(name), known)
        entry = {"_target_": known[name], **entry}
    return entry


def build(spec: Mapping[str, Any], what: str = "part", **extra: Any) -> Any:
    """The object that a full specification describes.

    Args:
        spec: a mapping with ``_target_`` and options.
        what: the part, for messages.
        **extra: further keyword arguments, for example sizes that only the caller knows.

    Returns:
        The object.

    Raises:
        GenoptError: if the import path leads nowhere or an option is not understood.
    """
    options = {k: v for k, v in spec.items() if k != "_target_"}
    path = str(spec["_target_"])
    module, _, name = path.rpartition(".")
    try:
        target = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise GenoptError(f"{what}: cannot import {path!r}: {error}") from error
    try:
        return target(**options, **extra)
    except TypeError as error:
        raise GenoptError(f"{what}: {path} does not take {options}: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
