"""The figures of one study, written as PNG files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genopt.analysis import plots
from genopt.analysis.calibrate import Calibration
from genopt.analysis.heldout import HeldOut
from genopt.analysis.plots.style import write_png
from genopt.analysis.resimulation import PUBLISHED, ResimulationCurve
from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.goal import Goal
from genopt.problems.base import Answer
from genopt.routines.abstain import answered

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


def draw_figures(
    folder: Path,
    name: str,
    goal: Goal,
    table: Table,
    candidates: Candidates,
    answers: tuple[Answer, ...] = (),
    held_out: HeldOut | None = None,
    history: list[dict[str, float]] | None = None,
    resimulation: Mapping[str, ResimulationCurve] | None = None,
    calibration: Calibration | None = None,
    exact: Tensor | None = None,
    lost: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Path]:
    """Draw what the study's results allow.

    Args:
        folder: where the files go.
        name: the problem's name, for titles.
        goal: what was wanted.
        table: all rows.
        candidates: what the routine returned.
        answers: exact answers to the goal.
        held_out: predictions for rows that training did not see.
        history: losses of every epoch.
        resimulation: errors of ranked proposals for several targets, by order.
        calibration: how honest the model's distribution is.
        exact: exact designs for the first goal (S, P).
        lost: the share of each column's variance that the model's factors lose, by set of rows.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for stem, figure in _figures(
        name,
        goal,
        table,
        candidates,
        answers,
        held_out,
        history,
        resimulation,
        calibration,
        exact,
        lost,
    ):
        path = folder / f"{stem}.png"
        write_png(figure, path)
        written.append(path)
    return written


def _figures(
    name: str,
    goal: Goal,
    table: Table,
    candidates: Candidates,
    answers: tuple[Answer, ...],
    held_out: HeldOut | None,
    history: list[dict[str, float]] | None,
    resimulation: Mapping[str, ResimulationCurve] | None,
    calibration: Calibration | None,
    exact: Tensor | None,
    lost: Mapping[str, Mapping[str, float]] | None,
) -> Iterator[tuple[str, Figure]]:
    candidates, some, kept = answered(candidates, goal)
    goal = goal if some is None else some
    space = candidates.x_space
    source = "simulated" if candidates.verified else "measured"
    if held_out is not None:
        rows, scores = held_out.rows, held_out.scores()
        where = "held-out rows" if held_out.unseen else "training rows"
        yield (
            "parity",
            plots.plot_parity(
                rows.y,
                held_out.predicted,
                table.y_space,
                scores,
                source,
                f"{name}: predicted against {source}, {where}",
            ),
        )
        curves = held_out.curves()
        if curves:
            title = f"{name}: coverage of the predicted intervals, {where}"
            yield "calibration", plots.plot_calibration(curves, scores, title)
    if history:
        yield "learning_curves", plots.plot_learning_curves(history, f"{name}: learning curves")
    if lost:
        title = f"{name}: what the factors lose"
        yield "reconstruction", plots.plot_reconstruction(lost, title)
    if resimulation:
        published = PUBLISHED.get(name, {})
        title = f"{name}: what ranked proposals are worth"
        yield (
            "resimulation",
            plots.plot_resimulation(resimulation, published, title),
        )
    if calibration is not None:
        both = [c for c in (calibration.coverage, calibration.tarp) if c is not None]
        title = f"{name}: true designs inside the model's regions"
        yield "coverage", plots.plot_coverage(both, title)
        title = f"{name}: ranks of true designs among draws"
        yield "ranks", plots.plot_ranks(calibration.ranks, title)
        if some is not None:
            title = f"{name}: designs for {goal}"
            exact = exact if kept[0] == 0 else None
            yield "pairs", plots.plot_pairs(candidates.x[0], space, answers, exact, title)
    if some is None:
        # the routine abstained: there is no design to draw
        return
    yield (
        "designs",
        plots.plot_conditional(
            candidates.x[0], space, table.x, answers, f"{name}: designs for {goal}"
        ),
    )
    # a routine that asked the simulator claims what it said
    if candidates.verified and not candidates.y_predicted.equal(candidates.y_verified):
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
    front = plots.plot_study_front(candidates, goal, table, f"{name}: trade-offs")
    if front is not None:
        yield "front", front
    points = plots.plot_study_stationary(candidates, goal, table, f"{name}: stationary points")
    if points is not None:
        yield "stationary", points
    mapped = plots.plot_study_space_map(candidates, table, f"{name}: region and its designs")
    if mapped is not None:
        yield "space_map", mapped
    progress = plots.plot_study_progress(candidates, answers, f"{name}: best design so far")
    if progress is not None:
        yield "progress", progress
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
