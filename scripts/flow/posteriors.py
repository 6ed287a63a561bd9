"""Section: two tasks of the SBI benchmark whose posterior is known exactly."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt import ConditionalFlow, Mixture
from genopt.analysis.exact_posterior import compare_with_exact
from genopt.data.table import Table
from genopt.problems.stochastic import StochasticProblem
from genopt.problems.two_moons import TwoMoons
from genopt.problems.two_widths import TwoWidths
from mixture.tools import table, timed

SIMULATIONS, OBSERVATIONS, DRAWS = 10_000, 3, 2000
_FRESH = 1_000
Method = Callable[[StochasticProblem, Table, int], Any]
# C2ST, KL, training CPU s as measured elsewhere with the same simulations on one core
QUOTED = {
    "two_moons": {
        "sbi flow matching": (".70 to .80", "1.37", "66 to 93"),
        "sbi neural spline flow": (".59", ".34", ""),
        "50-component joint mixture": (".536", ".14", "5"),
    },
    "two_widths": {
        "sbi flow matching": (".70", ".60", "141"),
        "sbi neural spline flow": (".59", ".16", ""),
        "50-component joint mixture": (".578", ".10", "3"),
    },
}
ASKED = {"two_moons": (".55", ".30"), "two_widths": (".555", ".15")}
TITLES = {"two_moons": "two moons", "two_widths": "Gaussian mixture"}


def flow(problem: StochasticProblem, rows: Table, seed: int) -> ConditionalFlow:
    model = ConditionalFlow(problem.x_space, problem.y_space, seed=seed)
    return model.fit(rows.x, rows.y)


def mixture(problem: StochasticProblem, rows: Table, seed: int) -> Mixture:
    return Mixture(problem.x_space, problem.y_space, seed=seed).fit(rows.x, rows.y)


class Sbi:
    """An sbi posterior as a conditional model."""

    def __init__(self, posterior: Any) -> None:
        self.posterior = posterior

    def sample(self, y: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws (C, n, P), one observation after the other."""
        with torch.random.fork_rng():
            torch.manual_seed(generator.initial_seed() if generator else 0)
            drawn = [
                self.posterior.sample((n,), x=row.float(), show_progress_bars=False) for row in y
            ]
        return torch.stack(drawn).double()

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Log densities (N,), one observation after the other."""
        observed, owner = torch.unique(y, dim=0, return_inverse=True)
        found = x.new_empty(len(x))
        for i, row in enumerate(observed):
            mine = owner == i
            found[mine] = self.posterior.log_prob(x[mine].float(), x=row.float()).to(found)
        return found


def sbi(kind: str, problem: StochasticProblem, rows: Table, seed: int) -> Sbi:
    """A posterior of the package sbi, with its defaults."""
    from sbi import inference
    from sbi.utils import BoxUniform

    space = problem.x_space
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prior = BoxUniform(space.lower.float(), space.upper.float())
        engine = getattr(inference, kind)(prior=prior)
        engine.append_simulations(rows.x.float(), rows.y.float()).train()
        return Sbi(engine.build_posterior())


METHODS: dict[str, Method] = {"**genopt flow**": flow, "genopt mixture": mixture}
if importlib.util.find_spec("sbi"):
    METHODS |= {"sbi FMPE, here": partial(sbi, "FMPE"), "sbi NPE, here": partial(sbi, "NPE")}


def judged(method: Method, problem: StochasticProblem, seed: int) -> tuple[float, ...]:
    """C2ST, KL, share outside the bounds, training CPU s, draws per CPU s."""
    rows = problem.table(SIMULATIONS, seed)
    model, spent = timed(partial(method, problem, rows, seed))
    y = problem.table(OBSERVATIONS, seed + _FRESH).y
    found = compare_with_exact(model, problem, y, DRAWS, OBSERVATIONS, seed).summary()
    generator = torch.Generator().manual_seed(seed)
    _, drawing = timed(lambda: model.sample(y, 5 * DRAWS, generator=generator), repeats=3)
    rate = OBSERVATIONS * 5 * DRAWS / drawing
    return found["c2st"], found["kl"], found["outside"], spent, rate


def section(seeds: int = 5) -> str:
    """The Markdown of the section."""
    lines = []
    for problem in (TwoMoons(), TwoWidths()):
        name = TITLES[problem.name]
        for title, method in METHODS.items():
            scores = [judged(method, problem, seed) for seed in range(seeds)]
            accuracy, divergence, outside, spent, rate = np.median(scores, axis=0)
            lines.append(
                f"| {name} | {title} | {accuracy:.3f} | {divergence:.3f} | {outside:.1%} | "
                f"{spent:.3g} | {rate:,.0f} |"
            )
        for title, (accuracy, divergence, spent) in QUOTED[problem.name].items():
            lines.append(f"| | {title}, quoted | {accuracy} | {divergence} | | {spent} | |")
        accuracy, divergence = ASKED[problem.name]
        lines.append(f"| | *asked* | {accuracy} | {divergence} | 0 % | 120 | 20,000 |")
    head = "| task | method | C2ST | KL, nats | outside | training, CPU s | draws per CPU s |"
    return f"""## Posteriors of the SBI benchmark

Two tasks of Lueckmann et al. 2021 (arXiv 2101.04653), {SIMULATIONS:,} simulations, defaults;
median over {seeds} seed(s) of the mean over {OBSERVATIONS} observations, which each seed draws
anew. KL: from the exact posterior, by {DRAWS:,} exact draws and the model's log density. C2ST:
accuracy of the benchmark's network that tells {DRAWS:,} exact draws from as many of the model; it
is noisy, KL decides. Outside: draws out of bounds.

{table(head, lines)}"""
