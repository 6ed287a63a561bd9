"""`model=auto`: the engine is chosen when the table is known, and the study is composed anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genopt.app.compose import CONFIG_NAME, compose_all, is_auto
from genopt.app.parts import PARTS, make, overridden_keys, without_unused
from genopt.app.setting import Setting
from genopt.errors import GenoptError

if TYPE_CHECKING:
    from genopt.analysis.advise import Advice

__all__ = ["Chosen", "choose", "chosen", "is_auto"]

# what belongs to an engine; the rest of the configuration stays as it was given
_OF_ENGINE = ("model", "routine", "judge", "trainer", "callbacks", *PARTS)


@dataclass(frozen=True)
class Chosen:
    """The choice, for the header and the verdict.

    Args:
        advice: the advice that was followed.
    """

    advice: Advice

    def in_words(self) -> str:
        """The choice and its first reason, in a sentence."""
        return f"model=auto took model={self.advice.engine}: {self.advice.reasons[0]}."


def chosen(**_: Any) -> None:
    """Stands for the engine in the configuration; a study puts the engine in its place."""
    raise GenoptError("model=auto is no model: run it as a study, genopt.run_study or `genopt`")


def choose(setting: Setting) -> tuple[Setting, Chosen]:
    """The setting with the engine that suits its table and goal.

    Args:
        setting: the setting of a configuration with ``model=auto``.

    Returns:
        The setting of the new configuration and the choice.

    Raises:
        GenoptError: if a checkpoint is given, no engine suits the routine, or a key does not belong
            to the engine that was chosen.
    """
    from genopt.analysis.advise import advise

    config = setting.config
    if config.checkpoint is not None:
        raise GenoptError(
            "checkpoint holds a model of one engine, model=auto has still to choose: say model=..."
        )
    allowed = [str(name) for name in config.model.engines]
    rules = (config.routine or {}).get("constraints")
    own_routine = any(key == "routine" for key in overridden_keys(list(config.model.overrides)))
    refused: GenoptError | None = None
    while allowed:
        advice = advise(
            setting.table, setting.goal, constraints=rules, engines=allowed, seed=config.seed
        )
        try:
            fresh = replace(setting, config=_recomposed(config, advice))
            if own_routine:
                _check(fresh)
        except GenoptError as error:
            # a routine of the user's choice may need another engine
            refused = refused or error
            if not own_routine:
                raise
            allowed.remove(advice.engine)
            continue
        return fresh, Chosen(advice)
    raise refused or GenoptError("model.engines is empty: name at least one engine")


def _check(setting: Setting) -> None:
    """Whether the routine of the user's choice works with an engine."""
    from genopt.app.training import new_model
    from genopt.routines.checks import check_routine

    model = new_model(setting.config.model, setting, "model")
    routine = make(setting.config.routine, "routine")
    check_routine(routine, model, setting.goal, problem=setting.problem)


def _recomposed(config: DictConfig, advice: Advice) -> DictConfig:
    """The configuration with another engine, all that is not the engine's left as it is."""
    given = list(config.model.overrides)
    overrides = [_plain(o) for o in given if not _names_auto(o)]
    keys = overridden_keys(overrides)
    settings = [f"{key}={value}" for key, value in advice.settings.items() if key not in keys]
    # an experiment names its own engine: the choice comes after it
    overrides += [f"model={advice.engine}", *settings]
    try:
        fresh = without_unused(_composed(overrides), keys)
    except (HydraException, OmegaConfBaseException, GenoptError) as error:
        from genopt.app.messages import explain

        why = explain(error, [*overrides]) or str(error)
        raise GenoptError(f"model=auto chose model={advice.engine}: {why}") from error
    OmegaConf.set_struct(fresh, False)
    for key in config:
        if key not in _OF_ENGINE:
            fresh[key] = config[key]
    OmegaConf.set_struct(fresh, True)
    return fresh


def _composed(overrides: Sequence[str]) -> DictConfig:
    """A composition with the search path of the command line, where there is one."""
    if GlobalHydra.instance().is_initialized():
        import hydra

        return hydra.compose(CONFIG_NAME, list(overrides))
    return compose_all(overrides)


def _names_auto(override: str) -> bool:
    key, _, value = override.lstrip("+").partition("=")
    return (key == "model" and value == "auto") or key in ("model.engines",)


def _plain(override: str) -> str:
    """An override without the sign that let it wait for its engine."""
    return (
        override.removeprefix("++") if override.startswith(("++model.", "++routine.")) else override
    )
