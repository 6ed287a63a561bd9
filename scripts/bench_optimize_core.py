"""optimize_latent as one batch of starts and restarts against a loop over the restarts.

Both run the same steps from the same points on one thread; the ratio of their times is printed.
Run: python scripts/bench_optimize_core.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.routines.optimize_latent import optimize_latent
from genopt.space import Space


def optimize_latent_ratio(
    starts: int = 64, restarts: int = 20, steps: int = 100, repeats: int = 3
) -> tuple[float, float]:
    """CPU seconds of the batch and of the loops over single restarts of single starts.

    The loop is timed over a tenth of its calls and scaled up.
    """
    space = Space.from_bounds([(0.0, 1.0)] * 6)
    model = FlexibleMultiTaskModel(x_space=space, heads={"a": "regression", "b": "regression"})
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.rand(starts, 6, generator=generator)
    targets = {"a": 0.1, "b": -0.1}
    batch = min(
        _seconds(
            lambda: optimize_latent(
                model,
                task_targets=targets,
                initial_input=x_0,
                steps=steps,
                num_restarts=restarts,
                patience=None,
            )
        )
        for _ in range(repeats)
    )
    points = x_0.repeat_interleave(restarts, 0)
    points = (points + 0.1 * torch.randn(points.shape, generator=generator)).clamp(0.0, 1.0)
    sample = points[:: max(1, len(points) // 128)]

    def loop() -> None:
        for point in sample:
            optimize_latent(
                model,
                task_targets=targets,
                initial_input=point,
                steps=steps,
                num_restarts=1,
                patience=None,
            )

    return batch, _seconds(loop) * len(points) / len(sample)


def loop_over_restarts(
    starts: int = 64, restarts: int = 20, steps: int = 100
) -> tuple[float, float]:
    """CPU seconds of the batch and of a loop over restarts that keeps all starts in one tensor."""
    space = Space.from_bounds([(0.0, 1.0)] * 6)
    model = FlexibleMultiTaskModel(x_space=space, heads={"a": "regression", "b": "regression"})
    x_0 = torch.rand(starts, 6, generator=torch.Generator().manual_seed(0))
    targets = {"a": 0.1, "b": -0.1}

    def search(number: int) -> None:
        optimize_latent(
            model,
            task_targets=targets,
            initial_input=x_0,
            steps=steps,
            num_restarts=number,
            patience=None,
        )

    batch = _seconds(lambda: search(restarts))
    return batch, sum(_seconds(lambda: search(1)) for _ in range(restarts))


def _seconds(call: Callable[[], object]) -> float:
    before = time.process_time()
    call()
    return time.process_time() - before


def main() -> None:
    torch.set_num_threads(1)
    for name, measure in (
        ("64 starts x 20 restarts one by one", optimize_latent_ratio),
        ("20 restarts one by one, 64 starts each", loop_over_restarts),
    ):
        batch, loop = measure()
        print(f"{name}: batch {batch:.2f} s, loop {loop:.2f} s: {loop / batch:.1f}x")


if __name__ == "__main__":
    main()
