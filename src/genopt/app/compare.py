"""What differs between two studies, or between two sweeps job by job.

Settings, numbers, outcome, versions and pictures; the command is ``genopt-report --compare A B``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from genopt.app.folder import NOT_FINGERPRINTED, StudyFolder
from genopt.app.jobs import FREE, PlannedJob, is_sweep, read_jobs
from genopt.errors import GenoptError

# what a report shows of each pair of studies, the first one that both have
_LOSSES = ("verified/best_loss", "claimed/best_loss")
_SAME = 1e-12


@dataclass(frozen=True)
class Change:
    """One thing that differs.

    Args:
        name: a key, a metric, a package.
        a: in the first study; None where it is not there.
        b: in the second.
        matters: whether it can change a study's result.
    """

    name: str
    a: Any
    b: Any
    matters: bool = True

    @property
    def ratio(self) -> float | None:
        """The second over the first; None where they are not numbers of one sign."""
        if not all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in (self.a, self.b)
        ):
            return None
        ratio = self.b / self.a if self.a else math.nan
        return ratio if math.isfinite(ratio) and ratio > 0 else None


@dataclass(frozen=True)
class Comparison:
    """What differs between two studies.

    Args:
        a: folder of the first study.
        b: folder of the second.
        states: of both.
        verdicts: of both; empty where a study has none.
        settings: keys of the configuration.
        metrics: numbers.
        environment: versions, machine and the state of git.
        figures: names of pictures, and in which study: ``a``, ``b``, or ``both`` where they differ.
    """

    a: Path
    b: Path
    states: tuple[str, str]
    verdicts: tuple[str, str]
    settings: tuple[Change, ...] = ()
    metrics: tuple[Change, ...] = ()
    environment: tuple[Change, ...] = ()
    figures: Mapping[str, str] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether nothing differs but times and places."""
        numbers = [change for change in self.metrics if not change.name.endswith("_seconds")]
        alike = self.states[0] == self.states[1]
        return alike and not (numbers or self.figures or any(c.matters for c in self.settings))

    @property
    def loss(self) -> Change | None:
        """The best loss of both, verified where there is a simulator; None where one has none."""
        numbers = _numbers(self.a), _numbers(self.b)
        for name in _LOSSES:
            if all(name in mapping for mapping in numbers):
                return Change(name, numbers[0][name], numbers[1][name])
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a file of JSON."""
        plain = asdict(self) | {"a": str(self.a), "b": str(self.b), "same": self.same}
        plain["figures"] = dict(self.figures)
        for entry, change in zip(plain["metrics"], self.metrics, strict=True):
            entry["ratio"] = change.ratio
        return plain


@dataclass(frozen=True)
class SweepComparison:
    """What differs between two sweeps.

    Args:
        a: folder of the first sweep.
        b: folder of the second.
        pairs: the studies that belong together, by what sets them apart from their neighbours.
        only_a: jobs that only the first sweep has.
        only_b: jobs that only the second has.
    """

    a: Path
    b: Path
    pairs: Mapping[str, Comparison]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()

    @property
    def shared(self) -> tuple[Change, ...]:
        """Settings that differ in all pairs in the same way."""
        counts = Counter(_text(change) for pair in self.pairs.values() for change in pair.settings)
        first = next(iter(self.pairs.values()), None)
        if first is None:
            return ()
        return tuple(c for c in first.settings if counts[_text(c)] == len(self.pairs))

    @property
    def same(self) -> bool:
        """Whether nothing differs but times and places."""
        return not (self.only_a or self.only_b) and all(p.same for p in self.pairs.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a file of JSON."""
        return {
            "a": str(self.a),
            "b": str(self.b),
            "same": self.same,
            "pairs": {label: pair.to_dict() for label, pair in self.pairs.items()},
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "shared": [asdict(change) for change in self.shared],
        }


def compare(a: str | Path, b: str | Path) -> Comparison | SweepComparison:
    """Compare two studies or two sweeps.

    Jobs of sweeps belong together where they have the same overrides, or, where a sweep as a whole
    was begun with others, the same ones of those that vary within it.

    Args:
        a: folder of a study or a sweep.
        b: folder of another one of its kind.

    Returns:
        What differs.

    Raises:
        GenoptError: if a folder holds neither, or they are not of one kind.
    """
    a, b = Path(a), Path(b)
    kinds = [_kind(folder) for folder in (a, b)]
    if kinds[0] != kinds[1]:
        raise GenoptError(
            f"{a} is a {kinds[0]} and {b} is a {kinds[1]}: compare two studies or two sweeps"
        )
    return _studies(a, b) if kinds[0] == "study" else _sweeps(a, b)


