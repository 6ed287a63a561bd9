"""Section: all stationary points, with and without constraints, beside the sampler alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt import Goal, Mixture
from genopt.candidates import Candidates
from genopt.problems import Problem, Rastrigin
from genopt.problems.gasoline_blend import GasolineBlend
from genopt.problems.inactive_constraint import InactiveConstraint
from genopt.problems.plane_projection import PlaneProjection
from genopt.problems.reaction_equilibrium import ReactionEquilibrium
from genopt.routines.sample import condition
from genopt.routines.stationary import stationary

NEAR = 0.05
# rows to learn from, starts of a round
SIZES = {1: (512, 256), 2: (1024, 1024), 3: (4096, 4096)}


def section(seeds: int = 5) -> str:
    """Markdown tables of recall, precision and errors, medians over seeds."""
    lines = [
        "## Stationary points",
        "",
        "*Rastrigin* in d dimensions has 9^d of them. The model learns designs and slopes from a "
        "Sobol table; its draws for the slope zero (and one start in four spread over the box) are "
        "finished by Newton steps on the simulator. Recall and precision at a distance of .05; "
        "*calls* are simulated designs beside the table, derivatives included. *spread points* "
        "start without any model, so its share of the work can be seen.",
        "",
        "| d | way | table | recall | precision | wrong kinds | calls | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dimension in SIZES:
        for name, way in WAYS.items():
            runs = [way(Rastrigin(dimension), seed) for seed in range(seeds)]
            middle = np.median(np.array(runs), 0)
            recall, precision, wrong, calls, spent = middle
            rows = "-" if name == "spread points" else SIZES[dimension][0]
            kinds = "-" if np.isnan(wrong) else f"{wrong:.0f}"
            lines.append(
                f"| {dimension} | {name} | {rows} | {recall:.3f} | {precision:.3f} | {kinds} | "
                f"{calls:.0f} | {spent:.1f} |"
            )
    lines += [
        "",
        "*Constraints*: the largest error of the design over all seeds. Equalities have Lagrange "
        "multipliers, inequalities a log barrier that is driven to zero.",
        "",
        "| problem | asked | error | largest of the seeds | calls | CPU s | said |",
        "|---|---|---|---|---|---|---|",
    ]
    for problem, options, check in CASES:
        errors, calls, spent, said = [], [], [], ""
        for seed in range(seeds):
            start = time.process_time()
            found = solved(problem, seed, **options)
            spent.append(time.process_time() - start)
            errors.append(check(found))
            calls.append(found.header["numbers"]["calls"])
            said = f"{len(found)} {found.header['kinds'][0]}"
        goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
        lines.append(
            f"| {problem.name} | {goal} | {np.median(errors):.1e} | {max(errors):.1e} | "
            f"{np.median(calls):.0f} | {np.median(spent):.1f} | {said} |"
        )
    return "\n".join(lines)


def solved(problem: Problem, seed: int, **options: Any) -> Candidates:
    """`stationary` with its defaults; the model is learned inside."""
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    model = Mixture(problem.x_space, problem.y_space, seed=seed)
    if all(term.kind == "equals" for term in goal.terms):
        table = problem.table(1024, seed=seed)
        model.fit(table.x, table.y)
    return stationary(model, goal, problem=problem, samples=256, seed=seed, **options)


def scores(x: Tensor, kinds: list[str] | None, problem: Rastrigin) -> tuple[float, float, float]:
    """Recall and precision at ``NEAR``, and how many points are called what they are not."""
    truth = torch.stack([answer.x for answer in problem.answers])
    gaps = (x[:, None] - truth).norm(dim=-1)
    wrong = np.nan
    if kinds is not None:
        # second derivatives 2 + 40 pi^2 cos 2 pi x on each axis
        up = (torch.cos(2.0 * torch.pi * x) > -0.01).sum(1).tolist()
        names = {x.shape[1]: "minimum", 0: "maximum"}
        wrong = sum(names.get(n, "saddle") != k for n, k in zip(up, kinds, strict=True))
    near = gaps <= NEAR
    return float(near.any(0).double().mean()), float(near.any(1).double().mean()), float(wrong)


Run = tuple[float, float, float, float, float]


def drawn(problem: Rastrigin, seed: int) -> Run:
    """The sampler alone."""
    rows, n = SIZES[problem.x_space.dim]
    start = time.process_time()
    model, goal = learned(problem, rows, seed)
    found = condition(model, goal, samples=n, seed=seed)
    return *scores(found.x[0], None, problem), 0.0, time.process_time() - start


def finished(problem: Rastrigin, seed: int) -> Run:
    """The routine."""
    rows, n = SIZES[problem.x_space.dim]
    start = time.process_time()
    model, goal = learned(problem, rows, seed)
    return _run(stationary(model, goal, problem=problem, samples=n, seed=seed), problem, start)


def spread(problem: Rastrigin, seed: int) -> Run:
    """The routine from points that no model chose."""
    n = SIZES[problem.x_space.dim][1]
    start = time.process_time()
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    found = stationary(None, goal, problem=problem, samples=n, seed=seed, engine="none")
    return _run(found, problem, start)


def learned(problem: Rastrigin, rows: int, seed: int) -> tuple[Mixture, Goal]:
    table = problem.table(rows, seed=seed)
    model = Mixture(problem.x_space, problem.y_space, seed=seed)
    return model.fit(table.x, table.y), Goal(problem.default_goal, problem.x_space, problem.y_space)


def _run(found: Candidates, problem: Rastrigin, start: float) -> Run:
    spent = time.process_time() - start
    kinds = found.header["kinds"]
    return *scores(found.x[0], kinds, problem), found.header["numbers"]["calls"], spent


def nearest_answer(problem: Problem) -> Callable[[Candidates], float]:
    """Largest distance of a found design from the answer."""
    truth = torch.stack([answer.x for answer in problem.answers])

    def error(found: Candidates) -> float:
        if not len(found):
            return float("inf")
        return float((found.x[0][:, None] - truth).abs().amax(-1).amin(1).max())

    return error


WAYS: dict[str, Callable[[Rastrigin, int], Run]] = {
    "sampler alone": drawn,
    "stationary": finished,
    "spread points": spread,
}
CASES: list[tuple[Problem, dict[str, Any], Callable[[Candidates], float]]] = [
    (problem, options, nearest_answer(problem))
    for problem, options in (
        (PlaneProjection(), {}),
        (InactiveConstraint(), {}),
        (GasolineBlend(), {"multipliers": ["l1", "l2"]}),
        (ReactionEquilibrium(), {}),
        (ReactionEquilibrium(objective=True), {"bounds": True}),
    )
]
