"""Mixtures: ellipses over rows, conditional densities with their modes, responsibilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genopt.analysis.plots.style import BLUE, GREY, INK, PALETTE, RED, legend, panels
from genopt.errors import GenoptError, UnknownNameError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from genopt.models.mixture import GaussianMixture

Array = NDArray[np.float64]
Column = int | str
_LEVELS = (0.5, 0.9)
_POINTS = 400
_MOST_ROWS = 2000
_WIDTHS = 4.0
_VISIBLE_SHARE = 1e-3
# grey is for rows
_COLORS = tuple(color for color in PALETTE if color != GREY)
_MANY_COLORS = "tab20"


def plot_ellipses(
    gmm: GaussianMixture,
    rows: ArrayLike,
    pairs: Sequence[tuple[Column, Column]] = ((0, 1),),
    names: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Rows with the ellipses that hold half and nine tenths of each component.

    An ellipse is the smallest region of the component's two columns with that probability; the
    heavier a component, the stronger its colour.

    Args:
        gmm: the mixture.
        rows: rows it was fitted to (N, p); NaN where missing.
        pairs: the two columns of each panel, by number or name.
        names: column names (p,); None for the mixture's own.
        title: title of the figure.

    Returns:
        The figure.

    Raises:
        GenoptError: if the rows have other columns than the mixture.
        UnknownNameError: if a column does not exist.
    """
    from matplotlib.patches import Ellipse

    points, labels = _rows(rows, gmm.dim), _labels(names, gmm)
    chosen = [(_column(a, labels), _column(b, labels)) for a, b in pairs]
    colors = _colors(gmm.n_components)
    figure, grid = panels(len(chosen), title=title)
    for axes, columns in zip(grid, chosen, strict=True):
        part = gmm.marginal(list(columns))
        seen = points[np.isfinite(points[:, list(columns)]).all(1)][:_MOST_ROWS, list(columns)]
        axes.scatter(seen[:, 0], seen[:, 1], s=7, color=GREY, alpha=0.5, linewidths=0, label="rows")
        strongest = part.priors.max()
        for j, (mean, covariance, prior) in enumerate(
            zip(part.means, part.covariances, part.priors, strict=True)
        ):
            if prior <= 0.0:
                continue
            values, vectors = np.linalg.eigh(covariance)
            angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
            color = colors[j]
            for level in _LEVELS:
                # chi-square with two degrees of freedom
                radius = math.sqrt(-2.0 * math.log1p(-level))
                minor, major = 2.0 * radius * np.sqrt(values.clip(0.0))
                shape = Ellipse((mean[0], mean[1]), major, minor, angle=angle, zorder=2)
                shape.set(edgecolor=color, linewidth=1.1, facecolor="none")
                shape.set_alpha(0.35 + 0.65 * float(prior / strongest))
                axes.add_patch(shape)
        axes.autoscale_view()
        axes.set(xlabel=labels[columns[0]], ylabel=labels[columns[1]])
    return figure


def plot_conditional_density(
    conditional: GaussianMixture,
    names: Sequence[str] | None = None,
    modes: ArrayLike | None = None,
    bounds: Sequence[tuple[float, float]] | None = None,
    title: str = "",
) -> Figure:
    """The density of each free column of a conditional mixture, and the plane where there are two.

    Args:
        conditional: the mixture over the m free columns, of ``condition``.
        names: their names (m,); None for the mixture's own.
        modes: modes to mark (M, m).
        bounds: ends of each column's axis; None for where the density is.
        title: title of the figure.

    Returns:
        The figure.

    Raises:
        GenoptError: if names, modes or bounds do not fit the columns.
    """
    m = conditional.dim
    labels = _labels(names, conditional)
    marks = np.empty((0, m)) if modes is None else np.asarray(modes, dtype=np.float64)
    if marks.ndim != 2 or marks.shape[1] != m:
        raise GenoptError(f"modes has shape {marks.shape}; expected (M, {m})")
    if bounds is not None and len(bounds) != m:
        raise GenoptError(f"bounds has {len(bounds)} entries; the mixture has {m} columns")
    ends = (
        _ends(conditional, marks) if bounds is None else [(float(a), float(b)) for a, b in bounds]
    )
    figure, grid = panels(m + (m == 2), title=title)
    for i in range(m):
        axes, part = grid[i], conditional.marginal([i])
        line = _line(part, *ends[i])
        heights = part.to_probability_density(line[:, None])
        axes.fill_between(line, heights, color=BLUE, alpha=0.15, lw=0)
        shares = part.to_responsibilities(line[:, None]) * heights[:, None]
        drawn = np.flatnonzero(part.priors > _VISIBLE_SHARE)
        if len(drawn) > 1:
            for n, j in enumerate(drawn):
                label = "components" if n == 0 else None
                axes.plot(line, shares[:, j], color=GREY, linewidth=0.8, label=label)
        axes.plot(line, heights, color=BLUE, linewidth=1.6, label="density")
        for n, mode in enumerate(marks[:, i]):
            label = "mode" if n == 0 else None
            axes.axvline(mode, color=RED, linewidth=1.1, linestyle=(0, (4, 2)), label=label)
        axes.set(xlabel=labels[i], ylabel="density" if i == 0 else "", xlim=ends[i])
        axes.set_ylim(bottom=0.0)
    if m == 2:
        _plane(grid[2], conditional, ends, marks)
        grid[2].set(xlabel=labels[0], ylabel=labels[1])
    legend(figure, grid[0])
    return figure


