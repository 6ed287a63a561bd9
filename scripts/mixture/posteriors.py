"""Section: two tasks of the SBI benchmark whose posterior is known in closed form."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from genopt import Mixture
from genopt.analysis.two_sample import c2st
from genopt.problems.stochastic import StochasticProblem
from genopt.problems.two_moons import TwoMoons
from genopt.problems.two_widths import TwoWidths
from mixture.tools import table, timed

SIMULATIONS, OBSERVATIONS, CLASSIFIED, DRAWS = 10_000, 10, 3, 2000
LARGEST, MEMBERS = 60, 3
# observations of this seed, after those of the simulations
_FRESH = 1_000


def judged(
    problem: StochasticProblem, model: Mixture, y: Tensor, seed: int, *, classify: bool
) -> tuple[float, float]:
    """KL from the exact posterior given y (2,) in nats, and C2ST (NaN unless asked for)."""
    exact = problem.posterior(y, DRAWS, seed)
    generator = torch.Generator().manual_seed(seed)
    found = model.sample(y[None], DRAWS, generator)[0]
    drawn = model.gmm.condition([2, 3], y.numpy()).sample(DRAWS, np.random.RandomState(seed))
    # draws outside the box are drawn again, which raises the density inside
    inside = problem.x_space.contains(torch.from_numpy(drawn)).double().mean().log()
    observed = y.expand(DRAWS, 2)
    logs = problem.log_posterior(exact, y[None]) - model.log_prob(exact, observed) + inside
    return float(logs.mean()), float(c2st(exact, found).accuracy) if classify else math.nan


def measured(problem: StochasticProblem, seed: int, members: int) -> list[float]:
    """Components of each member, C2ST, KL and CPU seconds for one set of simulations."""
    rows = problem.table(SIMULATIONS, seed)
    model = Mixture(
        problem.x_space,
        problem.y_space,
        criterion="bic",
        max_components=LARGEST,
        members=members,
        seed=seed,
    )
    _, spent = timed(partial(model.fit, rows.x, rows.y))
    fresh = problem.table(OBSERVATIONS, _FRESH).y
    scores = [judged(problem, model, y, i, classify=i < CLASSIFIED) for i, y in enumerate(fresh)]
    divergence, accuracy = np.nanmean(scores, axis=0)
    return [model.selection.n_components, accuracy, divergence, spent]


def section(seeds: int) -> str:
    """The Markdown of the section."""
    lines = []
    tasks: tuple[tuple[str, StochasticProblem, str], ...] = (
        ("two moons", TwoMoons(), "0.53, 0.12"),
        ("Gaussian mixture", TwoWidths(), "0.555, 0.10"),
    )
    for name, problem, asked in tasks:
        for members in (1, MEMBERS):
            runs = [measured(problem, seed, members) for seed in range(seeds)]
            size, accuracy, divergence, spent = np.median(runs, axis=0)
            lines.append(
                f"| {name} | {members} x {size:.0f} | {accuracy:.3f} | {divergence:.3f} | "
                f"{asked} | {spent:.3g} |"
            )
    head = (
        "| task | members x components chosen | C2ST | KL, nats | asked: C2ST, KL | "
        "fit, CPU s (asked: 10) |"
    )
    return f"""## Posteriors of the SBI benchmark

Two tasks of Lueckmann et al. 2021 (arXiv 2101.04653) from 10,000 simulations, median over {seeds}
sets of them; the number of components, at most {LARGEST}, is chosen by BIC. `members={MEMBERS}`
averages {MEMBERS} mixtures of that number. KL from the exact posterior: mean over {OBSERVATIONS}
observations. C2ST: accuracy of the benchmark's network, {DRAWS:,} draws of each, mean over
{CLASSIFIED} of them.

{table(head, lines)}"""
