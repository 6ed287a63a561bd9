"""Lightning's manners: quiet in a terminal, open to Ctrl-C, with errors that say what is wrong."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException

from genopt.errors import GenoptError


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the trainer's banners and loader hints out of a user's terminal.

    Yields:
        Nothing.
    """
    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        # frozen parts of a model are in eval mode on purpose
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        warnings.filterwarnings("ignore", message=".*srun.*")
        # what is logged is summed over the processes before
        warnings.filterwarnings("ignore", message=".*recommended to use .*sync_dist=True.*")
        warnings.filterwarnings(
            "ignore", message=".*Checkpoint directory.*exists and is not empty.*"
        )
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Let Ctrl-C reach the caller: the trainer alone would end the process and leave it deaf.

    Args:
        trainer: the trainer that runs inside the block.

    Yields:
        Nothing.

    Raises:
        KeyboardInterrupt: where the trainer turned it into the end of the process.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error


def new_trainer(settings: dict[str, Any]) -> pl.Trainer:
    """A trainer.

    Args:
        settings: its keyword arguments.

    Returns:
        The trainer.

    Raises:
        GenoptError: if the settings cannot be used.
    """
    try:
        return pl.Trainer(**settings)
    except (MisconfigurationException, ValueError) as error:
        raise GenoptError(f"trainer: {error}") from error
