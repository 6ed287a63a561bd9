"""What a multi-task model is made of, as plain data: heads, encoder and the Spaces of x and y."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genopt.build import Spec, normalise
from genopt.errors import GenoptError, UnknownNameError
from genopt.nn.encoders import ENCODERS
from genopt.nn.heads import HEADS
from genopt.space import Space, Variable

HeadSpecs = Mapping[str, Any]
_AUTO: dict[str, HeadSpecs] = {
    "auto": {"auto": True},
    "auto_autoencoder": {"auto": True, "reconstruction": "autoencoder"},
}


def as_space(space: Space | Mapping[str, Any]) -> Space:
    """A Space from itself or from the dictionary that a checkpoint holds.

    Args:
        space: a Space or what `Space.to_dict` gave.

    Returns:
        The Space.
    """
    return space if isinstance(space, Space) else Space.from_dict(space)


def design_space(input_dim: int | None, x_space: Space | Mapping[str, Any] | None) -> Space:
    """The Space of x from what the constructor was given.

    Args:
        input_dim: number of design columns P.
        x_space: the Space of x, or None for unbounded columns ``x1, x2, ...``.

    Returns:
        The Space.

    Raises:
        GenoptError: if neither is given, or they contradict each other.
    """
    if x_space is not None:
        space = as_space(x_space)
        if input_dim is not None and input_dim != space.dim:
            raise GenoptError(
                f"input_dim={input_dim} does not fit x_space, which has {space.dim} columns"
            )
        return space
    if input_dim is None or int(input_dim) < 1:
        raise GenoptError(f"input_dim must be a positive number of columns, got {input_dim}")
    return Space(tuple(Variable(f"x{i}") for i in range(1, int(input_dim) + 1)))


def head_specs(heads: str | HeadSpecs, y_space: Space | None) -> dict[str, dict[str, Any]]:
    """The full specification of each head.

    Args:
        heads: a name and a kind (or a mapping with ``kind`` and options) for each head; ``auto``
            for one head a column of the y Space, ``auto_autoencoder`` for these and a
            reconstruction of the design. In a mapping the entry ``auto: true`` stands for the
            columns not named.
        y_space: the Space of y, if known.

    Returns:
        Plain dictionaries with ``_target_`` and options, by head.

    Raises:
        GenoptError: if there is no head, or a head is no column of the y Space.
    """
    if isinstance(heads, str):
        if heads not in _AUTO:
            raise GenoptError(f"heads={heads!r}: give {' or '.join(_AUTO)}, or a mapping")
        heads = _AUTO[heads]
    given: dict[str, Any] = {str(name): spec for name, spec in heads.items() if spec is not None}
    options: Any = False
    if y_space is None or "auto" not in y_space:
        options = given.pop("auto", False)
    full: dict[str, dict[str, Any]] = {}
    if options:
        if y_space is None:
            raise GenoptError("heads=auto needs the Space of y: use for_spaces(x_space, y_space)")
        defaults: Mapping[str, Any] = options if isinstance(options, Mapping) else {}
        for v in y_space:
            if v.name in given:
                continue
            kind = "classification" if v.labels else "regression"
            spec: dict[str, Any] = {"kind": kind, **dict(defaults.get(kind) or {})}
            if v.labels:
                spec["num_classes"] = len(v.labels)
            full[v.name] = normalise(spec, HEADS, f"head {v.name!r}")
    for name, spec_given in given.items():
        full[name] = normalise(spec_given, HEADS, f"head {name!r}")
        is_class = full[name]["_target_"] == HEADS["classification"]
        if is_class and y_space is not None and name in y_space:
            full[name].setdefault("num_classes", len(y_space[name].labels))
    if not full:
        raise GenoptError('heads names no head: for example heads={"density": "regression"}')
    for name in full:
        if "." in name or not name:
            raise GenoptError(f"head {name!r}: a head's name must not be empty or hold a dot")
    if y_space is not None:
        _check_columns(full, y_space)
    return full


def _check_columns(specs: Mapping[str, Mapping[str, Any]], y_space: Space) -> None:
    for name, spec in specs.items():
        if spec["_target_"] == HEADS["autoencoder"]:
            if name in y_space:
                raise GenoptError(f"head {name!r} reconstructs the design but is a column of y")
            continue
        v = y_space[name]
        is_class = spec["_target_"] == HEADS["classification"]
        if is_class and spec.get("num_classes") != len(v.labels):
            raise GenoptError(
                f"head {name!r}: num_classes={spec.get('num_classes')}, but the column has "
                f"{len(v.labels)} classes"
            )
        if not is_class and (v.labels or spec.get("dim", 1) != 1):
            raise GenoptError(
                f"head {name!r} does not fit its column: a {v.kind} column takes one "
                f"{'classification' if v.labels else 'scalar regression'} head"
            )


def property_space(specs: Mapping[str, Mapping[str, Any]]) -> Space:
    """A Space of y for heads that came without one.

    A vector head of T outputs gives the columns ``name_1`` to ``name_T``.

    Args:
        specs: full head specifications.

    Returns:
        The Space; it has no column for a reconstruction.
    """
    variables: list[Variable] = []
    for name, spec in specs.items():
        if spec["_target_"] == HEADS["autoencoder"]:
            continue
        if "num_classes" in spec:
            labels = tuple(str(c) for c in range(int(spec["num_classes"])))
            variables.append(Variable(name, kind="categorical", labels=labels))
        elif int(spec.get("dim", 1)) == 1:
            variables.append(Variable(name))
        else:
            variables.extend(Variable(f"{name}_{i}") for i in range(1, int(spec["dim"]) + 1))
    return Space(tuple(variables))


def column_map(
    specs: Mapping[str, Mapping[str, Any]], y_space: Space
) -> tuple[tuple[str, int] | None, ...]:
    """For each column of the y Space the head that gives it and the output's position.

    Args:
        specs: full head specifications.
        y_space: the Space of y.

    Returns:
        (head, position) or None where no head gives the column.
    """
    found: dict[str, tuple[str, int]] = {}
    for name, spec in specs.items():
        if spec["_target_"] == HEADS["autoencoder"]:
            continue
        found.setdefault(name, (name, 0))
        for i in range(int(spec.get("dim", 1)) if int(spec.get("dim", 1)) > 1 else 0):
            found[f"{name}_{i + 1}"] = (name, i)
    return tuple(found.get(name) for name in y_space.names)


def head_weights(
    task_weights: Mapping[str, float] | None, heads: Mapping[str, Any]
) -> dict[str, float]:
    """The weight of every head's loss.

    Args:
        task_weights: weights by head; 1 where not given.
        heads: the heads.

    Returns:
        Weights by head.

    Raises:
        GenoptError: if a name is no head, or the weights are negative or all zero.
    """
    given = dict(task_weights or {})
    for name in given:
        if name not in heads:
            raise UnknownNameError("head in task_weights", str(name), heads)
    weights = {name: float(given.get(name, 1.0)) for name in heads}
    if any(w < 0 for w in weights.values()) or not any(weights.values()):
        raise GenoptError(f"task_weights must not be negative nor all zero, got {weights}")
    return weights


def encoder_spec(encoder: Spec) -> dict[str, Any]:
    """The full specification of an encoder.

    Args:
        encoder: a short name, or a mapping with ``kind`` or ``_target_`` and options.

    Returns:
        A plain dictionary with ``_target_`` and options.
    """
    return normalise(encoder, ENCODERS, "encoder")


def check_same_columns(role: str, mine: Space, theirs: Space) -> None:
    """Refuse a Space with other columns than a model's.

    Args:
        role: ``x`` or ``y``.
        mine: the model's Space.
        theirs: the problem's Space.

    Raises:
        GenoptError: naming the columns that differ in name, order, kind or classes.
    """
    own = [(v.name, v.kind, v.labels) for v in mine]
    other = [(v.name, v.kind, v.labels) for v in theirs]
    if own != other:
        odd = sorted({column[0] for column in set(own) ^ set(other)}) or list(theirs.names)
        raise GenoptError(
            f"this model is of another problem: its {role} columns are {', '.join(mine.names)}, "
            f"the problem's are {', '.join(theirs.names)}; these differ: {', '.join(odd)}"
        )
