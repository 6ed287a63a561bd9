"""What a launcher prints: lines beside its jobs, and a live table of their states."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genopt.app.launch.shared import Job

WAITING, RUNNING, FINISHED, FAILED = "waiting", "running", "finished", "failed"
_OVER = (FINISHED, FAILED)
_ROWS = 20


def tell(text: str) -> None:
    """Write to the terminal, beside what the jobs print.

    Args:
        text: plain text.
    """
    _console().print(text, highlight=False, markup=False)


class JobTable:
    """A live table of jobs; without a terminal a line for each that has ended.

    Args:
        jobs: what is shown; nothing where they have ``progress=false``.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._quiet = not any(job.config.progress for job in jobs)
        self._labels = {job.number: job.label for job in jobs}
        self._states = dict.fromkeys(self._labels, WAITING)
        self._since = dict.fromkeys(self._labels, time.monotonic())
        self._live: Any = None

    def __enter__(self) -> JobTable:
        console = _console()
        if console.is_terminal and not self._quiet:
            from rich.live import Live

            self._live = Live(get_renderable=self._drawn, console=console, refresh_per_second=1)
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def show(self, job: Job, state: str) -> None:
        """Say how far a job is.

        Args:
            job: one of the jobs.
            state: in a word.
        """
        if self._states[job.number] == state:
            return
        self._states[job.number] = state
        self._since[job.number] = time.monotonic()
        # why a job failed is said elsewhere, also where nothing else is
        if self._live is None and not self._quiet and state == FINISHED:
            over = sum(s in _OVER for s in self._states.values())
            tell(f"job {job.number} ({job.label}) finished: {over} of {len(self._states)} are over")

    def _drawn(self) -> Any:
        from rich.table import Table

        counts = dict.fromkeys(sorted(set(self._states.values())), 0)
        for state in self._states.values():
            counts[state] += 1
        title = ", ".join(f"{count} {state}" for state, count in counts.items())
        table = Table("job", "settings", "state", "for", title=title)
        # what still goes on is shown first where there is no room for all
        order = sorted(self._labels, key=lambda n: (self._states[n] in _OVER, n))
        for number in sorted(order[:_ROWS]):
            spent = time.monotonic() - self._since[number]
            table.add_row(
                str(number), self._labels[number], self._states[number], f"{spent / 60:.1f} min"
            )
        if len(order) > _ROWS:
            table.add_row("", f"and {len(order) - _ROWS} more", "", "")
        return table


@cache
def _console() -> Any:
    # one for all: rich keeps lines and a live table apart only where both are its own
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)
