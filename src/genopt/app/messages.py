"""Errors of the configuration in one line that names the key and the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException, ValidationError

from genopt.errors import GenoptError, UnknownNameError


def explain(error: BaseException) -> str | None:
    """What went wrong, for a user.

    Args:
        error: what a run raised.

    Returns:
        One line, or None for an error that is not the user's to mend.
    """
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, GenoptError):
            return str(cause)
    for cause in chain:
        if isinstance(cause, MissingConfigException):
            return _unknown_option(str(cause))
        if isinstance(cause, MissingMandatoryValue):
            return (
                f"{_first_line(cause).replace('Missing mandatory value', 'missing value')}: give it"
            )
        if isinstance(cause, ValidationError):
            return f"{cause.full_key}: {_first_line(cause)}"
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return str(UnknownNameError("config key", str(cause.full_key), known_keys()))
    if isinstance(error, HydraException):
        return _first_line(error)
    return None


def known_keys() -> list[str]:
    """All keys of the shipped configuration with its default choices."""
    from genopt.app.compose import compose

    config = compose()
    return [key for key in _flatten(config) if not key.startswith("hydra")]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _unknown_option(text: str) -> str:
    found = re.search(r"'([^']+)/([^'/]+)'", text)
    if found is None:
        return text.strip().splitlines()[0]
    group, name = found.group(1), found.group(2)
    listed = re.search(r"Available options[^:]*:\s*(.*?)(?:\n\s*\n|Config search|$)", text, re.S)
    options = listed.group(1).split() if listed else []
    return str(
        UnknownNameError(f"{group}", name, [o for o in options if not o.startswith("base_")])
    )


def _flatten(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        for key in node:
            path = f"{prefix}{key!s}"
            yield path
            yield from _flatten(node._get_node(key), f"{path}.")
    elif isinstance(node, ListConfig):
        return
