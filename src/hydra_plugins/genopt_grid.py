"""Every combination of values; Hydra finds sweepers in this package only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from genopt.app.launch.shared import CheckedLauncher


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, which leaves the checks to the launcher.

    It would compose every job for the check alone, stop at the first that cannot be, and see a
    later batch only when the earlier ones have run.
    """

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """The next jobs; before the first ones all jobs are planned.

        Returns:
            The command line of each.
        """
        assert self.overrides is not None
        if self.batch_index == 0 and isinstance(self.launcher, CheckedLauncher):
            self.launcher.plan(list(chain.from_iterable(self.overrides)), 0)
        return super().get_job_batch()

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: the launcher has done it.

        Args:
            batch: the command line of each job.
        """
