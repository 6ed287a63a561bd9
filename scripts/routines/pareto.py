"""Fronts on a budget: `active` simulates what `pareto` proposes, beside NSGA-II of pymoo."""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genopt.data.table import Table
from genopt.goal import Goal
from genopt.models.multitask import MultiTaskEnsemble
from genopt.models.options import FitOptions
from genopt.models.polish import Polish
from genopt.problems.pymoo_problem import PymooProblem
from genopt.routines.active import active
from genopt.routines.hypervolume import score_front, true_front
from genopt.routines.pareto import pareto

# problem, its options, encoder, first rows, rows of a round, rounds: as few calls as it needs
CASES = (
    ("bnh", {}, "mlp", 100, 100, 2),
    ("osy", {}, "mlp", 500, 250, 8),
    ("zdt1", {"n_var": 30}, "mlp", 300, 100, 4),
    ("zdt2", {"n_var": 30}, "mlp", 300, 100, 8),
    ("zdt3", {"n_var": 30}, "periodic", 800, 200, 8),
)
EPOCHS, POLISH = 60, 100
ENOUGH = 0.99


def rounds(
    problem: Any, goal: Goal, truth: Any, encoder: str, first: int, batch: int, most: int, seed: int
) -> tuple[int, float]:
    """Calls and share of the true front's hypervolume, when it is reached or the rounds end."""

    def train(rows: Table) -> MultiTaskEnsemble:
        model = MultiTaskEnsemble(
            problem.x_space.dim, x_space=problem.x_space, y_space=problem.y_space, seed=seed,
            epochs=EPOCHS, encoder=encoder,
        )  # fmt: skip
        options = FitOptions(seed=seed, callbacks=[Polish(steps=POLISH)])
        model.fit_table(rows.with_split(0.1, 0.0, seed), options)
        return model

    x = problem.design(first, seed)
    table = Table(x, problem.simulate(x), problem.x_space, problem.y_space)
    model, share, calls = train(table), 0.0, first
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, most + 1):
            # the same run goes on with a larger budget
            found = active(
                model,
                goal,
                problem=problem,
                table=table,
                train=train,
                folder=Path(folder) / "run",
                batch=batch,
                budget=batch * number,
                acquisition="proposed",
                proposals=partial(pareto, n=batch),
                seed=seed,
            )
            calls = first + int(found.header["numbers"]["calls"])
            share = score_front(goal, found.y_verified[0], truth=truth).share or 0.0
            if share >= ENOUGH:
                break
    return calls, share


def nsga2(problem: Any, goal: Goal, truth: Any, calls: int, seed: int) -> float:
    """The share that all designs of one run of NSGA-II reach with the same number of calls."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.optimize import minimize

    seen: list[np.ndarray] = []
    problem.of.callback = lambda x, _: seen.append(np.array(x))
    minimize(problem.of, NSGA2(pop_size=100), ("n_eval", calls), seed=seed, verbose=False)
    problem.of.callback = None
    x = torch.from_numpy(np.concatenate(seen)[:calls])
    return score_front(goal, problem.simulate(x), truth=truth).share or 0.0


def section(seeds: int = 5, cases: Any = CASES, say: Callable[[str], None] = lambda _: None) -> str:
    """One line a problem, medians over the seeds."""
    lines = [
        "| problem | variables | encoder | first rows | calls | our share | worst seed | CPU s | "
        "NSGA-II, as many calls | NSGA-II, 2,500 calls |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, options, encoder, first, batch, most in cases:
        problem = PymooProblem(name, options)
        goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
        truth = true_front(problem, goal, 2000)
        ours, same, full, seconds = [], [], [], []
        for seed in range(seeds):
            started = time.process_time()
            ours.append(rounds(problem, goal, truth, encoder, first, batch, most, seed))
            seconds.append(time.process_time() - started)
            same.append(nsga2(problem, goal, truth, ours[-1][0], seed))
            full.append(nsga2(problem, goal, truth, 2500, seed))
            say(f"{name} {seed} {ours[-1]} {seconds[-1]:.0f} s {same[-1]:.4f} {full[-1]:.4f}")
        calls, shares = zip(*ours, strict=True)
        lines.append(
            f"| {name} | {problem.x_space.dim} | {encoder} | {first} | "
            f"{statistics.median(calls):.0f} | {statistics.median(shares):.4f} | "
            f"{min(shares):.4f} | {statistics.median(seconds):.0f} | "
            f"{statistics.median(same):.4f} | {statistics.median(full):.4f} |"
        )
    return "\n".join(
        [
            "## Fronts of trade-offs",
            "",
            "Share of the true front's hypervolume (reference point a tenth of the front's range "
            "behind it) of all designs that were simulated, by `active` with "
            "`acquisition=proposed` and `pareto` as `proposals`, in rounds that end at "
            f"{ENOUGH:.0%}; medians over {seeds} seeds. The model is an ensemble of "
            f"four networks ({EPOCHS} epochs, {POLISH} steps of polish), fitted anew each round.",
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=[case[0] for case in CASES])
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = [case for case in CASES if given.only is None or case[0] in given.only]
    print(section(given.seeds, chosen, lambda line: print(line, flush=True)))
