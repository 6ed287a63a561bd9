"""A search whose studies are quick fakes, in a process of its own that can be killed."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from genopt.app.compose import CONFIG_NAME, conf_folder, prepare
from genopt.app.folder import StudyFolder
from genopt.app.search.report import SearchReport, params_of
from genopt.app.search.run import Search, SearchOptions

Run = Callable[[StudyFolder, dict[str, Any]], None]


def finish(study: StudyFolder, **metrics: float) -> None:
    """What a finished study leaves."""
    study.write("metrics.json", metrics)
    study.mark(state="finished", fingerprint="fake")


def search(folder: Path, words: Sequence[str], run: Run, *, when=None, **params) -> SearchReport:
    """Search over keys with a launcher that calls a function instead of a study.

    Options of the sweeper are given as words, such as ``hydra.sweeper.n_trials=3``.
    """
    prepare()
    GlobalHydra.instance().clear()
    hydra.initialize_config_dir(str(conf_folder()), version_base="1.3")
    try:
        app = GlobalHydra.instance()
        given = [f"hydra.sweep.dir={folder}", *words]
        if not any(word.startswith("hparams_search=") for word in words):
            given.insert(0, "hydra/sweeper=optuna")
        config = app.hydra.compose_config(CONFIG_NAME, given, run_mode=RunMode.MULTIRUN)

        def launch(jobs: Sequence[Sequence[str]], first: int) -> list[None]:
            assert first >= 0
            for job in jobs:
                place = next(w for w in job if w.startswith("hydra.sweep.subdir="))
                study = StudyFolder(folder / place.partition("=")[2])
                study.path.mkdir(parents=True, exist_ok=True)
                with (folder / "launched.txt").open("a") as file:
                    file.write(study.path.name + "\n")
                run(study, params_of([w for w in job if not w.startswith("hydra.")], words))
            return [None] * len(jobs)

        options = dict(config.hydra.sweeper)
        params = params or options["params"]
        when = when or options["when"]
        for name in ("_target_", "_recursive_", "params", "when"):
            options.pop(name, None)
        tasks = [str(word) for word in config.hydra.overrides.task]
        loader = app.config_loader()
        return Search(config, loader, launch, SearchOptions(**options), params, when).run(tasks)
    finally:
        GlobalHydra.instance().clear()


def kill_me(folder: Path) -> None:
    """The search that the tests kill."""
    words = ["hydra.sweeper.n_trials=9", "model.weight_decay=0.0,0.1,0.2"]

    def run(study: StudyFolder, params: dict[str, Any]) -> None:
        (study.path / "begun.txt").open("a").write("x")
        time.sleep(0.05)
        rate = float(params["model.learning_rate"])
        finish(study, **{"verified/best_loss": (rate - 0.01) ** 2 + params["model.weight_decay"]})

    report = search(folder, words, run, **{"model.learning_rate": "tag(log,interval(1e-4,1e-1))"})
    print(json.dumps(report.result["trials"]))


if __name__ == "__main__":
    kill_me(Path(sys.argv[1]))
