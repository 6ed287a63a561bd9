"""The configuration: where `conf/` lies and how it is composed from Python."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

import genopt
from genopt.app.parts import overridden_keys, without_unused
from genopt.app.schema.groups import register
from genopt.errors import GenoptError

CONFIG_NAME = "config"
_HYDRA_GROUPS = ("launcher", "sweeper", "sweeper/sampler")
_GOAL = re.compile(r"^goal(\.[^=]+)?=")
_SWEPT_GROUP = re.compile(r"^(model|routine)=[^=]*,")
_SHORT = re.compile(r"^(?P<new>[+~]*)(?P<what>launcher|sweeper)(?P<sign>[.=])")
# words that leave a sweep what it is, and those of Hydra that make it another search
_FREE = ("hydra", "rerun", "progress")
_SEARCH = re.compile(r"^hydra[/.]sweeper(?!\.(n_trials|n_jobs|give_up_after|max_batch_size)=)")
_AUTO = re.compile(r"^model=(.*,)?auto(,.*)?$")
_GROUP_KEY = re.compile(r"^(?P<key>(model|routine)\.[^=]+)=(?P<value>.+)$")


def conf_folder() -> Path:
    """The folder of the shipped configuration: in the installed package, else in the repository.

    Returns:
        An absolute path.

    Raises:
        GenoptError: if neither is there.
    """
    package = Path(genopt.__file__).resolve().parent
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / f"{CONFIG_NAME}.yaml").exists():
            return folder
    raise GenoptError(f"the configuration folder conf/ is neither in {package} nor beside it")


def short_hash(text: Any) -> str:
    """Eight hexadecimal digits that stand for a text (or anything with a text form)."""
    return hashlib.sha256(str(text).encode()).hexdigest()[:8]


def prepare() -> None:
    """Register schemas and interpolations; calling it twice does no harm."""
    if not OmegaConf.has_resolver("genopt.id"):
        OmegaConf.register_new_resolver("genopt.id", short_hash)
        OmegaConf.register_new_resolver("genopt.group", _group)
        OmegaConf.register_new_resolver("genopt.last", lambda path: str(path).rpartition(".")[2])
    store = ConfigStore.instance()
    # once Hydra has looked for plugins, which bring options under the names of ours: it would
    # check our files against those
    Plugins.instance()
    for group in _HYDRA_GROUPS:
        theirs: Any = store.repo["hydra"]
        for part in group.split("/"):
            theirs = theirs.get(part, {})
        for file in (conf_folder() / "hydra" / group).glob("*.yaml"):
            theirs.pop(file.name, None)
    register(store)


def full_words(arguments: Sequence[str]) -> list[str]:
    """Hydra's own words for ``launcher=...`` and ``sweeper=...``, which are easier to remember.

    Hydra runs a single study by itself and would ignore a launcher or a sweeper, so the choice of
    one means a sweep, if only of one study.

    Args:
        arguments: command-line arguments.

    Returns:
        The arguments with those rewritten.
    """
    out = [_SHORT.sub(_in_full, argument) for argument in arguments]
    chosen = any(argument.startswith(("hydra/launcher=", "hydra/sweeper=")) for argument in out)
    sweeps = {"-m", "--multirun"} & set(out) or any(a.startswith("hydra.mode=") for a in out)
    return ["--multirun", *out] if chosen and not sweeps else out


def _in_full(found: re.Match[str]) -> str:
    between = "/" if found["sign"] == "=" else "."
    return f"{found['new']}hydra{between}{found['what']}{found['sign']}"


def plain_overrides(arguments: Sequence[str]) -> list[str]:
    """Overrides in which a goal and heads may be given as a user would write them.

    ``goal={a: 1}`` replaces the goal and ``goal.a=1`` adds to it; columns are not known before the
    problem is, so Hydra alone would refuse both. ``heads=[...]`` or ``heads={...}`` composes heads
    on the spot, where Hydra expects the name of a file.

    Args:
        arguments: command-line arguments.

    Returns:
        The arguments with those rewritten.
    """
    out: list[str] = []
    for argument in arguments:
        if argument.startswith("goal="):
            out += ["~goal", f"+{argument}"]
        elif _GOAL.match(argument):
            out.append(f"++{argument}")
        elif argument.startswith(("heads=[", "heads={")):
            out.append(f"model.{argument}")
        else:
            out.append(argument)
    return out


def swept_overrides(arguments: Sequence[str]) -> list[str]:
    """Overrides of a sweep in which keys of an engine wait until a job has chosen its engine.

    Hydra composes a sweep without the choices that vary first, where a key such as
    ``routine.samples`` would meet the default engine, which does not have it. A choice of one value
    is left to the jobs.

    Args:
        arguments: command-line arguments.

    Returns:
        The arguments with such keys rewritten, where the engine or the routine varies.
    """
    if not any(_SWEPT_GROUP.match(argument) for argument in arguments):
        return list(arguments)
    out = []
    for argument in arguments:
        found = _GROUP_KEY.match(argument)
        several = found is not None and _varies(found["value"])
        out.append(
            f"{found['key']}=choice({found['value']})" if found and not several else argument
        )
    return out


def waiting_overrides(arguments: Sequence[str]) -> list[str]:
    """Overrides in which keys of an engine wait until ``model=auto`` has chosen one.

    Args:
        arguments: command-line arguments.

    Returns:
        The arguments with such keys added to a configuration that does not know them yet.
    """
    if not any(_AUTO.match(argument) for argument in arguments):
        return list(arguments)
    own = ("model.engines=",)
    return [
        f"++{argument}" if _GROUP_KEY.match(argument) and not argument.startswith(own) else argument
        for argument in arguments
    ]


def is_auto(config: DictConfig) -> bool:
    """Whether the engine has still to be chosen.

    Args:
        config: a composed configuration.

    Returns:
        True for ``model=auto``.
    """
    return (config.get("model") or {}).get("_target_") == "genopt.app.auto.chosen"


def used_parts(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration without the parts that the chosen model does not use.

    Args:
        config: the composed configuration.
        overrides: what follows ``genopt`` on the command line.

    Returns:
        A copy; with ``model=auto`` all parts are left, and the overrides are remembered.
    """
    if not is_auto(config):
        return without_unused(config, overridden_keys(list(overrides)))
    out = config.copy()
    OmegaConf.set_struct(out, False)
    out.pop("hydra", None)
    out.model.overrides = list(overrides)
    return out


