"""Section: optimisation from data alone, the best 40 % of the rows thrown away."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from genopt import (
    ConditionalFlow,
    FlexibleMultiTaskModel,
    Goal,
    Mixture,
    Problem,
    Table,
    optimize_latent_candidates,
)
from genopt.models.options import FitOptions
from genopt.problems.ackley import Ackley
from genopt.problems.branin import Branin
from genopt.problems.offline import Offline
from genopt.problems.rastrigin_value import RastriginValue
from genopt.problems.rosenbrock import Rosenbrock
from genopt.routines.offline import offline
from genopt.routines.propose import propose

DRAW, PROPOSALS = 2000, 128
FLOW_EPOCHS, NETWORK_EPOCHS = 100, 60
CELLS: dict[str, Callable[[], Problem]] = {
    **{f"rastrigin {d}": lambda d=d: RastriginValue(d) for d in (5, 10, 15, 20)},
    **{f"rosenbrock {d}": lambda d=d: Rosenbrock(d) for d in (5, 10, 15, 20)},
    "ackley 20": lambda: Ackley(20),
    "branin 2": lambda: Branin(2),
}


def mixture_of(problem: Offline, table: Table) -> Mixture:
    return Mixture(problem.x_space, problem.y_space, max_components=4).fit(table.x, table.y)


def by_offline(problem: Offline, table: Table, goal: Goal, seed: int) -> Tensor:
    found = offline(mixture_of(problem, table), goal, table=table, problem=problem, seed=seed)
    return found.x


def by_mixture(problem: Offline, table: Table, goal: Goal, seed: int) -> Tensor:
    return propose(mixture_of(problem, table), goal, PROPOSALS, table=table, seed=seed).x


def by_flow(problem: Offline, table: Table, goal: Goal, seed: int) -> Tensor:
    """A plain conditional flow, asked for the values of the best rows."""
    flow = ConditionalFlow(problem.x_space, problem.y_space, epochs=FLOW_EPOCHS, seed=seed)
    flow.fit_table(table.with_split(0.1, 0.0, seed), FitOptions(seed=seed))
    return propose(flow, goal, PROPOSALS, table=table, seed=seed).x


def by_ascent(problem: Offline, table: Table, goal: Goal, seed: int) -> Tensor:
    """Gradient search on a plain surrogate, from the best rows."""
    model = FlexibleMultiTaskModel(
        x_space=problem.x_space, y_space=problem.y_space, epochs=NETWORK_EPOCHS, seed=seed
    )
    model.fit_table(table.with_split(0.1, 0.0, seed), FitOptions(seed=seed))
    found = optimize_latent_candidates(
        model, goal, table=table, starts=PROPOSALS, restarts=1, steps=100, diverse=None, seed=seed
    )
    return found.x


METHODS = {
    "`offline` (mixture)": by_offline,
    "mixture alone": by_mixture,
    "plain flow": by_flow,
    "gradient search": by_ascent,
}


def section(seeds: int, cells: tuple[str, ...] = tuple(CELLS)) -> str:
    lines = [
        "| function | best row | method | best of 128 | median | ratio | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    won = 0
    for cell in cells:
        for name, method in METHODS.items():
            rows = []
            for seed in range(seeds):
                problem = Offline(CELLS[cell](), draw=DRAW, proposals=PROPOSALS)
                table = problem.table(seed=seed)
                goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
                start = time.process_time()
                x = method(problem, table, goal, seed)[0, :PROPOSALS]
                spent = time.process_time() - start
                with torch.no_grad():
                    scores = problem.scores(problem.simulate(x), table.y)
                rows.append((scores.data, scores.best, scores.median, scores.ratio, spent))
            data, best, median, ratio, spent = (
                statistics.median(column) for column in zip(*rows, strict=True)
            )
            won += name in ("`offline` (mixture)",) and ratio > 1.0
            lines.append(
                f"| {cell} | {data:.3g} | {name} | {best:.3g} | {median:.3g} | {ratio:.3g} | "
                f"{spent:.0f} |"
            )
    table_text = "\n".join(lines)
    return (
        f"## From data alone\n\n{DRAW} designs, the best 40 % thrown away, {PROPOSALS} proposals "
        f"that are simulated only afterwards; medians of {seeds} seeds. The ratio is the distance "
        "of the best row from the optimum, divided by that of the best proposal: above 1 the data "
        f"are beaten. `offline` beats them in {won} of {len(cells)} cells.\n\n{table_text}"
    )
