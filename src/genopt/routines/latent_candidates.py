"""`optimize_latent` as a routine: a Goal and a model in, Candidates out.

Half of the starts are the best measured rows, the other half fill the x Space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.sampling import sample_space
from genopt.data.table import Table
from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.models.mixture.torch_density import design_density
from genopt.routines.diverse import select
from genopt.routines.request import Request
from genopt.routines.search import SearchOptions
from genopt.routines.surrogate import Surrogate
from genopt.routines.targets import ranked_rows

DENSITIES = ("reconstruction", "mixture")
_POINTS = 200_000
_DUST = 1e-12


def optimize_latent_candidates(
    model: Surrogate,
    goal: Goal,
    *,
    table: Table | None = None,
    starts: int = 64,
    restarts: int = 20,
    steps: int = 200,
    lr: float = 0.05,
    optimizer: str = "adam_lbfgs",
    perturbation_std: float = 0.1,
    space: Literal["input", "latent"] = "input",
    ae_task_name: str | None = None,
    density_penalty: float = 0.0,
    density: str | Callable[[Tensor], Tensor] = "reconstruction",
    spread_penalty: float = 0.0,
    spread: Callable[[Tensor], Tensor] | None = None,
    diverse: float | None = 0.05,
    trajectory: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Candidates:
    """Designs that reach a goal by gradient search on the model, all starts and restarts at once.

    With ``diverse`` the best design of all restarts is followed by the best one that differs from
    it, and so on. Where fewer than sixteen ends of searches differ and the goal names no exact
    value, points of their ways join them, so that a single optimum comes with the best designs
    around it. The best restarts of single starts fill up the number.

    Args:
        model: the fitted model, or ensemble.
        goal: what is wanted, B goals; its x Space bounds the search and its fixed columns are held.
        table: measured rows; the best of them are starts.
        starts: starts of each goal.
        restarts: restarts of each start.
        steps: steps of the search.
        lr: peak step size, in widths of a column.
        optimizer: ``adam``, ``lbfgs`` or ``adam_lbfgs``.
        perturbation_std: spread of the restarts, in widths of a column.
        space: ``input`` or ``latent``.
        ae_task_name: the reconstruction head of a latent search or of the density penalty.
        density_penalty: weight of a penalty away from the data.
        density: ``reconstruction``, the error of the reconstruction head; ``mixture``, minus the
            log density of the table's designs under a Gaussian mixture; or an own log density of
            designs, (M, P) -> (M,).
        spread_penalty: weight of a penalty on the model's disagreement.
        spread: disagreement on designs, (M, P) -> (M,); None for the variance over an ensemble's
            members, or under dropout.
        diverse: how far designs are to differ, root mean square over the columns of the unit box;
            None for the best restart of each start.
        trajectory: whether to keep each search's way, its start first.
        seed: seed of the starts and perturbations.
        progress: whether to show a progress bar.

    Returns:
        Candidates (B, R), R the number of starts; with the log density where a mixture gives it.

    Raises:
        GenoptError: if the goal is of other columns than the model, a number is not positive, or
            there is nothing to start from.
    """
    model.check_spaces(goal.x_space, goal.y_space)
    if starts < 1:
        raise GenoptError(f"starts must be positive, got {starts}")
    if restarts < 1:
        raise GenoptError(f"num_restarts must be at least 1, got {restarts}")
    if diverse is not None and not 0.0 < diverse <= 1.0:
        raise GenoptError(f"diverse must be a distance in (0, 1], or null, got {diverse}")
    log_density = _density(density, density_penalty, goal, table, seed)
    x_start = start_designs(goal, table, starts, seed)
    stride = 0
    if diverse is not None and all(term.kind != "equals" for term in goal.terms):
        records = max(1, _POINTS // (goal.batch_size * starts * restarts))
        stride = max(1, -(-steps // records), steps // 50)
    options = SearchOptions(
        steps, lr, record=1 if trajectory else stride, optimizer=optimizer, progress=progress
    )
    request = Request(
        initial_input=x_start.reshape(-1, goal.x_space.dim),
        goal=goal,
        num_restarts=restarts,
        perturbation_std=perturbation_std if restarts > 1 else 0.0,
        ae_task_name=ae_task_name,
        space=space,
        bounds=goal.x_space,
        density_penalty=density_penalty,
        density=log_density,
        spread_penalty=spread_penalty,
        spread=spread,
        generator=torch.Generator().manual_seed(seed),
    )
    found = request.search(model, options).found
    chosen = select(model, goal, found, starts, diverse, stride)
    x = _tidy(goal.x_space.project(chosen.designs()), goal)
    with torch.no_grad():
        y = model.predict_y(x)
        extra: dict[str, Any] = {"y_spread": model.spread_y(x)} if model.has_spread else {}
        if density == "mixture" and log_density is not None:
            extra["log_density"] = log_density(x)
    header: dict[str, Any] = {} if diverse is None else {"distance": diverse}
    if trajectory:
        extra["trajectory"] = chosen.ways(x_start)
        header["trajectory"] = "search"
    return Candidates.from_claims(goal, x, y, header=header, **extra)


def _density(
    density: str | Callable[[Tensor], Tensor],
    weight: float,
    goal: Goal,
    table: Table | None,
    seed: int,
) -> Any:
    """The log density of a penalty; None for the reconstruction error."""
    if not isinstance(density, str):
        return density
    if density not in DENSITIES:
        raise UnknownNameError("density", density, DENSITIES)
    if density == "reconstruction" or not weight:
        return None
    if table is None:
        raise GenoptError("density=mixture is learned from measured designs: give table=")
    return design_density(table.x, goal.x_space, seed=seed)


def _tidy(x: Tensor, goal: Goal) -> Tensor:
    """Designs whose fractions are zero where only rounding keeps them from it."""
    for group in goal.x_space.simplex_indices:
        index = list(group)
        x[..., index] = torch.where(x[..., index].abs() < _DUST, 0.0, x[..., index])
    return x


def start_designs(goal: Goal, table: Table | None, n: int, seed: int) -> Tensor:
    """Starts for each goal: the best measured rows, then points that fill the Space.

    Args:
        goal: what is wanted, B goals; fixed columns are held.
        table: measured rows, or None.
        n: starts of each goal.
        seed: seed of the draw.

    Returns:
        Valid designs (B, n, P), float64.

    Raises:
        GenoptError: if a column has no bounds and there is no table.
    """
    goals, dim = goal.batch_size, goal.x_space.dim
    best = torch.empty(goals, 0, dim, dtype=torch.float64)
    if table is not None:
        named = [term.index for term in goal.terms]
        known = table.rows(~torch.isnan(table.y[:, named]).any(1))
        best = known.x[ranked_rows(goal, known.y)[:, : n // 2 if n > 1 else 1]]
    missing = n - best.shape[1]
    if goal.x_space.bounded:
        fill = sample_space(goal.x_space, missing, seed=seed)
    elif table is not None:
        generator = torch.Generator().manual_seed(seed)
        fill = table.x[torch.randint(len(table), (missing,), generator=generator)]
    else:
        free = ", ".join(v.name for v in goal.x_space if not v.bounded)
        raise GenoptError(f"columns {free} have no bounds to start from: give bounds or table=")
    return goal.hold(torch.cat([best, fill.expand(goals, missing, dim)], 1))
