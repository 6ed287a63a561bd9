"""`optimize_latent` as a routine: a Goal and a model in, Candidates out.

Half of the starts are the best measured rows, the other half fill the x Space; each start keeps its
best restart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.sampling import sample_space
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.routines.optimize_latent import optimize_latent
from genopt.routines.targets import ranked_rows


def optimize_latent_candidates(
    model: FlexibleMultiTaskModel,
    goal: Goal,
    *,
    table: Table | None = None,
    starts: int = 64,
    restarts: int = 20,
    steps: int = 300,
    lr: float = 0.05,
    perturbation_std: float = 0.1,
    space: Literal["input", "latent"] = "input",
    ae_task_name: str | None = None,
    density_penalty: float = 0.0,
    density: Callable[[Tensor], Tensor] | None = None,
    spread_penalty: float = 0.0,
    spread: Callable[[Tensor], Tensor] | None = None,
    trajectory: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Candidates:
    """Designs that reach a goal by gradient search on the model, all starts and restarts at once.

    Args:
        model: the fitted model.
        goal: what is wanted, B goals; its x Space bounds the search and its fixed columns are held.
        table: measured rows; the best of them are starts.
        starts: starts of each goal.
        restarts: restarts of each start.
        steps: steps of the search.
        lr: peak step size, in widths of a column.
        perturbation_std: spread of the restarts, in widths of a column.
        space: ``input`` or ``latent``.
        ae_task_name: the reconstruction head of a latent search or of the density penalty.
        density_penalty: weight of a penalty away from the data.
        density: log density of designs, (M, P) -> (M,); None for the reconstruction error.
        spread_penalty: weight of a penalty on the model's disagreement.
        spread: disagreement on designs, (M, P) -> (M,); None for the variance under dropout.
        trajectory: whether to keep each search's way, its start first.
        seed: seed of the starts and perturbations.
        progress: whether to show a progress bar.

    Returns:
        Candidates (B, R): the best restart of each of the R starts.

    Raises:
        GenoptError: if the goal is of other columns than the model, a number is not positive, or
            there is nothing to start from.
    """
    model.check_spaces(goal.x_space, goal.y_space)
    if starts < 1:
        raise GenoptError(f"starts must be positive, got {starts}")
    x_start = start_designs(goal, table, starts, seed)
    result = optimize_latent(
        model,
        initial_input=x_start.reshape(-1, goal.x_space.dim),
        goal=goal,
        steps=steps,
        lr=lr,
        num_restarts=restarts,
        perturbation_std=perturbation_std if restarts > 1 else 0.0,
        ae_task_name=ae_task_name,
        space=space,
        bounds=goal.x_space,
        density_penalty=density_penalty,
        density=density,
        spread_penalty=spread_penalty,
        spread=spread,
        return_trajectory=trajectory,
        generator=torch.Generator().manual_seed(seed),
        progress=progress,
    )
    leading = (goal.batch_size, starts)
    x = goal.x_space.project(result["best_input"].reshape(*leading, -1))
    path = None
    if trajectory:
        rows = torch.arange(len(result["best_index"]))
        walked = result["input_trajectory"][rows, result["best_index"]]
        path = torch.cat([x_start, walked.reshape(*leading, -1)], -1).reshape(
            *leading, steps + 1, goal.x_space.dim
        )
    with torch.no_grad():
        y = model.predict_y(x)
    header = {"trajectory": "search"} if trajectory else {}
    return Candidates.from_claims(goal, x, y, trajectory=path, header=header)


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
