"""The picture of the README: run `python scripts/make_images.py`; about a minute on one thread."""

from __future__ import annotations

from pathlib import Path

import torch

from genopt import ConditionalFlowMatching, generate_samples
from genopt.analysis.plots.style import BLUE, GREEN, GREY, ORANGE, legend, panels

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def rings() -> Path:
    """Designs for three values of a property that many designs share."""
    x = generate_samples([(-1, 1), (-1, 1)], n_samples=4000)
    y = (x**2).sum(1, keepdims=True)
    flow = ConditionalFlowMatching(x_dim=2, c_dim=1, bounds=[(-1, 1), (-1, 1)])
    flow.fit(x, y, verbose=True)
    wanted = [0.2, 0.5, 0.9]
    found = flow.sample(c_values=[[v] for v in wanted], n_samples=1000)

    figure, (known, asked, missed) = panels(3, size=3.4)
    colours = (BLUE, ORANGE, GREEN)
    points = known.scatter(x[:, 0], x[:, 1], c=y[:, 0], s=4, cmap="viridis")
    figure.colorbar(points, ax=known, label="y", shrink=0.8)
    known.set_title("what is known: designs x and their y", fontsize=9)
    known.set(xlabel="x1", ylabel="x2")
    for value, designs, colour in zip(wanted, found, colours, strict=True):
        asked.scatter(designs[:, 0], designs[:, 1], s=4, color=colour, label=f"y = {value}")
        error = (designs**2).sum(1) - value
        missed.hist(error, bins=50, color=colour, alpha=0.7, range=(-0.1, 0.1))
    asked.set_title("what is asked: designs for three y", fontsize=9)
    asked.set(xlabel="x1", ylabel="x2")
    missed.axvline(0.0, color=GREY)
    missed.set_title("what is checked: true y minus wanted y", fontsize=9)
    missed.set(xlabel="error", ylabel="designs")
    for axes in (known, asked):
        axes.set_aspect("equal")
    legend(figure, asked)
    path = IMAGES / "rings.png"
    figure.savefig(path)
    return path


if __name__ == "__main__":
    torch.set_num_threads(1)
    IMAGES.mkdir(parents=True, exist_ok=True)
    print(rings())