def _group(problem: str) -> str:
    """What a study is shown with: the sweep's folder, or else its problem."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    node = HydraConfig.get()
    return Path(node.sweep.dir).name if node.mode == RunMode.MULTIRUN else problem


def _varies(value: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"key={value}").is_sweep_override()


def sweep_folder(arguments: Sequence[str]) -> list[str]:
    """The override that names a sweep's folder after its command line.

    It is fixed before Hydra composes the jobs, so all of them agree, and the same command finds the
    same folder again and goes on there.

    Args:
        arguments: command-line arguments.

    Returns:
        One override, or none where there is no sweep or its folder is given.
    """
    sweeps = {"-m", "--multirun"} & set(arguments)
    if not sweeps or any(a.startswith("hydra.sweep.dir=") for a in arguments):
        return []
    words = [a for a in arguments if "=" in a and (not a.startswith(_FREE) or _SEARCH.match(a))]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", "_".join(words)).strip("-")[:60]
    name = "-".join(part for part in (slug, short_hash(sorted(words))) if part)
    return [f"hydra.sweep.dir='${{paths.sweeps}}/{name}'"]


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration of one study, as the command line would compose it.

    Args:
        overrides: what follows ``genopt`` on the command line.

    Returns:
        The composed configuration, for `genopt.run_study`.

    Example:
        >>> compose(["problem=plug_flow", "model=mixture"]).seed
        0
    """
    from hydra.core.hydra_config import HydraConfig

    config = compose_all(overrides)
    # the names of the choices are read from Hydra's own node when loggers are built
    HydraConfig.instance().set_config(config)
    return used_parts(config, waiting_overrides(plain_overrides(overrides)))


def compose_all(overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration with the parts that the chosen model does not use, and Hydra's own node.

    Args:
        overrides: what follows ``genopt`` on the command line.

    Returns:
        The composed configuration.
    """
    import hydra

    prepare()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        given = waiting_overrides(plain_overrides(overrides))
        return hydra.compose(CONFIG_NAME, given, return_hydra_config=True)
