"""The speed of the core, side by side with the plain way, in one process and on one thread.

Run `python scripts/bench_core.py` to print the table, with `--write` to put it into
docs/benchmarks/core.md as well. Times are CPU seconds, the smallest of several repeats; about three
minutes in all.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import gmr
import numpy as np
import torch

from genopt import ConditionalFlow, FlexibleMultiTaskModel, GaussianMixture, Space, optimize_latent
from genopt.models.training import TabularModule, fit

TABLE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "core.md"


@dataclass(frozen=True)
class Row:
    """One comparison: seconds of the plain way and of genopt, and what is asked for."""

    what: str
    plain: float
    ours: float
    target: str

    def cells(self) -> tuple[str, ...]:
        """The row as texts."""
        ratio = f"{self.plain / self.ours:.3g}x faster"
        if self.target.endswith("the time"):
            ratio = f"{self.ours / self.plain:.2f}x the time"
        return self.what, f"{self.plain:.3g} s", f"{self.ours:.3g} s", ratio, self.target


def seconds(call: Callable[[], Any], repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


# -- optimize_latent -------------------------------------------------------------------------------
def search_rows(starts: int = 64, restarts: int = 20, steps: int = 100) -> list[Row]:
    space = Space.from_bounds([(0.0, 1.0)] * 6)
    x_0 = torch.rand(starts, 6, generator=torch.Generator().manual_seed(0))
    rows = []
    for name, encoder in (
        ("64-64", {"kind": "mlp", "hidden_dims": [64], "latent_dim": 64}),
        ("128-128-64, the default", "mlp"),
    ):
        model = FlexibleMultiTaskModel(
            x_space=space, heads={"a": "regression", "b": "regression"}, encoder=encoder
        )

        def search(x: torch.Tensor, number: int, model: Any = model) -> None:
            optimize_latent(
                model,
                task_targets={"a": 0.1, "b": -0.1},
                initial_input=x,
                steps=steps,
                num_restarts=number,
                perturbation_std=0.1 if number > 1 else 0.0,
                patience=None,
            )

        ours = seconds(lambda search=search: search(x_0, restarts))
        loop = restarts * seconds(lambda search=search: search(x_0, 1))
        title = f"optimize_latent, {restarts} restarts x {starts} starts, encoder {name}"
        rows.append(Row(f"{title}: a loop over restarts", loop, ours, ">= 10x"))
        one = seconds(lambda search=search: search(x_0[:1], 1))
        single = starts * restarts * one
        rows.append(Row(f"{title}: a loop over restarts and starts", single, ours, ">= 10x"))
    return rows


# -- training --------------------------------------------------------------------------------------
def hand_written(
    module: TabularModule,
    train: tuple[torch.Tensor, ...],
    validation: tuple[torch.Tensor, ...],
    epochs: int,
    batch_size: int,
) -> None:
    """The loop that one would write without a trainer: the same loss, optimiser and schedule."""
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=module.learning_rate, weight_decay=module.weight_decay, fused=True
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + 1e-3 * step))
    for _ in range(epochs):
        module.train()
        for index in torch.randperm(len(train[0])).split(batch_size):
            loss = module.batch_loss(*(t[index] for t in train))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), module.clip)
            optimizer.step()
            scheduler.step()
            module.after_step()
        module.eval()
        with torch.no_grad():
            module.held_out_loss(*validation)


def training_row(name: str, module: TabularModule, where: str, x: Any, y: Any, epochs: int) -> Row:
    """Train copies of one module through the trainer and by hand, on the same tensors."""
    with mock.patch(f"{where}.fit") as caught:
        module.fit(x, y, epochs=epochs, batch_size=256)
    _, train, validation = caught.call_args.args
    by_hand = seconds(
        lambda: hand_written(copy.deepcopy(module), train, validation, epochs, 256), 2
    )
    ours = seconds(
        lambda: fit(copy.deepcopy(module), train, validation, epochs=epochs, batch_size=256), 2
    )
    what = f"training {name}, {len(train[0])} rows, batch 256, {epochs} epochs: a hand-written loop"
    return Row(what, by_hand, ours, "<= 1.5x the time")


def training_rows() -> list[Row]:
    space, y_space = Space.from_bounds([(-1.0, 1.0)] * 6), Space.of(a=(-6, 6), b=(-6, 6))
    x = torch.rand(10_000, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = torch.stack([(3 * x).sin().sum(1), (2 * x).cos().sum(1)], 1)
    multitask = FlexibleMultiTaskModel(x_space=space, y_space=y_space)
    labels = {"a": y[:, 0], "b": y[:, 1]}
    flow = ConditionalFlow(space, y_space, draws=1)
    return [
        training_row(
            "the multi-task model", multitask, "genopt.models.multitask.learning", x, labels, 12
        ),
        training_row("the flow", flow, "genopt.models.flow.matching", x, y, 6),
    ]


# -- the mixture -----------------------------------------------------------------------------------
def mixture_rows(looped: int = 200) -> list[Row]:
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(20, 10, 10))
    covariances = factors @ factors.transpose(0, 2, 1) / 10 + 0.1 * np.eye(10)
    parameters = rng.dirichlet(np.ones(20)), 3.0 * rng.normal(size=(20, 10)), covariances
    theirs = gmr.GMM(20, *parameters, random_state=0)
    ours = GaussianMixture(20, *parameters, random_state=0)
    known = list(range(5))
    queries = ours.sample(10_000, random_state=0)[:, known]
    gap = np.abs(theirs.predict(known, queries) - ours.predict(known, queries)).max()
    loop = seconds(lambda: [theirs.condition(known, q) for q in queries[:looped]], 2)
    size = "10,000 queries, 10-D, 20 components"
    return [
        Row(
            f"conditional means, {size}: gmr.predict (largest difference {gap:.0e})",
            seconds(lambda: theirs.predict(known, queries)),
            seconds(lambda: ours.predict(known, queries), 7),
            ">= 3x",
        ),
        Row(
            f"full conditionals, {size}: a loop over gmr.condition (timed on {looped})",
            loop * len(queries) / looped,
            seconds(lambda: ours.condition_batch(known, queries), 7),
            ">= 500x",
        ),
    ]


# -- the flow --------------------------------------------------------------------------------------
def flow_rows(conditions: int = 64) -> list[Row]:
    x = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
    flow = ConditionalFlow(Space.of(a=(0, 1), b=(0, 1)), Space.of(c=(0, 2)))
    flow.fit(x, x.sum(1, keepdim=True), epochs=2)
    y = torch.linspace(0.2, 1.8, conditions)[:, None]
    rows = []
    for draws in (16, 100):
        ours = seconds(lambda n=draws: flow.sample(y, n))
        loop = seconds(lambda n=draws: [flow.sample(one[None], n) for one in y], 2)
        what = f"flow, {conditions} conditions x {draws} draws: a loop over conditions"
        rows.append(Row(what, loop, ours, ">= 4x"))
    return rows


def as_markdown(rows: list[Row]) -> str:
    header = ("genopt against", "plain", "genopt", "measured", "target")
    lines = [header, ("---",) * len(header), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} under docs/")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    rows = [*search_rows(), *training_rows(), *mixture_rows(), *flow_rows()]
    table = as_markdown(rows)
    print(table)
    if write:
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        TABLE.write_text(
            "# Core speed\n\n"
            "Written by `python scripts/bench_core.py --write`: both sides in one process, CPU "
            "seconds on one thread.\n"
            f"Machine: {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, "
            f"load average at the start {load:.1f}.\n\n{table}\n"
        )


if __name__ == "__main__":
    main()
