"""The trials of a search: which points were proposed, where their studies lie, what came of them.

The database and the studies' folders are all there is, so that a search which was killed can go on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any

from genopt.app.folder import FINISHED, PRUNED, QUEUED, RUNNING, StudyFolder
from genopt.app.search.objective import MissingMetricError, Objective
from genopt.app.search.space import SearchSpace
from genopt.app.search.state import DATABASE
from genopt.app.search.storage import comparable, handle, optuna_module, search_study, storage
from genopt.errors import GenoptError

_POINT = "study"
_SPACE = "search"
# the sampler may propose what is known: then untried points of a small space are drawn, or any
# points of a large one until there seem to be none left
_SAMPLED, _DRAWN, _SMALL = 4, 100, 2000
# fits that differ in one of these have losses that say nothing about each other
_LOSS_GROUPS = ("problem", "data", "heads", "path", "coupling", "time_sampling")
_LOSS_KEYS = (
    "model",
    "model.task_weights",
    "model.heads",
    "model.y_columns",
    "model.x_pca",
    "model.reflow",
)


@dataclass(frozen=True)
class Point:
    """A point of the space that is one study.

    Args:
        number: its place among the points, from 0.
        words: the overrides of its job.
        folder: its study, relative to the sweep.
        curve: ``study`` and ``number`` of its losses among those of comparable fits, or None.
        trial: its number in the database, which also counts proposals that were known already.
    """

    number: int
    words: tuple[str, ...]
    folder: str
    curve: dict[str, Any] | None
    trial: int


class Trials:
    """What Optuna knows of a search.

    Args:
        folder: of the sweep.
        space: what may vary.
        objectives: what is optimised.
    """

    def __init__(self, folder: Path, space: SearchSpace, objectives: Sequence[Objective]) -> None:
        self.folder = folder
        self.space = space
        self.objectives = tuple(objectives)
        self.database = storage(folder / DATABASE)
        self.study = search_study(self.database, [o.direction for o in objectives])
        self.points: dict[int, Point] = {}
        self._check_same()
        self._read()

    def trial_of(self, point: Point) -> Any:
        """What the database says of a point.

        Args:
            point: the point.

        Returns:
            Optuna's frozen trial.
        """
        return self.study.get_trials(deepcopy=False)[point.trial]

    def ended(self) -> list[Any]:
        """The points that are no longer open, in order, as Optuna's frozen trials."""
        trials = self.study.get_trials(deepcopy=False)
        states = [trials[self.points[number].trial] for number in sorted(self.points)]
        return [trial for trial in states if trial.state.is_finished()]

    def reached(self) -> list[Any]:
        """Those that have values."""
        return [trial for trial in self.ended() if trial.state.name == "COMPLETE"]

    # -- proposals ---------------------------------------------------------------------------------
    def ask(
        self,
        count: int,
        sampler: Any,
        folder_of: Callable[[tuple[str, ...]], str],
        has_curve: Callable[[tuple[str, ...]], bool],
    ) -> list[Point]:
        """New points, none of which was tried before.

        Args:
            count: how many.
            sampler: of Optuna.
            folder_of: names the folder of a job by its overrides.
            has_curve: whether the losses of a job are compared with those of others.

        Returns:
            Fewer where the space has no more.
        """
        optuna = optuna_module()
        known = {point.words for point in self.points.values()}
        folders = {point.folder for point in self.points.values()}
        found: list[Point] = []
        misses = 0
        self.study.sampler = sampler
        while len(found) < count and misses < _DRAWN:
            if misses == _SAMPLED:
                count = len(self.study.get_trials(deepcopy=False))
                self.study.sampler = optuna.samplers.RandomSampler(count)
                all_points = self.space.points(_SMALL)
                if all_points is not None:
                    untried = [v for words, v in all_points.items() if words not in known]
                    if not untried:
                        break
                    misses = 0
                    self.study.enqueue_trial(random.Random(count).choice(untried))
            trial = self.study.ask()
            words = self.space.walk(methodcaller("suggest", trial))
            folder = "" if words in known else folder_of(words)
            if not folder or folder in folders:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
                misses += 1
                continue
            number = max(self.points, default=-1) + 1
            curve = self._new_curve(words) if has_curve(words) else None
            point = Point(number, words, folder, curve, trial.number)
            # in one step: a trial without it never became a study
            trial.set_user_attr(_POINT, asdict(point))
            self.points[number] = point
            known.add(words)
            folders.add(folder)
            found.append(point)
        # whoever opens a trial again must not have it sampled
        self.study.sampler = optuna.samplers.RandomSampler()
        return found

    def first(self, values: dict[str, Any]) -> None:
        """Let the first proposal have these values.

        Args:
            values: by Optuna's names.
        """
        self.study.enqueue_trial(values, skip_if_exists=True)

    def _new_curve(self, words: Sequence[str]) -> dict[str, Any]:
        kind = sorted(
            word
            for word in words
            if (key := word.lstrip("+~").partition("=")[0]) in _LOSS_KEYS
            or key.partition(".")[0] in _LOSS_GROUPS
        )
        curves = comparable(self.database, f"losses {' '.join(kind)}")
        return {"study": curves.study_name, "number": curves.ask().number}

    # -- results -----------------------------------------------------------------------------------
    def settle(self, point: Point, error: str | None) -> GenoptError | None:
        """Tell Optuna what came of a study.

        Args:
            point: which one.
            error: why its job failed, as far as the launcher knows.

        Returns:
            The error where a finished study lacks the metric that is wanted.

        Raises:
            GenoptError: if the launcher did not wait for it.
        """
        TrialState = optuna_module().trial.TrialState
        study = StudyFolder(self.folder / point.folder)
        state, missing = study.state, None
        if state == FINISHED:
            try:
                values = [objective.value(study) for objective in self.objectives]
            except GenoptError as wrong:
                missing = wrong if isinstance(wrong, MissingMetricError) else None
                error = str(wrong)
            else:
                self._settle_curve(point, TrialState.COMPLETE)
                self.study.tell(point.trial, values)
                return None
        if state == PRUNED:
            self._settle_curve(point, TrialState.PRUNED)
            self.study.tell(point.trial, state=TrialState.PRUNED)
            return None
        if error is None and state in (RUNNING, QUEUED):
            raise GenoptError(
                f"the launcher came back while {study.path} is {state}: a search needs one that "
                "waits for its jobs"
            )
        said = str(error or study.status.get("error") or f"the study is {state}").strip()
        self._settle_curve(point, TrialState.FAIL)
        handle(self.study, point.trial).set_user_attr("error", said.splitlines()[-1].strip())
        self.study.tell(point.trial, state=TrialState.FAIL)
        return missing

    def _settle_curve(self, point: Point, state: Any) -> None:
        if point.curve is None:
            return
        TrialState = optuna_module().trial.TrialState
        curves, number = comparable(self.database, point.curve["study"]), point.curve["number"]
        trial = curves.get_trials(deepcopy=False)[number]
        losses = trial.intermediate_values
        if trial.state.is_finished():
            # the search was killed between the two
            return
        if state == TrialState.COMPLETE and losses:
            curves.tell(number, losses[max(losses)])
        else:
            curves.tell(number, state=TrialState.PRUNED if losses else TrialState.FAIL)

    # -- going on ----------------------------------------------------------------------------------
    def settle_open(self) -> list[Point]:
        """Take over what ended while nobody looked.

        Returns:
            The points whose studies have still to run, or to go on.
        """
        TrialState = optuna_module().trial.TrialState
        mine = {point.trial for point in self.points.values()}
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING and trial.number not in mine:
                self.study.tell(trial.number, state=TrialState.FAIL)
        waiting = []
        for point in self.points.values():
            if self.trial_of(point).state.is_finished():
                continue
            if StudyFolder(self.folder / point.folder).state in (FINISHED, PRUNED):
                self.settle(point, None)
            else:
                waiting.append(point)
        return waiting

    def adopt_repaired(self) -> None:
        """Take over studies that failed here and were finished since by other means."""
        optuna = optuna_module()
        for point in list(self.points.values()):
            trial = self.trial_of(point)
            study = StudyFolder(self.folder / point.folder)
            if trial.state != optuna.trial.TrialState.FAIL or study.state != FINISHED:
                continue
            try:
                values = [objective.value(study) for objective in self.objectives]
            except GenoptError:
                continue
            # an ended trial cannot change: one more of the same point takes its place
            self.study.add_trial(
                optuna.trial.create_trial(
                    values=values,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={_POINT: asdict(point)},
                )
            )
        self._read()

    def _read(self) -> None:
        for trial in self.study.get_trials(deepcopy=False):
            known = trial.user_attrs.get(_POINT)
            if known is not None:
                known = {**known, "words": tuple(known["words"]), "trial": trial.number}
                self.points[known["number"]] = Point(**known)

    def _check_same(self) -> None:
        mine = {
            "objectives": [o.name for o in self.objectives],
            "directions": [o.direction for o in self.objectives],
            "space": self.space.words(),
        }
        before = self.study.user_attrs.get(_SPACE)
        if before is not None and before != mine:
            if any(trial.state.is_finished() for trial in self.study.trials):
                odd = ", ".join(name for name in mine if mine[name] != before[name])
                raise GenoptError(
                    f"{self.folder} holds a search with other {odd}: give this one a folder of its "
                    "own with hydra.sweep.dir=..., or delete that one"
                )
            # nothing came of it, so nothing is lost
            optuna_module().delete_study(study_name=self.study.study_name, storage=self.database)
            self.study = search_study(self.database, mine["directions"])
        self.study.set_user_attr(_SPACE, mine)
