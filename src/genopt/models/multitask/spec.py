"""What a multi-task model is made of, as plain data: heads, encoder and the Spaces of x and y."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genopt.build import Spec, normalise
from genopt.errors import GenoptError, UnknownNameError
from genopt.models.multitask.columns import check_columns, head_columns, kind_of
from genopt.nn.encoders import ENCODERS
from genopt.nn.heads import HEADS
from genopt.space import Space, Variable

HeadSpecs = Mapping[str, Any]
Heads = str | HeadSpecs | Sequence[Any]
_DEFAULTS = {"numbers": "regression", "integers": "regression", "classes": "classification"}
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


def head_specs(heads: Heads, y_space: Space | None) -> dict[str, dict[str, Any]]:
    """The full specification of each head.

    Args:
        heads: a name and a kind (or a mapping with ``kind`` and options) for each head, or a list
            of mappings with ``name`` and ``kind``; ``auto`` for one head a column of the y Space,
            ``auto_autoencoder`` for these and a reconstruction of the design. In a mapping the
            entry ``auto`` stands for the columns that no other head gives: true, or a mapping of
            ``numbers``, ``integers`` and ``classes`` to the kind of head that such columns get,
            and of kinds to options.
        y_space: the Space of y, if known.

    Returns:
        Plain dictionaries with ``_target_`` and options, by head.

    Raises:
        GenoptError: if there is no head, or a head is no column of the y Space.
    """
    given = _by_name(heads)
    options: Any = False
    if y_space is None or "auto" not in y_space:
        options = given.pop("auto", False)
    full: dict[str, dict[str, Any]] = {}
    for name, spec in given.items():
        if name in ("", "encoder"):
            raise GenoptError(f"head {name!r}: a head's name must not be empty or 'encoder'")
        full[name] = normalise(spec, HEADS, f"head {name!r}")
        if kind_of(full[name]) == "class" and y_space is not None and name in y_space:
            full[name].setdefault("num_classes", _classes(y_space[name]))
    if options:
        if y_space is None:
            raise GenoptError("heads=auto needs the Space of y: use for_spaces(x_space, y_space)")
        taken = {column for name, spec in full.items() for column in head_columns(name, spec)}
        free = [v for v in y_space if v.name not in taken and v.name not in full]
        auto = options if isinstance(options, Mapping) else {}
        full = {**{v.name: _auto_spec(v, auto) for v in free}, **full}
    if not full:
        raise GenoptError('heads names no head: for example heads={"density": "regression"}')
    if y_space is not None:
        check_columns(full, y_space)
    return full


def _by_name(heads: Heads) -> dict[str, Any]:
    """Heads by name, from a preset's name, a mapping (whose nulls are left out) or a list."""
    if isinstance(heads, str):
        if heads not in _AUTO:
            raise GenoptError(f"heads={heads!r}: give {' or '.join(_AUTO)}, a mapping or a list")
        heads = _AUTO[heads]
    if isinstance(heads, Mapping):
        return {str(name): spec for name, spec in heads.items() if spec is not None}
    found: dict[str, Any] = {}
    for entry in heads:
        spec = {"auto": True} if entry == "auto" else entry
        if not isinstance(spec, Mapping) or not ({"name", "auto"} & set(spec)):
            raise GenoptError(
                f"heads: an entry of the list needs a name, for example {{name: density, kind: "
                f"regression}}, or must be auto; got {entry!r}"
            )
        name = str(spec.get("name", "auto"))
        if name in found:
            raise GenoptError(f"heads: two entries of the list have the name {name!r}")
        options = {k: v for k, v in spec.items() if k != "name"}
        found[name] = options if "name" in spec else spec["auto"]
    return found


def _auto_spec(v: Variable, auto: Mapping[str, Any]) -> dict[str, Any]:
    """The head of a column that no head was named for."""
    for key in auto:
        if key not in (*_DEFAULTS, *HEADS):
            raise UnknownNameError("key of heads.auto", str(key), (*_DEFAULTS, *HEADS))
    sort = "classes" if v.labels else "numbers"
    if v.kind == "integer" and auto.get("integers") is not None:
        sort = "integers"
    chosen = auto.get(sort) or _DEFAULTS[sort]
    spec: dict[str, Any] = {"kind": chosen} if isinstance(chosen, str) else dict(chosen)
    kind = spec.get("kind")
    spec = {**spec, **dict(auto.get(str(kind)) or {}), **spec}
    if v.labels:
        spec["num_classes"] = _classes(v)
    return normalise(spec, HEADS, f"head {v.name!r}")


def _classes(v: Variable) -> int:
    """The number of classes of a column; one class alone is refused."""
    if len(v.labels) == 1:
        raise GenoptError(
            f"y column {v.name!r} holds one class only, {v.labels[0]!r}: there is nothing to "
            "classify. Leave the column out, or list all its classes as its labels"
        )
    return len(v.labels)


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
