"""Warnings of a study in one line each; designs that a simulator lost are kept for the verdict."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import genopt

logger = logging.getLogger(__name__)
_PACKAGE = Path(genopt.__file__).parent
_HEARD: set[str] = set()


@contextmanager
def losses_said(note: Callable[[str], None], kept: list[str], noted: bool = True) -> Iterator[None]:
    """Turn the warnings of genopt into notes, each said once; those of others go their way.

    Args:
        note: what shows one line.
        kept: what simulators lost is added to it, each text once.
        noted: whether the user sees the notes; if not, a warning is logged as one.

    Yields:
        Nothing.
    """
    from genopt.problems.simulator import SimulationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", SimulationWarning)
        show, said = warnings.showwarning, set(kept)

        def say(
            message: Warning | str, category: type[Warning], filename: str, *rest: Any, **more: Any
        ) -> None:
            text, ours = str(message), Path(filename).is_relative_to(_PACKAGE)
            if not issubclass(category, SimulationWarning) and not ours:
                show(message, category, filename, *rest, **more)
            elif text not in said:
                said.add(text)
                note(text)
                # without notes a warning goes to stderr, once a process: the jobs of a sweep agree
                heard = noted or text in _HEARD
                logger.log(logging.INFO if heard else logging.WARNING, "%s", text)
                _HEARD.add(text)
                if issubclass(category, SimulationWarning):
                    kept.append(text)

        # the context puts the old function back
        warnings.showwarning = say
        yield
