"""What a search says: `search.json` after every batch, a line for a trial, a table at the end."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genopt.app.search.state import FILE
from genopt.app.search.storage import optuna_module
from genopt.files import write_whole

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from genopt.app.search.trials import Point, Trials

_STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
# with fewer trials an importance is chance
_FEWEST = 8
_SHOWN = 5
_WIDTH = 200


class SearchReport:
    """What a search has found so far.

    Args:
        trials: its trials.
        total: how many there are to be.
        pruning: the rule that stops fits, as a node with ``_target_``; empty for none.
        config: the sweep's configuration.
    """

    def __init__(
        self, trials: Trials, total: int, pruning: dict[str, Any], config: DictConfig
    ) -> None:
        from rich.console import Console

        self.trials = trials
        self.total = total
        self.pruning = pruning
        self.config = config
        self.result: dict[str, Any] = {}
        self._said: dict[int, dict[str, Any]] = {}
        console = Console()
        self.console = console if console.is_terminal else Console(width=_WIDTH)

    @property
    def best(self) -> list[dict[str, Any]]:
        """The best trial, or all that no other one beats in every objective."""
        chosen = self.result.get("best", [])
        return [trial for trial in self.result.get("trials", []) if trial["number"] in chosen]

    def note(self, text: str) -> None:
        """One line about the search.

        Args:
            text: the line.
        """
        self.console.print(f"[dim]·[/dim] {text}", highlight=False, soft_wrap=True)

    def begin(self, done: int, waiting: int) -> None:
        """What is asked, and what is already there.

        Args:
            done: trials of earlier runs.
            waiting: those of them that did not end.
        """
        trials = self.trials
        aims = " and ".join(f"{o.direction} {o.name}" for o in trials.objectives)
        keys = ", ".join(dict.fromkeys(d.plain for d in trials.space.dimensions()))
        self.note(f"search: {aims} over {keys}; {self.total} trials")
        if done:
            again = f", {waiting} of them unfinished and run first" if waiting else ""
            self.note(f"going on with {done} trials{again}")

    def told(self, batch: Sequence[Point]) -> None:
        """A line for each trial of a batch.

        Args:
            batch: its points.
        """
        from rich.markup import escape

        trials = {trial["number"]: trial for trial in self.result["trials"]}
        best = ", ".join(
            f"{number:.4g}" for trial in self.best[:1] for number in trial["values"] or ()
        )
        for point in batch:
            trial = trials[point.number]
            said = trial.get("error") or trial["state"]
            if trial["values"] is not None:
                said = ", ".join(f"{value:.4g}" for value in trial["values"])
            params = " ".join(f"{key}={value}" for key, value in trial["params"].items())
            so_far = f" [dim](best {best})[/dim]" if best else ""
            place = f"trial {point.number} ({point.number + 1} of {self.total})"
            self.note(f"{place}: {escape(str(said))}{so_far} {escape(params)}")

    def end(self) -> None:
        """Write all, and show the best trials with the command that repeats the best one."""
        from rich.markup import escape
        from rich.table import Table as Shown

        self.write(importances=True)
        if len(self.trials.points) < self.total:
            self.note("every point of the space was tried")
        states = [trial["state"] for trial in self.result["trials"]]
        counts = ", ".join(f"{states.count(s)} {s}" for s in _STATES.values() if s in states)
        self.note(f"{len(states)} trials: {counts}; {FILE} is in {escape(str(self.trials.folder))}")
        best = self.best
        if not best:
            return
        several = len(self.trials.objectives) > 1
        rows = best[:_SHOWN] if several else self._ranked()[:_SHOWN]
        keys = list(dict.fromkeys(key for trial in rows for key in trial["params"]))
        names = [objective.name for objective in self.trials.objectives]
        table = Shown(title="best trials" if not several else "trials that no other one beats")
        for name in ("trial", *names, *keys):
            table.add_column(name, overflow="fold")
        for trial in rows:
            values = [f"{value:.4g}" for value in trial["values"]]
            params = [escape(str(trial["params"].get(key, ""))) for key in keys]
            table.add_row(str(trial["number"]), *values, *params)
        self.console.print(table)
        self.console.print(best[0]["command"], highlight=False, markup=False, soft_wrap=True)

    def write(self, importances: bool = False) -> None:
        """Write `search.json` in one step.

        Args:
            importances: whether to work out which keys matter; else those of before are kept.
        """
        mine, study = self.trials, self.trials.study
        by_number = {t.number: t for t in study.get_trials(deepcopy=False)}
        points = [mine.points[number] for number in sorted(mine.points)]
        front = {t.number for t in study.best_trials} if mine.reached() else set()
        before = self.result.get("importances", {})
        self.result = {
            "objectives": [objective.name for objective in mine.objectives],
            "directions": [objective.direction for objective in mine.objectives],
            "n_trials": self.total,
            "pruning": self.pruning or None,
            "trials": [self._entry(point, by_number[point.trial]) for point in points],
            "best": [point.number for point in points if point.trial in front],
            "importances": self._importances() if importances else before,
        }
        if len(mine.objectives) == 1:
            self.result["best"] = self.result["best"][:1]
        write_whole(mine.folder / FILE, json.dumps(self.result, indent=2) + "\n")

    def _entry(self, point: Point, trial: Any) -> dict[str, Any]:
        if point.number not in self._said:
            # reading words takes time, and they never change
            self._said[point.number] = {
                "params": params_of(point.words, self.trials.space.fixed),
                "folder": point.folder,
                "command": command(point.words, self.config),
            }
        entry = {
            "number": point.number,
            "state": _STATES.get(trial.state.name, "running"),
            "values": trial.values if trial.state.name == "COMPLETE" else None,
            **self._said[point.number],
            "curve": point.curve,
            "error": trial.user_attrs.get("error"),
        }
        return {k: v for k, v in entry.items() if v is not None or k == "values"}

    def _ranked(self) -> list[dict[str, Any]]:
        """Finished trials of one objective, the best first."""
        sign = -1.0 if self.trials.objectives[0].direction == "maximize" else 1.0
        done = [trial for trial in self.result["trials"] if trial["values"] is not None]
        return sorted(done, key=lambda trial: sign * trial["values"][0])

    def _importances(self) -> dict[str, dict[str, float]]:
        """The share of each key in the differences between trials, for each objective.

        Keys of a condition are compared among the trials that have them.
        """
        optuna = optuna_module()
        found: dict[str, dict[str, float]] = {}
        # the evaluator asks which keys make a number low
        signs = [-1.0 if o.direction == "maximize" else 1.0 for o in self.trials.objectives]
        done = self.trials.reached()
        groups: dict[tuple[str, ...], int] = {}
        for trial in done:
            names = tuple(trial.params)
            groups[names] = groups.get(names, 0) + 1
        for i, objective in enumerate(self.trials.objectives):
            shares: dict[str, float] = {}
            # the smallest sets first: keys that all trials share are judged by all of them
            shared = set(done[0].params).intersection(*(t.params for t in done)) if done else set()
            for names in [tuple(shared), *groups]:
                fresh = [name for name in names if name not in shares]
                having = [t for t in done if set(names) <= set(t.params)]
                if not fresh or len(having) < _FEWEST:
                    continue
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        scores = optuna.importance.get_param_importances(
                            self.trials.study,
                            params=list(names),
                            target=lambda trial, i=i: signs[i] * trial.values[i],
                            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
                        )
                except (ValueError, RuntimeError):
                    # all trials are alike in this objective
                    continue
                shares |= {name: float(scores[name]) for name in fresh if name in scores}
            found[objective.name] = dict(sorted(shares.items(), key=lambda item: -item[1]))
        return {name: shares for name, shares in found.items() if shares}


def params_of(words: Sequence[str], fixed: Sequence[str]) -> dict[str, Any]:
    """What a trial chose, by key.

    Args:
        words: the overrides of its job.
        fixed: those that all trials have.

    Returns:
        Plain values.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    chosen = parser.parse_overrides([word for word in words if word not in fixed])
    return {o.get_key_element().lstrip("+~"): o.value() for o in chosen}


def command(words: Sequence[str], config: Any) -> str:
    """The command line that repeats a study.

    Args:
        words: its overrides.
        config: the sweep's configuration.

    Returns:
        One line for a shell.
    """
    sources = config.hydra.runtime.config_sources
    own = [str(source.path) for source in sources if source.provider == "command-line"]
    said = list(words)
    if "~goal" in said:
        # how `genopt` rewrites a goal of the command line
        said = [w.removeprefix("+") if w.startswith("+goal=") else w for w in said if w != "~goal"]
    flags = [part for path in own for part in ("--config-dir", path)]
    return shlex.join(["genopt", *flags, *said])


def read_search(folder: Path) -> dict[str, Any]:
    """What a search has written.

    Args:
        folder: the sweep's folder.

    Returns:
        As in `search.json`; empty where there is no search.
    """
    try:
        return dict(json.loads((folder / FILE).read_text()))
    except (OSError, ValueError):
        return {}
