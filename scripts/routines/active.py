"""Section: `active` on functions of twenty columns, beside CMA-ES and a TuRBO loop."""

from __future__ import annotations

import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genopt import Goal, Mixture, Problem, Table
from genopt.problems.ackley import Ackley
from genopt.problems.rastrigin_value import RastriginValue
from genopt.routines.active import active

DIMENSION, CALLS, START, BATCH = 20, 1000, 100, 25
AT = (200, 400, 600, 1000)
TURBO_ROWS, TURBO_DRAWS = 300, 2000
# best value after `AT` simulations, CPU seconds
Row = tuple[float, ...]


def best_at(values: Tensor) -> list[float]:
    """The best value after so many simulations."""
    return [float(values[:count].min()) for count in AT]


def ours(problem: Problem, seed: int, *, engine: bool) -> list[float]:
    """`active`: the start is counted; with an engine the mixture proposes in every fifth round."""
    table = problem.table(START, seed)
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)

    def train(rows: Table) -> Mixture:
        mixture = Mixture(problem.x_space, problem.y_space, max_components=4, patience=2)
        return mixture.fit(rows.x, rows.y)

    found = active(
        train(table) if engine else None,
        goal,
        problem=problem,
        table=table,
        train=train if engine else None,
        batch=BATCH,
        budget=CALLS - START,
        seed=seed,
    )
    history = found.header["history"]
    calls = [START + n for n in history["calls"]]
    return [
        min(b for n, b in zip(calls, history["best"][0], strict=True) if n <= count) for count in AT
    ]


def cma_es(problem: Problem, seed: int) -> list[float]:
    """CMA-ES in the unit box from its middle, default settings, steps of .25."""
    import cma

    space, seen = problem.x_space, []
    options = {"bounds": [0, 1], "seed": seed + 1, "verbose": -9, "maxfevals": CALLS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = cma.CMAEvolutionStrategy(space.dim * [0.5], 0.25, options)
        while len(seen) < CALLS:
            asked = search.ask()
            x = space.lower + torch.tensor(asked) * (space.upper - space.lower)
            values = problem.simulate(x)[:, 0].tolist()
            search.tell(asked, values)
            seen.extend(values)
    return best_at(torch.tensor(seen))


def turbo(problem: Problem, seed: int) -> list[float]:
    """TuRBO-1 with Thompson sampling, after the tutorial of BoTorch.

    A round's Gaussian process sees the nearest rows only, its lengths are fitted in every second
    round, and draws are taken at fewer points than there, to save time.
    """
    from botorch.fit import fit_gpytorch_mll
    from botorch.generation import MaxPosteriorSampling
    from botorch.models import SingleTaskGP
    from gpytorch.constraints import Interval
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.mlls import ExactMarginalLogLikelihood

    space, dim = problem.x_space, problem.x_space.dim
    torch.manual_seed(seed)
    unit = space.encode(problem.design(START, seed))
    width, successes, failures = 0.8, 0, 0
    patience = math.ceil(max(4.0 / BATCH, dim / BATCH))

    def value(u: Tensor) -> Tensor:
        return -problem.simulate(space.lower + u * (space.upper - space.lower))

    y = value(unit)
    seen, x = -y[:, 0], unit
    found: dict[str, Any] = {}
    number = 0
    while len(seen) < CALLS:
        near_rows = (x - x[y.argmax()]).square().sum(-1).argsort()[:TURBO_ROWS]
        rows, scaled = x[near_rows], y[near_rows]
        scaled = (scaled - scaled.mean()) / scaled.std()
        kernel = ScaleKernel(
            MaternKernel(nu=2.5, ard_num_dims=dim, lengthscale_constraint=Interval(0.005, 4.0))
        )
        likelihood = GaussianLikelihood(noise_constraint=Interval(1e-8, 1e-3))
        model = SingleTaskGP(
            rows, scaled, covar_module=kernel, likelihood=likelihood, outcome_transform=None
        )
        if found and number % 2:
            model.load_state_dict(found)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit_gpytorch_mll(
                    ExactMarginalLogLikelihood(likelihood, model),
                    optimizer_kwargs={"options": {"maxiter": 50}},
                )
        found, number = model.state_dict(), number + 1
        lengths = kernel.base_kernel.lengthscale.detach().squeeze()
        weights = lengths / lengths.log().mean().exp()
        centre = rows[scaled.argmax()]
        low = (centre - weights * width / 2.0).clamp(0.0, 1.0)
        high = (centre + weights * width / 2.0).clamp(0.0, 1.0)
        sobol = torch.quasirandom.SobolEngine(dim, True, seed=seed + len(seen))
        near = sobol.draw(TURBO_DRAWS, dtype=torch.float64)
        near = low + near * (high - low)
        moved = torch.rand(TURBO_DRAWS, dim) <= min(20.0 / dim, 1.0)
        candidates = torch.where(moved, near, centre)
        with torch.no_grad():
            sampler = MaxPosteriorSampling(model=model, replacement=False)
            new = sampler(candidates, num_samples=min(BATCH, CALLS - len(seen)))
        answer = value(new)
        better = float(answer.max()) > float(y.max()) + 1e-3 * abs(float(y.max()))
        successes, failures = (successes + 1, 0) if better else (0, failures + 1)
        if successes == 10:
            width, successes = min(2.0 * width, 1.6), 0
        elif failures == patience:
            width, failures = width / 2.0, 0
        x, y = torch.cat([x, new]), torch.cat([y, answer])
        seen = torch.cat([seen, -answer[:, 0]])
        if width < 2.0**-7 and len(seen) < CALLS:
            # a restart forgets, as in the paper
            width, successes, failures = 0.8, 0, 0
            x = torch.rand(min(2 * dim, CALLS - len(seen)), dim, dtype=torch.float64)
            y = value(x)
            seen = torch.cat([seen, -y[:, 0]])
    return best_at(seen)


METHODS: dict[str, Callable[[Problem, int], list[float]]] = {
    "`active`": lambda problem, seed: ours(problem, seed, engine=False),
    "`active`, the mixture proposes": lambda problem, seed: ours(problem, seed, engine=True),
    "CMA-ES (cma)": cma_es,
    "TuRBO-1 loop (BoTorch)": turbo,
    "Sobol points": lambda problem, seed: best_at(problem.table(CALLS, seed).y[:, 0]),
}
PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "ackley": lambda seed: Ackley(DIMENSION, shift_seed=seed),
    "rastrigin": lambda seed: RastriginValue(DIMENSION, shift_seed=seed),
}


