"""MLflow: one run a study, in a database in the study's folder or on a tracking server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import MLFlowLogger

from genopt.app.logs.loggers import numbers_of

if TYPE_CHECKING:
    from genopt.app.study import StudyResult

_FILES = ("top.csv", "candidates.parquet")
_MODELS = ("model.ckpt", "judge.ckpt")
_LONGEST = 5000
# MLflow sends usage statistics, and tells of every table that it makes
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}


def mlflow_logger(
    save_dir: str,
    tracking_uri: str | None = None,
    experiment: str = "genopt",
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
    checkpoints: bool = True,
) -> StudyRun:
    """A logger of one study for MLflow.

    Args:
        save_dir: the study's folder; without ``tracking_uri`` the run is in ``mlflow.db`` there,
            its files in ``mlflow/``.
        tracking_uri: a server, or a database of many studies.
        experiment: what the run belongs to.
        name: of the run.
        tags: words to filter runs by.
        checkpoints: whether the models are artifacts of the run.

    Returns:
        The logger; its run begins when it is first used.
    """
    folder = Path(save_dir).resolve()
    files = None if tracking_uri else (folder / "mlflow").as_uri()
    folder.mkdir(parents=True, exist_ok=True)
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    return StudyRun(
        checkpoints,
        experiment_name=experiment,
        run_name=name,
        tracking_uri=tracking_uri or f"sqlite:///{folder / 'mlflow.db'}",
        tags=dict(tags or {}),
        artifact_location=files,
    )


class StudyRun(MLFlowLogger):
    """Lightning's logger, which is also told what a study found and how it ended.

    Args:
        checkpoints: whether the models are artifacts of the run.
        **options: of Lightning's logger.
    """

    def __init__(self, checkpoints: bool, **options: Any) -> None:
        super().__init__(**options)
        self._checkpoints = checkpoints
        self._told = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The client; the run begins here, without the tags that MLflow makes of the machine."""
        if not self._initialized:
            client = self._mlflow_client
            if self._run_id is None:
                known = client.get_experiment_by_name(self._experiment_name)
                self._experiment_id = (
                    client.create_experiment(self._experiment_name, self._artifact_location)
                    if known is None
                    else known.experiment_id
                )
                run = client.create_run(
                    self._experiment_id, tags=self.tags or {}, run_name=self._run_name
                )
                self._run_id = run.info.run_id
            self._initialized = True
        return self._mlflow_client

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Take the study's configuration; what a model says of itself later is part of it.

        Args:
            params: nested plain data.
        """
        # a parameter cannot be given twice
        if not self._told:
            self._told = True
            super().log_hyperparams(params)

    @rank_zero_only
    def log_study(self, result: StudyResult) -> None:
        """Give the run metrics, verdict, designs, figures and models.

        Args:
            result: what the study found.
        """
        client, run = self.experiment, self.run_id
        self.log_metrics(numbers_of(result.metrics))
        client.set_tag(run, "verdict", result.verdict[:_LONGEST])
        kept = (*_FILES, *(_MODELS if self._checkpoints else ()))
        for path in (result.folder / name for name in kept):
            if path.exists():
                client.log_artifact(run, str(path))
        if (result.folder / "figures").is_dir():
            client.log_artifacts(run, str(result.folder / "figures"), "figures")

    @rank_zero_only
    def close(self, failed: bool) -> None:
        """End the run, if it began.

        Args:
            failed: whether the study failed.
        """
        if self._initialized:
            self.experiment.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")
