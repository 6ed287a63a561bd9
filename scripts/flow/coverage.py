"""Section: do the regions of a flow hold the share of truths that they claim?"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from genopt import ConditionalFlow
from genopt.analysis.calibrate import calibrate
from genopt.analysis.coverage import LEVELS
from genopt.analysis.exact_posterior import compare_with_exact
from genopt.problems.linear_gaussian import LinearGaussian
from mixture.tools import table, timed

DIMENSIONS, ROWS, CONDITIONS, DRAWS = (5, 20), 10_000, 1_000, 24
_FRESH, _STEPS = 1_000, 8
_COMPARED, _EXACT = 10, 200


class Coarse:
    """A flow whose densities take a quarter of their usual steps, as this posterior is smooth."""

    def __init__(self, flow: ConditionalFlow) -> None:
        self.flow = flow
        self.x_space = flow.x_space

    def sample(self, y: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws (C, n, P)."""
        return self.flow.sample(y, n, generator=generator)

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Log densities (N,)."""
        return self.flow.log_prob(x, y, n_steps=_STEPS)


def judged(dimension: int, seed: int) -> list[float]:
    """Coverages, area, TARP area, KL, CPU s of the training and of the checks."""
    problem = LinearGaussian(dimension)
    rows = problem.table(ROWS, seed)
    flow = ConditionalFlow(problem.x_space, problem.y_space, seed=seed)
    _, training = timed(partial(flow.fit, rows.x, rows.y))
    unseen = problem.table(CONDITIONS, seed + _FRESH)
    model = Coarse(flow)
    found, checking = timed(partial(calibrate, model, unseen.x, unseen.y, DRAWS, seed))
    scores = found.summary()
    exact = compare_with_exact(flow, problem, unseen.y[:_COMPARED], _EXACT, seed=seed)
    held = [scores[f"coverage_{level * 100:.0f}"] for level in LEVELS]
    areas = [scores["area"], scores["tarp/area"]]
    return [*held, *areas, exact.summary()["kl"], training, checking]


def section(seeds: int = 5) -> str:
    """The Markdown of the section."""
    lines = []
    for dimension in DIMENSIONS:
        scores = np.median([judged(dimension, seed) for seed in range(seeds)], axis=0)
        held = [100.0 * share for share in scores[: len(LEVELS)]]
        worst = max(abs(h - 100.0 * level) for h, level in zip(held, LEVELS, strict=True))
        area, tarp, kl, training, checking = scores[len(LEVELS) :]
        lines.append(
            f"| {dimension} | {' | '.join(f'{h:.1f}' for h in held)} | {worst:.1f} | {area:.3f} | "
            f"{tarp:.3f} | {kl:.3f} | {training:.3g} | {checking:.3g} |"
        )
    head = (
        "| dimensions | in 50 % | in 80 % | in 95 % | worst miss, points (asked: 3) | area | "
        "TARP area | KL, nats | training, CPU s | checks, CPU s |"
    )
    return f"""## Expected coverage

`linear_gaussian`, {ROWS:,} rows, defaults: the share of {CONDITIONS:,} unseen designs inside the
flow's regions of highest density, in percent, by {DRAWS} draws each; median over {seeds} seed(s).
One standard error of a single seed is {100 * (0.25 / CONDITIONS) ** 0.5:.1f} points at 50 % and
{100 * (0.0475 / CONDITIONS) ** 0.5:.1f} at 95 %. Area: between observed and claimed shares over all
levels; 0 is perfect, .5 the worst. KL: from the exact posterior, mean over {_COMPARED} conditions.

{table(head, lines)}"""
