"""Section: draws finished on a surrogate, beside the search and the draws alone."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor

from genopt import Candidates, ConditionalFlow, FlexibleMultiTaskModel, Goal, Mixture, Problem
from genopt.analysis.resimulation import exact_draws, mmd2, resimulation_curve
from genopt.models.local_error import LocalError
from genopt.models.options import FitOptions
from genopt.models.polish import Polish
from genopt.problems.robot_arm import RobotArm
from genopt.problems.sine_wave import SineWave
from genopt.routines.hybrid import hybrid
from genopt.routines.latent_candidates import optimize_latent_candidates
from genopt.routines.propose import propose
from multitask import inverse
from multitask.inverse import ASKED, AT, ROWS, TARGETS

SAMPLES, DISTINCT = 256, 0.02
# about 1,600 steps, so that everything together stays within the sixty seconds
FLOW: dict[str, Any] = {"epochs": 100}
MIXTURE: dict[str, Any] = {"max_components": 60, "min_components": 60}
# r_T at `AT`, diversity of 50 proposals, MMD^2 of all, CPU seconds of fits and search
Row = tuple[float, ...]


def one_seed(problem: Problem, seed: int) -> dict[str, Row]:
    """By method: what is measured with one seed."""
    table = problem.table(ROWS, seed).with_split(0.2, 0.0, seed)
    train = table.part("train")
    targets = problem.table(TARGETS, seed + 7919).y
    exact = exact_draws(problem, targets[: inverse.EXACT_TARGETS], inverse.EXACT_DRAWS, seed)
    names = problem.y_space.names
    goal = Goal(dict(zip(names, targets.T.tolist(), strict=True)), problem.x_space, problem.y_space)
    spaces = {"x_space": problem.x_space, "y_space": problem.y_space, "seed": seed}

    def judged(found: Candidates, spent: float) -> Row:
        curve = resimulation_curve(found.verified_by(problem.simulate(found.x)), targets)
        errors = [curve.at(count) for count in AT]
        return *errors, float(curve.diversity[AT[-1] - 1]), discrepancy(found.x, exact), spent

    start = time.process_time()
    surrogate = FlexibleMultiTaskModel(**spaces, **inverse.MODEL)
    surrogate.fit_table(table, FitOptions(seed=seed, callbacks=[Polish(inverse.POLISH)]))
    learned = time.process_time() - start
    rows: dict[str, Row] = {}
    start = time.process_time()
    found = optimize_latent_candidates(surrogate, goal, table=train, seed=seed, **inverse.SEARCH)
    loss = goal.expected_loss(found.y_predicted, LocalError(surrogate, train)(found.x))
    spent = learned + time.process_time() - start
    rows["optimize_latent"] = judged(found.take(loss.argsort(1)), spent)
    engines = {"flow": ConditionalFlow(**spaces, **FLOW), "mixture": Mixture(**spaces, **MIXTURE)}
    for name, engine in engines.items():
        start = time.process_time()
        engine.fit_table(table, FitOptions(seed=seed))
        fitted = time.process_time() - start
        drawn = propose(engine, goal, SAMPLES, table=train, seed=seed)
        rows[f"{name} alone"] = judged(drawn, time.process_time() - start)
        start = time.process_time()
        found = hybrid(
            engine, goal, table=train, surrogate=surrogate, samples=SAMPLES, diverse=DISTINCT,
            seed=seed,
        )  # fmt: skip
        spent = learned + fitted + time.process_time() - start
        rows[f"**hybrid**, draws of the {name}"] = judged(found, spent)
    return rows


def discrepancy(x: Tensor, exact: Tensor | None) -> float:
    """MMD^2 of designs (B, R, P) and exact draws of the first targets, mean over these."""
    return float("nan") if exact is None else float(mmd2(x[: len(exact)], exact).mean())


def lines_of(problem: Problem, seeds: int) -> list[str]:
    """The table of one problem: medians over the seeds."""
    asked = " | ".join("" if v is None else f"*{v:.0e}*" for v in ASKED[problem.name])
    lines = [
        f"### {problem.name}\n",
        "| method | r_1 | r_10 | r_50 | diversity | MMD^2 | CPU s in all |",
        "|---|---|---|---|---|---|---|",
        f"| *asked* | {asked} | | *1.5 of the flow's* | *60* |",
    ]
    runs = [one_seed(problem, seed) for seed in range(seeds)]
    for method in runs[0]:
        *errors, diversity, distance, spent = (
            statistics.median(run[method][i] for run in runs) for i in range(len(AT) + 3)
        )
        cells = " | ".join(f"{error:.1e}" for error in errors)
        lines.append(f"| {method} | {cells} | {diversity:.3f} | {distance:.4f} | {spent:.0f} |")
    return [*lines, ""]


def section(seeds: int = 5) -> str:
    """The Markdown of the section."""
    torch.set_num_threads(1)
    lines = [
        "## Draws finished on a surrogate\n",
        f"`routine=hybrid` with {SAMPLES} draws for each of {TARGETS} held-out targets, {ROWS:,} "
        "pairs, a fifth of them for validation; the surrogate and `optimize_latent` alone are "
        "those of the neural-adjoint protocol ([multitask.md](multitask.md)), polished, ordered by "
        "local error. r_T: mean over targets of the smallest squared miss among the first T "
        "proposals; the simulator orders nothing. Diversity: mean distance of the first 50 in the "
        "unit box. MMD^2 (unbiased, raw units): all proposals of a target against exact draws of "
        f"its posterior, mean over {inverse.EXACT_TARGETS} targets. The flow takes about 1,600 "
        f"steps ({FLOW}), the mixture has 60 components. Medians over {seeds} seed(s).\n",
    ]
    for problem in (RobotArm(), SineWave()):
        lines += lines_of(problem, seeds)
    return "\n".join(lines)
