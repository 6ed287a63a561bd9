"""The options of `active`, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.protocols import ForwardModel
from genopt.routines.acquisition import ACQUISITIONS, PROPOSED
from genopt.terms import DIRECTIONS

_SURROGATES = ("auto", "model", "gp")
_MANY = 10
_RARELY = 5


@dataclass(frozen=True)
class ActiveSettings:
    """What `active` was asked to do, with every ``auto`` decided.

    Args:
        batch: designs of each round.
        acquisition: what designs are chosen by.
        optimism: standard deviations that ``confidence`` counts on.
        surrogate: ``model`` or ``gp``.
        retrain: every how many rounds the model is trained again.
        trust_region: whether designs stay near the best row.
        explore: share of what is proposed that tries what the model is least sure of.
        keep: how many of the best rows are returned.
    """

    batch: int
    acquisition: str
    optimism: float
    surrogate: str
    retrain: int
    trust_region: bool
    explore: float
    keep: int

    @classmethod
    def read(
        cls,
        model: Any,
        goal: Goal,
        batch: int = 10,
        budget: int = 200,
        acquisition: str = "auto",
        optimism: float = 1.5,
        surrogate: str = "auto",
        retrain: int | None = None,
        trust_region: bool | str = "auto",
        explore: float = 0.1,
        keep: int = 20,
    ) -> ActiveSettings:
        """Check the options and decide what was left open.

        Args:
            model: the model, fitted or not.
            goal: what is wanted.
            batch: as for `active`, like all others.
            budget: simulations in all.
            acquisition: name of the acquisition.
            optimism: standard deviations.
            surrogate: who says what a design is worth.
            retrain: rounds between trainings.
            trust_region: true, false or ``auto``.
            explore: share of a batch.
            keep: rows to return.

        Returns:
            The settings.

        Raises:
            GenoptError: if one of them cannot be used with the model or the goal.
            UnknownNameError: if a name is unknown.
        """
        counts = {"batch": batch, "budget": budget, "keep": keep, "retrain": retrain}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise GenoptError(f"routine.{name} must be at least 1, got {count}")
        if batch < goal.batch_size:
            raise GenoptError(
                f"routine.batch={batch} is shared among {goal.batch_size} goals: it must be at "
                "least as large"
            )
        if not 0.0 <= explore < 1.0:
            raise GenoptError(f"routine.explore is a share of a batch, 0 to 1, got {explore}")
        if optimism < 0:
            raise GenoptError(f"routine.optimism must not be negative, got {optimism}")
        known = (*ACQUISITIONS, PROPOSED)
        if acquisition not in known:
            raise UnknownNameError("routine.acquisition", str(acquisition), known)
        if surrogate not in _SURROGATES:
            raise UnknownNameError("routine.surrogate", str(surrogate), _SURROGATES)
        if trust_region not in (True, False, "auto"):
            raise GenoptError(f"routine.trust_region must be true, false or auto: {trust_region!r}")
        if not goal.x_space.bounded:
            raise GenoptError("active searches between bounds: give every design column two")
        surrogate = _surrogate(model, goal, surrogate)
        wishes = sum(term.kind in DIRECTIONS for term in goal.terms)
        single = goal.batch_size == 1 and wishes < 2
        if trust_region == "auto":
            trust_region = single and surrogate == "model" and goal.x_space.dim >= _MANY
        elif trust_region and not single:
            raise GenoptError(
                "routine.trust_region=true needs one goal with one wish at most: it is a box "
                "around the best row"
            )
        own = 1 if surrogate == "model" else _RARELY
        return cls(
            batch,
            "confidence" if acquisition == "auto" else acquisition,
            optimism,
            surrogate,
            own if retrain is None else retrain,
            bool(trust_region),
            explore,
            keep,
        )

    @property
    def mark(self) -> dict[str, Any]:
        """What distinguishes one run from another."""
        return dict(vars(self))


def _surrogate(model: Any, goal: Goal, surrogate: str) -> str:
    classes = [term.column for term in goal.terms if goal.y_space.variables[term.index].labels]
    if surrogate == "auto":
        sure = bool(getattr(model, "has_spread", False))
        surrogate = "model" if sure or classes else "gp"
    if surrogate == "gp" and classes:
        raise GenoptError(
            f"routine.surrogate=gp models numbers, but {classes[0]} is a class: use surrogate=model"
        )
    if surrogate == "model" and not isinstance(model, ForwardModel):
        raise GenoptError(
            f"routine.surrogate=model needs a model that predicts y, not {type(model).__name__}: "
            "use surrogate=gp, which models numbers"
        )
    return surrogate
