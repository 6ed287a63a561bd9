"""A search over settings: Optuna proposes, Hydra's launcher runs, the folders say what came of it.

A search that was killed asks the folders of its open trials, runs those again that did not end, and
goes on proposing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from genopt.app.compose import short_hash
from genopt.app.lock import held
from genopt.app.messages import explain
from genopt.app.parts import make
from genopt.app.search.check import check_space, outside_of
from genopt.app.search.dimension import Dimension
from genopt.app.search.objective import read_objectives
from genopt.app.search.report import SearchReport
from genopt.app.search.space import read_space
from genopt.app.search.storage import calm, optuna_module
from genopt.app.search.trials import Point, Trials
from genopt.errors import GenoptError, UnknownNameError

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Any]]
_LOCK = "search.lock"
_PLACE = "hydra.sweep.subdir="


@dataclass(frozen=True)
class SearchOptions:
    """How a search goes on, apart from its space.

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

    Raises:
        GenoptError: if a number is out of range.
    """

    objective: Any
    direction: Any
    n_trials: int
    n_jobs: int
    seed: int
    sampler: Any
    pruning: str | None
    pruners: Any
    try_default: bool
    give_up_after: int | None

    def __post_init__(self) -> None:
        for name in ("n_trials", "n_jobs", "give_up_after"):
            value = getattr(self, name)
            if value is None and name == "give_up_after":
                continue
            if not isinstance(value, int) or value < 1:
                raise GenoptError(f"hydra.sweeper.{name} must be at least 1, got {value}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise GenoptError(f"hydra.sweeper.seed must be a number from 0 on, got {self.seed}")


class Search:
    """One search in one folder.

    Args:
        config: the sweep's configuration.
        loader: Hydra's loader.
        launch: runs jobs, given their overrides and the number of the first.
        options: how the search goes on.
        params: key to what it may be.
        when: condition to keys and what they may be then.
    """

    def __init__(
        self,
        config: DictConfig,
        loader: Any,
        launch: Launch,
        options: SearchOptions,
        params: Any = None,
        when: Any = None,
    ) -> None:
        self.config = config
        self.loader = loader
        self.launch = launch
        self.options = options
        self.params = _plain(params)
        self.when = _plain(when)
        self.pruning = _pruner(options)
        self.folder = Path(str(config.hydra.sweep.dir)).resolve()
        self._has_epochs: dict[str, bool] = {}

    def run(self, arguments: Sequence[str]) -> SearchReport:
        """Search until there are as many trials as were asked for.

        Args:
            arguments: overrides of the command line.

        Returns:
            What was found.

        Raises:
            GenoptError: if something cannot be used, or too many trials fail.
        """
        optuna_module()
        objectives = read_objectives(self.options.objective, self.options.direction)
        space = read_space(self.params, self.when, arguments, outside_of(self.config), self.loader)
        with calm():
            self._sampler(0)
        if self.pruning:
            make(self.pruning, "hydra.sweeper.pruning")
        check_space(space, self.job_config, self.loader)
        self.folder.mkdir(parents=True, exist_ok=True)
        with held(self.folder / _LOCK, f"the search in {self.folder}", 0.0), calm():
            OmegaConf.save(self.config, self.folder / "multirun.yaml")
            trials = Trials(self.folder, space, objectives)
            report = SearchReport(trials, self.options.n_trials, self.pruning, self.config)
            self._search(trials, report)
            return report

    def job_config(self, words: Sequence[str]) -> DictConfig:
        """The configuration of a job.

        Args:
            words: its overrides.

        Returns:
            As Hydra's launchers compose it.
        """
        return self.loader.load_sweep_config(self.config, list(words))

    def _search(self, trials: Trials, report: SearchReport) -> None:
        fresh = not trials.points
        waiting = trials.settle_open()
        trials.adopt_repaired()
        if fresh and self.options.try_default:
            self._begin_with_default(trials, report)
        report.begin(len(trials.points), len(waiting))
        total, together = self.options.n_trials, self.options.n_jobs
        while True:
            batch, waiting = waiting[:together], waiting[together:]
            room = min(together - len(batch), total - len(trials.points))
            if room > 0:
                sampler = self._sampler(len(trials.points))
                batch += trials.ask(room, sampler, self._folder_of, self._is_compared)
            if not batch:
                break
            report.write()
            errors = self._launch(trials, batch)
            missing = [trials.settle(point, errors.get(point.number)) for point in batch]
            report.write()
            report.told(batch)
            self._check_progress(trials, missing)
        report.end()

    def _launch(self, trials: Trials, batch: Sequence[Point]) -> dict[int, str]:
        """Run the studies of a batch; what went wrong, by number of the point."""
        errors: dict[int, str] = {}
        for group in _consecutive(batch):
            jobs = [(*point.words, f"{_PLACE}{point.folder}") for point in group]
            try:
                done = self.launch(jobs, group[0].number)
            except (GenoptError, HydraException) as error:
                # none of them was started, because one of them cannot be
                if len(group) > 1:
                    for point in group:
                        errors |= self._launch(trials, [point])
                elif not trials.reached():
                    raise
                else:
                    errors[group[0].number] = explain(error, group[0].words) or str(error)
                continue
            except Exception as error:
                # a worker died; the folders tell which studies ended all the same
                errors |= {point.number: f"{type(error).__name__}: {error}" for point in group}
                continue
            for point, result in zip(group, done, strict=False):
                wrong = getattr(result, "_return_value", None)
                if isinstance(wrong, BaseException):
                    errors[point.number] = explain(wrong, point.words) or repr(wrong)
        return errors

    # -- what a trial is ---------------------------------------------------------------------------
    def _sampler(self, count: int) -> Any:
        """A sampler that proposes the same after a kill, and never the same again later."""
        text = f"{self.options.seed} {count}"
        seed = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 2**32
        node = {**_plain(self.options.sampler), "_partial_": True}
        try:
            return make(node, "hydra.sweeper.sampler")(seed=seed)
        except (TypeError, ValueError) as error:
            raise GenoptError(f"hydra.sweeper.sampler: {error}") from error

    def _folder_of(self, words: tuple[str, ...]) -> str:
        """The folder of a study: as the user names it, else by its engine and its overrides."""
        if any(str(word).startswith(_PLACE) for word in self.config.hydra.overrides.hydra):
            return str(self.job_config(words).hydra.sweep.subdir)
        return f"{self._engine(words)}-{short_hash(sorted(words))}"

    def _engine(self, words: Sequence[str]) -> str:
        chosen = [w.removeprefix("model=") for w in words if w.startswith("model=")]
        return chosen[-1] if chosen else str(self.config.hydra.runtime.choices.model)

    def _is_compared(self, words: tuple[str, ...]) -> bool:
        """Whether a fit has epochs, and its losses are looked at while it runs."""
        if not self.pruning:
            return False
        engine = self._engine(words)
        if engine not in self._has_epochs:
            # composing takes longer than all else
            self._has_epochs[engine] = "epochs" in (self.job_config(words).get("model") or {})
        return self._has_epochs[engine]

    def _begin_with_default(self, trials: Trials, report: SearchReport) -> None:
        """Let the first trial have the settings that a study has without a search."""
        from rich.markup import escape

        values: dict[str, Any] = {}
        outside: list[str] = []

        def pick(dimension: Dimension) -> str:
            choices = self.config.hydra.runtime.choices
            if dimension.plain in choices:
                now = choices[dimension.plain]
            else:
                now = OmegaConf.select(self.config, dimension.plain, default=None)
            found = dimension.holds(_plain_value(now))
            if found is None:
                outside.append(f"{dimension.plain}={now}")
                return dimension.probes()[0]
            values[dimension.name] = found
            return str(found) if dimension.choices else dimension.text(found)

        trials.space.walk(pick)
        if outside:
            report.note("the default settings lie outside the space: " + escape(", ".join(outside)))
        else:
            trials.first(values)

    # -- checks ------------------------------------------------------------------------------------
    def _check_progress(self, trials: Trials, missing: Sequence[GenoptError | None]) -> None:
        wrong = next((error for error in missing if error is not None), None)
        if wrong is not None and not trials.reached():
            raise wrong
        limit = self.options.give_up_after
        last = trials.ended()[-limit:] if limit else []
        if limit and len(last) == limit and all(t.state.name == "FAIL" for t in last):
            raise GenoptError(
                f"the last {limit} trials failed, the last one with: "
                f"{last[-1].user_attrs.get('error', 'no word')}. Mend it and give the same command "
                "again, or set hydra.sweeper.give_up_after=null"
            )


def _consecutive(batch: Sequence[Point]) -> list[list[Point]]:
    """Jobs of a launch are numbered from its first one."""
    groups: list[list[Point]] = []
    for point in batch:
        if groups and point.number == groups[-1][-1].number + 1:
            groups[-1].append(point)
        else:
            groups.append([point])
    return groups


def _pruner(options: SearchOptions) -> dict[str, Any]:
    """The rule that stops fits; empty for none."""
    if options.pruning is None:
        return {}
    known = _plain(options.pruners)
    if options.pruning not in known:
        raise UnknownNameError("hydra.sweeper.pruning", str(options.pruning), ["null", *known])
    return dict(known[options.pruning])


def _plain(node: Any) -> dict[str, Any]:
    return dict(_plain_value(node) or {})


def _plain_value(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