def _kind(folder: Path) -> str:
    if is_sweep(folder):
        return "sweep"
    if (folder / "config.yaml").exists() or (folder / "status.json").exists():
        return "study"
    raise GenoptError(f"{folder} is neither the folder of a study nor that of a sweep")


def _studies(a: Path, b: Path) -> Comparison:
    first, second = StudyFolder(a), StudyFolder(b)
    status = first.status, second.status
    return Comparison(
        a,
        b,
        (first.state_of(status[0]), second.state_of(status[1])),
        (str(status[0].get("verdict", "")), str(status[1].get("verdict", ""))),
        tuple(_differences(_settings(a), _settings(b))),
        tuple(_differences(_numbers(a), _numbers(b))),
        tuple(_differences(_environment(a), _environment(b))),
        _pictures(a, b),
    )


def _sweeps(a: Path, b: Path) -> SweepComparison:
    first, second = read_jobs(a), read_jobs(b)
    pairs: dict[str, Comparison] = {}
    left, right = list(first.jobs), list(second.jobs)
    vary_a, vary_b = _varied(left), _varied(right)
    for exact in (True, False):
        names_a = {job: _own(job) if exact else vary_a[job] for job in left}
        names_b = {job: _own(job) if exact else vary_b[job] for job in right}
        for job, name in names_a.items():
            there = [other for other, theirs in names_b.items() if theirs == name]
            here = [other for other, ours in names_a.items() if ours == name]
            if len(there) == len(here) == 1:
                label = " ".join(vary_a[job]) or job.folder
                pairs[label] = _studies(a / job.folder, b / there[0].folder)
                left.remove(job)
                right.remove(there[0])
    return SweepComparison(
        a, b, pairs, *(tuple(" ".join(_own(job)) for job in rest) for rest in (left, right))
    )


def _own(job: PlannedJob) -> tuple[str, ...]:
    free = tuple(f"{key}=" for key in FREE)
    return tuple(sorted(word for word in job.overrides if not word.startswith(free)))


def _varied(jobs: list[PlannedJob]) -> dict[PlannedJob, tuple[str, ...]]:
    counts = Counter(word for job in jobs for word in set(_own(job)))
    return {job: tuple(w for w in _own(job) if counts[w] < len(jobs)) for job in jobs}


# -- the parts of a study --------------------------------------------------------------------------
def _settings(folder: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    path = folder / "config.yaml"
    config: Any = OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else {}
    own = str((config.get("paths") or {}).get("study") or folder.resolve())
    kept = _flat({key: value for key, value in config.items() if key != "paths"})
    # where a study lies is no setting, also not where its trackers write
    return {key: value for key, value in kept if value != own}


def _numbers(folder: Path) -> dict[str, Any]:
    return _read(folder, "metrics.json")


def _environment(folder: Path) -> dict[str, Any]:
    return dict(_flat(_read(folder, "environment.json")))


def _read(folder: Path, name: str) -> dict[str, Any]:
    return dict(StudyFolder(folder).read(name)) if (folder / name).exists() else {}


def _flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by dotted key; a list is one value."""
    for key, value in data.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted({*a, *b}):
        if name in a and name in b and _equal(a[name], b[name]):
            continue
        matters = name.partition(".")[0] not in NOT_FINGERPRINTED
        yield Change(name, a.get(name), b.get(name), matters)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=_SAME, abs_tol=0.0) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def _pictures(a: Path, b: Path) -> dict[str, str]:
    names = [{p.name for p in (folder / "figures").glob("*.png")} for folder in (a, b)]
    where = {}
    for name in sorted(names[0] | names[1]):
        if name not in names[1]:
            where[name] = "a"
        elif name not in names[0]:
            where[name] = "b"
        elif (a / "figures" / name).read_bytes() != (b / "figures" / name).read_bytes():
            where[name] = "both"
    return where


def _text(change: Change) -> str:
    return repr((change.name, change.a, change.b))
