"""Proposals: designs from whichever engine is at hand, by the routine that belongs to it.

Other routines start from them: `hybrid`, `refine`, `stationary`, `active`.
"""

from __future__ import annotations

import inspect
from typing import Any

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.mixture.engine import Mixture
from genopt.protocols import ConditionalModel, ForwardModel
from genopt.routines.latent_candidates import optimize_latent_candidates
from genopt.routines.sample import condition, generate
from genopt.routines.surrogate import is_surrogate


def propose(
    model: Any,
    goal: Goal,
    n: int,
    *,
    table: Table | None = None,
    judge: ForwardModel | None = None,
    seed: int = 0,
    **options: Any,
) -> Candidates:
    """Designs for a goal by the routine of the model's kind, with that routine's defaults.

    Args:
        model: a fitted mixture (`condition`), flow or other ConditionalModel (`generate`), or
            multi-task model (`optimize_latent`).
        goal: what is wanted, B goals.
        n: designs for each goal; a search may return fewer distinct ones, sampling may round up.
        table: measured rows, for wishes (``min``, ``max``) and for the starts of a search.
        judge: predicts y for the designs of a model that cannot.
        seed: seed of the draw or of the search.
        **options: further options of that routine.

    Returns:
        Candidates (B, R).

    Raises:
        GenoptError: if the model is of no known kind, or n is not positive.
    """
    if n < 1:
        raise GenoptError(f"the number of proposals must be at least 1, got {n}")
    routine: Any
    if isinstance(model, Mixture):
        routine, count = condition, {"samples": n}
    elif isinstance(model, ConditionalModel):
        routine, count = generate, {"samples": n}
    elif is_surrogate(model):
        routine, count = optimize_latent_candidates, {"starts": n}
    else:
        raise GenoptError(
            f"{type(model).__name__} proposes no designs: use a mixture, a flow or a multi-task "
            "model"
        )
    known = inspect.signature(routine).parameters
    offered = {"table": table, "judge": judge, "seed": seed, "progress": False}
    arguments = {key: value for key, value in offered.items() if key in known}
    return routine(model, goal, **{**arguments, **count, **options})
