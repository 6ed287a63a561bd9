"""The command `genopt`: composes, runs the study and speaks plainly when it cannot."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from genopt.app.compose import (
    CONFIG_NAME,
    conf_folder,
    full_words,
    plain_overrides,
    prepare,
    sweep_folder,
    swept_overrides,
    used_parts,
    waiting_overrides,
)
from genopt.app.early import check_early
from genopt.app.imports import import_for_study
from genopt.app.launch.job import alone_in_slurm
from genopt.app.messages import explain

DIAGNOSE = "diagnose"
_HELP = {"--help", "-h"}
_TRACEBACK = "HYDRA_FULL_ERROR"
_ASKED_FOR = os.environ.get(_TRACEBACK, "") not in ("", "0")


def task(config: DictConfig) -> float | None:
    """One job of Hydra: one study in Hydra's output folder.

    Args:
        config: the composed configuration.

    Returns:
        The best loss, verified where there is a simulator: what a sweeper minimises.
    """
    job = HydraConfig.get()
    alone_in_slurm()
    try:
        from genopt.app.distributed import check_strategy, helps, together

        used = used_parts(config, list(job.overrides.task))
        # what can be said without torch is said before it is imported
        check_early(used)
        check_strategy(used, multirun=job.mode == RunMode.MULTIRUN)
        if helps(used):
            return None
        import_for_study(used.figures)
        from genopt.app.study import run_study

        # the report of a sweep shows all designs in one table
        single = job.mode != RunMode.MULTIRUN
        with together(used):
            result = run_study(used, Path(job.runtime.output_dir), show=single)
    except Exception as error:
        # in a sweep the error goes to Hydra, which names the job and lets the others run
        if job.mode != RunMode.MULTIRUN:
            _stop(error)
        from genopt.app.folder import StudyFolder

        StudyFolder(Path(job.runtime.output_dir)).refuse(error)
        raise
    best = result.metrics.get("verified/best_loss", result.metrics.get("claimed/best_loss"))
    return None if best is None else float(best)


def main() -> None:
    """Entry point of the command line."""
    before = os.environ.get(_TRACEBACK)
    # without this Hydra prints its own report of an error and exits before ours can
    os.environ[_TRACEBACK] = "1"
    try:
        _main()
    finally:
        # whoever called from Python goes on, and other commands that it starts speak plainly too
        if before is None:
            del os.environ[_TRACEBACK]
        else:
            os.environ[_TRACEBACK] = before


def _main() -> None:
    given = full_words(sys.argv[1:])
    if given[:1] == [DIAGNOSE]:
        from genopt.app.diagnose import diagnose_command

        sys.exit(diagnose_command(given[1:]))
    overrides = waiting_overrides(swept_overrides(plain_overrides(given)))
    sys.argv[1:] = [*overrides, *sweep_folder(given)]
    prepare()
    app = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=CONFIG_NAME)
    try:
        if _HELP.intersection(given):
            from genopt.app.help import help_text

            sys.stdout.write(help_text(given))
        else:
            app(task)()
    except KeyboardInterrupt:
        sys.exit("genopt: interrupted; the same command goes on from here")
    except Exception as error:
        _stop(error)
        raise


def _stop(error: Exception) -> None:
    """Leave with one line, where the error is one that a user can mend."""
    message = None if _ASKED_FOR else explain(error)
    if message is not None:
        sys.exit(f"genopt: {message}")


if __name__ == "__main__":
    main()
