"""Section: a region mapped back to designs, and cheap models corrected to costly ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from genopt import Goal, Mixture, Space, compose
from genopt.app.parts import make
from genopt.data.sampling import generate_samples
from genopt.problems.cstr_mapping import CstrMapping
from genopt.problems.plug_flow import PlugFlow
from genopt.routines.space_map import space_map
from genopt.routines.space_mapping import corrected_model, space_mapping

DISK = ["(C_A - 0.58)**2 + (C_B - 0.30)**2 <= 0.0064"]
BOX = {"C_A": {"between": [0.5, 0.66]}, "C_B": {"between": [0.22, 0.38]}}
# a direct search has come as near as the mapping when it misses by less
EQUAL = 1e-6
STARTS = 8
METHODS = ("aggressive", "manifold")


def section(seeds: int = 5) -> str:
    """Markdown tables, medians over seeds."""
    return "\n\n".join([_regions(seeds), _pairs(seeds)])


# -- a region --------------------------------------------------------------------------------------
def _regions(seeds: int) -> str:
    problem = CstrMapping()
    goal = Goal(BOX, problem.x_space, problem.y_space)
    ways: dict[str, dict[str, Any]] = {
        "one draw a target": {"draws": 1},
        "best claim of 8 draws (default)": {},
        "refine=true": {"refine": True},
    }
    runs: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in ways}
    for seed in range(seeds):
        table = problem.table(seed=seed)
        start = time.process_time()
        model = make(compose(["experiment=cstr_region", f"seed={seed}"]).model, "model")(
            x_space=problem.x_space, y_space=problem.y_space, seed=seed
        )
        model.fit(table.x, table.y)
        fit = time.process_time() - start
        for name, options in ways.items():
            start = time.process_time()
            found = space_map(model, goal, problem=problem, region=DISK, seed=seed, **options)
            spent = fit + time.process_time() - start
            numbers = found.header["numbers"]
            row = (numbers["inside"], numbers["round_trip_median"], numbers["calls"], spent)
            runs[name].append(row)
    lines = [
        "## A region mapped back to designs",
        "",
        "`experiment=cstr_region`: 1,000 targets in the disk of radius .08 around (.58, .30), "
        "learned from 1,024 rows (the mixture's regularization was chosen on these seeds). Asked: "
        "98 % of the designs inside, median round trip .003. *calls*: designs simulated to verify "
        "or to refine.",
        "",
        "| way | designs inside | of all seeds | median round trip | calls | CPU s, fit included |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in runs.items():
        inside, trip, calls, spent = np.median(np.array(rows), 0)
        shares = sorted(row[0] for row in rows)
        lines.append(
            f"| {name} | {100 * inside:.1f} % | {100 * shares[0]:.1f} to "
            f"{100 * shares[-1]:.1f} % | {trip:.2g} | {calls:.0f} | {spent:.1f} |"
        )
    return "\n".join(lines)


# -- pairs of models -------------------------------------------------------------------------------
def rosenbrock(x: Tensor) -> Tensor:
    return torch.stack([10.0 * (x[..., 1] - x[..., 0] ** 2), 1.0 - x[..., 0]], -1)


def shifted(x: Tensor) -> Tensor:
    return rosenbrock(x + torch.tensor([-0.2, 0.2], dtype=torch.float64))


def transformed(x: Tensor) -> Tensor:
    matrix = torch.tensor([[1.1, -0.2], [0.2, 0.9]], dtype=torch.float64)
    return rosenbrock(x @ matrix.T + torch.tensor([-0.3, 0.3], dtype=torch.float64))


def curved(x: Tensor) -> Tensor:
    first = x[..., 0] + 0.1 * x[..., 0] ** 2 + 0.05 * x[..., 1] - 0.3
    return rosenbrock(torch.stack([first, x[..., 1] + 0.1 * x[..., 0] * x[..., 1] + 0.2], -1))


def _pairs(seeds: int) -> str:
    x_space = Space.of(x1=(-2.0, 2.0), x2=(-2.0, 2.0))
    y_space = Space.of(r1=(-40.0, 40.0), r2=(-3.0, 3.0))
    goal = Goal({"r1": 0.0, "r2": 0.0}, x_space, y_space)
    lines = [
        "## Cheap models corrected to costly ones",
        "",
        "Calls of the costly model until it misses the goal by less than "
        f"{EQUAL:g} of a column's width. *Direct*: scipy's `least_squares` with finite differences "
        "on the costly model, from the cheap model's optimum; *multistart*: the same from "
        f"{STARTS} random points, one after the other until one is there. The pairs are "
        "Rosenbrock's residuals as the cheap model, and the same with inputs shifted, transformed "
        "(Bakr et al., 2001: optimum 1.2718447, .4951456) or bent. In *plug_flow* the cheap model "
        "is a mixture of 64 simulated rows, and its calls stand beside those rows.",
        "",
        "| costly model | aggressive | manifold | direct | multistart | error of manifold |",
        "|---|---|---|---|---|---|",
    ]
    for name, costly in (("shifted", shifted), ("transformed", transformed), ("bent", curved)):
        calls = [
            _calls(lambda f, m=method: space_mapping(rosenbrock, f, goal, method=m), costly, goal)
            for method in METHODS
        ]
        exact = space_mapping(rosenbrock, costly, goal).x[0, 0].numpy()
        direct = _direct(costly, goal, np.ones((1, 2)))
        many = np.median([_direct(costly, goal, _random(x_space, seed)) for seed in range(seeds)])
        truth = optimize.least_squares(
            lambda x, f=costly: f(torch.tensor(x)), [1.0, 1.0], xtol=1e-15, ftol=1e-15, gtol=1e-15
        ).x
        error = np.abs(exact - truth).max()
        lines.append(
            f"| {name} | {calls[0]:.0f} | {calls[1]:.0f} | {direct} | {many:.0f} | {error:.0e} |"
        )
    lines.append(_learned(seeds))
    return "\n".join(lines)


def _learned(seeds: int) -> str:
    problem = PlugFlow()
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    rows = []
    for seed in range(seeds):
        table = problem.table(64, seed=seed)
        model = Mixture(problem.x_space, problem.y_space, seed=seed).fit(table.x, table.y)
        row = []
        for method in METHODS:
            row.append(
                _calls(
                    lambda f, m=method, cheap=model.predict_y: space_mapping(
                        cheap, f, goal, method=m
                    ),
                    problem.simulate,
                    goal,
                )
            )
        found = corrected_model(model, goal, problem=problem, seed=seed)
        best = model.predict_y(table.x)
        start = table.x[goal.loss(best).argmin()][None].numpy()
        row.append(_direct(problem.simulate, goal, start))
        row.append(_direct(problem.simulate, goal, _random(problem.x_space, seed)))
        error = float((found.x[0, 0] - problem.answers[0].x).abs().max())
        rows.append([*row, error])
    middle = np.median(np.array(rows, dtype=float), 0)
    words = [f"{value:.0f}" if np.isfinite(value) else "more than 20" for value in middle[:4]]
    return f"| plug_flow | {' | '.join(words)} | {middle[4]:.0e} |"


def _calls(
    search: Callable[[Callable[[Tensor], Tensor]], Any],
    costly: Callable[[Tensor], Tensor],
    goal: Goal,
) -> float:
    """Costly calls of a mapping until it is as near as asked; inf where it never is."""
    calls = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x)
        y = costly(x)
        if _miss(y[0], goal) < EQUAL:
            raise Reached
        return y

    try:
        search(counted)
    except Reached:
        return calls
    return float("inf")


def _miss(y: Tensor, goal: Goal) -> float:
    columns = [term.index for term in goal.terms]
    return float(((y - goal.condition()) / goal.scale)[columns].abs().max())


class Reached(Exception):
    """The search is as near as asked."""


def _direct(costly: Callable[[Tensor], Tensor], goal: Goal, starts: np.ndarray) -> int:
    """Costly calls of scipy's least squares until the goal is missed by less than EQUAL."""
    calls = 0
    columns = [term.index for term in goal.terms]
    scale = goal.scale[columns].numpy()
    wanted = goal.condition()[columns].numpy()

    def residual(x: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        y = costly(torch.tensor(x)[None])[0]
        if _miss(y, goal) < EQUAL:
            raise Reached
        return (y[columns].numpy() - wanted) / scale

    space = goal.x_space
    bounds = (space.lower.numpy(), space.upper.numpy())
    for start in starts:
        try:
            optimize.least_squares(residual, start, bounds=bounds, xtol=1e-12)
        except Reached:
            break
    return calls


def _random(space: Space, seed: int) -> np.ndarray:
    box = list(zip(space.lower.tolist(), space.upper.tolist(), strict=True))
    return generate_samples(box, STARTS, method="uniform", seed=seed)
