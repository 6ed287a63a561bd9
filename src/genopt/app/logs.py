"""What a study tells its loggers at the end: configuration, metrics, candidates and figures."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genopt.app.study import StudyResult


def log_result(loggers: list[Any], config: dict[str, Any], result: StudyResult) -> None:
    """Give every logger the metrics, and W&B the candidates and figures as well.

    Args:
        loggers: Lightning loggers.
        config: the resolved configuration.
        result: what the study found.
    """
    numbers = {f"result/{k}": v for k, v in result.metrics.items()}
    for logger in loggers:
        logger.log_hyperparams(config)
        if type(logger).__name__ != "WandbLogger":
            logger.log_metrics(numbers)
            logger.save()
            continue
        import wandb

        run = logger.experiment
        run.summary.update({**numbers, "verdict": result.verdict})
        run.log({"top": wandb.Table(dataframe=result.top)})
        run.log({"candidates": wandb.Table(dataframe=result.candidates.to_frame())})
        for figure in sorted((result.folder / "figures").glob("*.png")):
            run.log({f"figures/{figure.stem}": wandb.Image(str(figure))})


def close(loggers: list[Any]) -> None:
    """End the W&B run, so that the next study of a sweep gets one of its own.

    Args:
        loggers: Lightning loggers.
    """
    for logger in loggers:
        if type(logger).__name__ == "WandbLogger":
            logger.experiment.finish()


def quiet_wandb() -> None:
    """Keep W&B's banner out of the terminal; its own log files have all of it."""
    os.environ.setdefault("WANDB_SILENT", "true")
