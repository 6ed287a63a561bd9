"""Calibration: observed against expected coverage of the intervals that a model claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genopt.analysis.plots.style import BLUE, GREY, INK, panels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from genopt.analysis.calibration import CalibrationCurve


def plot_calibration(
    curves: Sequence[CalibrationCurve], scores: Mapping[str, float], title: str = ""
) -> Figure:
    """Share of values inside central intervals against the share that should be, for each column.

    A curve below the line: the model is too sure; above it: its intervals are wider than they need
    to be. The grey band holds 95 % of the curves' points for a calibrated model and so many rows.

    Args:
        curves: of `genopt.analysis.calibration.calibration_curves`.
        scores: of `genopt.analysis.calibration.calibration_scores`, written into the panels.
        title: title of the figure.

    Returns:
        The figure.
    """
    figure, grid = panels(len(curves), title=title)
    for axes, curve in zip(grid, curves, strict=True):
        expected, observed = curve.levels.numpy(), curve.observed.numpy()
        band = 1.96 * (expected * (1.0 - expected) / curve.rows) ** 0.5
        axes.fill_between(expected, expected - band, expected + band, color=GREY, alpha=0.25, lw=0)
        axes.plot([0.0, 1.0], [0.0, 1.0], color=INK, linewidth=0.9)
        axes.plot(expected, observed, color=BLUE, linewidth=1.8)
        name = curve.column
        lines = [f"{curve.rows} rows"]
        for level in (50, 90):
            if f"coverage_{level}/{name}" in scores:
                share = 100.0 * scores[f"coverage_{level}/{name}"]
                lines.append(f"{level} %: {share:.0f} % inside")
        if f"miscalibration_area/{name}" in scores:
            lines.append(f"area {scores[f'miscalibration_area/{name}']:.3f}")
        text = "\n".join(lines)
        axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=8, color=INK)
        axes.set_title(name, fontsize=9, color=INK)
        axes.set(
            xlabel="expected share inside",
            ylabel="observed share inside",
            xlim=(0.0, 1.0),
            ylim=(0.0, 1.0),
        )
    return figure
