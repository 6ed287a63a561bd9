"""One row a study: the keys that vary between studies, and every number.

A key is *said* if a command line of the studies named it; other keys that vary follow from a choice
(another engine has other keys) and are kept in the file, but not shown first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genopt.app.dashboard.gather import Study, read_yaml, said_of

if TYPE_CHECKING:
    import pandas as pd

# they change no result
_SILENT = ("paths", "logger", "rerun", "progress", "threads", "figures", "top")
# they are columns of their own
_COLUMNS = ("problem", "model", "routine", "seed")
_HYDRA_WORDS = ("_partial_", "_convert_", "_recursive_")


@dataclass(frozen=True)
class Key:
    """A key of the configuration that differs between studies.

    Args:
        name: the key, such as ``model.epochs``.
        values: one a study; None where it has none.
        said: whether a command line named it, and it does more than follow from the engine.
    """

    name: str
    values: tuple[Any, ...]
    said: bool

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers."""
        known = [v for v in self.values if v is not None]
        return bool(known) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in known
        )


def varied_keys(studies: Sequence[Study]) -> list[Key]:
    """The keys that differ between studies.

    Args:
        studies: the studies.

    Returns:
        Those that a command line said first, in the order in which they were said.
    """
    flat = [flattened(study.config) for study in studies]
    told = [
        {_root(key): value for key, value in said_of(study.overrides).items()} for study in studies
    ]
    said = [key for key in dict.fromkeys(k for row in told for k in row) if matters(key)]
    keys = []
    for name in said:
        values = [_value(*row, name) for row in zip(studies, flat, told, strict=True)]
        if _varies(values):
            keys.append(Key(name, tuple(values), not _of_engine(values, studies)))
    configured = [i for i, row in enumerate(flat) if row]
    for name in sorted({key for row in flat for key in row} - set(said)):
        values = [row.get(name) for row in flat]
        # a study that failed before it had a configuration says nothing about its keys
        if matters(name) and _varies([values[i] for i in configured]):
            keys.append(Key(name, tuple(values), False))
    return keys if said else _telling(keys, studies)


def matters(key: str) -> bool:
    """Whether a key is a setting that may change a result, other than the columns of all tables."""
    return key not in _COLUMNS and not key.startswith("hydra") and key.split(".")[0] not in _SILENT


def flattened(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with dotted keys; lists, and the goal, are one text.

    Args:
        config: nested plain data.

    Returns:
        Key to value.
    """
    out: dict[str, Any] = {}

    def visit(node: Any, path: str) -> None:
        if isinstance(node, dict) and node and path != "goal":
            for key, value in node.items():
                if key not in _HYDRA_WORDS:
                    visit(value, f"{path}.{key}" if path else str(key))
        elif isinstance(node, dict | list):
            out[path] = json.dumps(node, default=str)
        else:
            out[path] = node

    visit(config, "")
    out.pop("", None)
    return out


def to_frame(studies: Sequence[Study], keys: Sequence[Key]) -> pd.DataFrame:
    """The table of all studies.

    Args:
        studies: the studies.
        keys: what varies between them.

    Returns:
        One row a study; keys are columns ``key:<dotted>``, numbers have their own names.
    """
    import pandas as pd

    started = pd.Series([study.started or None for study in studies], dtype="str")
    columns: dict[str, Any] = {
        "folder": [study.name for study in studies],
        "problem": [study.problem for study in studies],
        "model": [study.model for study in studies],
        "routine": [study.routine for study in studies],
        "state": [study.state for study in studies],
        "started": pd.to_datetime(started),
        "seconds": pd.Series([study.seconds for study in studies], dtype="float64"),
        "seed": pd.Series([study.seed for study in studies], dtype="Int64"),
        "verdict": [study.verdict for study in studies],
        "error": [study.error for study in studies],
    }
    for key in keys:
        if key.numeric:
            columns[f"key:{key.name}"] = pd.to_numeric(pd.Series(key.values))
        else:
            texts = [None if v is None else str(v) for v in key.values]
            columns[f"key:{key.name}"] = pd.Series(texts, dtype="str")
    for name in metric_names(studies):
        columns[name] = pd.Series([s.metrics.get(name) for s in studies], dtype="float64")
    return pd.DataFrame(columns)


def metric_names(studies: Sequence[Study]) -> list[str]:
    """The numbers that any study has, in the order of their first appearance."""
    return list(dict.fromkeys(name for study in studies for name in study.metrics))


def write_table(studies: Sequence[Study], keys: Sequence[Key], path: Path) -> None:
    """Write the table in one step.

    Args:
        studies: the studies.
        keys: what varies between them.
        path: a Parquet file.
    """
    part = path.with_suffix(".part")
    to_frame(studies, keys).to_parquet(part, index=False)
    part.replace(path)


def _root(key: str) -> str:
    """A goal is one key, however it was given."""
    return "goal" if key.startswith("goal.") else key


def _value(study: Study, flat: dict[str, Any], told: dict[str, Any], name: str) -> Any:
    if name in flat:
        return flat[name]
    if name in told:
        value = told[name]
        return json.dumps(value, default=str) if isinstance(value, dict | list) else value
    if any(key.startswith(f"{name}.") for key in flat):
        # a group that another study's command line chose: Hydra wrote down the choice
        hydra = read_yaml(study.folder / ".hydra" / "hydra.yaml") or {}
        choices = hydra.get("hydra", hydra).get("runtime", {}).get("choices", {})
        return choices.get(name)
    return None


def _varies(values: Sequence[Any]) -> bool:
    return len({repr(value) for value in values}) > 1


def _of_engine(values: Sequence[Any], studies: Sequence[Study]) -> bool:
    """Whether a key has one value, and an engine either has it or not."""
    if len({repr(value) for value in values if value is not None}) > 1:
        return False
    pairs = {(s.problem, s.model, s.routine, repr(v)) for s, v in zip(studies, values, strict=True)}
    return len(pairs) == len({pair[:-1] for pair in pairs})


def _telling(keys: Sequence[Key], studies: Sequence[Study]) -> list[Key]:
    """Without command lines: keys count as said unless they follow from the engine or a twin."""
    seen = {tuple(getattr(study, name) for study in studies) for name in _COLUMNS}
    engines = [(study.problem, study.model, study.routine) for study in studies]
    out = []
    for key in sorted(keys, key=lambda key: len(key.name)):
        texts = tuple(map(repr, key.values))
        follows = len(set(zip(engines, texts, strict=True))) == len(set(engines))
        pattern = tuple(texts.index(text) for text in texts)
        out.append(Key(key.name, key.values, not (follows or pattern in seen)))
        seen.add(pattern)
    return out
