"""Section: draws by one to eight calls of the network, before and after reflow."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flow.arm import BATCH, OPTIONS, PAIRS, STEPS, mmd_squared
from genopt import ConditionalFlow
from genopt.problems.arm_kinematics import ArmKinematics
from genopt.problems.two_moons import TwoMoons
from genopt.problems.two_widths import TwoWidths
from mixture.tools import table, timed

OBSERVATIONS, DRAWS = 10, 1000
HELD_OUT = 0.02
FRESH = 1_000
CALLS = (1, 2, 4, 8)
SOLVERS = ("euler", "midpoint", "adams_bashforth")
GRADINGS = (1.0, 2.0)
CAREFUL = {"kind": "midpoint", "calls": 32}
_ARM_EPOCHS = round(STEPS * BATCH / (PAIRS * (1 - HELD_OUT)))
# problem, rows, widths of the kernel, options, steps of reflow
CASES: dict[str, tuple[Any, int, tuple[float, ...], dict[str, Any], int]] = {
    "two moons": (TwoMoons(), 10_000, (0.02, 0.05, 0.2), {}, 4000),
    "Gaussian mixture": (TwoWidths(), 10_000, (0.1, 0.5, 2.0), {}, 4000),
    "arm": (ArmKinematics(), PAIRS, (0.05, 0.2, 0.9), {**OPTIONS, "epochs": _ARM_EPOCHS}, 3000),
}


def trained(name: str, seed: int, folder: Path | None) -> tuple[ConditionalFlow, float, Any]:
    """The flow, the CPU s of its training, and its rows; from a folder where it has been before."""
    problem, count, _, options, _ = CASES[name]
    rows = problem.table(count, seed)
    path = None if folder is None else folder / f"{problem.name}_{seed}.ckpt"
    if path is not None and path.exists():
        return ConditionalFlow.load(path), 0.0, rows
    flow = ConditionalFlow(problem.x_space, problem.y_space, seed=seed, **options)
    held = HELD_OUT if name == "arm" else 0.1
    _, spent = timed(lambda: flow.fit(rows.x, rows.y, validation=held))
    if path is not None:
        flow.save(path)
    return flow, spent, rows


def judged(name: str, seed: int, folder: Path | None) -> tuple[list[float], dict[Any, Any]]:
    """CPU s of both trainings; by way and calls MMD^2 and the mean re-simulation error."""
    problem, _, widths, _, steps = CASES[name]
    flow, spent, rows = trained(name, seed, folder)
    straight, again = timed(partial(copy.deepcopy(flow).straighten, rows.x, rows.y, steps=steps))
    y = problem.table(OBSERVATIONS, seed + FRESH).y
    exact = problem.posterior(y, DRAWS, seed)

    def figures(model: ConditionalFlow, sampler: Any) -> tuple[float, float]:
        x: Tensor = model.sample(y, DRAWS, sampler=sampler)
        error = torch.zeros(1)
        if name == "arm":
            error = (problem.simulate(x) - y.unsqueeze(1)).square().sum(-1)
        return float(mmd_squared(x, exact, widths).mean()), float(error.mean())

    found: dict[Any, Any] = {("32 calls", 32): figures(flow, CAREFUL)}
    for calls in CALLS:
        for kind in SOLVERS:
            if calls == 1 and kind != "euler":
                continue
            tried = [figures(flow, {"kind": kind, "calls": calls, "grading": g}) for g in GRADINGS]
            found[kind, calls] = min(tried)
        found["straight", calls] = figures(straight, {"kind": "few", "calls": calls})
    found["straight", 32] = figures(straight, CAREFUL)
    return [spent, again], found


def section(seeds: int = 1, folder: Path | None = None) -> str:
    """The Markdown of the section."""
    lines, costs = [], []
    for name in CASES:
        runs = [judged(name, seed, folder) for seed in range(seeds)]
        spent = np.median([run[0] for run in runs], axis=0)
        costs.append(f"{name} {spent[0]:.0f} and {spent[1]:.0f}")
        middle = {key: np.median([run[1][key] for run in runs], axis=0) for key in runs[0][1]}
        for calls in CALLS:
            ways = [middle.get((way, calls)) for way in (*SOLVERS, "straight")]
            least = min(float(way[0]) for way in ways if way is not None)
            cells = [_cell(name, way, least) for way in ways]
            lines.append(f"| {name} | {calls} | {' | '.join(cells)} |")
        plain, straight = middle["32 calls", 32], middle["straight", 32]
        cells = ["", _cell(name, plain, -1.0), "", _cell(name, straight, -1.0)]
        lines.append(f"| {name} | 32 | {' | '.join(cells)} |")
    head = "| problem | calls | Euler | midpoint | Adams-Bashforth | straight, equal Euler steps |"
    return f"""## Few calls

MMD² between {DRAWS:,} draws and as many exact ones, mean over {OBSERVATIONS} observations; of the
arm also the mean squared re-simulation error. *Straight*: the same flow after `straighten`
(`model.reflow=true`), at 32 calls by the midpoint rule. The solvers on the first flow have the
better of two gradings of their steps, judged by the figure itself. Medians over {seeds} seed(s);
bold: the best of a row. Training and reflow, CPU s: {"; ".join(costs)}.

{table(head, lines)}"""


def _cell(name: str, figures: Any, least: float) -> str:
    if figures is None:
        return ""
    text = f"{figures[0]:.4f}"
    text = f"**{text}**" if figures[0] <= least else text
    return f"{text}; {figures[1]:.1e}" if name == "arm" else text
