"""Section: the cost of a search beside its matrix products and BoTorch, and how exact it ends."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from botorch.generation.gen import gen_candidates_torch
from torch import Tensor, nn

from genopt import FlexibleMultiTaskModel, Space
from genopt.problems import RobotArm
from genopt.routines.optimize_latent import optimize_latent

STARTS, STEPS, DIM, WIDTH = 2048, 300, 10, 500
SINGLE_STARTS = 4
MOST_REPEATS = 3


def section(seeds: int) -> str:
    """The Markdown of the section.

    Args:
        seeds: repeats of each timing (at most three), seeds of the starts.

    Returns:
        A table of CPU seconds and one of the ends of searches.
    """
    return "\n".join([*_speed(min(seeds, MOST_REPEATS)), "", *_ends(seeds)])


def _cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


# -- speed -----------------------------------------------------------------------------------------
def _model() -> FlexibleMultiTaskModel:
    hidden = {"kind": "mlp", "hidden_dims": [WIDTH] * 3, "latent_dim": WIDTH}
    space = Space.from_bounds([(0.0, 1.0)] * DIM)
    return FlexibleMultiTaskModel(heads={"y": "regression"}, encoder=hidden, x_space=space)


def _bare_products(generator: torch.Generator) -> Callable[[], None]:
    """All products of a forward pass and of a backward pass to the input, nothing else."""
    sizes = [DIM, *[WIDTH] * 4, 1]
    pairs = list(pairwise(sizes))

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    weights = [draw(out, into) for into, out in pairs]
    inputs = [draw(STARTS, into) for into, _ in pairs]
    gradients = [draw(STARTS, out) for _, out in pairs]

    def work() -> None:
        for _ in range(STEPS):
            for x, weight in zip(inputs, weights, strict=True):
                _ = x @ weight.T
            for g, weight in zip(gradients, weights, strict=True):
                _ = g @ weight

    return work


def _speed(repeats: int) -> list[str]:
    model = _model()
    network = nn.Sequential(model.encoder.scaler, model.encoder.network, model.task_heads["y"])
    frozen = network.requires_grad_(False).eval()

    def botorch(starts: Tensor) -> None:
        # a window longer than the search: no early stop
        stop = {"maxiter": STEPS, "n_window": STEPS + 1}
        options = {"optimizer_options": {"lr": 0.05}, "stopping_criterion_options": stop}
        gen_candidates_torch(
            starts[:, None], lambda x: frozen(x)[:, 0, 0], 0.0, 1.0, options=options
        )

    rows: dict[str, list[float]] = {}
    for seed in range(repeats):
        generator = torch.Generator().manual_seed(seed)
        bare = _bare_products(generator)
        starts = torch.rand(STARTS, DIM, generator=generator)

        def search(optimizer: str, patience: int | None, x: Tensor = starts) -> None:
            optimize_latent(
                model, "y", x, steps=STEPS, num_restarts=1, optimizer=optimizer, patience=patience
            )

        measured = {
            "bare matrix products": _cpu(bare),
            "optimize_latent, adam, every step taken": _cpu(lambda: search("adam", None)),
            "optimize_latent, adam, rows stop by themselves": _cpu(lambda: search("adam", 10)),
            "optimize_latent, lbfgs, rows stop by themselves": _cpu(lambda: search("lbfgs", 10)),
            "BoTorch gen_candidates_torch, one batch": _cpu(lambda x=starts: botorch(x)),
            "BoTorch gen_candidates_torch, start by start": STARTS
            / SINGLE_STARTS
            * _cpu(lambda x=starts: [botorch(x[i : i + 1]) for i in range(SINGLE_STARTS)]),
        }
        for name, seconds in measured.items():
            rows.setdefault(name, []).append(seconds)
    unit = rows["bare matrix products"]
    asked = {
        "optimize_latent, adam, every step taken": "1.3",
        "BoTorch gen_candidates_torch, one batch": "not less than optimize_latent",
        "BoTorch gen_candidates_torch, start by start": "10 times optimize_latent",
    }
    lines = [
        "## Speed of the search",
        "",
        f"What do {STARTS} starts x {STEPS} steps on a network of four layers of {WIDTH} cost "
        "beside the matrix products that they need (forward, and backward to the input, float32)? "
        "BoTorch runs the same network, float32, Adam, the same number of steps; start by start it "
        f"was timed for {SINGLE_STARTS} starts and multiplied.",
        "",
        "| | CPU s | times the products | asked |",
        "|---|---|---|---|",
    ]
    for name, seconds in rows.items():
        ratio = statistics.median(s / b for s, b in zip(seconds, unit, strict=True))
        shown = f"{statistics.median(seconds):.1f}"
        lines.append(f"| {name} | {shown} | {ratio:.2f} | {asked.get(name, '')} |")
    return lines


# -- ends ------------------------------------------------------------------------------------------
def _ends(seeds: int) -> list[str]:
    problem = RobotArm()
    data = problem.table(2000, seed=0)
    model = FlexibleMultiTaskModel(x_space=problem.x_space, y_space=problem.y_space, epochs=60)
    model.fit_table(data)
    wanted = dict(zip(problem.y_space.names, (1.7, 0.5), strict=True))
    lines = [
        "How near do 640 searches on a robot_arm surrogate come to what they are asked for? Loss: "
        "mean squared miss in units of the training spread.",
        "",
        "| optimizer | steps | median loss | worst of the best 90 % | CPU s |",
        "|---|---|---|---|---|",
    ]
    for optimizer in ("adam", "lbfgs", "adam_lbfgs"):
        for steps in (50, 100, 300):
            middle, tail, spent = [], [], []
            for seed in range(seeds):
                start = time.process_time()
                result = optimize_latent(
                    model,
                    task_targets=wanted,
                    initial_input=data.x[64 * seed : 64 * (seed + 1)],
                    steps=steps,
                    optimizer=optimizer,
                    generator=torch.Generator().manual_seed(seed),
                )
                spent.append(time.process_time() - start)
                loss = result["all_restarts"]["loss"].flatten()
                middle.append(float(loss.median()))
                tail.append(float(loss.quantile(0.9)))
            values = [statistics.median(v) for v in (middle, tail, spent)]
            lines.append(
                f"| {optimizer} | {steps} | {values[0]:.1e} | {values[1]:.1e} | {values[2]:.2f} |"
            )
    return lines
