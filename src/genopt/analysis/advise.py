"""Advice: which engine for this table and this goal, with the reasons and the figures behind them.

The rules are those of thumb (a mixture up to ten columns and some thousand rows, a flow above),
corrected by what the benchmarks of this project measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from genopt.analysis.facts import Errors, errors_of, groups_of, near_target, sizes_of
from genopt.constraint import read_constraints
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal

ENGINES = ("mixture", "flow", "multitask", "ensemble")
_NARROW = 10
_FEW_ROWS = 500
_SPARSE = 0.3
_NOISY = 0.1
_HALF = 0.5
_FEW = 0.01
_TOLERANCE = 0.02
_GIVEN_X = 0.3


@dataclass(frozen=True)
class Advice:
    """The choice of an engine.

    Args:
        engine: ``mixture``, ``flow``, ``multitask`` or ``ensemble``.
        reasons: why, in sentences that name the figures.
        figures: the figures: rows, columns, labels, what was measured on the rows.
        also: engines that are worth a comparison, the most promising first.
        settings: options that this table or goal needs, as keys of the command line.
    """

    engine: str
    reasons: tuple[str, ...]
    figures: dict[str, float] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"model={self.engine}"]
        lines += [f"  {key}={value}" for key, value in self.settings.items()]
        lines += [f"  - {reason}" for reason in self.reasons]
        if self.also:
            lines.append(f"  worth a comparison: model={','.join((self.engine, *self.also))}")
        told = ", ".join(f"{name} {value:.3g}" for name, value in self.figures.items())
        return "\n".join([*lines, f"  {told}"])

    def to_dict(self) -> dict[str, Any]:
        """The advice as plain data."""
        return {
            "engine": self.engine,
            "reasons": list(self.reasons),
            "figures": dict(self.figures),
            "also": list(self.also),
            "settings": dict(self.settings),
        }


def advise(
    table: Table,
    goal: Goal | None = None,
    *,
    constraints: Any = None,
    engines: Sequence[str] = ENGINES,
    seed: int = 0,
) -> Advice:
    """The engine that suits a table and a goal.

    It looks at the size of the table, its gaps, its noise, how closely a quickly fitted mixture
    follows it beside the goal's tolerances, into how many groups the designs near the target fall,
    and at what the goal asks: wishes, held columns, classes, constraints. It takes a second or two.

    Args:
        table: rows, the training rows where they are split.
        goal: what is wanted; None for all designs of any properties.
        constraints: rules that every design has to keep, as `genopt.Constraint` reads them.
        engines: engines among which to choose.
        seed: seed of the rows that are looked at.

    Returns:
        The advice; ``print`` shows it.

    Raises:
        GenoptError: if there is no such engine, or none of those allowed keeps the constraints.

    Example:
        >>> from genopt.problems import PengRobinson
        >>> problem = PengRobinson()
        >>> goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
        >>> advise(problem.table(400), goal).engine
        'mixture'
    """
    unknown = [name for name in engines if name not in ENGINES]
    if unknown or not engines:
        raise GenoptError(f"engines={list(engines)}: choose among {', '.join(ENGINES)}")
    allowed = tuple(engines)
    rules = read_constraints(constraints, table.x_space) if constraints else ()
    if rules:
        allowed = tuple(name for name in allowed if name in ("mixture", "flow"))
        if not allowed:
            raise GenoptError(
                f"constraints are kept by model=mixture and model=flow, not by "
                f"{', '.join(engines)}: allow one of them, or drop the constraints"
            )
    rows = table.part("train")
    facts = _Facts.of(rows if len(rows) else table, goal, seed)
    engine, reasons, also, settings = _choose(facts, allowed, rules)
    if len(facts.groups) > 1:
        sizes = ", ".join(map(str, facts.groups))
        reasons.append(
            f"the designs of the rows nearest to the target fall into {len(facts.groups)} groups "
            f"({sizes} rows): expect several answers"
        )
    figures = facts.figures | {"constraints": float(len(rules))}
    return Advice(engine, tuple(reasons), figures, tuple(a for a in also if a in allowed), settings)


@dataclass(frozen=True)
class _Facts:
    """What is known of a table and a goal before any engine is chosen."""

    rows: int
    inputs: int
    columns: int
    missing: float
    errors: Errors
    reach: float
    groups: tuple[int, ...]
    wishes: tuple[str, ...]
    values: tuple[str, ...]
    classes: int
    held: tuple[str, ...]

    @classmethod
    def of(cls, table: Table, goal: Goal | None, seed: int) -> _Facts:
        space = table.y_space
        terms = () if goal is None else goal.terms
        wanted = [t.index for t in terms] or list(range(space.dim))
        numbers = [k for k in wanted if not space.variables[k].labels]
        width = table.x_space.dim + len(wanted)
        labelled = int(torch.isfinite(table.y[:, wanted]).any(1).sum())
        if labelled == 0:
            raise GenoptError(
                "no row has a label of the goal's columns "
                f"({', '.join(space.names[k] for k in wanted)}): measure some first"
            )
        errors = errors_of(table, numbers, seed, mixture=width <= _NARROW)
        groups: list[int] = []
        if goal is not None:
            near = near_target(table, goal)
            groups = sizes_of(groups_of(table.x_space.encode(table.x[near]), seed))
        return cls(
            rows=labelled,
            inputs=table.x_space.dim,
            columns=width,
            missing=float(torch.isnan(table.y[:, wanted]).double().mean()),
            errors=errors,
            reach=_share_within(errors, goal),
            groups=tuple(groups),
            wishes=tuple(t.column for t in terms if t.kind in ("max", "min")),
            values=tuple(t.column for t in terms if t.kind not in ("max", "min")),
            classes=sum(bool(v.labels) for v in [*table.x_space, *space]),
            held=() if goal is None else tuple(table.x_space.names[i] for i in goal.fixed),
        )

    @property
    def noise(self) -> float:
        """The largest share of a column's variance that neither way explains."""
        best = torch.minimum(
            self.errors.local.nan_to_num(torch.inf), self.errors.mixture.nan_to_num(torch.inf)
        )
        share = (best / self.errors.spread.clamp_min(1e-300)).square()
        return float(share.clamp(max=1.0).max()) if len(share) else math.nan

    @property
    def figures(self) -> dict[str, float]:
        """The figures by name."""
        found = {
            "rows": float(self.rows),
            "inputs": float(self.inputs),
            "columns": float(self.columns),
            "missing_share": self.missing,
            "unexplained": self.noise,
            "mixture_within_tolerance": self.reach,
            "groups_near_target": float(len(self.groups)),
            "wishes": float(len(self.wishes)),
            "classes": float(self.classes),
            "held_columns": float(len(self.held)),
        }
        return {name: value for name, value in found.items() if not math.isnan(value)}


