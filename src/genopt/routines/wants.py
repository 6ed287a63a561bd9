"""What a gradient search is asked for: a Goal, targets by head, one target, or a direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.routines.surrogate import Surrogate, heads_of_kind

MODES = ("max", "min")


@dataclass(frozen=True)
class Wanted:
    """What is wanted of one head.

    Args:
        head: the head's name.
        kind: ``equals``, ``max``, ``min``, ``at_least``, ``at_most``, ``between`` or ``label``.
        value: value or lower end (B or 1, T), class codes (B or 1, 1), or None.
        upper: upper end (B or 1, T) of ``between``, or None.
        output: position of one output of a vector head; None for all.
        weight: share in the loss.
        strict: whether a value or bound is a constraint: it counts a hundredfold, a bound from a
            little inside, so that a wish beside it (``max``) does not push across it.
        slack: miss of a strict value that is accepted, in raw units; the smaller, the more it
            counts.
        unit: the unit of a miss, in raw units; None for the training spread of each output.
    """

    head: str
    kind: str
    value: Tensor | None = None
    upper: Tensor | None = None
    output: int | None = None
    weight: float = 1.0
    strict: bool = False
    slack: float | None = None
    unit: float | None = None


def wants_of(
    model: Surrogate,
    rows: int,
    widths: Mapping[str, int],
    task_name: str | None,
    mode: str | Mapping[str, str],
    target_value: Any,
    task_targets: Mapping[str, Any] | None,
    task_weights: Mapping[str, float] | None,
    goal: Goal | None,
) -> list[Wanted]:
    """What the arguments of a search ask for: the goal, else targets, else a value, else a mode.

    Args:
        model: the model.
        rows: number of starts B.
        widths: number of outputs T of each head.
        task_name: the head that ``mode`` or ``target_value`` speaks of.
        mode: ``max`` or ``min``, or one of them by head.
        target_value: wanted value.
        task_targets: wanted values by head.
        task_weights: weights by head.
        goal: a Goal over the model's columns.

    Returns:
        The wants.

    Raises:
        GenoptError: if arguments contradict each other, a head is unknown or a value does not fit.
    """
    if task_targets is not None and target_value is not None:
        raise GenoptError("give task_targets or target_value, not both")
    if goal is not None:
        if task_targets is not None or target_value is not None or task_name is not None:
            raise GenoptError("give goal, or task_name with its targets, not both")
        return _wants_of_goal(model, rows, goal)
    weights = dict(task_weights or {})
    for name in weights:
        _known(model, name, "task in task_weights")
        if weights[name] <= 0:
            raise GenoptError(f"task_weights[{name!r}] must be positive, got {weights[name]}")
    if task_targets is not None:
        if not task_targets:
            raise GenoptError('task_targets is empty: for example task_targets={"density": 5.0}')
        return [
            _wanted(model, name, value, rows, widths, f"task_targets[{name!r}]", weights)
            for name, value in task_targets.items()
        ]
    if task_name is None and not isinstance(mode, Mapping):
        tasks = [*heads_of_kind(model, "number"), *heads_of_kind(model, "class")]
        if len(tasks) != 1:
            raise GenoptError(
                f"task_name is missing: give one of {', '.join(tasks)}, task_targets or a goal"
            )
        task_name = tasks[0]
    if target_value is not None and task_name is not None:
        return [_wanted(model, task_name, target_value, rows, widths, "target_value", weights)]
    modes = mode if isinstance(mode, Mapping) else {str(task_name): mode}
    return [_directed(model, name, m, widths, weights) for name, m in modes.items()]


def _known(model: Surrogate, name: Any, what: str = "task_name") -> str:
    if name not in model.task_heads:
        raise UnknownNameError(what, str(name), model.task_heads.keys())
    return str(name)


def _directed(
    model: Surrogate,
    name: str,
    mode: str,
    widths: Mapping[str, int],
    weights: Mapping[str, float],
) -> Wanted:
    _known(model, name)
    if mode not in MODES:
        raise UnknownNameError("mode", str(mode), MODES)
    kind = model.head_kind(name)
    if kind != "number":
        raise GenoptError(
            f"task_name={name!r} is no regression head, so mode={mode!r} means nothing: give "
            + (
                f"target_value=class (0 to {widths[name] - 1})"
                if kind == "class"
                else "the name of a regression or classification head"
            )
        )
    if widths[name] != 1:
        raise GenoptError(
            f"task_name={name!r} is a vector of {widths[name]} outputs, so mode={mode!r} is "
            f"ambiguous: give target_value of shape ({widths[name]},) or a goal on one column"
        )
    return Wanted(name, mode, weight=weights.get(name, 1.0))


def _wanted(
    model: Surrogate,
    name: str,
    value: Any,
    rows: int,
    widths: Mapping[str, int],
    argument: str,
    weights: Mapping[str, float],
) -> Wanted:
    _known(model, name, "task_name" if argument == "target_value" else "task in task_targets")
    if model.head_kind(name) == "design":
        raise GenoptError(f"{argument}: head {name!r} gives the design back and takes no target")
    weight = weights.get(name, 1.0)
    if model.head_kind(name) == "class":
        codes = _codes(model, name, value, widths[name], argument)
        if codes.numel() not in (1, rows):
            raise GenoptError(
                f"{argument} has shape {tuple(codes.shape)}; expected one class or ({rows},)"
            )
        return Wanted(name, "label", codes.reshape(-1, 1), weight=weight)
    numbers = torch.as_tensor(value).to(torch.float64)
    if not bool(torch.isfinite(numbers).all()):
        raise GenoptError(f"{argument} must be finite, got {value!r}")
    width = widths[name]
    shape = tuple(numbers.shape)
    one = " or one number" if width == 1 else ""
    expected = f"expected ({rows}, {width}) or ({rows if width == 1 else width},){one}"
    if width > 1 and shape in ((), (1,)):
        raise GenoptError(
            f"{argument} is one number, but {name!r} is a vector of {width} outputs; {expected}"
        )
    if shape in ((), (1,)) or (width > 1 and shape == (width,)):
        numbers = numbers.reshape(1, width)
    elif width == 1 and shape == (rows,):
        numbers = numbers.reshape(rows, 1)
    elif shape not in ((rows, width), (1, width)):
        raise GenoptError(f"{argument} has shape {shape}; {expected}")
    return Wanted(name, "equals", numbers, weight=weight)


def _codes(model: Surrogate, name: str, value: Any, classes: int, argument: str) -> Tensor:
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(v, str) for v in values):
        if name not in model.y_space:
            raise GenoptError(f"{argument}: give the class of {name!r} as a code")
        return torch.tensor([float(model.y_space[name].code(str(v))) for v in values])
    codes = torch.as_tensor(value).to(torch.float64).reshape(-1)
    if bool(((codes != codes.round()) | (codes < 0) | (codes >= classes)).any()):
        raise GenoptError(
            f"{argument}={value!r} is no class of {name!r}; expected a code from 0 to {classes - 1}"
        )
    return codes


def _wants_of_goal(model: Surrogate, rows: int, goal: Goal) -> list[Wanted]:
    if rows % goal.batch_size:
        raise GenoptError(
            f"initial_input has {rows} rows for {goal.batch_size} goals; expected one row, "
            f"({goal.batch_size}, P) or a multiple of it"
        )
    columns = dict(zip(model.y_space.names, model.columns, strict=True))
    # beside a wish, values are constraints: a weighted sum alone would trade them away
    strict = {"at_least", "at_most", "between"}
    if any(term.kind in MODES for term in goal.terms):
        strict.add("equals")
    wants = []
    for term in goal.terms:
        where = columns.get(term.column)
        if where is None:
            valid = [name for name, w in columns.items() if w is not None]
            raise UnknownNameError("goal column", term.column, valid)
        if (model.head_kind(where[0]) == "class") != (term.kind == "label"):
            raise GenoptError(
                f"goal.{term.column}: {term.kind!r} does not fit the model's head {where[0]!r}"
            )

        def spread(value: Tensor | None) -> Tensor | None:
            if value is None or value.numel() == 1:
                return None if value is None else value.reshape(1, 1)
            return value.repeat_interleave(rows // goal.batch_size).reshape(-1, 1)

        wants.append(
            Wanted(
                where[0],
                term.kind,
                spread(term.value),
                spread(term.upper),
                where[1],
                term.weight,
                strict=term.kind in strict,
                slack=term.tolerance,
                unit=float(goal.scale[term.index]),
            )
        )
    return wants
