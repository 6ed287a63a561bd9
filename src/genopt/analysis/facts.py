"""What a table says of itself in a second: how smooth it is, how noisy, how many answers it holds.

These are the figures behind `genopt.advise` and the diagnosis of a study.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.goal import Goal
from genopt.routines.targets import ranked_rows

_MOST_ROWS = 1500
_NEAR = 100
_REFERENCES = 8
_SAFETY = 1.5
_SMALLEST_SHARE = 0.03
_QUICK_COMPONENTS = 20


@dataclass(frozen=True)
class Errors:
    """How well y is known from x, by two ways that see the same rows.

    Args:
        names: the columns (K',).
        local: error of a straight fit to a row's neighbours, the row left out (K',), raw units.
        mixture: error of a quickly fitted mixture on rows that it did not see (K',).
        spread: standard deviation of the columns (K',).
        components: components of that mixture.
    """

    names: tuple[str, ...]
    local: Tensor
    mixture: Tensor
    spread: Tensor
    components: int


def near_target(table: Table, goal: Goal, most: int = _NEAR) -> Tensor:
    """The rows that come nearest to what is wanted.

    Args:
        table: measured or simulated rows.
        goal: what is wanted; of several goals the first one counts.
        most: how many rows at most; of a small table a quarter.

    Returns:
        Row numbers (n,); none where no row has all labels of the goal.
    """
    from genopt.routines.abstain import some_goals

    one = some_goals(goal, [0])
    columns = [term.index for term in one.terms]
    known = torch.isfinite(table.y[:, columns]).all(1).nonzero().flatten()
    if not len(known):
        return known
    few = min(most, max(len(known) // 4, 1))
    return known[ranked_rows(one, table.y[known])[0, :few]]


def groups_of(points: Tensor, seed: int = 0) -> Tensor:
    """The groups that points fall into.

    Single linkage is cut where a gap is wider than any that uniform points in the same box show,
    the idea of the gap statistic (Tibshirani, Walther and Hastie 2001), and each part again.

    Args:
        points: points (n, E).
        seed: seed of the uniform points.

    Returns:
        The group of each point (n,), 0 for the largest; -1 for points of groups of less than 3 % of
        the points, or of less than three, which do not count.
    """
    where, owner = np.unique(points.numpy().round(12), axis=0, return_inverse=True)
    least = max(3, math.ceil(_SMALLEST_SHARE * len(where)))
    everything = np.arange(len(where))
    parts = _parts(where, everything, least, np.random.default_rng(seed))
    label = np.full(len(where), -1)
    for number, part in enumerate(sorted(parts, key=len, reverse=True)):
        label[part] = number
    return torch.from_numpy(label[owner.reshape(-1)])


def sizes_of(groups: Tensor) -> list[int]:
    """How many points each group has, the largest first.

    Args:
        groups: of each point (n,), as of `groups_of`.

    Returns:
        The sizes.
    """
    return torch.bincount(groups[groups >= 0]).tolist()


def _parts(
    where: np.ndarray, rows: np.ndarray, least: int, draw: np.random.Generator
) -> list[np.ndarray]:
    """Rows of points (n, E) cut at wide gaps, as long as there are any."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(rows) < 2 * least:
        return [rows] if len(rows) else []
    centred = where[rows] - where[rows].mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    turned = centred @ axes.T
    low, high = turned.min(0), turned.max(0)
    widest = max(
        linkage(draw.uniform(low, high, turned.shape), "single")[-1, 2] for _ in range(_REFERENCES)
    )
    labels = fcluster(linkage(turned, "single"), _SAFETY * widest, "distance")
    parts = [rows[labels == label] for label in np.unique(labels)]
    parts = [part for part in parts if len(part) >= least]
    if len(parts) < 2:
        return [rows]
    return [end for part in parts for end in _parts(where, part, least, draw)]


def errors_of(table: Table, columns: list[int], seed: int = 0, mixture: bool = True) -> Errors:
    """How well numeric columns of y are known from x.

    Args:
        table: measured or simulated rows.
        columns: which columns of y.
        seed: seed of the choice of rows, of which at most 1500 are looked at.
        mixture: whether to fit the mixture; else its errors are NaN.

    Returns:
        The errors; NaN where there are too few rows.
    """
    names = tuple(table.y_space.names[k] for k in columns)
    whole = table.rows(torch.isfinite(table.y[:, columns]).all(1))
    order = np.random.default_rng(seed).permutation(len(whole))[:_MOST_ROWS]
    rows = whole.rows(torch.from_numpy(order))
    y = rows.y[:, columns]
    unknown = torch.full((len(columns),), torch.nan, dtype=torch.float64)
    spread = y.std(0, correction=0) if y.numel() else unknown
    local = local_errors(rows.x_space.encode(rows.x), y)
    held, count = unknown, 0
    if mixture and columns and len(rows) >= 5 * (rows.x_space.encoded_dim + len(columns)):
        held, count = _mixture_errors(rows, columns, seed)
    return Errors(names, local, held, spread, count)


def local_errors(unit: Tensor, y: Tensor) -> Tensor:
    """Errors of straight fits to the nearest neighbours of each row, the row itself left out.

    Noise keeps such an error large however many rows there are; a smooth simulator makes it small.

    Args:
        unit: designs in the unit box (N, E).
        y: properties (N, K).

    Returns:
        Root of the trimmed mean squared error (K,): the worst tenth of the rows, at the border of
        the box, does not count. NaN where there are too few rows.
    """
    n, width = unit.shape
    near = 2 * (width + 1) + 2
    if n < 2 * near:
        return torch.full((y.shape[1],), torch.nan, dtype=torch.float64)
    distance, place = torch.cdist(unit, unit).fill_diagonal_(torch.inf).topk(near, largest=False)
    # replicates of a design say what noise there is, whatever the neighbours do
    weight = torch.exp(-0.5 * (distance / distance[:, -1:].clamp_min(1e-12)).square())
    step = unit[place] - unit[:, None]
    basis = torch.cat([torch.ones_like(step[..., :1]), step], -1)
    left = basis.mT @ (weight[..., None] * basis)
    scale = left.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    left = left + 1e-8 * scale * torch.eye(width + 1, dtype=unit.dtype)
    right = basis.mT @ (weight[..., None] * y[place])
    guess = torch.linalg.solve(left, right)[:, 0]
    squared = (guess - y).square().sort(0).values[: max(1, round(0.9 * n))]
    return squared.mean(0).sqrt()


def _mixture_errors(rows: Table, columns: list[int], seed: int) -> tuple[Tensor, int]:
    """Errors of a mixture on a fifth of the rows, learned from the others."""
    from genopt.models.mixture import Mixture

    classes = bool(rows.x_space.categorical)
    names = [rows.y_space.names[k] for k in columns]
    model = Mixture(
        rows.x_space,
        rows.y_space.select(names),
        max_components=_QUICK_COMPONENTS,
        criterion="heldout" if classes else "bic",
        folds=3 if classes else None,
        patience=3,
        seed=seed,
    )
    cut = max(1, len(rows) // 5)
    y = rows.y[:, columns]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows.x[cut:], y[cut:])
    miss = (model.predict_y(rows.x[:cut]) - y[:cut]).square().sort(0).values
    kept = miss[: max(1, round(0.9 * len(miss)))]
    return kept.mean(0).sqrt(), model.gmm.n_components
