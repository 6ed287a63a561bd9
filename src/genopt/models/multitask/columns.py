"""Which columns of y a head gives: read from specifications, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from genopt.errors import GenoptError
from genopt.nn.heads import HeadKind
from genopt.space import Space, Variable

Specs = Mapping[str, Mapping[str, Any]]


def kind_of(spec: Mapping[str, Any]) -> HeadKind:
    """What the head of a specification gives.

    Args:
        spec: a full specification, with ``_target_``.

    Returns:
        ``number``, ``class`` or ``design``; ``number`` for a class that cannot be imported, which
        is an error where it is built.
    """
    module, _, name = str(spec["_target_"]).rpartition(".")
    try:
        kind: HeadKind = getattr(getattr(import_module(module), name), "kind", "number")
    except (ImportError, AttributeError, ValueError):
        return "number"
    return kind


def head_columns(name: str, spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of y that a head gives.

    Args:
        name: the head.
        spec: its full specification.

    Returns:
        The head's own name for one output, ``name_1`` to ``name_T`` for several, the names of its
        grid where that has any, nothing for a reconstruction.
    """
    kind = kind_of(spec)
    if kind == "design":
        return ()
    grid = spec.get("grid")
    if isinstance(grid, Mapping):
        return tuple(str(column) for column in grid)
    width = len(grid) if grid is not None else int(spec.get("dim", 1))
    if kind == "class" or width == 1:
        return (name,)
    return tuple(f"{name}_{i}" for i in range(1, width + 1))


def property_space(specs: Specs) -> Space:
    """A Space of y for heads that came without one.

    Args:
        specs: full head specifications.

    Returns:
        The Space of the heads' columns.
    """
    variables: list[Variable] = []
    for name, spec in specs.items():
        if kind_of(spec) == "class":
            labels = tuple(str(c) for c in range(int(spec.get("num_classes", 0))))
            variables.append(Variable(name, kind="categorical", labels=labels or ("0",)))
        else:
            variables.extend(Variable(column) for column in head_columns(name, spec))
    return Space(tuple(variables))


def check_columns(specs: Specs, y_space: Space) -> None:
    """Refuse heads that do not fit their columns.

    Args:
        specs: full head specifications.
        y_space: the Space of y.

    Raises:
        GenoptError: naming the head and the column.
    """
    owners: dict[str, str] = {}
    for name, spec in specs.items():
        kind = kind_of(spec)
        if kind == "design" and name in y_space:
            raise GenoptError(f"head {name!r} reconstructs the design but is a column of y")
        for column in head_columns(name, spec):
            if column in owners:
                raise GenoptError(
                    f"y column {column!r} belongs to two heads, {owners[column]!r} and {name!r}"
                )
            owners[column] = name
            if column not in y_space and name in y_space:
                raise GenoptError(
                    f"head {name!r} does not fit its column: its outputs are the columns "
                    f"{', '.join(head_columns(name, spec))}"
                )
            v = y_space[column]
            if (kind == "class") != bool(v.labels):
                wanted = "classification or ordinal" if v.labels else "numeric"
                raise GenoptError(
                    f"head {name!r} does not fit its column: a {v.kind} column takes one {wanted} "
                    "head"
                )
            if kind == "class" and spec.get("num_classes") != len(v.labels):
                raise GenoptError(
                    f"head {name!r}: num_classes={spec.get('num_classes')}, but the column has "
                    f"{len(v.labels)} classes"
                )


def column_map(specs: Specs, y_space: Space) -> tuple[tuple[str, int] | None, ...]:
    """For each column of the y Space the head that gives it and the output's position.

    Args:
        specs: full head specifications.
        y_space: the Space of y.

    Returns:
        (head, position) or None where no head gives the column.
    """
    found = {
        column: (name, i)
        for name, spec in specs.items()
        for i, column in enumerate(head_columns(name, spec))
    }
    return tuple(found.get(name) for name in y_space.names)
