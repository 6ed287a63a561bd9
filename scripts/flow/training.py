"""Section: the cost of a training step, and training on a file larger than memory."""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor

from genopt import ConditionalFlow, Space
from genopt.models.training import fit
from genopt.nn.velocity import AdaLNVelocity
from mixture.tools import table, timed

ROWS, EPOCHS, BATCH = 10_000, 20, 256
FILE_COLUMNS, WRITTEN_AT_ONCE, SAMPLE = 6, 500_000, 20_000
SMALL, LARGE = 6_000_000, 24_000_000
MEGA = 2.0**20


# -- the cost of a step ----------------------------------------------------------------------------
def bare_loop(rows: tuple[Tensor, ...], held: tuple[Tensor, ...], epochs: int) -> None:
    """The same mathematics written out: dropped conditions, AdamW, clipping, schedule, average."""
    x, _, _, values, mask = rows
    network = AdaLNVelocity(x.shape[1], values.shape[1] + mask.shape[1])
    average = copy.deepcopy(network).requires_grad_(False)
    weights, averages = list(network.parameters()), list(average.parameters())
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=1e-4, fused=True)
    steps = epochs * -(-len(x) // BATCH)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def loss_of(
        model: AdaLNVelocity, data: Tensor, values: Tensor, known: Tensor, t: Tensor
    ) -> Tensor:
        noise, at = torch.randn_like(data), t[:, None]
        x_t, size = at * data + (1 - at) * noise, torch.sqrt(at**2 + (1 - at) ** 2)
        condition = torch.cat([values * known, known], -1)
        learned = model(x_t / size, t, model.embed(condition))
        guess = (2 * at - 1) / size**2 * x_t + learned / size
        return torch.nn.functional.mse_loss(guess, data - noise)

    done = 0
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(BATCH):
            n = len(index)
            rand = torch.rand(n, mask.shape[1] + 2)
            keep = ((rand[:, 2:] < rand[:, 1:2]) | (rand[:, :1] >= 0.2)).float()
            levels = (torch.arange(n) + torch.rand(n)) / n
            loss = loss_of(network, x[index], values[index], mask[index] * keep, levels ** (2 / 3))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            scheduler.step()
            decay = min(0.999, (1 + done) / (10 + done))
            torch._foreach_lerp_(averages, weights, 1 - decay)
            done += 1
        with torch.no_grad():
            data, _, _, given, known = (part.repeat(16, 1) for part in held)
            loss_of(average, data, given, known, torch.rand(len(data)))


