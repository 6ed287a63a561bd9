"""Constraints at sampling time, on a learned flow in 8 and 20 dimensions.

The designs follow a Gaussian mixture, so truth can be drawn at will. Each way of keeping an
equality, an inequality or both is measured by the sliced Wasserstein distance of its designs to
truth, beside plain rejection from the same learned flow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from genopt import ConditionalFlow, GenoptError, Space
from genopt.constraint import read_constraints
from genopt.routines.constraints.drawing import constrained_draws
from genopt.routines.constraints.limits import flow_source
from genopt.routines.constraints.rules import Rules, rules_of
from mixture.tools import table

DIMENSIONS = (8, 20)
ROWS = 20_000
EPOCHS = 80
N = 500
TRUTH = 4_000
REPEATS = 5
POOL = 2_000_000
PROBE = 200_000
EQUALITY = "x1 * x2 + x3 == 1"
INEQUALITY = "x4 + x5 - 0.5 * x6**2 >= {bound}"
TASKS = ("equality", "inequality", "both")
WAYS = ("auto", "smc")
GROUPS = 10


class Prior:
    """Three Gaussians with covariances of their own."""

    def __init__(self, dim: int) -> None:
        generator = torch.Generator().manual_seed(dim)
        self.dim = dim
        self.mean = 1.2 * torch.randn(3, dim, generator=generator, dtype=torch.float64)
        factors = torch.randn(3, dim, dim, generator=generator, dtype=torch.float64) / dim**0.5
        self.root = 0.7 * factors + 0.5 * torch.eye(dim, dtype=torch.float64)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws (n, P)."""
        which = torch.randint(0, 3, (n,), generator=generator)
        noise = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        out = torch.empty_like(noise)
        for k in range(3):
            rows = which == k
            out[rows] = self.mean[k] + noise[rows] @ self.root[k].T
        return out


def learned(prior: Prior, space: Space, folder: Path | None) -> ConditionalFlow:
    """A flow that hardly depends on its one property."""
    path = None if folder is None else folder / f"constraints_{prior.dim}.ckpt"
    if path is not None and path.exists():
        return ConditionalFlow.load(path)
    generator = torch.Generator().manual_seed(0)
    x = prior.sample(ROWS, generator)
    y = torch.randn(ROWS, 1, generator=generator, dtype=torch.float64)
    flow = ConditionalFlow(
        space,
        Space.of(y=(-6.0, 6.0)),
        network={"kind": "adaln", "width": 96, "depth": 3},
        condition_dropout=1.0,
        epochs=EPOCHS,
        batch_size=512,
    )
    flow.fit(space.project(x), y)
    if path is not None:
        flow.save(path)
    return flow


def rejected(
    draw: Callable[[int], Tensor], rules: Rules, shell: Tensor, n: int, most: int
) -> tuple[Tensor, int]:
    """The first n draws inside thin shells, or as many as there are."""
    parts: list[Tensor] = []
    made = 0
    while made < most and sum(map(len, parts)) < n:
        x = draw(min(200_000, most - made))
        made += len(x)
        parts.append(x[(rules.excess(x) <= shell).all(-1)])
    return torch.cat(parts)[:n], made


def sliced(x: Tensor, truth: Tensor, directions: Tensor) -> float:
    """Sliced Wasserstein-2 distance, each quantile of x against truth's."""
    levels = (torch.arange(1_000, dtype=torch.float64) + 0.5) / 1_000
    a = torch.quantile(x @ directions, levels, dim=0)
    b = torch.quantile(truth @ directions, levels, dim=0)
    return float((a - b).square().mean().sqrt())


def section(folder: Path | None = None) -> str:
    lines: list[str] = []
    for dim in DIMENSIONS:
        lines += _measured(dim, folder)
    head = "| columns | rule | way | draws come near | sliced W2 to truth | x rejection | "
    return (
        "## Constraints at sampling time\n\n"
        f"A flow learned from {ROWS:,} designs of a mixture of three Gaussians; {N} designs for "
        f"`{EQUALITY}`, for `{INEQUALITY.format(bound='b')}` (b: 5 % of the designs keep it), and "
        f"for both; medians of {REPEATS} seeds. *Rejection* keeps the draws of the same flow "
        "within a 20th of the residual's scatter, without moving them (median of so many groups); "
        "*truth* is as many draws of the exact law. "
        "The largest violation of any returned design was "
        f"{max(_VIOLATIONS):.0e}.\n\n" + table(f"{head}draws for each design | CPU s |", lines)
    )


