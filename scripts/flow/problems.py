"""Section: four problems of the suite by the flow's sampler alone, beside two plain baselines."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt import ConditionalFlow, Space, Variable, compose
from genopt.app.parts import make
from genopt.data.table import Table
from genopt.goal import Goal
from genopt.models.options import FitOptions
from mixture.problems import Sampler, nearest_rows
from mixture.suite import Case, Figures, cases, reached
from mixture.tools import table, timed

BASELINES = ("nearest row", "plain flow")
# settings beyond the defaults: small tables without noise gain from two to four times the steps
SETTINGS = {
    "peng_robinson": (),
    "cstr_mapping": ("model.epochs=900",),
    "plug_flow": ("model.epochs=2000",),
    "absolute_value": (),
}
# a textbook's conditional flow: Adam at one rate, no average, all times alike, Euler's rule
PLAIN: dict[str, Any] = {
    "network": {"kind": "concat", "width": 128, "depth": 3},
    "time_sampling": "uniform",
    "sampler": {"kind": "euler", "steps": 100, "grading": 1.0},
    "condition_dropout": 0.0,
    "ema": 0.0,
    "weight_decay": 0.0,
    "clip": 0.0,
    "schedule": "constant",
    "warmup": 0.0,
}
# figures by method, and training CPU seconds of genopt's flow and of the plain one
Run = tuple[dict[str, Figures], float, float]


def overrides(case: Case) -> list[str]:
    """The study of a case, as a command line."""
    which = getattr(case.problem, "case", None)
    name = case.problem.name
    cased = [f"problem.case={which}"] if which else []
    return [f"problem={name}", "model=flow", "data.test=0", *cased, *SETTINGS[name]]


def own_flow(case: Case, rows: Table, seed: int) -> tuple[Sampler, float]:
    """Fitted and asked as a study does it."""
    study = compose([*overrides(case), f"seed={seed}"])
    problem = case.problem
    model: ConditionalFlow = make(study.model, "model")(problem.x_space, problem.y_space, seed=seed)
    routine = make(study.routine, "routine")
    parts = rows.with_split(study.data.validation, study.data.test, seed)
    _, spent = timed(lambda: model.fit_table(parts, FitOptions(seed=seed)))

    def draw(targets: Tensor, n: int, seed: int) -> Tensor:
        wanted = dict(zip(problem.y_space.names, targets.T.tolist(), strict=True))
        goal = Goal(wanted, problem.x_space, problem.y_space)
        x: Tensor = routine(model, goal, table=rows, samples=n, seed=seed).x
        return x

    return draw, spent


def plain_flow(rows: Table, seed: int) -> tuple[Sampler, float]:
    """A plain conditional flow without bounds; its draws are moved into them."""
    free = Space(tuple(Variable(name) for name in rows.x_space.names))
    model = ConditionalFlow(free, rows.y_space, seed=seed, **PLAIN)
    _, spent = timed(lambda: model.fit(rows.x, rows.y))

    def draw(targets: Tensor, n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return rows.x_space.project(model.sample(targets, n, generator))

    return draw, spent


def figures(case: Case, seed: int) -> Run:
    """Figures by method for one seed of the rows, the training and the draws."""
    problem = case.problem
    rows = problem.table(seed=seed)
    targets = Goal(problem.default_goal, problem.x_space, problem.y_space).condition()
    targets = targets[None] if case.targets is None else case.targets(seed)
    own, spent = own_flow(case, rows, seed)
    plain, plainly = plain_flow(rows, seed)
    samplers = {"genopt": own, "nearest row": nearest_rows(rows), "plain flow": plain}
    found = {
        name: case.judge(problem, draw(targets, case.samples, seed), targets)
        for name, draw in samplers.items()
    }
    return found, spent, plainly


def lines_of(case: Case, seeds: int) -> list[str]:
    """Rows of the table: medians over the seeds."""
    runs = [figures(case, seed) for seed in range(seeds)]
    seconds = [f"{np.median([run[i] for run in runs]):.2g}" for i in (1, 2)]
    lines = []
    for i, (figure, most) in enumerate(case.asked.items()):
        values = {
            name: [found[name][figure] for found, _, _ in runs] for name in ("genopt", *BASELINES)
        }
        middle = {name: float(np.median(value)) for name, value in values.items()}
        own = f"{middle['genopt']:.2g}"
        own = f"**{own}**" if reached(figure, middle["genopt"], most) else own
        spread = f"{min(values['genopt']):.2g} to {max(values['genopt']):.2g}"
        others = " | ".join(f"{middle[name]:.2g}" for name in BASELINES)
        start = (case.name or case.problem.name) if i == 0 else ""
        spent = " | ".join(seconds) if i == 0 else " | "
        lines.append(f"| {start} | {figure} | {most:g} | {own} | {spread} | {others} | {spent} |")
    return lines


def section(seeds: int = 5) -> str:
    """The Markdown of the section."""
    chosen = [case for case in cases() if case.problem.name in SETTINGS]
    lines: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in chosen:
            lines += lines_of(case, seeds)
    studies = ", ".join(f"`genopt {' '.join(overrides(case))}`" for case in chosen)
    head = (
        f"| problem | figure | asked | genopt | of {seeds} seed(s) | nearest row | plain flow | "
        "training, CPU s | of the plain one |"
    )
    return f"""## The problem suite

Designs from the flow's sampler alone, nothing refined, of {studies}; medians over {seeds} seed(s)
of the rows, the training and the draws; bold: as good as asked. Figures are over all designs, as
in the suite of the mixture: *TV* is the distance between the shares of designs at each answer and
the exact ones, *output error* the norm of simulated minus wanted outputs; targets of cstr_mapping
are uniform in its disk. *Plain flow*: an MLP of 3 x 128 on point, time and condition, a constant
rate, uniform times, no average, no bounds (its draws are moved into them), 100 Euler steps.

{table(head, lines)}"""