def _share_within(errors: Errors, goal: Goal | None) -> float:
    """The share of a mixture's designs that would lie within the goal's tolerances."""
    shares = []
    for i, name in enumerate(errors.names):
        term = None if goal is None else next(t for t in goal.terms if t.column == name)
        if term is not None and term.kind in ("max", "min", "at_least", "at_most", "between"):
            continue
        if term is None or goal is None:
            slack = _TOLERANCE * 4.0 * float(errors.spread[i])
        else:
            slack = term.tolerance or _TOLERANCE * float(goal.scale[term.index])
        sigma = float(errors.mixture[i])
        shares.append(math.erf(slack / max(sigma * math.sqrt(2.0), 1e-300)))
    return math.prod(shares) if shares else math.nan


_Choice = tuple[str, list[str], tuple[str, ...], dict[str, Any]]


def _choose(facts: _Facts, allowed: tuple[str, ...], rules: Any) -> _Choice:
    """The rules, one after the other; the first that applies decides."""
    reasons: list[str] = []
    settings: dict[str, Any] = {}
    search = "ensemble" if facts.noise > _NOISY and "ensemble" in allowed else "multitask"
    can_search, can_draw = search in allowed, {"mixture", "flow"} & set(allowed)
    if can_search and (not can_draw or (facts.wishes and not rules)):
        return _search(facts, search, reasons)
    if can_search and facts.missing > _SPARSE and not rules:
        reasons.append(
            f"{facts.missing:.0%} of the wanted labels are missing: heads that share an encoder "
            "learn scarce properties from plentiful ones (suzuki_coupling, R2 .68 against .54 of "
            "a mixture)"
        )
        return search, reasons, ("mixture", "flow"), {}
    if facts.wishes:
        reasons.append(
            f"{_words(facts.wishes)} {_is(facts.wishes)} a wish, which a search would serve "
            "better, but only draws keep constraints or were allowed"
        )
    engine = _density(facts, allowed, rules, reasons)
    if engine == "flow" and facts.held:
        settings["model.given_x"] = _GIVEN_X
        reasons.append(
            f"{_words(facts.held)} {_is(facts.held)} held: the flow is trained for it "
            f"(model.given_x={_GIVEN_X})"
        )
    if engine == "mixture" and facts.columns > _NARROW:
        settings["model.covariance"] = "auto"
    other = "flow" if engine == "mixture" else "mixture"
    return engine, reasons, (other, "multitask"), settings


