"""`hybrid`: designs drawn by a flow or a mixture, finished by a gradient search on a surrogate.

The draws know how often each kind of design reaches the goal, but miss it by a little; the
surrogate meets it exactly, but its restarts end where they like. So each draw is moved to where the
surrogate meets the goal, and no farther than it has to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.correction import Correction
from genopt.models.flow.conditional import ConditionalFlow
from genopt.protocols import ConditionalModel
from genopt.routines.diverse import choose
from genopt.routines.nearby import improve
from genopt.routines.own_surrogate import check_surrogate, fitted_surrogate
from genopt.routines.propose import propose
from genopt.routines.search import SearchOptions
from genopt.routines.surrogate import Surrogate, is_surrogate


def hybrid(
    model: ConditionalModel,
    goal: Goal,
    *,
    table: Table | None = None,
    surrogate: Surrogate | Mapping[str, Any] | None = None,
    polish: int = 0,
    samples: int = 1000,
    radius: float = 0.1,
    steps: int = 40,
    optimizer: str = "lbfgs",
    lr: float = 0.05,
    diverse: float | None = 0.05,
    keep: int | None = None,
    folder: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Candidates:
    """Designs drawn from p(x given y), moved to where a surrogate of y meets the goal.

    The surrogate ranks them too, by the loss expected with its own spread; of a model without one
    its claims are first corrected by what it got wrong at the rows near them, as far as rows that
    are left out say that this helps (`genopt.models.correction`). The best design comes first, then
    the best one that differs from it, and so on; what is too like a better one follows at the end.
    The simulator is never asked.

    Args:
        model: the fitted flow or mixture.
        goal: what is wanted, B goals.
        table: measured rows; the surrogate is trained on them, wishes (``min``, ``max``) start from
            the best of them.
        surrogate: a fitted multi-task model or ensemble; or a mapping that describes one, with
            ``_target_`` (the multi-task model where it is missing) and options, to be trained here;
            None for the multi-task model with its defaults.
        polish: steps of L-BFGS over all rows that end the training of the surrogate, for rows
            without noise.
        samples: designs drawn for each goal.
        radius: how far a design may move from where it was drawn, in widths of each column;
            integers and classes stay as they were drawn.
        steps: steps of the search, one evaluation of the surrogate each.
        optimizer: ``lbfgs``, ``adam`` or ``adam_lbfgs``.
        lr: peak step size, in widths of a column.
        diverse: how far a design must differ from every better one to come before the rest, root
            mean square over the unit box; None to order by rank alone.
        keep: how many designs are returned; None for all, which keeps the spread of the draws.
        folder: where a trained surrogate is kept and found again; None for nowhere.
        seed: seed of the draws and of the surrogate.
        progress: whether to show progress bars.

    Returns:
        Candidates (B, R), the best first, with the surrogate's claims and spreads; the number
        ``moved`` in the header is the median distance in the unit box.

    Raises:
        GenoptError: if the model draws no designs, there is nothing to train the surrogate on, or
            an option is out of range.
    """
    options = {
        "surrogate": surrogate, "polish": polish, "samples": samples, "radius": radius,
        "steps": steps, "optimizer": optimizer, "lr": lr, "diverse": diverse, "keep": keep,
    }  # fmt: skip
    check_hybrid(model, goal, options)
    judge = fitted_surrogate(surrogate, goal, table, polish, folder, seed, progress)
    drawn = propose(model, goal, samples, table=table, seed=seed)
    x = improve(judge, goal, drawn.x, radius, steps, optimizer, lr, progress)
    with torch.no_grad():
        y = judge.predict_y(x).to(torch.float64)
        spread = judge.spread_y(x).to(torch.float64) if judge.has_spread else None
    if spread is None and table is not None and len(table) > 1:
        shift, spread = Correction(judge, table)(x)
        y = y + shift
    moved = goal.x_space.encode(x) - goal.x_space.encode(drawn.x)
    found = Candidates.from_claims(
        goal,
        x,
        y,
        y_spread=spread,
        ood=drawn.ood,
        header={
            **{k: v for k, v in drawn.header.items() if k not in ("numbers", "says")},
            **({} if diverse is None else {"distance": diverse}),
            "routine": "hybrid",
            "numbers": {"moved": float(moved.square().mean(-1).sqrt().median())},
        },
    )
    return found.take(_order(found, diverse)[:, :keep])


def _order(found: Candidates, diverse: float | None) -> Tensor:
    """Positions (B, R): distinct designs from best to worst, then those too like a better one."""
    ranked = found.order("claimed")
    if diverse is None:
        return ranked
    goals, count = found.shape
    rank = torch.empty(goals, count, dtype=torch.float64)
    rank.scatter_(1, ranked, torch.arange(count, dtype=torch.float64).expand(goals, -1))
    picks = choose(found.x_space.encode(found.x), rank, count, diverse)
    place = torch.where(picks < 0, torch.nan, torch.arange(count, dtype=torch.float64))
    first = torch.full_like(rank, torch.inf)
    for b in range(goals):
        chosen = picks[b] >= 0
        first[b, picks[b][chosen]] = place[b][chosen]
    # those that no pick names keep their rank behind all picks
    return torch.where(torch.isinf(first), count + rank, first).argsort(1)


def check_hybrid(model: Any, goal: Goal, options: Mapping[str, Any]) -> None:
    """Refuse what cannot work before anything is trained or drawn.

    Args:
        model: the model that draws.
        goal: what is wanted.
        options: the routine's options.

    Raises:
        GenoptError: if the model draws no designs or an option is out of range.
    """
    if is_surrogate(model) or not isinstance(model, ConditionalModel):
        raise GenoptError(
            f"routine=hybrid draws designs by model=flow or model=mixture, {type(model).__name__} "
            "draws none: choose one of those (the surrogate is trained beside it), or "
            "routine=optimize_latent"
        )
    if isinstance(model, ConditionalFlow):
        model.check_request(goal.fixed, 1.0, goal.batch_size)
    for name in ("samples", "keep"):
        count = options.get(name)
        if count is not None and count < 1:
            raise GenoptError(f"routine.{name} must be at least 1, got {count}")
    if options.get("polish", 0) < 0:
        raise GenoptError(f"routine.polish must not be negative, got {options['polish']}")
    radius, diverse = options.get("radius", 0.1), options.get("diverse")
    if not 0.0 < radius <= 1.0:
        raise GenoptError(f"routine.radius must be a distance in (0, 1], got {radius:g}")
    if diverse is not None and not 0.0 < diverse <= 1.0:
        raise GenoptError(f"routine.diverse must be a distance in (0, 1], or null, got {diverse:g}")
    SearchOptions(**{k: options[k] for k in ("steps", "lr", "optimizer") if k in options})
    check_surrogate(options.get("surrogate"), goal)
