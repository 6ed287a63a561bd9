"""What `genopt --help` says: the groups with their options, and the settings of a study.

Hydra's own help copies every schema once for each group, which takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

from omegaconf import OmegaConf

from genopt.app.compose import compose_all, conf_folder
from genopt.errors import GenoptError

_FOLDER = re.compile(r"^(--config-dir|-cd)(=(?P<value>.*))?$")
# parts of other options, and nobody's choice
_HIDDEN = ("base_", "for_")
_FORMATS = ("hydra/job_logging", "hydra/hydra_logging", "hydra/help")


def help_text(arguments: Sequence[str]) -> str:
    """The help of the command line.

    Args:
        arguments: what follows ``genopt``; overrides choose whose settings are shown.

    Returns:
        The text of ``hydra.help.template``, filled in.
    """
    folders, words = _own_folders(arguments)
    overrides = [word for word in words if not word.startswith("-")]
    if folders:
        paths = ",".join(f"'file://{folder}'" for folder in folders)
        overrides.append(f"hydra.searchpath=[{paths}]")
    config = compose_all(overrides)
    template = Template(config.hydra.help.template)
    OmegaConf.set_struct(config, False)
    config.pop("hydra")
    return template.safe_substitute(
        APP_CONFIG_GROUPS=_groups([*folders, conf_folder()]), CONFIG=OmegaConf.to_yaml(config)
    )


def _own_folders(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Folders given by ``--config-dir``, and the other words."""
    folders, words = [], []
    rest = iter(arguments)
    for word in rest:
        found = _FOLDER.match(word)
        if found is None:
            words.append(word)
        else:
            value = found["value"] if found["value"] is not None else next(rest, "")
            if not Path(value).is_dir():
                raise GenoptError(f"--config-dir {value} is no folder")
            folders.append(Path(value).resolve())
    return folders, words


def _groups(folders: Sequence[Path]) -> str:
    """One line a group: its options."""
    options: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.rglob("*.yaml"):
            group = path.parent.relative_to(folder).as_posix()
            hidden = path.stem.startswith(_HIDDEN) or group in (".", *_FORMATS)
            if not hidden:
                options.setdefault(group, set()).add(path.stem)
    # Hydra's own groups last
    names = sorted(options, key=lambda name: ("/" in name, name))
    return "".join(f"{name}: {', '.join(sorted(options[name]))}\n" for name in names)
