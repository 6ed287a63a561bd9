"""A suite: problems, the ways to solve them and what is asked, read from `suites/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from genopt.errors import GenoptError, UnknownNameError

SUITES = Path(__file__).with_name("suites")
_TOP = ("title", "seeds", "everywhere", "baselines", "problems")
_CASE = (
    "overrides", "tolerance", "radius", "figures", "aim", "refined", "published", "ways", "note",
    "without",
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """One way to solve a problem: a study's command line.

    Args:
        name: what the table calls it.
        overrides: the command line.
        after: another way whose fitted model is used, of the same seed; empty to fit one.
        baseline: whether it is there to be beaten.
        refined: whether the aims after refinement hold for it.
    """

    name: str
    overrides: tuple[str, ...]
    after: str = ""
    baseline: bool = False
    refined: bool = False


@dataclass(frozen=True)
class Case:
    """A problem of a suite.

    Args:
        name: what the table calls it.
        ways: how it is solved.
        figures: the columns of its table, names of `genopt.analysis.design_figures` or metrics of a
            study.
        aim: what is asked of a figure by the sampler alone, a largest value or ``{at_least: v}``.
        refined: what is asked of it after refinement.
        published: figures of others by the name of their method.
        tolerance: within which a design is at an answer, in the unit box.
        radius: largest output error that counts as reached; None for the goal's tolerances.
        note: a sentence below the table.
    """

    name: str
    ways: tuple[Way, ...]
    figures: tuple[str, ...]
    aim: Mapping[str, Any] = field(default_factory=dict)
    refined: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tolerance: float = 0.05
    radius: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Suite:
    """Problems that are run and shown together.

    Args:
        name: the name of its file.
        title: the heading of its page.
        seeds: how many seeds the medians are over.
        everywhere: overrides of every study.
        cases: the problems.
    """

    name: str
    title: str
    seeds: int
    everywhere: tuple[str, ...]
    cases: tuple[Case, ...]

    def only(self, problems: list[str] | None, ways: list[str] | None) -> Suite:
        """Some problems and ways of the suite; a way brings the one whose model it uses.

        Args:
            problems: names of problems; None for all.
            ways: names of ways; None for all.

        Returns:
            A smaller suite.

        Raises:
            UnknownNameError: if a name is unknown.
        """
        known = [case.name for case in self.cases]
        every = list(dict.fromkeys(way.name for case in self.cases for way in case.ways))
        for kind, given, names in (("problem", problems, known), ("way", ways, every)):
            for name in given or ():
                if name not in names:
                    raise UnknownNameError(f"{kind} of suite {self.name}", name, names)
        cases = []
        for case in self.cases:
            if problems is not None and case.name not in problems:
                continue
            needed = {way.after for way in case.ways if ways is None or way.name in ways}
            chosen = tuple(
                way for way in case.ways if ways is None or way.name in ways or way.name in needed
            )
            if chosen:
                cases.append(Case(**{**vars(case), "ways": chosen}))
        return Suite(**{**vars(self), "cases": tuple(cases)})


def read_suite(name: str) -> Suite:
    """Read and check a suite.

    Args:
        name: a file of ``suites`` without its suffix, or the path of one's own YAML file.

    Returns:
        The suite.

    Raises:
        GenoptError: if the file is missing or a key of it is unknown; the message names it.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SUITES / f"{name}.yaml"
    if not path.exists():
        raise UnknownNameError("suite", name, sorted(file.stem for file in SUITES.glob("*.yaml")))
    data: Any = OmegaConf.to_container(OmegaConf.load(path))
    _check(data, _TOP, path.name)
    baselines = _ways(data.get("baselines") or {}, f"{path.name}: baselines", baseline=True)
    cases = []
    for problem, node in (data.get("problems") or {}).items():
        where = f"{path.name}: {problem}"
        _check(node, _CASE, where)
        shared = [str(o) for o in node.get("overrides") or [f"problem={problem}"]]
        without = node.get("without") or []
        for gone in without:
            if gone not in [way.name for way in baselines]:
                raise UnknownNameError(f"{where}.without", gone, [way.name for way in baselines])
        own = _ways(node.get("ways") or {}, where)
        ways = [
            Way(way.name, (*shared, *way.overrides), way.after, way.baseline, way.refined)
            for way in (*(b for b in baselines if b.name not in without), *own)
        ]
        for way in ways:
            if way.after and way.after not in [other.name for other in ways]:
                raise UnknownNameError(f"{where}: after", way.after, [w.name for w in ways])
        facts = {k: node[k] for k in _CASE if k in node and k not in ("overrides", "without")}
        facts["figures"] = tuple(facts.get("figures", ()))
        cases.append(Case(**{"name": problem, **facts, "ways": tuple(ways)}))
    if not cases:
        raise GenoptError(f"{path.name} names no problems")
    return Suite(
        path.stem,
        data.get("title", path.stem),
        int(data.get("seeds", 5)),
        tuple(str(o) for o in data.get("everywhere") or ()),
        tuple(cases),
    )


def _ways(nodes: Mapping[str, Any], where: str, baseline: bool = False) -> tuple[Way, ...]:
    ways = []
    for name, node in nodes.items():
        # a list is a command line, a mapping says more
        facts = node if isinstance(node, dict) else {"overrides": node}
        _check(facts, ("overrides", "after", "refined"), f"{where}: {name}")
        overrides = tuple(str(o) for o in facts.get("overrides") or ())
        refined = bool(facts.get("refined", False))
        ways.append(Way(name, overrides, facts.get("after", ""), baseline, refined))
    return tuple(ways)


def _check(node: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in node:
        if key not in known:
            raise UnknownNameError(f"key in {where}", str(key), known)
