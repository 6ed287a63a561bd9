"""Hydra's door to `genopt.app.search.run`: Hydra takes sweepers from this package only.

Every start of the command line imports this file, so it imports nothing of weight.
"""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SearchSweeper(Sweeper):
    """Searches over settings with Optuna (``hydra/sweeper=optuna``).

    Args:
        objective: a metric or several.
        direction: a direction for each; None for the better one.
        n_trials: trials in all, those of earlier runs included.
        n_jobs: trials that are launched together.
        seed: seed of the sampler.
        sampler: what proposes, as a node with ``_target_``.
        pruning: what stops fits, by its name; None for nothing.
        pruners: name to a node with ``_target_``.
        try_default: whether the first trial has the settings of the command line without a search.
        give_up_after: failed trials in a row that end the search; None for never.
        params: key to what it may be.
        when: condition to keys and what they may be then.
    """

    def __init__(
        self,
        objective: Any,
        direction: Any,
        n_trials: int,
        n_jobs: int,
        seed: int,
        sampler: Any,
        pruning: str | None,
        pruners: Any,
        try_default: bool,
        give_up_after: int | None,
        params: Any,
        when: Any,
    ) -> None:
        self.options = {
            "objective": objective,
            "direction": direction,
            "n_trials": n_trials,
            "n_jobs": n_jobs,
            "seed": seed,
            "sampler": sampler,
            "pruning": pruning,
            "pruners": pruners,
            "try_default": try_default,
            "give_up_after": give_up_after,
        }
        self.params = params
        self.when = when

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives.

        Args:
            hydra_context: Hydra's loader and callbacks.
            task_function: what a job runs.
            config: the sweep's configuration.
        """
        self.given = config
        self.loader = hydra_context.config_loader
        self.runs = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search.

        Args:
            arguments: overrides of the command line.

        Returns:
            What was found, a `genopt.app.search.report.SearchReport`.
        """
        from genopt.app.search.run import Search, SearchOptions

        search = Search(
            self.given,
            self.loader,
            lambda jobs, first: self.runs.launch(jobs, initial_job_idx=first),
            SearchOptions(**self.options),
            self.params,
            self.when,
        )
        return search.run(arguments)
