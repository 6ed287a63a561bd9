"""Section: rows sampled near the goal against the same number of rows of the problem's design."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable

import torch

from genopt import Goal, compose
from genopt.app.parts import make
from genopt.data.table import Table
from genopt.models.options import FitOptions
from genopt.problems.adaptive import adaptive_table
from mixture.suite import Case, Figures, cases
from mixture.tools import timed

PROBLEMS = ("batch_reactor", "peng_robinson")
# fits of the flow take minutes
_FLOW_SEEDS = 1
ENGINES = {
    "mixture": ["model=mixture"],
    "mixture of many thin components": ["experiment={problem}_mixture"],
    "flow": ["model=flow"],
}
Sample = Callable[[Case, Goal, int], Table]


def usual(case: Case, goal: Goal, seed: int) -> Table:
    """The problem's own design."""
    del goal
    return case.problem.table(seed=seed)


def even(case: Case, goal: Goal, seed: int) -> Table:
    """The same three rounds, all drawn from the prior: what even spacing alone brings."""
    return adaptive_table(case.problem, goal, plain=1.0, seed=seed)


def adaptive(case: Case, goal: Goal, seed: int) -> Table:
    """Rows near the goal, weights that keep p(x given y)."""
    return adaptive_table(case.problem, goal, seed=seed)


def joint(case: Case, goal: Goal, seed: int) -> Table:
    """Rows near the goal, weights that keep p(x, y)."""
    return adaptive_table(case.problem, goal, unbiased="joint", seed=seed)


SAMPLES: dict[str, Sample] = {
    "design of the problem": usual,
    "even, not near the goal": even,
    "**adaptive**": adaptive,
    "adaptive, joint": joint,
}


def figures(case: Case, choices: list[str], sample: Sample, seed: int) -> tuple[Figures, float]:
    """Figures of the designs and CPU seconds of sampling and fit."""
    problem = case.problem
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    overrides = [choice.format(problem=problem.name) for choice in choices]
    if not any(choice.startswith("experiment") for choice in overrides):
        overrides.append(f"problem={problem.name}")
    study = compose([*overrides, f"seed={seed}"])
    model = make(study.model, "model")(problem.x_space, problem.y_space, seed=seed)

    def learn() -> Table:
        rows = sample(case, goal, seed)
        watched = 0.1 if "network" in study else 0.0
        model.fit_table(rows.with_split(watched, 0.0, seed), FitOptions(seed=seed))
        return rows

    rows, spent = timed(learn)
    routine = make(study.routine, "routine")
    x = routine(model, goal, table=rows, samples=case.samples, seed=seed).x
    return case.judge(problem, x, goal.condition()[None]), spent


def section(seeds: int = 5) -> str:
    """The Markdown of the section."""
    torch.set_num_threads(1)
    lines = []
    for case in cases():
        if case.problem.name not in PROBLEMS:
            continue
        names = list(case.asked)
        calls = case.problem.default_rows
        lines += [
            f"### {case.problem.name}, {calls:,} simulator calls\n",
            f"| engine | rows | {' | '.join(names)} | CPU s |",
            "|---" * (len(names) + 3) + "|",
        ]
        asked = " | ".join(f"*{v:g}*" for v in case.asked.values())
        lines.append(f"| | *asked* | {asked} | |")
        for engine, choices in ENGINES.items():
            for name, sample in SAMPLES.items():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    count = min(seeds, _FLOW_SEEDS) if engine == "flow" else seeds
                    runs = [figures(case, choices, sample, seed) for seed in range(count)]
                cells = " | ".join(
                    f"{statistics.median(found[figure] for found, _ in runs):.2g}"
                    for figure in names
                )
                spent = statistics.median(seconds for _, seconds in runs)
                lines.append(f"| {engine} | {name} | {cells} | {spent:.2g} |")
        lines.append("")
    return "\n".join(
        [
            "## Rows where the goal is decided\n",
            "`data=adaptive` against the problem's own design at equal calls of the simulator: "
            "three rounds, the later ones drawn near the goal, with weights (*adaptive*: those "
            "that keep the designs given properties unbiased, the default; *joint*: those that "
            "keep the whole density). *Even*: the rounds without the closeness, because rows "
            "thinned from a large pool are also more evenly spaced. Figures are those of the "
            f"problem suite over all designs. Medians over {seeds} seed(s), of the flow over "
            f"{min(seeds, _FLOW_SEEDS)}.\n",
            *lines,
        ]
    )