def measured(method: str, problem: str, seeds: int) -> Row:
    """Medians over the seeds."""
    rows: list[Any] = []
    for seed in range(seeds):
        start = time.process_time()
        values = METHODS[method](PROBLEMS[problem](seed), seed)
        rows.append((*values, time.process_time() - start))
        shown = ", ".join(f"{v:.3g}" for v in rows[-1])
        print(f"{problem}, {method}, seed {seed}: {shown} s", file=sys.stderr, flush=True)
    return tuple(statistics.median(column) for column in zip(*rows, strict=True))


def section(seeds: int, methods: tuple[str, ...] = tuple(METHODS)) -> str:
    head = "| function | method | " + " | ".join(f"{n} calls" for n in AT) + " | CPU s |"
    lines = [head, "|---" * (3 + len(AT)) + "|"]
    for problem in PROBLEMS:
        for method in methods:
            *values, seconds = measured(method, problem, seeds)
            shown = " | ".join(f"{v:.3g}" for v in values)
            lines.append(f"| {problem} | {method} | {shown} | {seconds:.0f} |")
    text = "\n".join(lines)
    return (
        f"## Black-box minimisation in {DIMENSION} columns, optimum shifted at random\n\n"
        f"Best value found (the smallest possible is 0), {START} Sobol points counted, batches of "
        f"{BATCH}; medians of {seeds} seeds. To save time the TuRBO loop fits its Gaussian process "
        f"to the {TURBO_ROWS} rows nearest to the best one, in every second round, and draws at "
        f"{TURBO_DRAWS} points; the published one does more.\n\n{text}"
    )
