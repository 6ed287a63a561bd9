"""What a tracker is told of the configuration: everything of the study, nothing of the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genopt.app.parts import PARTS

# where results go and who is told says nothing about the study, and may hold a password; the parts
# of a model are in the model, and the rest changes no result
_LEFT_OUT = ("logger", "paths", *PARTS, "rerun", "progress", "figures")
_HYDRA_WORD = "_partial_"
_ENVIRONMENT = "oc.env"
# shorter texts are found in too many others
_SECRET = 3


def told_config(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration, fit to leave the machine.

    Values that come from environment variables stay names of variables, and folders are given as
    seen from the working or the home folder.

    Args:
        config: the study's configuration.

    Returns:
        Plain data.
    """
    raw: Any = OmegaConf.to_container(config, resolve=False)
    full: Any = OmegaConf.to_container(config, resolve=True)
    for key in _LEFT_OUT:
        full.pop(key, None)
    secrets = {
        str(value)
        for text, value in _pairs(raw, full)
        if _ENVIRONMENT in text and len(str(value)) > _SECRET
    }
    return _cleaned(raw, full, secrets)


def _pairs(raw: Any, full: Any) -> Iterator[tuple[str, Any]]:
    """The texts that are interpolations, with what they became."""
    if isinstance(raw, dict):
        for key in raw.keys() & full.keys():
            yield from _pairs(raw[key], full[key])
    elif isinstance(raw, list):
        for value, became in zip(raw, full, strict=True):
            yield from _pairs(value, became)
    elif isinstance(raw, str) and "${" in raw:
        yield raw, full


def _cleaned(raw: Any, full: Any, secrets: set[str]) -> Any:
    if isinstance(full, dict):
        # an interpolation may have become a whole mapping
        texts = raw if isinstance(raw, dict) else dict.fromkeys(full, raw)
        return {
            key: _cleaned(texts[key], value, secrets)
            for key, value in full.items()
            if key != _HYDRA_WORD
        }
    if isinstance(full, list):
        items = raw if isinstance(raw, list) else [raw] * len(full)
        return [_cleaned(text, value, secrets) for text, value in zip(items, full, strict=True)]
    if isinstance(raw, str) and "${" in raw:
        hidden = _ENVIRONMENT in raw or any(secret in str(full) for secret in secrets)
        if hidden:
            return raw
    return _near(full) if isinstance(full, str) else full


def _near(text: str) -> str:
    """A text without the folders above the working and the home folder."""
    for folder, short in ((Path.cwd(), "."), (Path.home(), "~")):
        if folder != Path(folder.anchor):
            text = re.sub(rf"{re.escape(str(folder))}(?=/|\\|$)", short, text)
    return text
