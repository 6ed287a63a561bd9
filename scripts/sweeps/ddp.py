"""Section: a fit by two processes beside the same fit by one."""

from __future__ import annotations

import os
import resource
import time
from typing import Any

import torch

from genopt import ConditionalFlow, Space, Table
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.options import FitOptions
from genopt.models.team import one_team

ROWS, COLUMNS = 20_000, 12
ONE = {"accelerator": "cpu", "devices": 1}
TWO = {"accelerator": "cpu", "devices": 2, "strategy": "ddp_spawn"}
# rows of a mini-batch, hidden units of a layer, epochs
SIZES = ((512, 128, 6), (2048, 512, 4), (8192, 1024, 3))


def section(sizes: tuple[tuple[int, int, int], ...] = SIZES) -> str:
    """Markdown: start-up, speed and equality."""
    torch.set_num_threads(1)
    table = rows()
    lines = [
        "## A fit by two processes\n",
        f"{ROWS:,} rows, {COLUMNS} inputs, two outputs, one thread a process, on the processor; "
        "seconds by the clock of the fit alone, with the helper already there. The load counts "
        "whatever else ran on the machine: with two cores and a load above two, two processes "
        "have less than two cores.\n",
        "| model | batch | width | one: s (CPU s) | two: s (CPU s) | faster | largest difference "
        "of a loss | load |",
        "|---" * 8 + "|",
    ]
    with one_team():
        start, cpu = begin(table)
        for kind in ("multitask", "flow"):
            for batch, width, epochs in sizes:
                one, lone = fitted(kind, table, ONE, batch, width, epochs)
                two, both = fitted(kind, table, TWO, batch, width, epochs)
                apart = max(
                    abs(a[name] - b[name]) / abs(a[name])
                    for a, b in zip(one.history, two.history, strict=True)
                    for name in ("train/loss", "validation/loss")
                )
                lines.append(
                    f"| {kind} | {batch} | {width} | {lone[0]:.1f} ({lone[1]:.1f}) | "
                    f"{both[0]:.1f} ({both[1]:.1f}) | {lone[0] / both[0]:.2f} | {apart:.0e} | "
                    f"{os.getloadavg()[0]:.1f} |"
                )
    helped = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines.append(
        f"\nThe first fit of a study waits {start:.1f} s by the clock for its helper, which "
        f"imports torch and Lightning; this process works {cpu:.1f} CPU s in that time. CPU "
        "seconds in the table are those of the first process; the helper used "
        f"{helped.ru_utime + helped.ru_stime:.1f} CPU s in all."
    )
    return "\n".join(lines)


def rows() -> Table:
    """A smooth function of many columns."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS, COLUMNS, generator=generator, dtype=torch.float64)
    y = torch.stack([(3 * x).sin().sum(1), (x[:, :6] * x[:, 6:]).sum(1)], 1)
    table = Table(x, y, Space.of(**dict.fromkeys("abcdefghijkl", (0.0, 1.0))), of_y(y))
    return table.with_split(0.1, 0.0, 0)


def of_y(y: torch.Tensor) -> Space:
    """The Space of the outputs."""
    low, high = y.amin(0).tolist(), y.amax(0).tolist()
    return Space.of(**{name: (low[i], high[i]) for i, name in enumerate("uv")})


def begin(table: Table) -> tuple[float, float]:
    """Seconds and CPU seconds until the helper is there and a fit of one epoch is done."""
    started, worked = time.perf_counter(), time.process_time()
    fitted("multitask", table, TWO, ROWS, 8, 1)
    return time.perf_counter() - started, time.process_time() - worked


def fitted(
    kind: str, table: Table, trainer: dict[str, Any], batch: int, width: int, epochs: int
) -> tuple[Any, tuple[float, float]]:
    """A fitted model, its seconds and its CPU seconds."""
    options: dict[str, Any] = {
        "x_space": table.x_space, "y_space": table.y_space, "epochs": epochs, "batch_size": batch,
    }  # fmt: skip
    model: Any
    if kind == "flow":
        network = {"kind": "adaln", "width": width, "depth": 3}
        model = ConditionalFlow(**options, network=network, draws=1)
    else:
        encoder = {"kind": "mlp", "hidden_dims": [width] * 3, "latent_dim": width}
        model = FlexibleMultiTaskModel(**options, encoder=encoder)
    started, worked = time.perf_counter(), time.process_time()
    model.fit_table(table, FitOptions(seed=0, trainer=trainer))
    return model, (time.perf_counter() - started, time.process_time() - worked)


if __name__ == "__main__":
    print(section())
