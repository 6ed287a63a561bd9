"""Evaporator: the cheapest operation of a process with sixteen variables and twelve equations.

The equations can be solved one after the other once four variables are chosen, so the designs are
those four, every row of the table fulfils all equations, and only inequalities are left to respect.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.data.sampling import sample_space
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.problems.base import Answer, Problem
from genopt.space import Space, Variable

# feed composition, feed temperature and inlet temperature of the cooling water
_X1, _T1, _T200 = 5.0, 40.0, 25.0
_MOST_WATER = 1000.0
_START = (51.4, 9.47)
_NEWTON_STEPS = 8
_MOST_DOUBLINGS = 8
STATE = (
    *("F1", "F2", "F3", "F4", "F5", "X2", "T2", "T3", "P2", "F100"),
    *("T100", "P100", "Q100", "F200", "T201", "Q200"),
)


class Evaporator(Problem):
    """Product composition X2, steam pressure P100, pressure P2 and feed F1 of an evaporator.

    Minimise J = 600 F100 + .6 F200 + 1.009 (F2 + F3) + .2 F1 - 4800 F2 subject to the limits F3 <=
    100 and F200 <= 400; X2 >= 35.5, 40 <= P2 <= 80 and P100 <= 400 are bounds of the designs, and
    F3 >= .1, F200 >= 0 and F1 <= 20 follow. `state` gives all sixteen variables, `residuals` the
    twelve equations at any sixteen values. The answer lies at X2 = 35.5 and P100 = 400, with P2 and
    F1 by Newton's method.
    """

    def __init__(self) -> None:
        super().__init__(
            "evaporator",
            Space(
                (
                    Variable("X2", 35.5, 50.0, "%"),
                    Variable("P100", 200.0, 400.0, "kPa"),
                    Variable("P2", 40.0, 80.0, "kPa"),
                    # every design with F200 <= 400 has F1 < 13.01
                    Variable("F1", 1.0, 14.0, "kg/min"),
                )
            ),
            Space(
                (
                    Variable("J", -600.0, 3300.0, "$/h"),
                    Variable("F3", 0.0, 300.0, "kg/min"),
                    Variable("F200", 0.0, _MOST_WATER, "kg/min"),
                )
            ),
            {"J": "min", "F3": {"at_most": 100.0}, "F200": {"at_most": 400.0}},
            default_rows=2000,
            answers=(self._optimum(),),
            description="Cheapest operation of a forced-circulation evaporator.",
            citation=(
                "Newell and Lee, Applied process control: a case study (1989); as an inverse "
                "problem: Alves and Kitchin, Generative approaches to optimization (2025)"
            ),
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The cost and the two flows that are limited.

        Where no flow of cooling water is large enough, and above 1000, F200 is 1000: the designs
        beyond the limit of 400 stay infeasible and all values stay finite.

        Args:
            x: composition, pressures and feed (..., 4).

        Returns:
            J, F3 and F200 (..., 3).
        """
        v = _solved(*self.columns(x))
        return torch.stack([_cost(v), v["F3"], v["F200"]], -1)

    def state(self, x: Tensor) -> Tensor:
        """All variables of the process, in the order of `STATE`.

        Args:
            x: composition, pressures and feed (..., 4).

        Returns:
            Variables (..., 16); they fulfil the twelve equations where F200 is below 1000.
        """
        v = _solved(*self.columns(x))
        return torch.stack([v[name] for name in STATE], -1)

    def residuals(self, state: Tensor) -> Tensor:
        """The twelve equations of the process, zero where they hold.

        Args:
            state: variables (..., 16) in the order of `STATE`.

        Returns:
            Residuals (..., 12).

        Raises:
            GenoptError: if the last dimension is not 16.
        """
        if state.ndim == 0 or state.shape[-1] != len(STATE):
            raise GenoptError(
                f"state has shape {tuple(state.shape)}; expected (..., {len(STATE)}) for "
                f"{', '.join(STATE)}"
            )
        f1, f2, f3, f4, f5, x2, t2, t3, p2, f100, t100, p100, q100, f200, t201, q200 = state.to(
            torch.float64
        ).unbind(-1)
        ratio = (t3 - _T200) / (0.14 * f200 + 6.84)
        return torch.stack(
            [
                (f1 - f4 - f2) / 20.0,
                (f1 * _X1 - f2 * x2) / 20.0,
                (f4 - f5) / 4.0,
                0.5616 * p2 + 0.3126 * x2 + 48.43 - t2,
                0.507 * p2 + 55.0 - t3,
                (q100 - 0.07 * f1 * (t2 - _T1)) / 38.5 - f4,
                0.1538 * p100 + 90.0 - t100,
                0.16 * (f1 + f3) * (t100 - t2) - q100,
                q100 / 36.6 - f100,
                0.9576 * f200 * ratio - q200,
                _T200 + 13.68 * ratio - t201,
                q200 / 38.5 - f5,
            ],
            -1,
        )

    def design(self, n: int, seed: int = 0) -> Tensor:
        """The points of a Sobol set that respect the limits.

        Args:
            n: number of designs.
            seed: seed of the draw.

        Returns:
            Feasible designs (n, 4).
        """
        limits = {name: wanted for name, wanted in self.default_goal.items() if wanted != "min"}
        goal = Goal(limits, self.x_space, self.y_space)
        # three quarters of the box are feasible
        proposed = 2 * n + 16
        for _ in range(_MOST_DOUBLINGS):
            x = sample_space(self.x_space, proposed, method="sobol", seed=seed)
            feasible = x[goal.satisfied(self.simulate(x))]
            if len(feasible) >= n:
                return feasible[:n]
            proposed *= 2
        raise GenoptError(
            f"evaporator: {len(feasible)} of {proposed // 2} designs are feasible, {n} were asked"
        )

    def _optimum(self) -> Answer:
        corner = torch.tensor([35.5, 400.0], dtype=torch.float64)

        def cost(free: Tensor) -> Tensor:
            return _cost(_solved(corner[0], corner[1], free[0], free[1]))

        free = torch.tensor(_START, dtype=torch.float64)
        for _ in range(_NEWTON_STEPS):
            gradient = torch.autograd.functional.jacobian(cost, free)
            curvature = torch.autograd.functional.hessian(cost, free)
            free = free - torch.linalg.solve(curvature, gradient)
        x = torch.cat([corner, free])
        v = _solved(*x.unbind(-1))
        return Answer(x, torch.stack([_cost(v), v["F3"], v["F200"]]), 1.0, "cheapest")


