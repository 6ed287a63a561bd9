"""Weights & Biases: one run a study, offline unless asked, nothing of the machine in it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import WandbLogger

from genopt.app.logs.loggers import numbers_of

if TYPE_CHECKING:
    from genopt.app.study import StudyResult

_STEP = "trainer/global_step"
_MODELS = ("model.ckpt", "judge.ckpt")
_RESUMED = "resumed"


def wandb_logger(
    save_dir: str,
    project: str = "genopt",
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] = (),
    notes: str | None = None,
    offline: bool = True,
    checkpoints: bool = True,
    system_metrics: bool = False,
    summary: bool = True,
) -> StudyRun:
    """A logger of one study for Weights & Biases.

    An offline run cannot be continued, so a study that goes on after a kill opens a new run of the
    same name in the same group, with the tag ``resumed``.

    Args:
        save_dir: the study's folder; the run lies in ``wandb/`` below it.
        project: where runs are collected.
        entity: user or team; None for the key's own.
        name: of the run.
        group: what runs are shown together, for example those of a sweep.
        job_type: what kind of run it is.
        tags: words to filter runs by.
        notes: a longer description.
        offline: write files only; ``wandb sync`` uploads them later.
        checkpoints: whether the models are artifacts of the run.
        system_metrics: whether the load of the machine is recorded during the run.
        summary: whether a sweep gets a run of its own at its end; read there.

    Returns:
        The logger; its run begins when it is first used.
    """
    del summary
    resumed = any(Path(save_dir).glob("wandb/*run-*"))
    return StudyRun(
        checkpoints,
        save_dir=save_dir,
        project=project,
        offline=offline,
        entity=entity,
        name=name,
        group=group,
        job_type=job_type,
        tags=[*tags, *([_RESUMED] if resumed else [])],
        notes=notes,
        reinit="create_new",
        settings=_settings(offline, system_metrics),
    )


class StudyRun(WandbLogger):
    """Lightning's logger, which is also told what a study found and how it ended.

    Args:
        checkpoints: whether the models are artifacts of the run.
        **options: of Lightning's logger and of `wandb.init`.
    """

    def __init__(self, checkpoints: bool, **options: Any) -> None:
        # Lightning would set WANDB_MODE for the whole process and whatever runs in it next
        self._quiet = Quiet(options.pop("offline"), Path(options["save_dir"]))
        super().__init__(**options)
        # both are for runs that go on, and W&B warns about the first
        for unused in ("anonymous", "resume"):
            self._wandb_init.pop(unused, None)
        self._checkpoints = checkpoints
        self._told = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run; it begins here. Ranks other than the first get one that ignores everything."""
        if self._experiment is None:
            self._quiet.begin()
            import wandb

            attached = getattr(self, "_attach_id", None)
            if attached is not None:
                from wandb.sdk.wandb_init import _attach

                self._experiment = _attach(attached)
            else:
                self._experiment = wandb.init(**self._wandb_init)
                self._experiment.define_metric(_STEP)
                self._experiment.define_metric("*", step_metric=_STEP, step_sync=True)
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Take the study's configuration; what a model says of itself later is part of it.

        Args:
            params: nested plain data.
        """
        if not self._told:
            self._told = True
            super().log_hyperparams(params)

    @rank_zero_only
    def log_study(self, result: StudyResult) -> None:
        """Give the run metrics, designs, figures and models.

        Args:
            result: what the study found.
        """
        import wandb

        run = self.experiment
        run.summary.update({**numbers_of(result.metrics), "verdict": result.verdict})
        figures = sorted((result.folder / "figures").glob("*.png"))
        run.log(
            {
                "top": wandb.Table(dataframe=result.top),
                "candidates": wandb.Table(dataframe=result.candidates.to_frame()),
                **{f"figures/{path.stem}": wandb.Image(str(path)) for path in figures},
            }
        )
        models = [result.folder / name for name in _MODELS if (result.folder / name).exists()]
        if self._checkpoints and models:
            log_files(run, f"model-{run.id}", "model", models)

    @rank_zero_only
    def close(self, failed: bool) -> None:
        """End the run, if it began.

        Args:
            failed: whether the study failed.
        """
        try:
            if self._experiment is not None:
                self._experiment.finish(exit_code=int(failed))
        finally:
            self._experiment = None
            self._quiet.end()


class Quiet:
    """W&B's environment during a run: no banner, no calls home, files in the study's folder.

    Args:
        offline: whether nothing may use the network.
        folder: of the study.
    """

    def __init__(self, offline: bool, folder: Path) -> None:
        self._wanted = {
            "WANDB_SILENT": "true",
            # what `wandb sync` needs is copied here, by default to the home folder
            "WANDB_DATA_DIR": str(folder.resolve() / "wandb"),
        }
        if offline:
            # usage statistics are sent even by offline runs, unless both say no
            self._wanted |= {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
        self._before: dict[str, str | None] | None = None

    def begin(self) -> None:
        """Set it."""
        if self._before is None:
            self._before = {name: os.environ.get(name) for name in self._wanted}
            os.environ.update(self._wanted)

    def end(self) -> None:
        """Put back what was there."""
        for name, value in (self._before or {}).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before = None


def log_files(run: Any, name: str, kind: str, paths: Sequence[Path]) -> None:
    """Make files an artifact of a run; they stay where they are until they are uploaded.

    Args:
        run: of W&B.
        name: of the artifact.
        kind: of the artifact.
        paths: the files.
    """
    import wandb

    artifact = wandb.Artifact(name, type=kind)
    for path in paths:
        artifact.add_file(str(path.resolve()), name=path.name, policy="immutable")
    run.log_artifact(artifact)


def _settings(offline: bool, system_metrics: bool) -> Mapping[str, Any]:
    """W&B's settings of a run: what it would find out about the machine is left out."""
    return {
        "mode": "offline" if offline else "online",
        "silent": True,
        "console": "off",
        "disable_git": True,
        "disable_code": True,
        "disable_job_creation": True,
        "save_code": False,
        "host": "",
        "x_disable_meta": True,
        "x_disable_machine_info": True,
        "x_disable_stats": not system_metrics,
        "x_save_requirements": False,
    }