def step_costs() -> tuple[float, float, int]:
    """CPU seconds of the trainer and of the bare loop, and the number of steps."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS, 6, generator=generator) * 2 - 1
    y = torch.stack([(3 * x).sin().sum(1), (2 * x).cos().sum(1)], 1)
    space, y_space = Space.from_bounds([(-1.0, 1.0)] * 6), Space.of(a=(-6, 6), b=(-6, 6))
    flow = ConditionalFlow(space, y_space, draws=1)
    with mock.patch("genopt.models.flow.matching.fit") as caught:
        flow.fit(x, y, epochs=EPOCHS, batch_size=BATCH)
    _, rows, held = caught.call_args.args
    ours, plain = [], []
    # by turns, so that a busy machine slows both
    for _ in range(3):
        training = partial(fit, copy.deepcopy(flow), rows, held, epochs=EPOCHS, batch_size=BATCH)
        ours.append(timed(training)[1])
        plain.append(timed(partial(bare_loop, rows, held, EPOCHS))[1])
    return min(ours), min(plain), EPOCHS * -(-len(rows[0]) // BATCH)


# -- a file larger than memory ---------------------------------------------------------------------
def write_file(path: Path, rows: int) -> None:
    """Random designs and two properties of them, in many row groups."""
    rng = np.random.default_rng(0)
    names = [*(f"x{i}" for i in range(1, FILE_COLUMNS - 1)), "a", "b"]
    schema = pa.schema([(name, pa.float64()) for name in names])
    with parquet.ParquetWriter(path, schema) as writer:
        for _ in range(rows // WRITTEN_AT_ONCE):
            x = rng.uniform(-1, 1, (WRITTEN_AT_ONCE, FILE_COLUMNS - 2))
            columns = [*x.T, x.sum(1), np.sin(3 * x).sum(1)]
            block = pa.table([pa.array(column) for column in columns], schema=schema)
            writer.write_table(block, row_group_size=100_000)


def trained(path: str, how: str) -> None:
    """Train on a file in this process; print its peak memory, CPU seconds and an error.

    Args:
        path: the file.
        how: ``streamed``, ``memory``, or ``sample`` for a training on some of its rows.
    """
    import resource

    from genopt import ArrowTable, Table

    torch.set_num_threads(1)
    started = time.process_time()
    x, y = [f"x{i}" for i in range(1, FILE_COLUMNS - 1)], ["a", "b"]
    if how == "memory":
        rows = Table.read(path, x, y).with_split(0.003, 0.0)
    else:
        rows = ArrowTable.open(path, x, y)
    if how == "sample":
        rows = rows.rows(torch.arange(SAMPLE))
    read = time.process_time() - started
    network = {"kind": "adaln", "width": 32, "depth": 2}
    # mini-batches of one size in all of them: what they need is not the file's doing
    options = {"network": network, "batch_size": 8192, "epochs": 100 if how == "sample" else 1}
    flow = ConditionalFlow(rows.x_space, rows.y_space, **options)
    flow.fit_table(rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    spent = time.process_time() - started
    fresh = rows.part("validation")
    x = flow.sample(fresh.y[:200], 10).flatten(0, 1)
    error = (x.sum(-1) - fresh.y[:200, 0].repeat_interleave(10)).square().mean().sqrt()
    print(peak, read, spent, float(error))


def section() -> str:
    """The Markdown of the section."""
    ours, plain, steps = step_costs()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for rows, ways in ((SMALL, ("sample", "streamed", "memory")), (LARGE, ("streamed",))):
            path = Path(folder) / f"{rows}.parquet"
            write_file(path, rows)
            for how in ways:
                arguments = [str(Path(__file__).parents[1]), str(path), how]
                command = [sys.executable, "-c", _CHILD, *arguments]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                peak, read, spent, error = map(float, done.stdout.split()[-4:])
                count = SAMPLE if how == "sample" else rows
                lines.append((_NAMES[how].format(f"{rows:,}"), count, peak, read, spent, error))
            path.unlink()
    least = lines[0][2]
    cells = [
        f"| {name} | {8 * FILE_COLUMNS * rows / MEGA:,.0f} | {peak / MEGA:,.0f} | "
        f"{(peak - least) / MEGA:,.0f} | {read:.1f} | {spent:.1f} | {error:.3f} |"
        for name, rows, peak, read, spent, error in lines
    ]
    head = (
        "| training on | its numbers, MiB | peak, MiB | above the first, MiB | reading, CPU s | "
        "in all, CPU s | error |"
    )
    return f"""## Training

A step of {BATCH} pairs, 6 designs and 2 properties, the default network: {1e3 * ours / steps:.2f}
CPU ms through `fit`, {1e3 * plain / steps:.2f} in a bare loop of the same mathematics (dropped
conditions, AdamW, clipping, cosine schedule, averaged weights, validation):
**{ours / plain:.2f}x**; asked was at most 1.3x. Fewest of three repeats of {steps} steps.

Parquet files of {FILE_COLUMNS} columns, one pass in mini-batches of 8,192 (network 32x2), each
in a process of its own; peak: the largest resident memory, most of it Python's and torch's own, so
the column beside it says what the file costs. Error: the re-simulated first property of draws for
fresh conditions, rms.

{table(head, cells)}"""


_NAMES = {
    "sample": f"{SAMPLE:,} of its rows",
    "streamed": "`ArrowTable`, {} rows streamed",
    "memory": "`Table`, {} rows in memory",
}
_CHILD = """
import os, sys
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, sys.argv[1])
from flow.training import trained
trained(sys.argv[2], sys.argv[3])
"""