def _plane(axes: Axes, gmm: GaussianMixture, ends: list[tuple[float, float]], marks: Array) -> None:
    """Contours that hold known shares of the probability on the grid."""
    a, b = (np.linspace(*end, 160) for end in ends)
    grid = np.stack(np.meshgrid(a, b), -1)
    heights = gmm.to_probability_density(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    order = np.sort(heights.ravel())[::-1]
    mass = order.cumsum()
    if mass[-1] > 0.0:
        cuts = [order[np.searchsorted(mass, share * mass[-1])] for share in (0.95, 0.8, 0.5, 0.2)]
        levels = np.unique([*cuts, order[0]])
        if len(levels) > 1:
            axes.contourf(a, b, heights, levels=levels, cmap="Blues", vmin=-0.4 * order[0])
    axes.scatter(marks[:, 0], marks[:, 1], marker="x", s=40, color=RED, linewidths=1.4, zorder=3)


def plot_responsibilities(
    gmm: GaussianMixture,
    rows: ArrayLike,
    pair: tuple[Column, Column] = (0, 1),
    names: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Which component each row belongs to, and how surely.

    Left the rows in the colour of their likeliest component, pale where it is unsure; right all
    responsibilities, a line for each row, ordered by component.

    Args:
        gmm: the mixture.
        rows: complete rows (N, p).
        pair: the two columns of the left panel, by number or name.
        names: column names (p,); None for the mixture's own.
        title: title of the figure.

    Returns:
        The figure.

    Raises:
        GenoptError: if the rows have other columns than the mixture.
        UnknownNameError: if a column does not exist.
    """
    from matplotlib.ticker import MaxNLocator

    labels = _labels(names, gmm)
    columns = [_column(c, labels) for c in pair]
    points = _rows(rows, gmm.dim)[:_MOST_ROWS]
    shares = gmm.to_responsibilities(points)
    owner, surest = shares.argmax(1), shares.max(1)
    figure, (left, right) = panels(2, title=title)
    colors = _colors(gmm.n_components)
    for j in np.unique(owner):
        mine = owner == j
        # from chance (pale) to certainty (full)
        alpha = 0.15 + 0.85 * (surest[mine] * gmm.n_components - 1.0).clip(0.0) / max(
            gmm.n_components - 1, 1
        )
        spots = points[mine][:, columns]
        left.scatter(spots[:, 0], spots[:, 1], s=9, color=colors[j], alpha=alpha, linewidths=0)
    left.set(xlabel=labels[columns[0]], ylabel=labels[columns[1]])
    order = np.lexsort((-surest, owner))
    picture = right.imshow(
        shares[order],
        aspect="auto",
        cmap="Blues",
        vmin=0.0,
        vmax=1.0,
        interpolation="nearest",
        extent=(-0.5, gmm.n_components - 0.5, len(points), 0),
    )
    right.grid(False)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="component", ylabel="row, ordered")
    bar = figure.colorbar(picture, ax=right, fraction=0.05)
    bar.set_label("responsibility", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, colors=INK)
    return figure


def _colors(count: int) -> list[Any]:
    """A colour for each component; beyond twenty they come again."""
    from matplotlib import colormaps

    if count <= len(_COLORS):
        return list(_COLORS[:count])
    many = colormaps[_MANY_COLORS]
    return [many(j % many.N) for j in range(count)]


def _line(part: GaussianMixture, low: float, high: float) -> Array:
    """Points of a curve: even ones, and enough in every component however narrow it is."""
    deviation = np.sqrt(part.covariances[:, 0, 0])[:, None]
    near = part.means[:, :1] + deviation * np.linspace(-_WIDTHS, _WIDTHS, 41)
    points = np.concatenate([np.linspace(low, high, _POINTS), near[part.priors > 0.0].ravel()])
    return np.unique(points[(points >= low) & (points <= high)])


def _ends(gmm: GaussianMixture, marks: Array) -> list[tuple[float, float]]:
    """Where the components that weigh something and the modes lie, with a margin."""
    seen = gmm.priors > _VISIBLE_SHARE
    reach = _WIDTHS * np.sqrt(np.diagonal(gmm.covariances, axis1=1, axis2=2)[seen])
    corners = np.concatenate([gmm.means[seen] - reach, gmm.means[seen] + reach, marks])
    low, high = corners.min(0), corners.max(0)
    margin = np.where(high > low, 0.03 * (high - low), 1.0)
    return list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))


def _rows(rows: ArrayLike, width: int) -> Array:
    points = np.asarray(rows, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != width:
        raise GenoptError(f"rows has shape {points.shape}; expected (N, {width})")
    return points


def _labels(names: Sequence[str] | None, gmm: GaussianMixture) -> list[str]:
    width = gmm.dim
    given = gmm.names if names is None else names
    labels = [f"column {i}" for i in range(width)] if given is None else [str(n) for n in given]
    if len(labels) != width:
        raise GenoptError(f"names has {len(labels)} entries; the mixture has {width} columns")
    return labels


def _column(column: Any, labels: list[str]) -> int:
    if isinstance(column, str):
        if column not in labels:
            raise UnknownNameError("column", column, tuple(labels))
        return labels.index(column)
    if not -len(labels) <= column < len(labels):
        raise GenoptError(f"column {column} must lie between 0 and {len(labels) - 1}")
    return int(column) % len(labels)
