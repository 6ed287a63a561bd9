"""All stationary points of a function of designs, with or without constraints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from genopt.constraint import Constraint, read_constraints
from genopt.errors import GenoptError
from genopt.routines.stationary_newton import Linear
from genopt.routines.stationary_points import (
    Search,
    StationaryPoints,
    search_roots,
    second_order,
    touching,
)
from genopt.routines.stationary_starts import check_engine, conditioned
from genopt.routines.stationary_system import Conditions, Coordinates, Functions
from genopt.space import Space

# the barrier falls by this factor from stage to stage, down to the last one before zero
_FALL = 0.1
_LAST = 1e-12


def stationary_points(
    function: Functions,
    space: Space,
    equalities: Sequence[Any] = (),
    inequalities: Sequence[Any] = (),
    *,
    model: str = "mixture",
    maximise: bool = False,
    bounds: bool = False,
    barrier: float = 1e-2,
    rows: int = 1024,
    n: int = 1024,
    rounds: int = 16,
    steps: int = 60,
    tolerance: float = 1e-9,
    distinct: float = 1e-4,
    seed: int = 0,
) -> StationaryPoints:
    """Stationary points of a function: minima, maxima and saddles, told apart.

    Args:
        function: from designs (..., P) in raw units to one number each (...), by torch.
        space: the columns of x; bounded and continuous. Fractions that sum to one keep doing so.
        equalities: functions that are to be zero, rules such as ``"a + b == 1"``, or
            `genopt.Constraint` objects.
        inequalities: functions that are to be at most zero, rules such as ``"a <= b"``, or
            `genopt.Constraint` objects.
        model: what draws the starts from the law of designs given zero slope: ``mixture``,
            ``flow``, or ``none`` for points spread over the box.
        maximise: whether inequalities hold a maximum up instead of a minimum.
        bounds: whether the bounds of the columns count as inequalities, so that points on them are
            answers too.
        barrier: strength of the log barrier that the starts are drawn for, in units of the
            function's spread; it is then driven to zero.
        rows: designs that the model learns from.
        n: starts of each round.
        rounds: most rounds of starts.
        steps: most Newton steps of a start.
        tolerance: largest residual of an answer, in units of each function's size.
        distinct: distance in the unit box within which two ends are one point.
        seed: seed of everything random.

    Returns:
        The points, the lowest value first.

    Raises:
        GenoptError: if a function cannot be differentiated, a rule cannot be read, or a number is
            out of range.

    Example:
        >>> space = Space.of(x=(-2.0, 2.0), y=(-2.0, 2.0))
        >>> found = stationary_points(lambda x: x.square().sum(-1), space, ["x + y == 1"], n=64)
        >>> found.kinds, [round(v, 6) for v in found.x[0].tolist()]
        (('minimum',), [0.5, 0.5])
    """
    rules = [
        *_constraints(equalities, space, "equality"),
        *_constraints(inequalities, space, "inequality"),
    ]
    if model == "auto":
        raise GenoptError("model=auto: choose mixture, flow or none")
    options = Search(n, rounds, steps, tolerance, distinct, seed)

    def values(x: Tensor) -> Tensor:
        height = function(x)
        if height.shape != x.shape[:-1]:
            raise GenoptError(
                f"the function returns shape {tuple(height.shape)} for designs of shape "
                f"{tuple(x.shape)}; expected one number each, {tuple(x.shape[:-1])}"
            )
        return height.unsqueeze(-1)

    task = Task.of(values, [], [], Coordinates(space, {}), rules, bounds, maximise)
    return task.solve(model, barrier, rows, options)


def _constraints(rules: Sequence[Any], space: Space, kind: str) -> tuple[Constraint, ...]:
    if callable(rules) or isinstance(rules, str | Constraint):
        rules = [rules]
    made = [Constraint(r, space, kind=kind) if callable(r) else r for r in rules]
    return read_constraints(made, space)


class Task:
    """One objective with all its conditions, ready to be solved.

    Args:
        conditions: the objective to minimise and the conditions.
        sign: -1 where the objective is the negative of what is asked for, else 1.

    Attributes:
        calls: designs that were simulated so far.
    """

    def __init__(self, conditions: Conditions, sign: float) -> None:
        self.sign = sign
        self.calls = 0

        def counted(x: Tensor) -> Sequence[Tensor]:
            self.calls += len(x)
            return conditions.functions(x)

        self.conditions = Conditions(
            counted, conditions.names, conditions.equality, conditions.coordinates
        )

    @classmethod
    def of(
        cls,
        values: Functions,
        names: list[str],
        equality: list[bool],
        coordinates: Coordinates,
        rules: Sequence[Constraint] = (),
        bounds: bool = False,
        maximise: bool = False,
    ) -> Task:
        """Values, rules on designs, simplexes and bounds as one list of conditions.

        Args:
            values: from designs (N, P) to the objective and conditions on outputs (N, 1 + M).
            names: names of those M conditions.
            equality: which of them are to be zero; the others are to be at most zero.
            coordinates: what may move.
            rules: rules on designs.
            bounds: whether bounds count as inequalities.
            maximise: whether the objective is to be high.

        Returns:
            The task.
        """
        space = coordinates.space
        sign = -1.0 if maximise else 1.0
        names, equality = list(names), list(equality)
        further: list[Functions] = []
        for rule in rules:
            labels = (
                [rule.name]
                if rule.count == 1
                else [f"{rule.name} ({i + 1})" for i in range(rule.count)]
            )
            names += labels
            equality += [rule.equality] * rule.count
            further.append(rule.residual)
        for group in space.simplex_indices:
            if all(i in coordinates.held for i in group):
                continue
            names.append(f"{' + '.join(space.names[i] for i in group)} = 1")
            equality.append(True)
            further.append(_sum_less_one(list(group)))
        if bounds:
            for i in coordinates.moving:
                variable = space.variables[i]
                names += [f"{variable.name} >= {variable.lower:g}"]
                names += [f"{variable.name} <= {variable.upper:g}"]
                equality += [False, False]
                further.append(_beyond(i, variable.lower, variable.upper))

        def functions(x: Tensor) -> list[Tensor]:
            found = values(x)
            first = torch.cat([sign * found[:, :1], found[:, 1:]], 1)
            return [first, *(part(x) for part in further)]

        flags = torch.tensor(equality, dtype=torch.bool)
        return cls(Conditions(functions, tuple(names), flags, coordinates), sign)

    def solve(self, engine: str, barrier: float, rows: int, options: Search) -> StationaryPoints:
        """Learn, draw starts, finish each, tell the points apart.

        Args:
            engine: ``mixture``, ``flow`` or ``none``.
            barrier: strength of the log barrier at the start.
            rows: designs to learn from.
            options: how to search.

        Returns:
            The points.
        """
        check_options(engine, barrier, rows, options)
        conditions = self.conditions
        dim = len(conditions.coordinates.moving)
        free = bool(conditions.equality.all())
        sampler = conditioned(conditions, barrier, engine, rows, options.seed)

        def starts(n: int, seed: int) -> Tensor:
            z = sampler(n, seed)
            return torch.cat([z, conditions.multipliers(conditions.derivatives(z), barrier)], 1)

        def stage(strength: float) -> Callable[[Tensor], Linear]:
            return lambda w: conditions.system(w, strength)

        falling = [] if free else _falling(barrier)
        ends = search_roots([stage(mu) for mu in [*falling, 0.0]], starts, dim, options)
        z, multipliers = ends.point[:, :dim], ends.point[:, dim:]
        return self._described(z, multipliers, ends.residual, ends.hits, ends.starts, ends.unseen)

    def _described(
        self,
        z: Tensor,
        multipliers: Tensor,
        residual: Tensor,
        hits: Tensor,
        starts: int,
        unseen: float,
    ) -> StationaryPoints:
        conditions = self.conditions
        size, equality = conditions.size, conditions.equality
        found = conditions.derivatives(z, multipliers)
        slack = -found.value[:, 1:]
        active = equality | touching(slack)
        normals = torch.where(active.unsqueeze(-1), found.slope[:, 1:], 0.0)
        pushes = (active & ~equality & (multipliers > 1e-6)).any(1)
        checked = second_order(found.curvature, normals, pushes, residual)
        kinds, eigenvalues = checked.kinds, checked.eigenvalues
        if self.sign < 0.0:
            swapped = {"minimum": "maximum", "maximum": "minimum"}
            kinds, eigenvalues = tuple(swapped.get(k, k) for k in kinds), -eigenvalues
        # lowest first: of what is minimised
        order = found.value[:, 0].argsort(stable=True)
        raw = multipliers * size[0] / size[1:]
        raw = torch.where(active, raw, 0.0)[order]
        slack = (slack * size[1:])[order]
        sides = [i for i, equal in enumerate(equality.tolist()) if not equal]
        names = conditions.names
        return StationaryPoints(
            x=conditions.coordinates.raw(z)[order],
            space=conditions.coordinates.space,
            value=self.sign * (found.value[:, 0] * size[0])[order],
            kinds=tuple(kinds[i] for i in order.tolist()),
            eigenvalues=eigenvalues[order],
            multipliers={name: raw[:, i] for i, name in enumerate(names)},
            slack={names[i]: slack[:, i] for i in sides},
            active={names[i]: active[order][:, i] for i in sides},
            residual=residual[order],
            hits=hits[order],
            starts=starts,
            unseen=unseen,
            calls=self.calls,
        )


def check_options(engine: str, barrier: float, rows: int, options: Search) -> None:
    """Refuse numbers that make no search.

    Args:
        engine: what draws the starts.
        barrier: strength of the barrier.
        rows: designs to learn from.
        options: how to search.

    Raises:
        GenoptError: if a number is out of range; its name is said.
    """
    check_engine(engine)
    counts = {
        "rows": rows,
        "samples": options.samples,
        "rounds": options.rounds,
        "steps": options.steps,
    }
    for name, count in counts.items():
        if count < 1:
            raise GenoptError(f"stationary: {name} must be at least 1, got {count}")
    sizes = {"barrier": barrier, "tolerance": options.tolerance, "distinct": options.distinct}
    for name, size in sizes.items():
        if not 0.0 < size < 1.0:
            raise GenoptError(f"stationary: {name} must lie between 0 and 1, got {size:g}")


def _falling(barrier: float) -> list[float]:
    stages = math.ceil(math.log(_LAST / barrier) / math.log(_FALL))
    return [barrier * _FALL**k for k in range(max(stages, 1))]


def _sum_less_one(index: list[int]) -> Functions:
    return lambda x: x[:, index].sum(1, keepdim=True) - 1.0


def _beyond(index: int, lower: float, upper: float) -> Functions:
    return lambda x: torch.stack([lower - x[:, index], x[:, index] - upper], 1)
