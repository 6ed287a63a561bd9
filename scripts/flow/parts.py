"""The parts of a flow measured one by one: samplers, couplings, networks, paths, times, speed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from genopt import ConditionalFlow
from genopt.models.flow.couplings import ConditionalOTCoupling
from genopt.models.flow.multistep import AdamsBashforth
from genopt.models.flow.paths import LinearPath
from genopt.models.flow.samplers import RK4, Dopri5, Euler, Heun, Midpoint
from genopt.models.flow.stochastic import SDE, drawing
from genopt.problems.arm_kinematics import ArmKinematics
from genopt.problems.base import Problem
from genopt.problems.linear_gaussian import LinearGaussian
from genopt.problems.stochastic import StochasticProblem
from genopt.problems.two_moons import TwoMoons

_ROWS = 5000
_EPOCHS = 80
_BATCH = 256
_DRAWS = 50
_CALLS = (8, 16, 32, 64)
_RULES = {
    "euler": Euler(),
    "heun": Heun(),
    "midpoint": Midpoint(),
    "rk4": RK4(),
    "adams_bashforth, order 2": AdamsBashforth(order=2),
    "adams_bashforth (order 3)": AdamsBashforth(),
    "adams_bashforth, order 4": AdamsBashforth(order=4),
}


def fitted(problem: Problem, rows: int = _ROWS, seed: int = 0, **options: Any) -> ConditionalFlow:
    """A flow that saw 1,400 to 1,600 mini-batches: enough to compare, not to be good."""
    settings = {"learning_rate": 2e-3, "ema": 0.995, "draws": 1, "seed": seed, **options}
    flow = ConditionalFlow(problem.x_space, problem.y_space, **settings)
    table = problem.table(rows, seed=seed)
    return flow.fit(table.x, table.y, epochs=_EPOCHS * _ROWS // rows, batch_size=_BATCH)


def lost_nats(flow: ConditionalFlow, problem: StochasticProblem, seed: int = 99) -> float:
    """The Kullback-Leibler divergence from the exact posterior to the flow's, mean of 8 of them."""
    y = problem.table(8, seed=seed).y
    x = problem.posterior(y, _DRAWS, seed=seed)
    pairs = y.repeat_interleave(_DRAWS, 0)
    points = x.reshape(-1, x.shape[-1])
    exact = problem.log_posterior(points, pairs)
    found = flow.log_prob(points, pairs, sampler=AdamsBashforth(), n_steps=31)
    return float((exact - found).mean())


