"""Errors of the configuration in one line that names the key and the nearest valid name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException, ValidationError

from genopt.errors import GenoptError, UnknownNameError


def explain(error: BaseException, arguments: Sequence[str] | None = None) -> str | None:
    """What went wrong, for a user.

    Args:
        error: what a run raised.
        arguments: the overrides that were composed; None for the command line.

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
            key = _first_line(cause).rpartition(" ")[2]
            return f"{key} has no value: give {key}=..."
        if isinstance(cause, ValidationError):
            return f"{cause.full_key}: {_first_line(cause)}"
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return unknown_key(str(cause.full_key), list(arguments or sys.argv[1:]))
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} cannot be read: put text with signs or spaces in quotes, for "
            "example \"routine.constraints=['a + b <= 1']\""
        )
    if isinstance(error, HydraException):
        return _first_line(error)
    return None


def unknown_key(key: str, arguments: list[str]) -> str:
    """The message for a key that the configuration does not have.

    Args:
        key: the key, such as ``model.epohcs``.
        arguments: the command line; its choices of groups decide which keys there are.

    Returns:
        The message, with the keys beside it and the nearest one of all.
    """
    from genopt.app.compose import compose_all

    choices = [a for a in arguments if re.fullmatch(r"[a-z_@]+=[A-Za-z_0-9]+", a)]
    try:
        config = compose_all(choices)
    except HydraException:
        config = compose_all()
    parent, _, _ = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    names = [str(name) for name in node] if isinstance(node, DictConfig) else []
    beside = [f"{parent}.{name}".lstrip(".") for name in names]
    beside = [name for name in beside if not name.startswith("hydra") and "._" not in name]
    return str(UnknownNameError("config key", key, beside))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _unknown_option(text: str) -> str:
    found = re.search(r"'([^']+)/([^'/]+)'", text)
    if found is None:
        return text.strip().splitlines()[0]
    listed = re.search(r"Available options[^:]*:\s*(.*?)(?:\n\s*\n|Config search|$)", text, re.S)
    options = listed.group(1).split() if listed else []
    shown = [option for option in options if not option.startswith(("base_", "for_"))]
    return str(UnknownNameError(found.group(1), found.group(2), shown))
