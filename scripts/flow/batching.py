"""Section: many conditions in one solve, beside a loop over them and beside sbi."""

from __future__ import annotations

import importlib.util
import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt import ConditionalFlow
from genopt.analysis.two_sample import c2st
from genopt.problems.stochastic import StochasticProblem
from genopt.problems.two_moons import TwoMoons
from mixture.tools import table, timed

CONDITIONS, CALLS, SIMULATIONS, WIDTH, DEPTH = 64, 32, 10_000, 64, 3
_FRESH, _JUDGED = 1000, 3


def own(problem: StochasticProblem, x: Tensor, y: Tensor, seed: int) -> ConditionalFlow:
    network = {"kind": "adaln", "width": WIDTH, "depth": DEPTH}
    model = ConditionalFlow(problem.x_space, problem.y_space, network=network, seed=seed)
    return model.fit(x, y)


def sbi_posterior(problem: StochasticProblem, x: Tensor, y: Tensor, seed: int) -> Any:
    """Flow matching of sbi with a network of the same width and depth."""
    from sbi.inference import FMPE
    from sbi.neural_nets import posterior_flow_nn
    from sbi.utils import BoxUniform

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prior = BoxUniform(problem.x_space.lower.float(), problem.x_space.upper.float())
        network = posterior_flow_nn("mlp", hidden_features=WIDTH, num_layers=DEPTH)
        engine = FMPE(prior=prior, vf_estimator=network, show_progress_bars=False)
        engine.append_simulations(x.float(), y.float()).train()
        return engine.build_posterior()


def sbi_draws(posterior: Any, y: Tensor, n: int) -> Tensor:
    """Draws (C, n, P) by its batched call, as its ODE solver does it by default."""
    drawn = posterior.sample_batched((n,), x=y.float(), show_progress_bars=False)
    return drawn.transpose(0, 1).double()


def accuracy(draws: Tensor, problem: StochasticProblem, y: Tensor, seed: int) -> float:
    """Mean C2ST of draws (C, n, P) against exact ones for the first conditions."""
    n = draws.shape[1]
    exact = problem.posterior(y[:_JUDGED], n, seed)
    pairs = zip(exact, draws[:_JUDGED], strict=True)
    return float(np.mean([c2st(true, found, seed=seed).accuracy for true, found in pairs]))


def run(seed: int) -> list[tuple[str, int, float, float]]:
    """Way, draws for each condition, CPU seconds, C2ST."""
    problem = TwoMoons()
    rows = problem.table(SIMULATIONS, seed)
    y = problem.table(CONDITIONS, seed + _FRESH).y
    flow = own(problem, rows.x, rows.y, seed)
    steps = flow.sampler.with_calls(CALLS)
    found = []
    for n in (16, 100, 1000):
        draws, together = timed(partial(flow.sample, y, n, sampler=steps), repeats=3)
        one = [row[None] for row in y]
        _, alone = timed(lambda n=n, one=one: [flow.sample(c, n, sampler=steps) for c in one], 3)
        score = accuracy(draws, problem, y, seed) if n == 1000 else float("nan")
        found += [("one call", n, together, score), ("a loop", n, alone, float("nan"))]
    if importlib.util.find_spec("sbi"):
        posterior = sbi_posterior(problem, rows.x, rows.y, seed)
        draws, spent = timed(lambda: sbi_draws(posterior, y, 1000))
        found.append(("sbi, one call", 1000, spent, accuracy(draws, problem, y, seed)))
    return found


def section(seeds: int = 5) -> str:
    """The Markdown of the section."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = [run(seed) for seed in range(seeds)]
    lines, first = [], {}
    for i, (way, n, *_) in enumerate(runs[0]):
        spent, score = np.median([one[i][2:] for one in runs], axis=0)
        first.setdefault(n, spent)
        asked = {"a loop": "5" if n == 1000 else "", "sbi, one call": "3"}.get(way, "")
        ratio = "" if way == "one call" else f"{spent / first[n]:.2g}"
        shown = "" if np.isnan(score) else f"{score:.3f}"
        lines.append(f"| {way} | {n:,} | {spent:.3g} | {ratio} | {asked} | {shown} |")
    if not importlib.util.find_spec("sbi"):
        lines.append("| sbi, one call | 1,000 | not installed | | 3 | |")
    head = "| way | draws for each | CPU s | times the one call | asked | C2ST |"
    return f"""## Many conditions at once

{CONDITIONS} observations of two moons, {CALLS} calls of the network ({WIDTH} x {DEPTH}, also sbi's;
its solver chooses its own steps), one thread; median over {seeds} seed(s), C2ST over {_JUDGED} of
the conditions. A loop pays the fixed cost of a call {CONDITIONS} times; with 1,000 draws for each
condition the network's own arithmetic, the same in both, is most of the time.

{table(head, lines)}"""
