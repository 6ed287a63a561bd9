"""The best value so far against the simulations that it took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genopt.analysis.plots.style import GREY, PALETTE, legend, panels
from genopt.candidates import Candidates
from genopt.problems.base import Answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST, _WIDE = 8, 10.0


def plot_progress(
    calls: Sequence[int],
    best: Mapping[str, Sequence[float]],
    what: str,
    least: float | None = None,
    title: str = "",
) -> Figure:
    """One line for each search, on a logarithmic axis where positive values span a decade.

    Args:
        calls: simulations so far (T,).
        best: label to the best value after each of them (T,).
        what: name of the value.
        least: the best possible value, drawn as a dashed line.
        title: title of the figure.

    Returns:
        The figure.
    """
    figure, (axes,) = panels(1, size=3.6, title=title)
    for colour, (label, values) in zip(PALETTE * 2, best.items(), strict=False):
        axes.step(calls, values, where="post", color=colour, linewidth=1.6, label=label)
        axes.plot(calls, values, "o", color=colour, markersize=3)
    if least is not None:
        axes.axhline(least, color=GREY, linestyle="--", linewidth=1.0, label="best possible")
    drawn = [*(v for line in best.values() for v in line), *([] if least is None else [least])]
    known = [value for value in drawn if math.isfinite(value)]
    if min(known, default=0.0) > 0.0 and max(known) > _WIDE * min(known):
        axes.set_yscale("log")
    axes.set(xlabel="simulations", ylabel=f"best {what} so far")
    if len(best) > 1 or least is not None:
        legend(figure, axes)
    return figure


def plot_study_progress(
    candidates: Candidates, answers: Sequence[Answer] = (), title: str = ""
) -> Figure | None:
    """The progress of a study's search, if it kept one.

    Args:
        candidates: what the routine returned; the history is in the header.
        answers: exact answers to the goal; their value is the best possible one.
        title: title of the figure.

    Returns:
        The figure; None where there is no history.
    """
    history: Any = candidates.header.get("history")
    if not isinstance(history, Mapping) or not {"calls", "best", "what"} <= set(history):
        return None
    space, what = candidates.y_space, str(history["what"])
    least = None
    if what in space and answers:
        least = float(answers[0].y[space.index(what)])
    shown = history["best"][:_MOST]
    names = ["best so far"] if len(shown) == 1 else [f"goal {i + 1}" for i in range(len(shown))]
    lines = dict(zip(names, shown, strict=True))
    return plot_progress(history["calls"], lines, what, least, title)
