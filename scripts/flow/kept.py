"""Section: which weights of a training are kept, on tables of few rows."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from genopt import ConditionalFlow
from genopt.models.flow.watch import KEPT
from genopt.problems.alloy import Alloy
from genopt.problems.arm_kinematics import ArmKinematics
from genopt.problems.base import Problem
from genopt.problems.linear_gaussian import LinearGaussian
from genopt.problems.plug_flow import PlugFlow
from genopt.problems.two_moons import TwoMoons
from genopt.problems.two_widths import TwoWidths
from mixture.tools import table

ROWS, UNSEEN, _FRESH = 500, 500, 1_000
PROBLEMS: dict[str, Problem] = {
    "arm_kinematics": ArmKinematics(),
    "plug_flow": PlugFlow(),
    "alloy": Alloy(),
    "two_moons": TwoMoons(),
    "two_widths": TwoWidths(),
    "linear_gaussian, 5 columns": LinearGaussian(5),
    "linear_gaussian, 20 columns": LinearGaussian(20),
}
WAYS = ("kept", "lowest loss", "last")


class Remembering(ConditionalFlow):
    """A flow that remembers the averaged weights of each validation."""

    def on_train_epoch_end(self) -> None:
        """After what the flow does itself."""
        super().on_train_epoch_end()
        if "validation/loss" in self.history[-1]:
            self.seen: list[Any] = getattr(self, "seen", [])
            loss = self.history[-1]["validation/loss"]
            self.seen.append((loss, copy.deepcopy(self.average.state_dict())))


def judged(problem: Problem, seed: int) -> list[float]:
    """Minus the mean log density of unseen designs, by the weights of each way; the epoch kept."""
    rows, unseen = problem.table(ROWS, seed), problem.table(UNSEEN, seed + _FRESH)
    flow = Remembering(problem.x_space, problem.y_space, seed=seed).fit(rows.x, rows.y)
    losses = []
    weights = [copy.deepcopy(flow.average.state_dict())]
    weights += [min(flow.seen, key=lambda pair: float(pair[0]))[1], flow.seen[-1][1]]
    for some in weights:
        flow.average.load_state_dict(some)
        losses.append(-float(flow.log_prob(unseen.x, unseen.y).mean()))
    kept = [entry[KEPT] for entry in flow.history if KEPT in entry][-1]
    return [*losses, 100.0 * kept / len(flow.history)]


def section(seeds: int = 5) -> str:
    """The Markdown of the section."""
    lines = []
    for name, problem in PROBLEMS.items():
        scores = np.median([judged(problem, seed) for seed in range(seeds)], axis=0)
        cells = " | ".join(f"{score:.2f}" for score in scores[:-1])
        lines.append(f"| {name} | {cells} | {scores[-1]:.0f} % |")
    head = "| problem | kept | lowest loss | last | kept after |"
    return f"""## Which weights are kept

-log p of {UNSEEN} unseen designs in nats, flows learned from {ROWS} rows with defaults (a tenth of
them for validation): by the weights that are kept, those of the lowest flow matching loss of the
validation rows, and the last; medians over {seeds} seed(s).

{table(head, lines)}"""