def _search(facts: _Facts, engine: str, reasons: list[str]) -> _Choice:
    if facts.wishes:
        reasons.append(
            f"{_words(facts.wishes)} {_is(facts.wishes)} to be as high or low as possible: a "
            "search goes beyond the best rows, draws stay near them (inactive_constraint, median "
            "loss 2e-7 against 3e-3)"
        )
    if engine == "ensemble":
        reasons.append(
            f"{facts.noise:.0%} of a property's variance is not explained by x: an ensemble says "
            "how sure each claim is"
        )
    return engine, reasons, ("flow", "mixture"), {}


def _density(facts: _Facts, allowed: tuple[str, ...], rules: Any, reasons: list[str]) -> str:
    """Mixture or flow."""
    if "flow" not in allowed or "mixture" not in allowed:
        engine = "mixture" if "mixture" in allowed else "flow"
        reasons.append(f"of the engines that draw designs only model={engine} is allowed")
        return engine
    if rules and all(rule.equality and rule.linear for rule in rules):
        reasons.append("the constraints are linear equalities, which a mixture keeps exactly")
        return "mixture"
    if rules and any(rule.equality for rule in rules):
        reasons.append(
            "few draws come near a curved equality by chance: a flow's noise is moved towards it"
        )
        return "flow"
    if facts.inputs == 1:
        reasons.append(
            "there is one design column: a mixture gives the answers their shares more exactly "
            "than a flow (peng_robinson: more designs within the tolerance, in a tenth of the time)"
        )
        return "mixture"
    if facts.columns > _NARROW:
        if facts.rows < _FEW_ROWS:
            reasons.append(
                f"{facts.rows} rows are few for the {facts.columns} columns: a mixture with few "
                "parameters a component learns what they tell"
            )
            return "mixture"
        reasons.append(f"{facts.columns} columns are many for the covariances of a mixture")
        return "flow"
    if not math.isnan(facts.reach) and facts.reach < _HALF:
        few = "fewer than 1 %" if facts.reach < _FEW else f"only about {100 * facts.reach:.0f} %"
        reasons.append(
            f"{few} of a mixture's designs would come within the "
            "tolerances: a flow is sharper by default settings, or a mixture of hundreds of thin "
            "components where the rows have no noise (experiment=plug_flow_mixture)"
        )
        return "flow"
    within = ""
    if not math.isnan(facts.reach):
        within = f", and {facts.reach:.0%} of its designs should come within the tolerances"
    reasons.append(
        f"a mixture learns {facts.rows} rows of {facts.columns} columns in seconds{within}"
    )
    return "mixture"


def _words(names: Sequence[str]) -> str:
    return ", ".join(names)


def _is(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"
