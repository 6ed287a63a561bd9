"""What the factors of a mixture lose of each column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from genopt.analysis.plots.style import BLUE, ORANGE, legend, panels
from genopt.errors import GenoptError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = (BLUE, ORANGE)
_INCHES_A_COLUMN = 0.2


def plot_reconstruction(lost: Mapping[str, Mapping[str, float]], title: str = "") -> Figure:
    """One bar for each column and set of rows: the share of its variance that the factors lose.

    Args:
        lost: shares by column for each set of rows, such as ``training`` and ``held out``; the
            columns of the first are shown, the worst on top.
        title: title of the figure.

    Returns:
        The figure.

    Raises:
        GenoptError: if there is no column.
    """
    sets = {name: dict(shares) for name, shares in lost.items() if shares}
    if not sets:
        raise GenoptError("lost has no column: only covariances with factors lose something")
    first = next(iter(sets.values()))
    # bars are drawn from the bottom
    names = sorted(first, key=lambda name: first[name])
    figure, (axes,) = panels(1, size=max(3.2, _INCHES_A_COLUMN * len(names)), title=title)
    height = 0.8 / len(sets)
    for i, (label, shares) in enumerate(sets.items()):
        at = [j + (0.5 * (len(sets) - 1) - i) * height for j in range(len(names))]
        values = [100.0 * shares.get(name, float("nan")) for name in names]
        axes.barh(at, values, height, color=_COLORS[i % len(_COLORS)], label=label)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="variance that the factors lose [%]")
    axes.set_xlim(left=0.0)
    axes.grid(False, axis="y")
    legend(figure, axes)
    return figure
