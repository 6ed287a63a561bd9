"""Limits: what a routine does with constraints, from the user's words to the candidates."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.constraint import read_constraints
from genopt.goal import Goal
from genopt.models.flow.stochastic import SDE
from genopt.routines.constraints.drawing import (
    Constrained,
    Objective,
    check_method,
    constrained_draws,
)
from genopt.routines.constraints.possible import check_possible
from genopt.routines.constraints.projection import project
from genopt.routines.constraints.rules import Rules, reference_points, rules_of
from genopt.routines.constraints.source import Source

_PROBES = 512
_TOLD = 10


@dataclass(frozen=True)
class Limits:
    """The constraints of a call and how they are to be kept.

    Args:
        rules: the constraints.
        method: one of `genopt.routines.constraints.drawing.METHODS`.
        tries: most draws for each wanted design.
    """

    rules: Rules
    method: str = "auto"
    tries: int = 500

    @classmethod
    def of(
        cls, constraints: Any, goal: Goal, method: str, tries: int, model: object
    ) -> Limits | None:
        """Read constraints and refuse what can be known to fail.

        Args:
            constraints: as `genopt.constraint.read_constraints` takes them.
            goal: what is wanted, with the columns that are held.
            method: how they are to be kept.
            tries: most draws for each wanted design.
            model: the model that is drawn from, fitted or not.

        Returns:
            The limits; None without constraints.

        Raises:
            GenoptError: if a constraint cannot be read or kept, or the method does not fit.
        """
        check_method(method, tries, noise=hasattr(model, "transport"))
        space = goal.x_space
        read = read_constraints(constraints, space)
        rules = rules_of(read, space, tuple(goal.fixed))
        if rules is None:
            return None
        check_possible(read, space, goal.fixed)
        return cls(rules, method, tries)

    def warn_if_empty(self, goal: Goal) -> None:
        """Warn where none of many points of the bounds can be brought to the constraints.

        Args:
            goal: what is wanted, with the columns that are held.
        """
        space = self.rules.space
        if not space.bounded:
            return
        points = reference_points(space, _PROBES)
        for i, value in goal.fixed.items():
            points[:, i] = value.repeat(-(-_PROBES // len(value)))[:_PROBES]
        if not bool(project(self.rules, points).kept.any()):
            names = " and ".join(repr(c.name) for c in self.rules.constraints)
            warnings.warn(
                f"none of {_PROBES} designs spread over the bounds could be brought to keep "
                f"{names}: it may be impossible",
                stacklevel=2,
            )

    def draws(self, source: Source, n: int, objective: Objective | None = None) -> Constrained:
        """Designs that keep the constraints.

        Args:
            source: the model's draws.
            n: designs for each condition.
            objective: what ``gradient`` makes small.

        Returns:
            The designs; rows that could not be found hold another of the designs and are not valid.
        """
        found = constrained_draws(
            source, self.rules, n, method=self.method, tries=self.tries, objective=objective
        )
        # a stand-in lets a model work out its claims for whole blocks
        any_row = found.x[found.valid][0]
        return replace(found, x=torch.where(found.valid[..., None], found.x, any_row))


def flow_source(
    model: Any,
    conditions: Tensor,
    generator: torch.Generator,
    extra: Mapping[str, Any],
) -> Source:
    """The draws of a model of p(x | y), through its noise where it has any.

    Args:
        model: a flow, or any conditional model.
        conditions: what is asked for (C, K).
        generator: source of randomness.
        extra: further arguments of its draws; ``fixed`` has a value (C,) for each held column.

    Returns:
        The source.
    """

    def options(rows: Tensor) -> dict[str, Any]:
        own = {**extra, **_certain(model)}
        if "fixed" in own:
            own["fixed"] = {i: value[rows] for i, value in own["fixed"].items()}
        return own

    def draw(rows: Tensor, n: int) -> Tensor:
        drawn: Tensor = model.sample(conditions[rows], n, generator, **options(rows))
        return drawn

    def carry(noise: Tensor, rows: Tensor) -> Tensor:
        carried: Tensor = model.transport(noise, conditions[rows], **options(rows))
        return carried

    space = model.x_space
    if not hasattr(model, "transport"):
        return Source(len(conditions), space, generator, draw)
    return Source(
        len(conditions), space, generator, transport=carry, width=int(model.transform.dim)
    )


def way_of(found: Constrained, model: Any, conditions: Tensor, extra: Mapping[str, Any]) -> Tensor:
    """The ways from noise to designs, whose last step is the projection.

    Args:
        found: designs and their noise.
        model: the flow.
        conditions: what was asked for (C, K).
        extra: further arguments of its draws.

    Returns:
        Trajectories (C, n, S, P).
    """
    with torch.no_grad():
        way: Tensor = model.transport(
            found.noise, conditions, return_trajectory=True, **extra, **_certain(model)
        )
    way[..., -1, :] = found.x
    return way


def _certain(model: Any) -> dict[str, Any]:
    """A sampler that always carries the same noise to the same design."""
    return {"sampler": "midpoint"} if isinstance(getattr(model, "sampler", None), SDE) else {}


def judged(goal: Goal, judge: Any, targets: int) -> Objective | None:
    """The goal's loss of what a judge predicts, for a search of the best design.

    Args:
        goal: what is wanted, B goals.
        judge: predicts y of designs; None for no objective.
        targets: conditions of each goal T; condition c belongs to goal c // T.

    Returns:
        From designs (C', n, P) and the conditions' numbers (C',) to losses (C', n).
    """
    if judge is None:
        return None

    def loss(x: Tensor, rows: Tensor) -> Tensor:
        y: Tensor = judge.predict_y(x)
        if not goal.batched:
            return goal.loss(y)
        # every goal's loss of every row, of which each row keeps its own goal's
        everything = goal.loss(y.expand(goal.batch_size, *y.shape))
        return everything[rows // targets, torch.arange(len(rows))]

    return loss


def with_limits(candidates: Candidates, found: Constrained) -> Candidates:
    """Candidates without the rows that could not be found, with the report in their header.

    Goals with fewer designs than the others hold some of them twice; those without any are NaN.

    Args:
        candidates: B goals with the designs of T conditions each, stand-ins among them.
        found: what was found for the B * T conditions.

    Returns:
        The candidates, valid rows first.
    """
    valid = found.valid.reshape(candidates.shape)
    count = valid.sum(1, keepdim=True)
    turn = torch.arange(int(count.max())) % count.clamp_min(1)
    first = (~valid).to(torch.int8).argsort(dim=1, stable=True)
    kept = candidates.take(first.gather(1, turn))
    without = (count == 0)[:, 0]
    report = {**found.report, "goals_without_design": int(without.sum())}
    blank: dict[str, Any] = {}
    if bool(without.any()):
        for name in ("x", "y_predicted", "y_spread", "loss", "log_density", "trajectory"):
            value = getattr(kept, name)
            if value is not None:
                blank[name] = value.clone()
                blank[name][without] = torch.nan
        blank["feasible"] = kept.feasible & ~without[:, None]
        warnings.warn(
            f"{report['goals_without_design']} of {len(valid)} goals have no design that keeps the "
            f"constraints: goals {', '.join(map(str, without.nonzero()[:, 0].tolist()[:_TOLD]))}",
            stacklevel=3,
        )
    return replace(kept, header={**kept.header, "constraints": report}, **blank)
