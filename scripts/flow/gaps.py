"""Section: tables with empty cells of x: rows left out, or learned from by what they hold."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flow.coverage import Coarse
from genopt import ConditionalFlow, Mixture
from genopt.analysis.coverage import expected_coverage
from genopt.problems.arm_kinematics import ArmKinematics
from genopt.problems.base import Problem
from genopt.problems.linear_gaussian import LinearGaussian
from mixture.tools import table, timed

# name, problem, rows, share of the cells of x that are empty
CASES: tuple[tuple[str, Problem, int, float], ...] = (
    ("linear_gaussian, 20 columns", LinearGaussian(20), 2_000, 0.1),
    ("linear_gaussian, 5 columns", LinearGaussian(5), 1_000, 0.3),
    ("arm_kinematics, 4 columns", ArmKinematics(), 2_000, 0.3),
)
ENGINES = {"flow": ConditionalFlow, "mixture": Mixture}
WAYS = ("no gaps", "rows with gaps left out", "what they hold learned")
_UNSEEN, _COVERED, _DRAWS, _LEVEL, _FRESH = 500, 200, 24, 0.8, 1_000


def rows_of(problem: Problem, n: int, share: float, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Designs and properties as each way sees them; gaps lie anywhere."""
    rows = problem.table(n, seed)
    gaps = torch.rand(rows.x.shape, generator=torch.Generator().manual_seed(seed)) < share
    holed = torch.where(gaps, torch.nan, rows.x)
    whole = ~gaps.any(1)
    parts = ((rows.x, rows.y), (rows.x[whole], rows.y[whole]), (holed, rows.y))
    return dict(zip(WAYS, parts, strict=True))


def judged(engine: str, problem: Problem, rows: tuple[Tensor, Tensor], seed: int) -> list[float]:
    """Minus the mean log density of unseen designs, their share in a region, CPU s of the fit."""
    model: Any = ENGINES[engine](problem.x_space, problem.y_space, seed=seed)
    _, seconds = timed(partial(model.fit, *rows))
    unseen = problem.table(_UNSEEN, seed + _FRESH)
    loss = -float(model.log_prob(unseen.x, unseen.y).mean())
    some = unseen.x[:_COVERED], unseen.y[:_COVERED]
    if engine == "flow" and isinstance(problem, LinearGaussian):
        model = Coarse(model)
    found = expected_coverage(model, *some, draws=_DRAWS, seed=seed).summary()
    return [loss, 100.0 * found[f"coverage_{100 * _LEVEL:.0f}"], seconds]


def section(seeds: int = 5) -> str:
    """The Markdown of the section."""
    lines = []
    for name, problem, n, share in CASES:
        tables = [rows_of(problem, n, share, seed) for seed in range(seeds)]
        lost = 100.0 * (1.0 - np.median([len(t[WAYS[1]][0]) for t in tables]) / n)
        for engine in ENGINES:
            for way in WAYS:
                scores = [judged(engine, problem, t[way], seed) for seed, t in enumerate(tables)]
                loss, inside, seconds = np.median(scores, axis=0)
                lines.append(
                    f"| {name}, {100 * share:.0f} % of the cells empty | {lost:.0f} % | {engine} | "
                    f"{way} | {loss:.2f} | {inside:.0f} | {seconds:.3g} |"
                )
    head = (
        "| table | rows with gaps | engine | learned from | -log p of unseen designs, nats | "
        f"in {100 * _LEVEL:.0f} % | training, CPU s |"
    )
    counts = ", ".join(f"{n:,}" for _, _, n, _ in CASES)
    error = 100.0 * (_LEVEL * (1.0 - _LEVEL) / _COVERED) ** 0.5
    return f"""## Empty cells of x

Tables of {counts} rows whose cells of x are lost by chance, defaults. Of {_UNSEEN} unseen
designs the density, of {_COVERED} the share inside the regions of highest density that hold
{100 * _LEVEL:.0f} % (one standard error: {error:.0f} points), by {_DRAWS} draws each; medians over
{seeds} seed(s).

{table(head, lines)}"""
