"""The figures of one study, written as PNG files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from genopt.analysis import plots
from genopt.analysis.metrics import regression_scores
from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.goal import Goal
from genopt.problems.base import Answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_figures(
    folder: Path,
    name: str,
    goal: Goal,
    table: Table,
    candidates: Candidates,
    answers: tuple[Answer, ...] = (),
    parity: tuple[Table, Tensor] | None = None,
    history: list[dict[str, float]] | None = None,
) -> list[Path]:
    """Draw what the study's results allow.

    Args:
        folder: where the files go.
        name: the problem's name, for titles.
        goal: what was wanted.
        table: all rows.
        candidates: what the routine returned.
        answers: exact answers to the goal.
        parity: rows that training did not see and the predictions for them.
        history: losses of every epoch.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for stem, figure in _figures(name, goal, table, candidates, answers, parity, history):
        path = folder / f"{stem}.png"
        figure.savefig(path)
        written.append(path)
    return written


def _figures(
    name: str,
    goal: Goal,
    table: Table,
    candidates: Candidates,
    answers: tuple[Answer, ...],
    parity: tuple[Table, Tensor] | None,
    history: list[dict[str, float]] | None,
) -> Iterator[tuple[str, Figure]]:
    space = candidates.x_space
    source = "simulated" if candidates.verified else "measured"
    if parity is not None:
        rows, predicted = parity
        scores = regression_scores(rows.y, predicted, table.y_space)
        held = "held-out rows" if "test" in rows.split else "training rows"
        yield (
            "parity",
            plots.plot_parity(
                rows.y,
                predicted,
                table.y_space,
                scores,
                source,
                f"{name}: predicted against {source}, {held}",
            ),
        )
    if history:
        yield "learning_curves", plots.plot_learning_curves(history, f"{name}: learning curves")
    yield (
        "designs",
        plots.plot_conditional(
            candidates.x[0], space, table.x, answers, f"{name}: designs for {goal}"
        ),
    )
    if candidates.verified:
        yield (
            "claimed_verified",
            plots.plot_claimed_verified(
                goal,
                candidates.y_predicted,
                candidates.y_verified,
                f"{name}: claimed against verified",
            ),
        )
    best = candidates.top(20)
    shown: dict[str, Any] = {"best designs, predicted": best.y_predicted[0]}
    if candidates.verified:
        shown["best designs, verified"] = best.y_verified[0]
    yield (
        "properties",
        plots.plot_properties(goal, table.y, shown, source, f"{name}: best designs"),
    )
    if candidates.trajectory is not None:
        ways = candidates.trajectory[0]
        if candidates.header.get("trajectory") == "search":
            winner = int(candidates.order()[0, 0])
            yield (
                "trajectories",
                plots.plot_search_trajectories(
                    ways, space, winner, answers, title=f"{name}: restarts of the search"
                ),
            )
        else:
            yield (
                "trajectories",
                plots.plot_flow_trajectories(
                    ways,
                    space,
                    candidates.header["times"],
                    answers,
                    title=f"{name}: from noise to designs",
                ),
            )
