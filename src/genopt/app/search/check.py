"""Everything about a search that can be wrong is said here, in one line, before its first job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from genopt.app.messages import explain
from genopt.app.parts import PARTS
from genopt.app.search.dimension import Dimension
from genopt.app.search.space import Branch, SearchSpace
from genopt.errors import GenoptError, UnknownNameError

Compose = Callable[[tuple[str, ...]], DictConfig]


def check_space(space: SearchSpace, compose: Compose, loader: Any) -> None:
    """Compose a job of every part of the space, and try every key at its ends.

    Args:
        space: the space.
        compose: the configuration of a job's overrides.
        loader: Hydra's loader, which knows the groups.

    Raises:
        GenoptError: if a key, a value, a choice or a condition cannot be used.
    """
    _check_conditions(space, loader)
    for branch, needs in space.reachable():
        if branch.dimensions:
            _check_branch(space, branch, needs, compose, loader)


def outside_of(config: DictConfig) -> Callable[[str], str | None]:
    """The values of keys that a search does not vary.

    Args:
        config: the sweep's configuration.

    Returns:
        Key to value as text; None where there is no such key.
    """

    def value_of(key: str) -> str | None:
        choices = config.hydra.runtime.choices
        if key in choices:
            return str(choices[key])
        found = OmegaConf.select(config, key, default=None)
        return None if found is None else str(found)

    return value_of


def _check_conditions(space: SearchSpace, loader: Any) -> None:
    searched = {d.plain: d for branch in space.branches for d in branch.dimensions}
    for branch in space.branches:
        for key, values in branch.when:
            options = loader.get_group_options(key, ObjectType.CONFIG)
            if not options and key not in searched and space.outside(key) is None:
                known = [d.plain for d in space.dimensions()]
                raise UnknownNameError("key in a condition of hydra.sweeper.when", key, known)
            for value in values:
                if options and value not in options:
                    raise UnknownNameError(
                        f"{key} in a condition of hydra.sweeper.when", value, options
                    )


def _check_branch(
    space: SearchSpace, branch: Branch, needs: dict[str, str], compose: Compose, loader: Any
) -> None:
    def composed(**own: str) -> DictConfig:
        def first(dimension: Dimension) -> str:
            known = own.get(dimension.name) or needs.get(dimension.plain)
            return known or dimension.probes()[0]

        with _said():
            config = compose(space.walk(first))
        _check_used(branch, config)
        return config

    config = composed()
    for dimension in branch.dimensions:
        group = loader.get_group_options(dimension.plain.split("@")[0], ObjectType.CONFIG)
        for value in dimension.probes():
            if not group:
                with _said():
                    _try(config, dimension, value)
            elif value not in group and value != "null":
                raise UnknownNameError(dimension.plain, value, group)
            elif value != dimension.probes()[0]:
                # the keys of this branch have to be there whatever the group's choice
                composed(**{dimension.name: value})


def _check_used(branch: Branch, config: DictConfig) -> None:
    """Refuse a key of a part that the model of this branch does not have."""
    plain = config.copy()
    with open_dict(plain):
        plain.pop("hydra", None)
    text = OmegaConf.to_yaml(plain, resolve=False)
    unused = [part for part in PARTS if f"${{{part}}}" not in text]
    if "epochs" not in (config.get("model") or {}):
        unused += ["trainer", "callbacks"]
    for dimension in branch.dimensions:
        group = dimension.plain.split(".")[0]
        if group in unused:
            raise GenoptError(
                f"search space: {dimension.plain} has no effect with model="
                f"{config.hydra.runtime.choices.model}: put it below a condition of "
                "hydra.sweeper.when, such as model=flow"
            )


def _try(config: DictConfig, dimension: Dimension, value: str) -> None:
    """Give a value to a key of a configuration that is thrown away afterwards."""
    override = OverridesParser.create().parse_override(f"{dimension.plain}={value}")
    OmegaConf.update(config, dimension.plain, override.value())


class _said:
    """Errors of Hydra and OmegaConf in one line that says where they come from."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, HydraException | OmegaConfBaseException):
            message = explain(error) or str(error).splitlines()[0]
            raise GenoptError(f"search space: {message}") from error
