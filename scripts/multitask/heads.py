"""Section "many heads": what two dozen properties cost in training beside one vector of them."""

from __future__ import annotations

import time

import torch

from genopt import FlexibleMultiTaskModel

ROWS, INPUTS, PROPERTIES = 10_000, 10, 24
EPOCHS, BATCH, REPEATS = 15, 512, 8
TARGET = 1.5


def table(seed: int, missing: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(ROWS, INPUTS, generator=generator)
    y = torch.sin(x @ torch.randn(INPUTS, PROPERTIES, generator=generator))
    y[torch.rand(y.shape, generator=generator) < missing] = torch.nan
    return x, y


def seconds(x: torch.Tensor, y: torch.Tensor, one: bool, epochs: int = EPOCHS) -> float:
    """CPU seconds of a training, with one vector head or a head for each property."""
    heads = (
        {"all": {"kind": "regression", "dim": PROPERTIES}}
        if one
        else {f"y{i}": "regression" for i in range(PROPERTIES)}
    )
    labels = {"all": y} if one else {f"y{i}": y[:, i] for i in range(PROPERTIES)}
    model = FlexibleMultiTaskModel(INPUTS, heads)
    start = time.process_time()
    model.fit(x, labels, epochs=epochs, batch_size=BATCH)
    return time.process_time() - start


def section(seeds: int) -> str:
    """The Markdown of the section.

    Args:
        seeds: not used; a speed needs repeats and no seeds.

    Returns:
        The table.
    """
    del seeds
    lines = [
        "## Many heads",
        "",
        f"{PROPERTIES} scalar regression heads on {ROWS:,} rows against one head of the same total "
        f"width: {EPOCHS} epochs, mini-batches of {BATCH}, default encoder, validation scores of "
        f"every head included. CPU seconds, the smallest of {REPEATS} repeats.",
        "",
        "| labels missing | one vector head | heads for each property | ratio | target |",
        "| --- | --- | --- | --- | --- |",
    ]
    seconds(*table(0, 0.0), one=True, epochs=1)
    for missing in (0.0, 0.5):
        pairs = []
        x, y = table(0, missing)
        for _ in range(REPEATS):
            pairs.append((seconds(x, y, one=True), seconds(x, y, one=False)))
        plain, ours = (min(side) for side in zip(*pairs, strict=True))
        lines.append(
            f"| {missing:.0%} | {plain:.2f} s | {ours:.2f} s | {ours / plain:.2f}x | <= {TARGET}x |"
        )
    return "\n".join(lines)