_VIOLATIONS = [0.0]


def _measured(dim: int, folder: Path | None) -> list[str]:
    prior = Prior(dim)
    space = Space.from_bounds([(-8.0, 8.0)] * dim)
    generator = torch.Generator().manual_seed(1)
    probe = prior.sample(100_000, generator)
    values = probe[:, 3] + probe[:, 4] - 0.5 * probe[:, 5] ** 2
    bound = float(values.quantile(0.95))
    texts = {
        "equality": [EQUALITY],
        "inequality": [INEQUALITY.format(bound=f"{bound:.4f}")],
    }
    texts["both"] = texts["equality"] + texts["inequality"]
    flow = learned(prior, space, folder)
    free = torch.full((1, 1), torch.nan, dtype=torch.float64)
    fresh_draws = torch.Generator().manual_seed(2)

    def draw(n: int) -> Tensor:
        return flow.sample(free, n, fresh_draws)[0]

    started = time.process_time()
    looked = draw(PROBE)
    seconds = time.process_time() - started
    directions = torch.randn(dim, 256, generator=generator, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    lines = []
    for task in TASKS:
        rules = rules_of(read_constraints(texts[task], space), space)
        assert rules is not None
        spread = rules.residual(probe).std(0)
        thin = torch.where(rules.equality, 0.01 * spread, 0.0)
        truth, _ = rejected(lambda n: prior.sample(n, generator), rules, thin, TRUTH, 20_000_000)
        fresh, _ = rejected(
            lambda n: prior.sample(n, generator), rules, thin, N * GROUPS, 20_000_000
        )
        share = float((rules.excess(looked) <= 5 * thin).all(-1).double().mean())
        kept, _ = rejected(draw, rules, 5 * thin, N * GROUPS, POOL)
        # one group of few draws is good or bad by luck: the median of several is the measure
        groups = [part for part in kept.split(N) if len(part) == N] or [kept]
        base = median(sliced(part, truth, directions) for part in groups)
        floor = median(sliced(part, truth, directions) for part in fresh.split(N))
        name = f"| {dim} | {task} |"
        tail = f"{100 * share:.2g} % |"
        lines.append(f"{name} truth | {tail} {floor:.3f} | {floor / base:.2f} | | |")
        lines.append(
            f"{name} rejection ({len(groups)} x {len(groups[0])}) | {tail} {base:.3f} | 1 | "
            f"{1 / share:.0f} | {N / share * seconds / len(looked):.1f} |"
        )
        for way in WAYS:
            line = _way(way, flow, rules, truth, directions, base)
            lines.append(f"{name} {way} | {tail} {line}")
            if "(smc)" in line:
                break
    return lines


def _way(
    way: str, flow: ConditionalFlow, rules: Rules, truth: Tensor, directions: Tensor, base: float
) -> str:
    free = torch.full((1, 1), torch.nan, dtype=torch.float64)
    scores, draws, seconds, words = [], [], [], ""
    for seed in range(REPEATS):
        source = flow_source(flow, free, torch.Generator().manual_seed(10 + seed), {})
        started = time.process_time()
        try:
            found = constrained_draws(source, rules, N, method=way)
        except GenoptError as error:
            return f"{error} | | | |"
        seconds.append(time.process_time() - started)
        x = found.x[found.valid]
        assert len(x) == N
        _VIOLATIONS.append(float(found.report["largest_violation"]))
        draws.append(found.report["tries"] / N)
        scores.append(sliced(x, truth, directions))
        words = found.report["method"] if way == "auto" else ""
    score = median(scores)
    took = f"{median(draws):.0f} | {np.median(seconds):.1f} |"
    return f"{score:.3f} | {score / base:.2f} {f'({words})' if words else ''} | {took}"