def markdown(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(header)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# -- samplers --------------------------------------------------------------------------------------
def sampler_errors(flow: ConditionalFlow, y: Tensor) -> dict[str, list[float]]:
    noise = torch.randn(len(y), 256, flow.transform.dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = flow.transport(noise, y, Dopri5(tolerance=1e-8))
        return {
            name: [
                float((flow.transport(noise, y, rule.with_calls(n)) - exact).square().mean().sqrt())
                for n in _CALLS
            ]
            for name, rule in _RULES.items()
        }


def width_error(rule: Any, width: float, calls: int) -> float:
    """How far off a normal's standard deviation is when its exact velocity is integrated."""

    def velocity(t: float, x: Tensor) -> Tensor:
        return (width**2 * t - (1.0 - t)) / ((1.0 - t) ** 2 + (width * t) ** 2) * x

    end = rule.with_calls(calls).solve(velocity, torch.ones(1, dtype=torch.float64)).end
    return abs(float(end) / width - 1.0)


def samplers() -> str:
    columns: dict[str, list[str]] = {name: [] for name in _RULES}
    for problem in (TwoMoons(), ArmKinematics()):
        flow = fitted(problem, 10_000)
        errors = sampler_errors(flow, problem.table(16, seed=7).y)
        for name, row in errors.items():
            columns[name] += [f"{error:.5f}" for error in row]
    for name, rule in _RULES.items():
        columns[name] += [f"{100 * width_error(rule, w, 32):.1f} %" for w in (0.1, 0.03, 0.01)]
    header = ["sampler"]
    header += [f"{what} {n}" for what in ("two moons,", "arm,") for n in _CALLS]
    header += [f"width {w}" for w in (0.1, 0.03, 0.01)]
    table = markdown(header, ([name, *cells] for name, cells in columns.items()))
    return (
        "## Samplers at equal calls of the network\n\n"
        "Root mean square error of designs against dopri5 at 1e-8, same noise, flows learned from "
        "10,000 rows, at 8, 16, 32 and 64 calls; and the error of a normal's standard deviation "
        "when its exact velocity is integrated with 32 calls (the grid is graded by 2).\n\n"
        f"{table}\n\n{stochastic()}"
    )


def stochastic() -> str:
    """The SDE on an exact velocity: what is left of the width's error after n calls."""
    width, path = 0.1, LinearPath()

    def velocity(t: float, x: Tensor) -> Tensor:
        return (width**2 * t - (1.0 - t)) / ((1.0 - t) ** 2 + (width * t) ** 2) * x

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(200_000, generator=generator, dtype=torch.float64)
    start = start / start.std()
    cells = []
    for calls in (16, 32, 64, 128):
        rule = drawing(SDE().with_calls(calls), path, generator)
        off = abs(float(rule.solve(velocity, start).end.std()) / width - 1.0)
        cells.append(f"{100 * off:.1f} % at {calls}")
    return (
        f"The SDE (noise 1) on a normal of width {width}: error of the width {', '.join(cells)} "
        "calls, of which .3 % are chance."
    )


# -- couplings, paths, times, networks -------------------------------------------------------------
def couplings() -> str:
    options: dict[str, Any] = {
        "independent": "independent",
        "conditional_ot, weight 1": {"kind": "conditional_ot", "weight": 1.0},
        "conditional_ot, weight 10": {"kind": "conditional_ot", "weight": 10.0},
        "conditional_ot (weight 100)": "conditional_ot",
        "optimal transport alone (weight 0)": {"kind": "conditional_ot", "weight": 0.0},
    }
    rows = compared("coupling", options, (TwoMoons(), LinearGaussian(5)))
    table = markdown(["coupling", "two moons", "linear_gaussian", "8 calls, two moons"], rows)
    return (
        "## Couplings\n\n"
        "Nats lost to the exact posterior (0 is perfect), and the error of designs that 8 calls of "
        "adams_bashforth make. Optimal transport alone ties the noise to the condition.\n\n"
        f"{table}\n\n{pairing_price()}"
    )


def pairing_price() -> str:
    x, condition = torch.randn(256, 2), torch.randn(256, 4)
    cells = []
    for group in (32, 64, 128):
        rule = ConditionalOTCoupling(group=group)
        rule.noise(x, condition)
        start = time.process_time()
        for _ in range(50):
            rule.noise(x, condition)
        cells.append(f"{20 * (time.process_time() - start):.2f} ms in groups of {group}")
    return f"Pairing a mini-batch of 256 rows costs {', '.join(cells)}."


def compared(
    part: str, options: Mapping[str, Any], problems: Iterable[StochasticProblem]
) -> list[list[str]]:
    rows = []
    for name, value in options.items():
        cells, few = [name], ""
        for problem in problems:
            flow = fitted(problem, **{part: value})
            cells.append(f"{lost_nats(flow, problem):.3f}")
            if not few:
                errors = sampler_errors(flow, problem.table(16, seed=7).y)
                few = f"{errors['adams_bashforth (order 3)'][0]:.4f}"
        rows.append([*cells, few])
    return rows


def paths() -> str:
    options = {name: name for name in ("linear", "cosine", "vp")}
    rows = compared("path", options, (TwoMoons(), LinearGaussian(5)))
    times = {name: name for name in ("uniform", "logit_normal")}
    rows += compared("time_sampling", times, (TwoMoons(), LinearGaussian(5)))
    table = markdown(["part", "two moons", "linear_gaussian", "8 calls, two moons"], rows)
    return (
        "## Paths and times\n\nNats lost, as above; the other parts are the defaults (linear, "
        f"power).\n\n{table}"
    )


def networks() -> str:
    rows = []
    sizes: dict[str, Any] = {
        name: name for name in ("small", "medium", "large", "concat", "transformer")
    }
    problems = {"two moons": TwoMoons(), "linear_gaussian, 10-D": LinearGaussian(10)}
    for name, value in sizes.items():
        cells = [name]
        for problem in problems.values():
            start = time.process_time()
            flow = fitted(problem, network=value)
            spent = time.process_time() - start
            cells.append(f"{lost_nats(flow, problem):.3f} in {spent:.0f} s")
        rows.append(cells)
    table = markdown(["network", *problems], rows)
    return (
        "## Networks\n\nNats lost after the same 1,600 mini-batches of 256 of 5,000 rows, and the "
        f"CPU seconds of the fit.\n\n{table}"
    )


# -- speed -----------------------------------------------------------------------------------------
def speed() -> str:
    problem = TwoMoons()
    flow = ConditionalFlow(problem.x_space, problem.y_space)
    table = problem.table(1000, seed=0)
    flow.fit(table.x, table.y, epochs=2)
    rows = []
    for conditions, draws in ((1, 40_000), (10, 4000), (64, 600)):
        y = problem.table(conditions, seed=3).y
        best = 0.0
        for _ in range(4):
            start = time.process_time()
            flow.sample(y, draws)
            best = max(best, conditions * draws / (time.process_time() - start))
        rows.append([f"{conditions} x {draws}", f"{best:,.0f}", ">= 20,000"])
    table_text = markdown(["conditions x draws", "samples per CPU second", "asked for"], rows)
    return (
        "## Speed\n\nTwo moons, width 64, depth 3, 32 calls of the network, one thread; transform "
        f"and checks included.\n\n{table_text}"
    )


def section() -> str:
    parts = (samplers, couplings, paths, networks, speed)
    return "\n\n".join(part() for part in parts)
