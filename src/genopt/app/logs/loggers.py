"""What a study tells its loggers: its configuration first, its numbers and designs at the end.

Lightning's loggers get the numbers of every epoch during the fit. A logger of one's own may have
the two methods of `Teller`; it is then told the whole result, and how the study ended.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from omegaconf import DictConfig

from genopt.app.logs.config import told_config
from genopt.app.parts import make
from genopt.errors import GenoptError

if TYPE_CHECKING:
    from genopt.app.study import StudyResult

logger = logging.getLogger(__name__)

# the extra of genopt, and the modules that must be there, by the end of the logger's target
_NEEDED = {
    "TensorBoardLogger": ("tensorboard", ("tensorboard",)),
    "mlflow_logger": ("mlflow", ("mlflow", "sqlalchemy", "alembic")),
}
_HOST = "https://api.wandb.ai"


@runtime_checkable
class Teller(Protocol):
    """A logger that is told more than numbers."""

    def log_study(self, result: StudyResult) -> None:
        """Take the result of a study.

        Args:
            result: what the study found.
        """

    def close(self, failed: bool) -> None:
        """End the run, so that the next study of a sweep gets one of its own.

        Args:
            failed: whether the study failed.
        """


def check_loggers(config: DictConfig) -> None:
    """Refuse loggers that cannot work, before any work is done.

    Args:
        config: a composed configuration.

    Raises:
        GenoptError: if a package or a key for the server is missing.
    """
    for name, node in (config.get("logger") or {}).items():
        kind = str(node.get("_target_", "")).rpartition(".")[2]
        extra, modules = _NEEDED.get(kind, ("", ()))
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            raise GenoptError(
                f"logger={name} needs {', '.join(missing)}: pip install 'genopt[{extra}]'"
            )
        if kind == "wandb_logger" and node.offline is False and not _has_key():
            raise GenoptError(
                "logger.wandb.offline=false needs a key for W&B: set WANDB_API_KEY, run "
                "`wandb login`, or leave offline=true and run `wandb sync` later"
            )


@contextmanager
def opened(config: DictConfig) -> Iterator[list[Any]]:
    """The loggers of a study, told its configuration; they are closed whatever happens.

    Args:
        config: the study's configuration.

    Yields:
        Lightning loggers.
    """
    loggers: list[Any] = []
    with ExitStack() as stack:
        stack.push(lambda kind, *_: _close(loggers, failed=kind is not None))
        told = told_config(config)
        for name, node in (config.get("logger") or {}).items():
            loggers.append(make(node, f"logger.{name}"))
            loggers[-1].log_hyperparams(told)
        yield loggers


def log_result(loggers: list[Any], result: StudyResult) -> None:
    """Give every logger the metrics, and more to those that take more.

    A tracker that cannot be reached costs a warning, not the study: all of it is in its folder.

    Args:
        loggers: Lightning loggers.
        result: what the study found.
    """
    numbers = numbers_of(result.metrics)
    for each in loggers:
        try:
            if isinstance(each, Teller):
                each.log_study(result)
            else:
                each.log_metrics(numbers)
                each.save()
        except Exception as error:
            _warn(each, error)


def numbers_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a study under the names that trackers show.

    Args:
        metrics: of the study.

    Returns:
        Value by ``result/<name>``.
    """
    return {f"result/{name}": value for name, value in metrics.items()}


def _close(loggers: list[Any], failed: bool) -> None:
    for each in loggers:
        if isinstance(each, Teller):
            try:
                each.close(failed)
            except Exception as error:
                _warn(each, error)


def _warn(each: Any, error: Exception) -> None:
    logger.warning(
        "%s could not be told everything, the study's folder has it: %s", type(each).__name__, error
    )


def _has_key() -> bool:
    """Whether W&B finds a key: in the environment, in a netrc file or in its own settings."""
    import netrc
    from pathlib import Path
    from urllib.parse import urlparse

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", _HOST)).hostname or ""
    given = os.environ.get("NETRC")
    for path in [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc.netrc(path).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    import wandb

    return bool(wandb.setup().settings.api_key)
