"""One more W&B run for a whole sweep: the table of its studies and their numbers."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from genopt.errors import GenoptError
from genopt.files import write_whole

if TYPE_CHECKING:
    from genopt.app.dashboard.gather import Study

logger = logging.getLogger(__name__)

_LOGGER = "genopt.app.logs.wandb_runs.wandb_logger"
_KIND = "sweep"
_TOLD = Path("wandb") / "summary.json"
_WAITING = ("running", "queued", "missing")
_BEST = ("verified/best_loss", "claimed/best_loss")


class SweepSummary(Callback):
    """Hydra's callback that writes the summary when a multirun ends."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the summary, if the sweep's logger is W&B and its jobs are done.

        Jobs that were only handed to a cluster are not; `genopt-report DIR --wandb` does it later.

        Args:
            config: the sweep's configuration.
            **kwargs: whatever else Hydra passes.
        """
        words = [str(word) for word in config.hydra.overrides.task]
        asked = _options(config) or any(w.startswith("logger=") and "wandb" in w for w in words)
        root = Path(config.hydra.sweep.dir)
        if not asked or not root.is_dir():
            return
        try:
            summarise(root, unfinished=False)
        except Exception as error:
            # the sweep is done, whatever becomes of its summary
            logger.warning("the summary of the sweep could not be written: %s", error)


def summarise(root: Path, unfinished: bool = True) -> Path | None:
    """Write one W&B run for all studies below a folder.

    It has the project, the entity and the network of the studies' own runs, and their group.
    Nothing is written if the last summary says the same.

    Args:
        root: the sweep's folder.
        unfinished: whether to write it while studies are still to come.

    Returns:
        The folder of W&B's files; None where there is nothing new to tell.

    Raises:
        GenoptError: if no study below the folder uses W&B.
    """
    from genopt.app.dashboard.gather import gather_studies
    from genopt.app.dashboard.table import to_frame, varied_keys

    studies = gather_studies([root])
    found = [options for study in studies if (options := _options(study.config))]
    if not found:
        raise GenoptError(f"no study below {root} was run with logger=wandb")
    options = found[0]
    waiting = any(study.state in _WAITING for study in studies)
    if not options.get("summary", True) or (waiting and not unfinished):
        return None
    mark = _mark(studies)
    if _last(root) == mark:
        return None
    frame = to_frame(studies, varied_keys(studies))
    folder = _write(root, options, studies, frame)
    write_whole(root / _TOLD, json.dumps({"studies": mark}) + "\n")
    return folder


def _write(root: Path, options: Mapping[str, Any], studies: Sequence[Study], frame: Any) -> Path:
    import wandb

    from genopt.app.logs.wandb_runs import StudyRun, wandb_logger

    run: StudyRun = wandb_logger(
        str(root),
        project=options["project"],
        entity=options.get("entity"),
        name=root.resolve().name,
        group=root.resolve().name,
        job_type=_KIND,
        tags=[_KIND],
        offline=options["offline"],
    )
    failed = True
    try:
        inside = run.experiment
        inside.summary.update(_numbers(studies))
        shown = frame.assign(started=frame["started"].astype(str))
        # a column of another type in another sweep cannot be compared
        table = wandb.Table(dataframe=shown.astype(object).where(shown.notna(), None))
        figures = {path.stem: wandb.Image(str(path)) for path in sorted(root.glob("*.png"))}
        inside.log({"studies": table, **{f"figures/{k}": v for k, v in figures.items()}})
        folder = Path(inside.settings.sync_dir)
        failed = False
    finally:
        run.close(failed)
    return folder


def _numbers(studies: Sequence[Study]) -> dict[str, Any]:
    """How many studies are how far, and which is best."""
    out: dict[str, Any] = {"count/all": len(studies)}
    for study in studies:
        name = f"count/{study.state}"
        out[name] = out.get(name, 0) + 1
    for metric in _BEST:
        scored = [s for s in studies if metric in s.metrics]
        # losses of different questions cannot be compared
        if scored and len({study.question for study in scored}) == 1:
            best = min(scored, key=lambda study: study.metrics[metric])
            return {**out, f"best/{metric}": best.metrics[metric], "best/study": best.name}
    return out


def _options(config: Any) -> dict[str, Any] | None:
    """The options of the W&B logger of a configuration."""
    nodes = (config or {}).get("logger") or {}
    for node in nodes.values():
        if node.get("_target_") == _LOGGER:
            return (
                {key: node.get(key) for key in ("project", "entity", "offline", "summary")}
                if OmegaConf.is_config(node)
                else dict(node)
            )
    return None


def _mark(studies: Sequence[Study]) -> str:
    """A text that changes when the table of studies does."""
    rows = [(s.name, s.state, s.verdict, s.error, sorted(s.metrics.items())) for s in studies]
    return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()[:16]


def _last(root: Path) -> str:
    try:
        return str(json.loads((root / _TOLD).read_text())["studies"])
    except (OSError, ValueError, KeyError):
        return ""
