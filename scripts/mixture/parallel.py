"""Section: fits side by side, by wall time; it needs a machine without other work."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from genopt import best_gmm
from genopt.problems import ArmKinematics, TwoMoons
from mixture.tools import Array, some_mixture, table

JOBS, REPEATS = 2, 3


def joint(problem: Any, n: int) -> Array:
    rows = problem.table(n, 0)
    return np.concatenate([rows.x.numpy(), rows.y.numpy()], 1)


def cases() -> list[tuple[str, Array, dict[str, Any]]]:
    arm = joint(ArmKinematics(), 3000)
    moons = joint(TwoMoons(), 10_000)
    large = some_mixture(8, 10, 0).sample(50_000, np.random.RandomState(0))
    gappy = np.where(np.random.default_rng(0).random((4000, 10)) < 0.2, np.nan, large[:4000])
    held_out = {"criterion": "heldout", "patience": None}
    return [
        ("arm_kinematics, 3,000 x 6, held out, 1 to 20", arm, held_out | {"max_components": 20}),
        ("two moons, 10,000 x 4, held out, 1 to 20", moons, held_out | {"max_components": 20}),
        (
            "two moons, three members of 28",
            moons,
            {"min_components": 28, "max_components": 28, "members": 3},
        ),
        ("two moons, BIC, 1 to 20", moons, {"max_components": 20, "patience": None}),
        ("50,000 x 10, held out, 1 to 8", large, held_out | {"max_components": 8}),
        ("4,000 x 10 with gaps, held out, 1 to 5", gappy, held_out | {"max_components": 5}),
    ]


def seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def section() -> str:
    """The Markdown of the section."""
    lines = []
    for name, rows, options in cases():
        runs = {n: partial(best_gmm, rows, n_jobs=n, **options) for n in (1, JOBS)}
        # one after the other, so that both meet the same machine
        spent = [{n: seconds(run) for n, run in runs.items()} for _ in range(REPEATS)]
        alone, beside = (min(each[n] for each in spent) for n in (1, JOBS))
        lines.append(f"| {name} | {alone:.2f} | {beside:.2f} | {alone / beside:.2f} |")
    head = f"| fit | one after the other, s | `n_jobs={JOBS}`, s | times faster |"
    return f"""## Fits side by side

Wall time, fewest seconds of {REPEATS}. Threads share what does not depend on one another: the parts
that are held out, the members of an average, the two starts for one number of components. The
result is the same to the last bit.

{table(head, lines)}"""
