"""The space of a search: which keys vary, over what, and under which choices of other keys.

It is read from `hydra.sweeper.params` and `hydra.sweeper.when` in Hydra's own words, and walked key
by key, so that a key which belongs to one engine is never set for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer

from genopt.app.search.dimension import Dimension, bare
from genopt.errors import GenoptError

WORDS = (
    "a,b or range(start, stop, step), interval(low, high), int(interval(low, high)) or "
    "tag(log, interval(low, high))"
)


@dataclass(frozen=True)
class Branch:
    """Keys that vary together, under a condition.

    Args:
        dimensions: the keys.
        when: what other keys have to be, by key; empty for always.
    """

    dimensions: tuple[Dimension, ...]
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def applies(self, value_of: Callable[[str], str | None]) -> bool:
        """Whether the condition is met.

        Args:
            value_of: the value of a key.

        Returns:
            True without a condition.
        """
        return all(bare(value_of(key)) in values for key, values in self.when)


@dataclass(frozen=True)
class SearchSpace:
    """All that a search may vary.

    Args:
        branches: in the order in which they are walked.
        fixed: overrides that every trial has.
        outside: the value of a key that is not searched; None for none.
    """

    branches: tuple[Branch, ...]
    fixed: tuple[str, ...]
    outside: Callable[[str], str | None]

    def walk(self, pick: Callable[[Dimension], str]) -> tuple[str, ...]:
        """One point of the space.

        Args:
            pick: gives a value to a key.

        Returns:
            The overrides of a job.

        Raises:
            GenoptError: if two conditions that hold at once give the same key.
        """
        chosen: dict[str, str] = {}
        words = list(self.fixed)
        for branch in self.branches:
            if not branch.applies(lambda key: chosen.get(key, self.outside(key))):
                continue
            for dimension in branch.dimensions:
                if dimension.plain in chosen:
                    raise GenoptError(
                        f"hydra.sweeper.when gives {dimension.plain} twice where "
                        f"{_condition(branch) or 'nothing else'} holds: let one of them be enough"
                    )
                value = dimension.choices[0] if dimension.fixed else pick(dimension)
                chosen[dimension.plain] = value
                words.append(f"{dimension.key}={value}")
        return tuple(words)

    def points(self, most: int) -> dict[tuple[str, ...], dict[str, Any]] | None:
        """All points of a small space.

        Args:
            most: how many may be looked at.

        Returns:
            Values by Optuna's names, by the overrides of the job; None for a larger space.
        """
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        open_points: list[dict[str, Any]] = [{}]
        while open_points:
            given = open_points.pop()
            undecided: list[Dimension] = []

            words = self.walk(partial(_given, given, undecided))
            if not undecided:
                found[words] = given
                continue
            # the first one alone: what others there are may hang on it
            values = undecided[0].values()
            if values is None or len(found) + len(open_points) + len(values) > most:
                return None
            open_points += [{**given, undecided[0].name: value} for value in values]
        return found

    def dimensions(self) -> list[Dimension]:
        """The keys that vary, each condition's own."""
        return [d for branch in self.branches for d in branch.dimensions if not d.fixed]

    def reachable(self) -> Iterator[tuple[Branch, dict[str, str]]]:
        """Each branch that can apply, with what has to be chosen before.

        Yields:
            The branch, and values by key.

        Raises:
            GenoptError: if a condition asks for a value that a searched key never has.
        """
        searched = {d.plain: d for branch in self.branches for d in branch.dimensions}
        for branch in self.branches:
            needs: dict[str, str] = {}
            possible = True
            for key, values in branch.when:
                if key not in searched:
                    possible &= bare(self.outside(key)) in values
                    continue
                known = [bare(c) for c in searched[key].choices]
                both = [value for value in values if value in known]
                if not both and known:
                    # a choice on the command line may leave no room for a condition of a file
                    possible = False
                if not known:
                    raise GenoptError(
                        f"hydra.sweeper.when: {_condition(branch)!r} needs {key} to be one of some "
                        "choices, and it varies as a number"
                    )
                needs[key] = both[0] if both else ""
            if possible:
                yield branch, needs

    def words(self) -> list[str]:
        """The whole space as text, to see whether a search that goes on is the same one."""
        return [
            f"{_condition(branch)}: {replace(d, name='')}"
            for branch in self.branches
            for d in branch.dimensions
        ]


