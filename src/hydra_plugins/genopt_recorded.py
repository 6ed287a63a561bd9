"""Hydra's sweeper of ``genopt-report --failed``: the unfinished jobs of a sweep, once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

# a plain node: Hydra executes this file outside sys.modules, where a dataclass cannot be made
_NODE = {"_target_": "hydra_plugins.genopt_recorded.RecordedSweeper", "folder": "???"}
ConfigStore.instance().store(group="hydra/sweeper", name="recorded", node=_NODE, provider="genopt")


class RecordedSweeper(Sweeper):
    """Gives a launcher the jobs that a sweep's plan still wants.

    Args:
        folder: the folder of the sweep.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        """Get the launcher.

        Args:
            hydra_context: Hydra's own.
            task_function: what a job runs.
            config: the sweep's configuration.
        """
        from hydra.core.plugins import Plugins

        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs that are not finished, not running and not queued.

        Args:
            arguments: what else each of them is told.

        Returns:
            What the launcher returns.
        """
        from genopt.app.jobs import read_jobs, repeated

        assert self.launcher is not None
        # the launcher checks them, and names all that are wrong
        jobs = read_jobs(self.folder).unfinished()
        batch = [repeated(job, arguments) for job in jobs]
        return [self.launcher.launch(batch, initial_job_idx=0)]
