"""What is known of stationary points: where, of which kind, and which constraints touch them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.routines.stationary_newton import Linear, newton
from genopt.space import Space

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("minimum", "maximum", "saddle", "degenerate", "root")
# an eigenvalue below this share of the largest one counts as zero
_FLAT = 1e-6
# third derivatives that are allowed for, in units of the objective's spread
_THIRD = 100.0
# a constraint with less scaled slack than this is active
_TOUCHING = 1e-6
# Newton steps of a start at each strength of the barrier: the next one is near
_PATH_STEPS = 6


@dataclass(frozen=True)
class Search:
    """How roots are looked for.

    Args:
        samples: starts of each round.
        rounds: most rounds; no further one after a round without a new root, if the numbers of
            starts at each root say that hardly any is left.
        steps: most Newton steps of a start.
        tolerance: largest residual of a root, in units of each function's size.
        distinct: distance in the unit box (root mean square) within which two ends are one root.
        seed: seed of the starts.
    """

    samples: int = 1024
    rounds: int = 16
    steps: int = 60
    tolerance: float = 1e-9
    distinct: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class Ends:
    """Distinct roots that a search came to.

    Args:
        point: the unknowns (R, W).
        residual: largest residual of each (R,).
        hits: how many starts ended there (R,).
        starts: how many starts there were.
        unseen: estimated number of roots that no start came to.
    """

    point: Tensor
    residual: Tensor
    hits: Tensor
    starts: int
    unseen: float


@dataclass(frozen=True)
class StationaryPoints:
    """Stationary points of an objective, R of them, the lowest value first (of a maximum: highest).

    Args:
        x: where they are (R, P), raw units.
        space: the columns of x.
        value: the objective (R,); NaN where only derivatives are known.
        kinds: for each ``minimum``, ``maximum``, ``saddle`` or ``degenerate`` (a second derivative
            is zero, so the third decide); ``root`` where the derivatives are of no function.
        eigenvalues: of the second derivatives along the active constraints (R, P), in the unit box
            and in units of the objective's spread; NaN in directions that constraints take.
        multipliers: for each constraint its multipliers (R,): the objective falls by so much for
            each unit that the constraint is loosened.
        slack: for each inequality how far it is from touching (R,).
        active: for each inequality whether it touches, bool (R,).
        residual: largest residual of the conditions (R,), in units of each function's size.
        hits: how many starts ended at each (R,).
        starts: how many starts there were.
        unseen: estimate of how many points no start came to (Chao, Scandinavian Journal of
            Statistics 11 (1984)): from those with one and with two starts.
        calls: how many designs were simulated.
    """

    x: Tensor
    space: Space
    value: Tensor
    kinds: tuple[str, ...]
    eigenvalues: Tensor
    multipliers: dict[str, Tensor] = field(default_factory=dict)
    slack: dict[str, Tensor] = field(default_factory=dict)
    active: dict[str, Tensor] = field(default_factory=dict)
    residual: Tensor = field(default_factory=lambda: torch.empty(0))
    hits: Tensor = field(default_factory=lambda: torch.empty(0))
    starts: int = 0
    unseen: float = 0.0
    calls: int = 0

    def __len__(self) -> int:
        return len(self.x)

    def of_kind(self, kind: str) -> Tensor:
        """Points of one kind.

        Args:
            kind: such as ``minimum``.

        Returns:
            Designs (n, P).
        """
        return self.x[[k == kind for k in self.kinds]]

    def count(self) -> dict[str, int]:
        """How many points there are of each kind that occurs."""
        return {kind: self.kinds.count(kind) for kind in KINDS if kind in self.kinds}

    def to_frame(self) -> pd.DataFrame:
        """One row a point: design, value, kind, multipliers, slacks, residual, hits."""
        import pandas as pd

        columns: dict[str, object] = {
            name: self.x[:, i].numpy() for i, name in enumerate(self.space.names)
        }
        columns |= {"value": self.value.numpy(), "kind": list(self.kinds)}
        for name, numbers in self.multipliers.items():
            columns[f"multiplier of {name}"] = numbers.numpy()
        for name, numbers in self.slack.items():
            columns[f"slack of {name}"] = numbers.numpy()
        columns |= {"residual": self.residual.numpy(), "hits": self.hits.numpy()}
        return pd.DataFrame(columns)

    def says(self) -> list[str]:
        """What was found, in sentences."""
        if not len(self):
            return [f"none of {self.starts} starts came to a stationary point"]
        named = {"minimum": "minima", "maximum": "maxima", "saddle": "saddles"}
        counts = self.count()
        parts = [f"{n} {kind if n == 1 else named.get(kind, kind)}" for kind, n in counts.items()]
        if list(counts) == ["root"]:
            text = f"{len(self)} root{'s' if len(self) > 1 else ''} found"
        else:
            text = f"{len(self)} stationary point{'s' if len(self) > 1 else ''} found"
            text += f" ({', '.join(parts)})"
        text += f", largest residual {float(self.residual.max()):.1g}"
        out = [text]
        if round(self.unseen) >= 1:
            out.append(f"about {round(self.unseen)} more by the starts that found a point alone")
        idle = [name for name, active in self.active.items() if not bool(active.any())]
        if len(idle) == 1:
            out.append(f"{idle[0]} is inactive (multiplier 0)")
        elif idle:
            out.append(f"inactive (multiplier 0): {', '.join(idle)}")
        return out


def search_roots(
    stages: list[Callable[[Tensor], Linear]],
    starts: Callable[[int, int], Tensor],
    dim: int,
    options: Search,
) -> Ends:
    """Distinct roots of a system in the unit box.

    Args:
        stages: the system, more and more like itself; the last one counts.
        starts: number and seed to unknowns (n, W), of which the first ``dim`` lie in the unit box.
        dim: number of unknowns in the box.
        options: how to search.

    Returns:
        The roots; without any, R = 0.
    """

    def clip(w: Tensor) -> Tensor:
        return torch.cat([w[:, :dim].clamp(0.0, 1.0), w[:, dim:]], 1)

    points, residuals, count, unseen, known = [], [], 0, 0.0, 0
    for turn in range(options.rounds):
        w = starts(options.samples, options.seed + turn)
        count += len(w)
        for stage in stages[:-1]:
            w = newton(stage, w, clip=clip, steps=_PATH_STEPS, tolerance=1e-3).point
        ends = newton(stages[-1], w, clip=clip, steps=options.steps, tolerance=options.tolerance)
        points.append(ends.point[ends.converged])
        residuals.append(ends.residual[ends.converged])
        every, errors = torch.cat(points), torch.cat(residuals)
        chosen, hits = distinct(every[:, :dim], errors, options.distinct)
        unseen = unseen_roots(hits)
        if known == len(chosen) > 0 and unseen < max(0.5, 0.002 * known):
            break
        known = len(chosen)
    return Ends(every[chosen], errors[chosen], hits, count, unseen)


def distinct(z: Tensor, residual: Tensor, distance: float) -> tuple[Tensor, Tensor]:
    """One of all points that lie together, the one with the least residual.

    Args:
        z: points (N, P) of the unit box.
        residual: how good each is (N,).
        distance: root mean square within which points are one.

    Returns:
        Positions (R,) of the chosen points and how many lie together there (R,).
    """
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    if not len(z):
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
    radius = distance * z.shape[1] ** 0.5
    # equal to a quarter of the distance first: thousands of ends are a few cells, and pairs few
    cells, cell = torch.unique((z / (0.25 * radius)).round(), dim=0, return_inverse=True)
    pairs = cKDTree(cells.numpy() * 0.25 * radius).query_pairs(radius, output_type="ndarray")
    graph = coo_matrix(
        (np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(cells), len(cells))
    )
    number, label = connected_components(graph, directed=False)
    owner = torch.from_numpy(label).long()[cell]
    hits = torch.bincount(owner, minlength=number)
    order = residual.argsort(descending=True, stable=True)
    chosen = torch.empty(number, dtype=torch.long)
    # the last one written, so the least residual, stays
    for i, k in zip(order.tolist(), owner[order].tolist(), strict=True):
        chosen[k] = i
    return chosen, hits


def unseen_roots(hits: Tensor) -> float:
    """How many roots no start came to, estimated from those that one or two starts came to.

    Args:
        hits: how many starts came to each root that was found (R,).

    Returns:
        Chao's lower bound f1 (f1 - 1) / (2 (f2 + 1)).
    """
    once, twice = int((hits == 1).sum()), int((hits == 2).sum())
    return once * (once - 1) / (2.0 * (twice + 1))


@dataclass(frozen=True)
class SecondOrder:
    """The second-order check of R points.

    Args:
        kinds: the kind of each.
        eigenvalues: (R, P) ascending, NaN in directions that constraints take.
    """

    kinds: tuple[str, ...]
    eigenvalues: Tensor


def second_order(
    curvature: Tensor, normals: Tensor, pushes: Tensor, residual: Tensor
) -> SecondOrder:
    """Minimum, maximum or saddle, by the curvature along the active constraints.

    Args:
        curvature: second derivatives of the Lagrangian (R, P, P).
        normals: slopes of the constraints (R, M, P), zero for those that are not active.
        pushes: bool (R,): an active inequality has a positive multiplier, so that the objective
            rises into the region, and a maximum is excluded.
        residual: what is left of the first derivatives (R,). Near a point without curvature it is
            of the order of the curvature's square, so a curvature that small says nothing.

    Returns:
        The kinds and eigenvalues.
    """
    curvature = 0.5 * (curvature + curvature.transpose(1, 2))
    dim = curvature.shape[1]
    across = torch.linalg.pinv(normals) @ normals if normals.shape[1] else 0.0 * curvature
    along = torch.eye(dim, dtype=curvature.dtype) - across
    taken = across.diagonal(dim1=1, dim2=2).sum(1).round().long()
    reduced = along @ curvature @ along
    # directions across the constraints get an eigenvalue above all others, so they come last
    above = 1.0 + 2.0 * reduced.flatten(1).norm(dim=1)
    values = torch.linalg.eigvalsh(reduced + above[:, None, None] * across)
    tangent = torch.arange(dim) < dim - taken[:, None]
    largest = torch.where(tangent, values.abs(), 0.0).amax(1)
    flat = _FLAT * torch.maximum(largest, curvature.flatten(1).norm(dim=1))
    flat = torch.maximum(flat, (_THIRD * residual).sqrt())
    rises = (values > flat[:, None]) | ~tangent
    falls = (values < -flat[:, None]) | ~tangent
    decided = (rises | falls).all(1)
    kinds = []
    for up, down, clear, pushed in zip(
        rises.all(1).tolist(),
        falls.all(1).tolist(),
        decided.tolist(),
        pushes.tolist(),
        strict=True,
    ):
        if not clear:
            kinds.append("degenerate")
        elif up:
            kinds.append("minimum")
        else:
            kinds.append("maximum" if down and not pushed else "saddle")
    return SecondOrder(tuple(kinds), torch.where(tangent, values, torch.nan))


def touching(slack: Tensor) -> Tensor:
    """Whether inequalities are active.

    Args:
        slack: in units of each function's size (R, M).

    Returns:
        bool (R, M).
    """
    return slack <= _TOUCHING