def read_space(
    params: Mapping[str, Any],
    when: Mapping[str, Mapping[str, Any]],
    arguments: Sequence[str],
    outside: Callable[[str], str | None],
    loader: Any = None,
) -> SearchSpace:
    """The space that files and the command line describe together; the command line wins.

    Args:
        params: key to what it may be.
        when: condition such as ``model=flow`` to keys and what they may be then.
        arguments: overrides of the command line; those that vary belong to the space.
        outside: the value of a key that is not searched.
        loader: Hydra's loader, for choices by a pattern.

    Returns:
        The space.

    Raises:
        GenoptError: if it is empty, a condition or a range cannot be used, or the seed varies.
    """
    parser = OverridesParser.create(config_loader=loader)
    given = parser.parse_overrides(list(arguments))
    mine = [_dimension(o) for o in given if o.is_sweep_override()]
    fixed = tuple(str(o.input_line) for o in given if not o.is_sweep_override())
    taken = {o.get_key_element().lstrip("+~") for o in given}

    def read(node: Mapping[str, Any]) -> tuple[Dimension, ...]:
        items = [(k, v) for k, v in _flat(node) if k.lstrip("+~") not in taken]
        words = [f"{k}={_text(v)}" for k, v in items]
        return tuple(_dimension(o) for o in parser.parse_overrides(words))

    branches = [Branch((*read(params), *mine))]
    for condition, node in when.items():
        if not isinstance(node, Mapping):
            raise GenoptError(
                f"hydra.sweeper.when: {condition!r} needs keys below it, each with {WORDS}"
            )
        branches.append(Branch(read(node), _conditions(condition)))
    space = SearchSpace(_named(branches), fixed, outside)
    if any(d.plain == "seed" for d in space.dimensions()):
        raise GenoptError(
            "a search over seed picks the luckiest one: give one seed, and repeat the best trial "
            "with others"
        )
    reachable = [branch for branch, _ in space.reachable()]
    if not any(not d.fixed for branch in reachable for d in branch.dimensions):
        raise GenoptError(
            "there is nothing to search: choose hparams_search=..., fill hydra.sweeper.params or "
            f"give a key that varies, with {WORDS}"
        )
    return space


def _given(known: Mapping[str, Any], undecided: list[Dimension], dimension: Dimension) -> str:
    """The known value of a key; the first one that it may have where none is known."""
    if dimension.name not in known:
        undecided.append(dimension)
        return dimension.probes()[0]
    value = known[dimension.name]
    return str(value) if dimension.choices else dimension.text(value)


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys with dots, whether they were written so or nested."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(Transformer.str(value))


def _dimension(override: Override) -> Dimension:
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if low is None or high is None:
            raise GenoptError(f"{override.input_line}: an interval needs both ends")
        whole = isinstance(low, int) and isinstance(high, int)
        return _checked(Dimension(key, key, (), low, high, None, "log" in value.tags, whole))
    if isinstance(value, RangeSweep):
        numbers: list[Any] = sorted(override.sweep_iterator())
        if not numbers:
            raise GenoptError(f"{override.input_line}: the range is empty")
        if len(numbers) == 1:
            return Dimension(key, key, (str(numbers[0]),))
        whole = all(isinstance(n, int) for n in numbers)
        step = numbers[1] - numbers[0]
        return _checked(Dimension(key, key, (), numbers[0], numbers[-1], step, False, whole))
    if not override.is_sweep_override():
        return Dimension(key, key, (override.get_value_element_as_str(),))
    choices = tuple(dict.fromkeys(map(str, override.sweep_string_iterator())))
    if not choices:
        raise GenoptError(f"{override.input_line}: there are no choices")
    return Dimension(key, key, choices)


def _checked(dimension: Dimension) -> Dimension:
    if dimension.low >= dimension.high:
        raise GenoptError(
            f"{dimension.key}: the interval from {dimension.low} to {dimension.high} is empty"
        )
    if dimension.log and dimension.low <= 0:
        raise GenoptError(f"{dimension.key}: tag(log, ...) needs numbers above 0")
    return dimension


def _conditions(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """``model=flow,mixture network=adaln``: all of the words have to hold."""
    found = []
    for word in str(text).split():
        key, sign, values = word.partition("=")
        if not (key and sign and values):
            raise GenoptError(
                f"hydra.sweeper.when: the condition {text!r} has to read key=value, or "
                "key=value,value key=value where all words have to hold"
            )
        found.append((key, tuple(bare(value) for value in values.split(","))))
    return tuple(found)


def _condition(branch: Branch) -> str:
    return " ".join(f"{key}={','.join(values)}" for key, values in branch.when)


def _named(branches: Sequence[Branch]) -> tuple[Branch, ...]:
    """Names for Optuna, which wants one range for each."""
    keys = [d.plain for branch in branches for d in branch.dimensions]

    def name(branch: Branch, key: str) -> str:
        return key if keys.count(key) == 1 else f"{key} if {_condition(branch) or 'always'}"

    return tuple(
        replace(
            branch,
            dimensions=tuple(replace(d, name=name(branch, d.plain)) for d in branch.dimensions),
        )
        for branch in branches
    )
