"""Pareto fronts in closed form: designs on them, for problems that other packages define.

They are worked out here, never downloaded, and `genopt.problems.documented` checks them before an
adapter gives them out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.base import Problem


@dataclass(frozen=True)
class Size:
    """What a front is asked for.

    Args:
        dimension: number of design columns P.
        objectives: number of objectives M.
        n: about how many designs.
    """

    dimension: int
    objectives: int
    n: int


Front = Callable[[Size], Tensor]


def front_designs(function: str, dimension: int, objectives: int, n: int) -> Tensor:
    """Designs among which all Pareto-optimal ones of a known function are represented.

    Some of them may be beaten by others where a front has gaps: see `best_of_two`.

    Args:
        function: its name, in small letters.
        dimension: number of design columns P.
        objectives: number of objectives M.
        n: about how many designs.

    Returns:
        Designs (n', P), float64; none where no front is known in closed form.
    """
    if function not in _FRONTS:
        return torch.empty(0, dimension, dtype=torch.float64)
    return _FRONTS[function](Size(dimension, objectives, n))


def front_of(problem: Problem, n: int = 1000) -> Tensor | None:
    """Properties on a problem's true front, where it knows one.

    Args:
        problem: a problem; its method ``front_designs(n)`` gives Pareto-optimal designs.
        n: about how many points.

    Returns:
        Properties (n', K); None where no front is known.

    Raises:
        GenoptError: if n is not positive.
    """
    if n < 1:
        raise GenoptError(f"a front of {n} points: n must be positive")
    designs = getattr(problem, "front_designs", None)
    if designs is None:
        return None
    x = designs(n)
    return problem.simulate(x) if len(x) else None


def best_of_two(values: Tensor) -> Tensor:
    """Which points no other one beats in two objectives.

    Args:
        values: what is to be made small (N, 2).

    Returns:
        Their positions, ascending in the first objective.
    """
    order = values[:, 1].argsort(stable=True)
    order = order[values[order, 0].argsort(stable=True)]
    second = values[order, 1]
    before = torch.cat([second.new_tensor([torch.inf]), second.cummin(0).values[:-1]])
    return order[second < before]


def _line(dimension: int, n: int, rest: float) -> Tensor:
    """Designs with all columns at one value, the first one running from 0 to 1."""
    x = torch.full((n, dimension), rest, dtype=torch.float64)
    x[:, 0] = torch.linspace(0.0, 1.0, n, dtype=torch.float64)
    return x


def _grid(columns: int, n: int) -> Tensor:
    """About n points of the unit cube, its faces included."""
    if columns == 0:
        return torch.empty(1, 0, dtype=torch.float64)
    side = max(2, round(n ** (1.0 / columns)))
    axis = torch.linspace(0.0, 1.0, side, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * columns).reshape(-1, columns)


def _zdt(size: Size) -> Tensor:
    """Zitzler, Deb and Thiele 2000: all columns but the first are zero."""
    return _line(size.dimension, size.n, 0.0)


def _zdt_waves(size: Size) -> Tensor:
    """ZDT3 and ZDT6: most of the line is beaten, so it is drawn finely."""
    return _line(size.dimension, 20 * size.n, 0.0)


def _dtlz(rest: float) -> Front:
    """Deb, Thiele, Laumanns and Zitzler 2005: the last columns at one value, the others free."""

    def front(size: Size) -> Tensor:
        free = _grid(size.objectives - 1, size.n)
        x = torch.full((len(free), size.dimension), rest, dtype=torch.float64)
        x[:, : size.objectives - 1] = free
        return x

    return front


def _dtlz5(size: Size) -> Tensor:
    """A curve: with g = 0 only the first column moves the objectives."""
    return _line(size.dimension, size.n, 0.5)


def _dtlz7(size: Size) -> Tensor:
    """f_M = 2 M - sum h(f_i) with h(f) = f (1 + sin 3 pi f), f_i = x_i.

    The sum separates, so a point is beaten unless each h(f_i) is larger than h of all smaller f_i.
    """
    fine = torch.linspace(0.0, 1.0, 20_001, dtype=torch.float64)
    height = fine * (1.0 + torch.sin(3.0 * math.pi * fine))
    before = torch.cat([height.new_tensor([-1.0]), height.cummax(0).values[:-1]])
    good = fine[height > before]
    free = good[(_grid(size.objectives - 1, size.n) * (len(good) - 1)).round().long()]
    x = torch.zeros(len(free), size.dimension, dtype=torch.float64)
    x[:, : size.objectives - 1] = free
    return x


def _bnh(size: Size) -> Tensor:
    """Binh and Korn 1997: the diagonal as far as x2 goes, then along its bound."""
    x1 = torch.linspace(0.0, 5.0, size.n, dtype=torch.float64)
    return torch.stack([x1, x1.clamp_max(3.0)], -1)


def _srn(size: Size) -> Tensor:
    """Srinivas and Deb 1994: x1 = -2.5, from the line g2 to the circle g1."""
    x2 = torch.linspace(2.5, math.sqrt(225.0 - 6.25), size.n, dtype=torch.float64)
    return torch.stack([torch.full_like(x2, -2.5), x2], -1)


def _osy(size: Size) -> Tensor:
    """Osyczka and Kundu 1995, the five pieces of Deb 2001 (section 8.3.5); x4 = x6 = 0 on all."""
    part = max(2, size.n // 5)

    def piece(x1: float | Tensor, x2: float | Tensor, x3: float | Tensor, x5: float) -> Tensor:
        columns = [x1, x2, x3, 0.0, x5, 0.0]
        filled = [torch.as_tensor(c, dtype=torch.float64).expand(part) for c in columns]
        return torch.stack(filled, -1)

    def along(low: float, high: float) -> Tensor:
        return torch.linspace(low, high, part, dtype=torch.float64)

    third, falling, first = along(1.0, 5.0), along(4.0, 5.0), along(0.0, 1.0)
    pieces = [
        piece(5.0, 1.0, third, 5.0),
        piece(5.0, 1.0, third, 1.0),
        piece(falling, (falling - 2.0) / 3.0, 1.0, 1.0),
        piece(0.0, 2.0, along(1.0, 3.8), 1.0),
        piece(first, 2.0 - first, 1.0, 1.0),
    ]
    return torch.cat(pieces)


_FRONTS: dict[str, Front] = {
    "zdt1": _zdt,
    "zdt2": _zdt,
    "zdt3": _zdt_waves,
    "zdt4": _zdt,
    "zdt6": _zdt_waves,
    "dtlz1": _dtlz(0.5),
    "dtlz2": _dtlz(0.5),
    "dtlz3": _dtlz(0.5),
    "dtlz4": _dtlz(0.5),
    "dtlz5": _dtlz5,
    "dtlz7": _dtlz7,
    "bnh": _bnh,
    "srn": _srn,
    "osy": _osy,
}