def _solved(x2: Tensor, p100: Tensor, p2: Tensor, f1: Tensor) -> dict[str, Tensor]:
    """The sixteen variables, one equation after the other.

    Args:
        x2: product composition (...).
        p100: steam pressure (...).
        p2: operating pressure (...).
        f1: feed (...).

    Returns:
        By name, (...).
    """
    v = {"X2": x2, "P100": p100, "P2": p2, "F1": f1}
    v["F2"] = f1 * _X1 / x2
    v["F4"] = v["F5"] = f1 - v["F2"]
    v["T2"] = 0.5616 * p2 + 0.3126 * x2 + 48.43
    v["T3"] = 0.507 * p2 + 55.0
    v["Q100"] = 38.5 * v["F4"] + 0.07 * f1 * (v["T2"] - _T1)
    v["T100"] = 0.1538 * p100 + 90.0
    v["F3"] = v["Q100"] / (0.16 * (v["T100"] - v["T2"])) - f1
    v["F100"] = v["Q100"] / 36.6
    v["Q200"] = 38.5 * v["F5"]
    # what is left of the largest heat that water can take; F200 grows beyond limits where it ends
    left = 0.9576 * (v["T3"] - _T200) - 0.14 * v["Q200"]
    needed = 6.84 * v["Q200"]
    enough = needed < _MOST_WATER * left
    v["F200"] = torch.where(enough, needed / torch.where(enough, left, 1.0), _MOST_WATER)
    v["T201"] = _T200 + 13.68 * (v["T3"] - _T200) / (0.14 * v["F200"] + 6.84)
    return v


def _cost(v: dict[str, Tensor]) -> Tensor:
    product = 1.009 * (v["F2"] + v["F3"]) - 4800.0 * v["F2"]
    return 600.0 * v["F100"] + 0.6 * v["F200"] + product + 0.2 * v["F1"]
