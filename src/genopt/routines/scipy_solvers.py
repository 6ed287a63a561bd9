"""scipy's solvers, and IPOPT where it is installed, on the same designs and counts."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genopt.errors import GenoptError
from genopt.routines.gauss_newton import Solved
from genopt.routines.refine_ask import Ask
from genopt.routines.refine_room import Room
from genopt.routines.residuals import Wanted

SCIPY = ("least_squares", "slsqp", "lbfgsb", "differential_evolution", "ipopt")
Array = NDArray[np.float64]
# what a missed term costs where a method knows no constraints, and what no answer costs
_PENALTY = 100.0
_NOTHING = 1e3
_STATIONARY = 1e-5
_FINE = 1e-15
# differential evolution makes a new design from four others
_FEWEST = 5


def check_installed(method: str) -> None:
    """Refuse IPOPT where it is missing.

    Args:
        method: a method's name.

    Raises:
        GenoptError: if its package is not installed.
    """
    if method == "ipopt" and importlib.util.find_spec("cyipopt") is None:
        raise GenoptError(
            "method=ipopt needs the package cyipopt: pip install cyipopt, or use method=slsqp"
        )


def solve_by_scipy(
    ask: Ask,
    wanted: Wanted,
    room: Room,
    values: Tensor,
    goals: Tensor,
    method: str,
    *,
    steps: int,
    tolerance: float,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Solved:
    """Improve designs one after the other; differential evolution takes all of a goal at once.

    Args:
        ask: the simulator.
        wanted: of N designs.
        room: where they may go.
        values: what the simulator says of where they are (N, K).
        goals: the goal of each design (N,).
        method: one of `SCIPY`.
        steps: most steps of each; generations of differential evolution.
        tolerance: largest miss of a converged design, in widths of the properties.
        seed: seed of differential evolution.
        tick: is called after each design.

    Returns:
        Where they ended.
    """
    u = room.first()
    ended = torch.zeros(len(u), dtype=torch.bool)
    if method == "differential_evolution":
        for goal in goals.unique().tolist():
            rows = (goals == goal).nonzero()[:, 0]
            part = _Part(ask, wanted.take(rows), room.take(rows), u[rows], values[rows])
            u[rows], ended[rows] = _evolved(part, steps, seed + goal)
            tick()
    else:
        for i in range(len(u)):
            row = torch.tensor([i])
            part = _Part(ask, wanted.take(row), room.take(row), u[row], values[row])
            found, ended[i] = _descended(part, method, steps, tolerance)
            u[i] = part.full(found)[0]
            tick()
    u = room.project(u)
    values = ask.values(room.x(u))
    return Solved(u, values, ended & (wanted.largest(values) <= tolerance))


class _Part:
    """The free coordinates of one design, or of all of a goal, as scipy sees them."""

    def __init__(self, ask: Ask, wanted: Wanted, room: Room, u: Tensor, values: Tensor) -> None:
        self.ask, self.wanted, self.room, self.u = ask, wanted, room, u
        lower, upper = room.limits()
        self.free = (upper > lower)[0].nonzero()[:, 0]
        self.lower = lower[0, self.free].numpy()
        self.upper = upper[0, self.free].numpy()
        self.start: Array = u[0, self.free].numpy()
        self._known: dict[str, tuple[bytes, Any]] = {"values": (self.start.tobytes(), values)}

    def full(self, v: Array) -> Tensor:
        """Valid coordinates (N, E) of free ones (F,) or (N, F)."""
        rows = torch.from_numpy(np.atleast_2d(np.array(v, dtype=float)))
        u = self.u[:1].repeat(len(rows), 1)
        u[:, self.free] = rows
        return u

    def values(self, v: Array) -> Tensor:
        """Values (1, K), worked out once for each point."""
        return self._once("values", v, lambda: self.look(v))

    def slopes(self, v: Array) -> Tensor:
        """Derivatives (K, F) of the values by the free coordinates."""

        def work() -> Tensor:
            slopes = self.room.slope(self.ask.slopes(self._x(v), self.values(v)))
            return slopes[0][:, self.free]

        return self._once("slopes", v, work)

    def _x(self, v: Array) -> Tensor:
        u = self.full(v)
        room = self.room.take(torch.zeros(len(u), dtype=torch.long))
        return room.x(room.project(u))

    def look(self, v: Array) -> Tensor:
        """Values (N, K) of many points (N, F)."""
        return self.ask.values(self._x(v))

    def _once(self, name: str, v: Array, work: Callable[[], Tensor]) -> Tensor:
        mark = np.asarray(v).tobytes()
        known = self._known.get(name)
        if known is None or known[0] != mark:
            self._known[name] = (mark, work())
        found: Tensor = self._known[name][1]
        return found

    # -- simplexes: sums that a method either keeps or pays for ------------------------------------
    def sums(self) -> tuple[Array, Array]:
        """Rows (S, F) and right-hand sides (S,) of the sums that free fractions keep."""
        rows, rights = [], []
        place = {int(k): j for j, k in enumerate(self.free)}
        for members in self.room.coordinates.groups:
            inside = [k for k in members if k in place]
            if not inside:
                continue
            row = np.zeros(len(self.free))
            for k in inside:
                row[place[k]] = float(self.room.coordinates.width[k])
            rows.append(row)
            rights.append(float(row @ self.start))
        if not rows:
            return np.zeros((0, len(self.free))), np.zeros(0)
        return np.array(rows), np.array(rights)

    # -- what is minimised -------------------------------------------------------------------------
    def wish(self, v: Array) -> float:
        return _finite(float(self.wanted.objective(self.values(v))[0]))

    def wish_slope(self, v: Array) -> Array:
        wanted = self.wanted
        slope: Array = (wanted.slope[:, None] * self.slopes(v)[wanted.wish]).sum(0).numpy()
        return slope

    def residual(self, v: Array) -> Array:
        """Weighted misses, and those of the sums (T + S,)."""
        rows, rights = self.sums()
        found = self.wanted.residual(self.values(v))[0].nan_to_num(_NOTHING).numpy()
        return np.concatenate([found, rows @ np.asarray(v) - rights])

    def residual_slope(self, v: Array) -> Array:
        values = self.values(v)
        found = self.wanted.residual_slope(values, self.slopes(v)[None])[0].numpy()
        return np.concatenate([found, self.sums()[0]])

    def penalised(self, v: Array) -> float:
        square = float(np.square(self.residual(v)).sum())
        return self.wish(v) + self.price * square

    def penalised_slope(self, v: Array) -> Array:
        pull: Array = 2.0 * self.price * (self.residual_slope(v).T @ self.residual(v))
        return self.wish_slope(v) + pull

    @property
    def price(self) -> float:
        return _PENALTY if self.wanted.wishes else 1.0

    def constraints(self) -> list[dict[str, Any]]:
        """Equalities and inequalities as SLSQP and IPOPT take them, in widths."""
        wanted = self.wanted
        low, high = wanted.low[0], wanted.high[0]
        rows, rights = self.sums()
        out: list[dict[str, Any]] = []
        if len(rights):
            out.append({"type": "eq", "fun": lambda v: rows @ v - rights, "jac": lambda _: rows})
        equal = low == high
        for kind, which, end, sign in (
            ("eq", equal, low, 1.0),
            ("ineq", ~equal & torch.isfinite(low), low, 1.0),
            ("ineq", ~equal & torch.isfinite(high), high, -1.0),
        ):
            if bool(which.any()):
                out.append(self._constraint(kind, which.nonzero()[:, 0], end, sign))
        return out

    def _constraint(self, kind: str, terms: Tensor, end: Tensor, sign: float) -> dict[str, Any]:
        index, unit = self.wanted.index[terms], self.wanted.unit[terms]

        def fun(v: Array) -> Array:
            gap = sign * (self.values(v)[0, index] - end[terms]) / unit
            return gap.nan_to_num(-_NOTHING).numpy()

        def jac(v: Array) -> Array:
            slope: Array = (sign * self.slopes(v)[index] / unit[:, None]).numpy()
            return slope

        return {"type": kind, "fun": fun, "jac": jac}


def _descended(part: _Part, method: str, steps: int, tolerance: float) -> tuple[Array, bool]:
    """The end of one search and whether the solver calls it one."""
    optimize: Any = importlib.import_module("scipy.optimize")

    bounds = optimize.Bounds(part.lower, part.upper)
    if len(part.free) == 0 or bool(torch.isnan(part.values(part.start)).all()):
        return part.start, len(part.free) == 0
    if method == "least_squares":
        found = optimize.least_squares(
            part.residual,
            np.clip(part.start, part.lower, part.upper),
            part.residual_slope,
            (part.lower, part.upper),
            xtol=_FINE,
            ftol=_FINE,
            gtol=_FINE,
            max_nfev=steps,
        )
        return found.x, True
    equalities = sum(len(c["fun"](part.start)) for c in part.constraints() if c["type"] == "eq")
    # more equations than unknowns have no common answer: the nearest one is looked for
    by_penalty = method == "lbfgsb" or equalities > len(part.free)
    fun: Callable[[Array], float] = part.penalised if by_penalty else part.wish
    jac: Callable[[Array], Array] = part.penalised_slope if by_penalty else part.wish_slope
    constraints = [] if by_penalty else part.constraints()
    if method == "ipopt":
        found = _ipopt(fun, jac, part, constraints, steps, tolerance)
    elif method == "slsqp":
        found = optimize.minimize(
            fun,
            part.start,
            jac=jac,
            bounds=bounds,
            constraints=constraints,
            method="SLSQP",
            options={"maxiter": steps, "ftol": 1e-4 * tolerance},
        )
    else:
        found = optimize.minimize(
            fun,
            part.start,
            jac=jac,
            bounds=bounds,
            method="L-BFGS-B",
            options={"maxiter": steps, "ftol": _FINE, "gtol": tolerance},
        )
    # where values alone are wanted, having them is the end
    return np.asarray(found.x), bool(found.success) or not part.wanted.wishes


def _ipopt(
    fun: Callable[[Array], float],
    jac: Callable[[Array], Array],
    part: _Part,
    constraints: list[dict[str, Any]],
    steps: int,
    tolerance: float,
) -> Any:
    """IPOPT with its own quasi-Newton Hessian."""
    cyipopt = importlib.import_module("cyipopt")
    return cyipopt.minimize_ipopt(
        fun,
        part.start,
        jac=jac,
        bounds=list(zip(part.lower, part.upper, strict=True)),
        constraints=constraints,
        tol=tolerance,
        options={"max_iter": steps, "print_level": 0},
    )


def _evolved(part: _Part, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """The last generation (N, E) that the designs of one goal grow into, and whether it is one."""
    optimize: Any = importlib.import_module("scipy.optimize")

    wanted = part.wanted.take(torch.zeros(1, dtype=torch.long))
    rows, rights = part.sums()

    def worth(v: Array) -> Array:
        values = part.look(v.T)
        many = wanted.take(torch.zeros(len(values), dtype=torch.long))
        square = many.residual(values).square().sum(-1)
        total = many.objective(values) + part.price * square
        off = np.square(rows @ v - rights[:, None]).sum(0)
        return np.asarray(total.nan_to_num(_NOTHING)) + part.price * off

    count = len(part.u)
    rng = np.random.default_rng(seed)
    population = part.u[:, part.free].numpy()
    if count < _FEWEST:
        more = rng.uniform(part.lower, part.upper, (_FEWEST - count, len(part.free)))
        population = np.concatenate([population, more])
    found = optimize.differential_evolution(
        worth,
        optimize.Bounds(part.lower, part.upper),
        init=np.clip(population, part.lower, part.upper),
        maxiter=steps,
        tol=0.0,
        atol=1e-12,
        polish=False,
        vectorized=True,
        updating="deferred",
        rng=rng,
    )
    best = np.argsort(found.population_energies, kind="stable")[:count]
    u = part.full(found.population[best])
    spread = float(np.std(found.population_energies))
    return u, torch.full((len(u),), math.isfinite(spread) and spread <= _STATIONARY)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else _NOTHING
