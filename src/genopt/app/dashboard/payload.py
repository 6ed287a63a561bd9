"""The numbers of the page as compact columns, and which of them are looked at first."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from genopt.app.dashboard.gather import Study
from genopt.app.dashboard.importance import importance
from genopt.app.dashboard.search import Search
from genopt.app.dashboard.table import Key, metric_names, varied_keys
from genopt.app.folder import FINISHED

# what a study is judged by, the first that it has; then what else is shown
_FIRST = (
    r"verified/best_loss",
    r"claimed/best_loss",
    r"verified/satisfied",
    r"claimed/satisfied",
    r"mode_recall",
    r"(judge_)?held_out/r2/.*",
    r"folds/r2/.*",
    r"verified/median_loss",
    r"mode_precision",
    r"x_rmse",
    r"fit_seconds",
)
_HIGHER = re.compile(
    r"(^|[/_])(r2|satisfied|recall|precision|diversity|accuracy|inside_space|hypervolume|feasible"
    r"|log_likelihood|log_density|log_prob)([/_]|$)"
)
_SHOWN_KEYS, _SHOWN_METRICS, _WEIGHED = 8, 4, 3
_DIGITS = 6


@dataclass
class Importances:
    """Importances that were computed before, as long as no other study has finished."""

    _known: dict[Any, Any] = field(default_factory=dict)

    def of(self, question: str, metric: str, ids: tuple[str, ...], compute: Any) -> Any:
        """An importance, computed only where the finished studies are others than before.

        Args:
            question: the problem and goal.
            metric: the number.
            ids: the finished studies.
            compute: gives the importance.

        Returns:
            As from `genopt.app.dashboard.importance.importance`.
        """
        place = (question, metric)
        if self._known.get(place, (None,))[0] != ids:
            self._known[place] = (ids, compute())
        return self._known[place][1]


def payload(
    studies: Sequence[Study],
    title: str,
    searches: Sequence[Search] = (),
    importances: Importances | None = None,
    keys: Sequence[Key] | None = None,
) -> dict[str, Any]:
    """What the page shows of all studies at once, the learning curves aside.

    Args:
        studies: the studies.
        title: name of the report.
        searches: searches whose objectives say what is looked at first.
        importances: those computed before.
        keys: what varies; computed where it is not given.

    Returns:
        Plain data.
    """
    keys = varied_keys(studies) if keys is None else keys
    metrics = ordered_metrics(metric_names(studies), searches)
    questions, asked = _questions(studies)
    told = {name: direction for search in searches for name, direction in search.objectives}
    columns = [
        _column("state", [s.state for s in studies], kind="state", shown=True),
        _column("study", [s.name for s in studies], shown=True),
        *_facts(studies),
        *(
            _column(
                key.name,
                key.values,
                group="key",
                kind="number" if key.numeric else "text",
                shown=key.said and i < _SHOWN_KEYS,
                setting=key.said,
            )
            for i, key in enumerate(keys)
        ),
        _column("seed", [s.seed for s in studies], kind="number", shown=True),
        *(
            _column(
                name,
                [s.metrics.get(name) for s in studies],
                group="metric",
                kind="number",
                shown=i < _SHOWN_METRICS,
                better=better(name, told),
            )
            for i, name in enumerate(metrics)
        ),
        _column("seconds", [s.seconds for s in studies], kind="number", shown=True),
        _column("started", [s.started.replace("T", " ") for s in studies], shown=False),
    ]
    return {
        "title": title,
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        "ids": [s.id for s in studies],
        "columns": columns,
        "questions": questions,
        "asked": asked,
        "errors": [s.error.strip() for s in studies],
        "importance": _importances(studies, questions, asked, keys, metrics, importances),
        "searches": [search.importances for search in searches if search.importances],
    }


_FACTS = ("problem", "model", "routine")


def better(metric: str, told: dict[str, str] | None = None) -> str:
    """Which way a number is better.

    Args:
        metric: its name.
        told: what searches said, by name: ``minimize`` or ``maximize``.

    Returns:
        ``high`` or ``low``.
    """
    if told and metric in told:
        return "high" if told[metric].startswith("max") else "low"
    return "high" if _HIGHER.search(metric) else "low"


def ordered_metrics(names: Sequence[str], searches: Sequence[Search] = ()) -> list[str]:
    """Numbers in the order in which they are looked at.

    Args:
        names: the numbers.
        searches: searches, whose objectives come first.

    Returns:
        All names.
    """
    wanted = [re.escape(name) for search in searches for name, _ in search.objectives]
    patterns = [re.compile(f"{text}$") for text in (*wanted, *_FIRST)]

    def place(name: str) -> int:
        return next((i for i, p in enumerate(patterns) if p.match(name)), len(patterns))

    return sorted(names, key=place)


def best_first(studies: Sequence[Study], searches: Sequence[Search] = ()) -> list[Study]:
    """Studies by the number that they are judged by, those without it last.

    Args:
        studies: the studies.
        searches: searches, whose objectives say which number.

    Returns:
        The same studies.
    """
    names = ordered_metrics(metric_names(studies), searches)
    if not names:
        return list(studies)
    told = {name: direction for search in searches for name, direction in search.objectives}
    sign = -1.0 if better(names[0], told) == "high" else 1.0

    def loss(study: Study) -> float:
        value = study.metrics.get(names[0], math.nan)
        return sign * value if math.isfinite(value) else math.inf

    return sorted(studies, key=loss)


def _column(
    name: str,
    values: Sequence[Any],
    group: str = "study",
    kind: str = "text",
    shown: bool = False,
    **more: Any,
) -> dict[str, Any]:
    if kind == "number":
        values = [_short(value) for value in values]
    else:
        values = [None if value is None else str(value) for value in values]
    return {
        "name": name,
        "group": group,
        "kind": kind,
        "shown": shown,
        "values": values,
        **more,
    }


def _facts(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """Problem, model and routine; one that follows from those before it sets nothing apart."""
    out: list[dict[str, Any]] = []
    before: list[tuple[str, ...]] = [()] * len(studies)
    for name in _FACTS:
        values = [getattr(study, name) for study in studies]
        pairs = {pair for pair in zip(before, values, strict=True) if pair[1]}
        varies = len({value for value in values if value}) > 1
        follows = bool(out) and len(pairs) == len({told for told, _ in pairs})
        setting = varies and not follows
        out.append(_column(name, values, shown=setting, setting=setting))
        before = [(*told, value) for told, value in zip(before, values, strict=True)]
    return out


def _short(value: Any) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    if isinstance(value, int) or float(value).is_integer():
        return int(value)
    return float(f"{value:.{_DIGITS}g}")


def _questions(studies: Sequence[Study]) -> tuple[list[dict[str, str]], list[int]]:
    """The problems with their goals, and the one of each study; -1 where it is not known."""
    texts = list(dict.fromkeys(s.question for s in studies if s.question))
    first = {text: next(s for s in studies if s.question == text) for text in texts}
    questions = [
        {"problem": first[text].problem, "goal": _goal(first[text].config.get("goal"))}
        for text in texts
    ]
    asked = []
    for study in studies:
        if study.question:
            asked.append(texts.index(study.question))
            continue
        # a study without a configuration belongs to the one that it can belong to
        fitting = [i for i, q in enumerate(questions) if study.problem in ("", q["problem"])]
        asked.append(fitting[0] if len(fitting) == 1 else -1)
    return questions, asked


def _goal(goal: Any) -> str:
    if not isinstance(goal, dict) or not goal:
        return ""
    return ", ".join(f"{name}: {wanted}" for name, wanted in goal.items())


def _importances(
    studies: Sequence[Study],
    questions: Sequence[Any],
    asked: Sequence[int],
    keys: Sequence[Key],
    metrics: Sequence[str],
    known: Importances | None,
) -> list[dict[str, Any]]:
    known = known or Importances()
    columns: dict[str, Sequence[Any]] = {
        fact["name"]: [value or None for value in fact["values"]]
        for fact in _facts(studies)
        if fact["setting"]
    }
    columns |= {key.name: key.values for key in keys if key.said}
    columns["seed"] = [s.seed for s in studies]
    out = []
    for number in range(len(questions)):
        rows = [i for i, q in enumerate(asked) if q == number and studies[i].state == FINISHED]
        ids = tuple(studies[i].id for i in rows)
        mine = {name: [values[i] for i in rows] for name, values in columns.items()}
        weighed = [m for m in metrics if any(m in studies[i].metrics for i in rows)][:_WEIGHED]
        for metric in weighed:
            values = [studies[i].metrics.get(metric) for i in rows]
            found = known.of(f"{number}", metric, ids, lambda m=mine, v=values: importance(m, v))
            out.append({"question": number, "metric": metric, **found})
    return out
