"""Section: arm kinematics, postures whose hand is at a wanted point, beside an exact sampler."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genopt import ConditionalFlow
from genopt.models.flow.parts import choose_sampler
from genopt.problems.arm_kinematics import ArmKinematics
from mixture.tools import table, timed

PAIRS, TARGETS, DRAWS = 100_000, 1000, 10
COMPARED, EXACT_DRAWS = 50, 1000
BUDGETS = (4, 8, 16, 32)
FRESH = 1_000
# a narrow posterior wants a large rate and times near the data, where its velocity is steep
STEPS, BATCH = 14_000, 1024
OPTIONS = {
    "network": {"kind": "adaln", "width": 96, "depth": 3},
    "time_sampling": {"kind": "power", "exponent": 1.0},
    "learning_rate": 5e-3,
    "batch_size": BATCH,
    "condition_dropout": 0.0,
}
SAMPLERS = {
    "midpoint": {"kind": "midpoint"},
    "adams_bashforth": {"kind": "adams_bashforth"},
    "adams_bashforth, equal steps": {"kind": "adams_bashforth", "grading": 1.0},
}
PUBLISHED = {8: ("4.8e-05", ".0017"), 32: ("2.7e-06", ".0016")}


def mmd_squared(a: Tensor, b: Tensor, widths: tuple[float, ...] = (0.05, 0.2, 0.9)) -> Tensor:
    """Unbiased MMD^2 of samples (C, n, P), kernel sum of 1 / (1 + d^2 / h^2)."""

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        square = torch.cdist(u, v) ** 2
        return torch.stack([1 / (1 + square / h**2) for h in widths]).sum(0)

    def within(u: Tensor) -> Tensor:
        n = u.shape[-2]
        found = kernel(u, u)
        return (found.sum((-1, -2)) - found.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))

    return within(a) + within(b) - 2 * kernel(a, b).mean((-1, -2))


def judged(seed: int) -> tuple[float, dict[tuple[str, int], tuple[float, float, float]]]:
    """CPU s of training; by sampler and calls the mean and median error, and MMD^2."""
    problem = ArmKinematics()
    rows = problem.table(PAIRS, seed)
    held = 0.02
    epochs = round(STEPS * BATCH / (PAIRS * (1 - held)))
    flow = ConditionalFlow(problem.x_space, problem.y_space, epochs=epochs, seed=seed, **OPTIONS)
    _, spent = timed(lambda: flow.fit(rows.x, rows.y, validation=held))
    y = problem.table(TARGETS, seed + FRESH).y
    exact = problem.posterior(y[:COMPARED], EXACT_DRAWS, seed)
    found = {}
    for name, spec in SAMPLERS.items():
        for calls in BUDGETS:
            sampler = choose_sampler(spec, flow.sampler).with_calls(calls)
            x = flow.sample(y, DRAWS, sampler=sampler)
            error = (problem.simulate(x) - y.unsqueeze(1)).square().sum(-1)
            drawn = flow.sample(y[:COMPARED], EXACT_DRAWS, sampler=sampler)
            both = zip(drawn.split(5), exact.split(5), strict=True)
            distance = torch.cat([mmd_squared(a, b) for a, b in both])
            found[name, calls] = (
                float(error.mean()),
                float(error.median()),
                float(distance.mean()),
            )
    return spent, found


def section(seeds: int = 1) -> str:
    """The Markdown of the section."""
    runs = [judged(seed) for seed in range(seeds)]
    spent = np.median([run[0] for run in runs])
    lines = []
    for name in SAMPLERS:
        for calls in BUDGETS:
            mean, median, distance = np.median([run[1][name, calls] for run in runs], axis=0)
            lines.append(f"| {name} | {calls} | {mean:.1e} | {median:.1e} | {distance:.5f} |")
    for calls, (error, distance) in PUBLISHED.items():
        lines.append(f"| *published, 1M pairs, 3M weights* | {calls} | {error} | | {distance} |")
    lines.append("| *asked* | 8 | 5e-05 | | |")
    lines.append("| *asked* | 32 | 1e-05 | | .001 |")
    head = "| sampler | calls | error, mean | error, median | MMD² |"
    return f"""## Arm kinematics

{PAIRS:,} pairs, adaLN 96x3, {STEPS:,} steps of {BATCH:,} at a peak rate of
{OPTIONS["learning_rate"]}: {spent:.0f} CPU s of training on one thread; median over {seeds}
seed(s). Error: squared distance of the hand from the wanted point, {DRAWS} draws for each of
{TARGETS:,} fresh points; a few rare points make most of the mean. MMD²: {EXACT_DRAWS:,} draws
against as many exact ones, mean over {COMPARED} points.

{table(head, lines)}"""
